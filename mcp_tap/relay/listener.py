"""Accepting clients, connecting to the server for each of them, and stopping."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import os
import socket
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from mcp_tap.channel import Closing, Kind
from mcp_tap.config import Address, Proxy, Settings
from mcp_tap.relay.head import Framing, Refusal
from mcp_tap.relay.splice import Feed, Half, Stream

if TYPE_CHECKING:
    import ssl

#: Connections that may wait to be accepted. The kernel cuts it to its own limit.
BACKLOG: Final = 4096
#: How long (seconds) the recorder may take to say which streams have a call in flight, and how long a stream must have
#: been quiet to count as idle when it does not say.
ASK: Final = 0.25
QUIET_NS: Final = 250_000_000


def is_loopback(host: str) -> bool:
    """Whether a host name can only mean this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_to_send(proxy: Proxy) -> bytes | None:
    """Return the `Host` value that goes to the upstream, or None where it stays as received and nothing is edited."""
    upstream = proxy.upstream
    if proxy.host == "keep" or (proxy.host == "auto" and upstream.scheme == "http" and is_loopback(upstream.host)):
        return None
    return (upstream.authority if proxy.host in ("auto", "upstream") else proxy.host).encode()


def host_check(proxy: Proxy) -> Callable[[bytes], bool]:
    """Return what says whether a `Host` value may be replaced.

    A page in a browser can reach a loopback listener under a name of its own (DNS rebinding). A server that checks
    `Host` would notice, but not when the value is re-written on the way, so the check is made here.
    """
    if not is_loopback(proxy.listen.host):
        return lambda _value: True
    listed = {name.lower() for name in (*proxy.hosts, proxy.listen.host)}

    def allowed(value: bytes) -> bool:
        text = value.decode("latin-1").lower()
        if text.startswith("["):
            host, bracket, port = text[1:].partition("]")
            port = port.removeprefix(":") if bracket else "?"
        else:
            host, _, port = text.partition(":")
        if port and not port.isdecimal():
            return False
        return is_loopback(host) or host in listed or text in listed

    return allowed


def notices(settings: Settings) -> list[str]:
    """Return what whoever starts the tap with these settings should know, one line each."""
    proxy = settings.proxy
    lines = []
    if host_to_send(proxy) is not None and not is_loopback(proxy.listen.host):
        lines.append(
            f"warning: Host is re-written for clients of {proxy.listen}: "
            "the upstream's own check against DNS rebinding cannot see theirs"
        )
    if proxy.upstream.scheme == "https" and not proxy.tls_verify:
        lines.append(f"warning: the certificate of {proxy.upstream.authority} is not checked")
    return lines


def listening_sockets(address: Address) -> list[socket.socket]:
    """Bind and listen on every address that the host has. Raises OSError when none, or one, cannot be had."""
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    port = address.port
    try:
        for family, kind, protocol, _, name in dict.fromkeys(found):
            try:
                sock = socket.socket(family, kind, protocol)
            except OSError:
                continue  # a family that this machine does not have
            sockets.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind((name[0], port, *name[2:]))
            except OSError as error:
                if len(found) > 1 and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    sockets.remove(sock)
                    sock.close()
                    continue
                raise
            sock.listen(BACKLOG)
            port = sock.getsockname()[1]  # port 0 becomes the same port for every address
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    if not sockets:
        raise OSError(f"{address.host} has no address on this machine")
    return sockets


def upstream_tls(proxy: Proxy) -> ssl.SSLContext | None:
    """Return the context for connections to the upstream, or None for plain ones. Raises OSError for a bad CA file."""
    if proxy.upstream.scheme != "https":
        return None
    import ssl

    context = ssl.create_default_context(cafile=proxy.tls_ca)
    context.set_alpn_protocols(["http/1.1"])
    if not proxy.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def why_not(error: Exception) -> str:
    """Say in a few words why a connection could not be made."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, socket.gaierror | UnicodeError):
        return "name not known"
    if message := getattr(error, "verify_message", ""):
        return f"certificate verify failed: {message}"
    if reason := getattr(error, "reason", ""):
        return f"TLS: {str(reason).lower().replace('_', ' ')}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    if "refused" in str(error).lower():
        return "connection refused"  # of each address of the name
    return type(error).__name__


class Listener:
    """The proxy's listener and its streams. ``feed`` gets a record of everything that passes."""

    def __init__(self, settings: Settings, feed: Feed) -> None:
        self.proxy = settings.proxy
        self.streams: dict[int, Stream] = {}
        self.draining = False
        self._feed = feed
        self._host = host_to_send(self.proxy)
        self._allowed = host_check(self.proxy)
        self._tls = upstream_tls(self.proxy)
        self._servers: list[asyncio.Server] = []
        self._number = 0
        self._empty = asyncio.Event()
        self._told = asyncio.Event()  # the recorder has said which streams are busy
        self._where = f"{self.proxy.upstream.scheme}://{self.proxy.upstream.authority}"

    # -- accepting

    async def start(self, sockets: Iterable[socket.socket]) -> None:
        """Accept on sockets that are bound."""
        loop = asyncio.get_running_loop()
        for sock in sockets:
            self._servers.append(await loop.create_server(self._accept, sock=sock, backlog=BACKLOG))

    def _accept(self) -> Half:
        self._number += 1
        framing = None if self._host is None else Framing(self._host, self._allowed)
        stream = Stream(
            self._number, self._feed, self._opened, self._closed, framing=framing, tls=self._tls is not None
        )
        self.streams[stream.number] = stream
        return stream.client

    def _opened(self, stream: Stream) -> None:
        """A client is there: say so, and connect to the server for it."""
        transport = stream.client.transport
        assert transport is not None
        peer = transport.get_extra_info("peername")
        opening = {
            "peer": str(Address(*peer[:2])) if peer else "",
            "upstream": self.proxy.upstream.url,
            "resumed": False,
        }
        stream.note(Kind.OPEN, json.dumps(opening, separators=(",", ":")).encode())
        stream.connecting = asyncio.get_running_loop().create_task(self._connect(stream))

    async def _connect(self, stream: Stream) -> None:
        upstream = self.proxy.upstream
        refusal = None
        try:
            async with asyncio.timeout(self.proxy.connect_timeout):
                await asyncio.get_running_loop().create_connection(
                    lambda: stream.server,
                    upstream.host,
                    upstream.port,
                    ssl=self._tls,
                    server_hostname=upstream.host if self._tls else None,
                )
        except TimeoutError:
            why = "timed out"
            refusal = Refusal(504, f"connecting to {self._where} took too long", "see whether the server is overloaded")
        except Exception as error:  # noqa: BLE001  whatever it is, the client gets an answer
            why = why_not(error)
            refusal = Refusal(
                502, f"cannot connect to {self._where} ({why})", "start the server, or correct the address"
            )
        finally:
            stream.connecting = None
        if refusal is not None:
            stream.note(Kind.CONNECT_FAILED, why.encode())
            stream.refuse(refusal)

    def _closed(self, stream: Stream) -> None:
        """Forget a stream both ends of which are gone."""
        self.streams.pop(stream.number, None)
        if not self.streams:
            self._empty.set()

    # -- stopping

    async def drain(self, seconds: float) -> None:
        """Stop accepting and let calls in flight end, for so long; then break off what is left.

        Returns when no stream is left. The recorder is asked which streams have a call in flight.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        self.draining = True
        for server in self._servers:
            server.close()
        for stream in list(self.streams.values()):
            if stream.connecting is not None:
                stream.connecting.cancel()
                stream.refuse(Refusal(503, "mcp-tap is stopping", "try again in a moment"))
        self._empty.clear()
        if not self.streams:
            return
        try:
            self._feed.put(0, Kind.DRAIN, time.monotonic_ns())
        except Exception:  # noqa: BLE001, S110  then it cannot be asked
            pass
        await _within(self._told, min(ASK, seconds))
        if not self._told.is_set():
            while loop.time() < deadline and not self._told.is_set() and not self._empty.is_set():
                self._end_quiet()
                await _within(self._empty, min(0.05, deadline - loop.time()))
        await _within(self._empty, deadline - loop.time())
        for stream in list(self.streams.values()):
            stream.cut(Closing.DRAIN)
        await _within(self._empty, 1.0)

    def busy(self, streams: Iterable[int], at_ns: int) -> None:
        """The recorder's answer: every other stream has no call in flight, as of that time."""
        self._told.set()
        self.idle(set(self.streams).difference(streams), at_ns)

    def idle(self, streams: Iterable[int], at_ns: int) -> None:
        """End streams without a call, unless their client has sent something since."""
        if not self.draining:
            return
        for number in streams:
            stream = self.streams.get(number)
            if stream is not None and stream.client.last_ns <= at_ns:
                stream.close(Closing.DRAIN)

    def _end_quiet(self) -> None:
        now = time.monotonic_ns()
        for stream in list(self.streams.values()):
            if now - stream.last_ns >= QUIET_NS:
                stream.close(Closing.DRAIN)

    def abort(self) -> None:
        """Stop accepting and break off every stream at once."""
        self.draining = True
        for server in self._servers:
            server.close()
        for stream in list(self.streams.values()):
            stream.cut(Closing.DRAIN)


async def _within(event: asyncio.Event, seconds: float) -> None:
    if seconds > 0 and not event.is_set():
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            pass
