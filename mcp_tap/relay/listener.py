"""Accepting the clients of one listener, and connecting to its server for each of them."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from mcp_tap.channel import Closing, Kind
from mcp_tap.config import Address, Proxy, Settings
from mcp_tap.relay.endpoint import Endpoints, origin
from mcp_tap.relay.head import Framing, Refusal
from mcp_tap.relay.sockets import listener_tls, upstream_tls
from mcp_tap.relay.splice import Half, Stream
from mcp_tap.relay.streams import Streams

#: Clients accepted in one turn of the loop: as many as can wait at once would delay every open stream by a tenth of a
#: second and more.
AT_ONCE: Final = 32

#: What accepting fails with where one client is concerned and not the listener (accept(2), "Error handling").
_ONE_CLIENT: Final = frozenset(
    (
        errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.ENOPROTOOPT, errno.EHOSTDOWN,
        errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH,
    )
)  # fmt: skip


def is_loopback(host: str) -> bool:
    """Whether a host name can only mean this machine."""
    if host.lower() in ("localhost", "127.0.0.1", "::1"):
        return True
    import ipaddress

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

    A page in a browser can reach a loopback listener under a name of its own (DNS rebinding), though no unix socket. A
    server that checks `Host` would notice, but not when the value is re-written on the way, so the check is made here.
    """
    if proxy.listen.socket or not is_loopback(proxy.listen.host):
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
    return [line for proxy in settings.proxies for line in _notices(proxy)]


def _notices(proxy: Proxy) -> Iterator[str]:
    listen = proxy.listen
    if host_to_send(proxy) is not None and not listen.socket and not is_loopback(listen.host):
        yield (
            f"warning: Host is re-written for clients of {listen}: "
            "the upstream's own check against DNS rebinding cannot see theirs"
        )
    if proxy.upstream.scheme == "https" and not proxy.tls_verify:
        yield f"warning: the certificate of {proxy.upstream.authority} is not checked"


def endpoints(proxy: Proxy, host: bytes) -> Endpoints:
    """Return which URLs in an `endpoint` event are the server's own, and what clients reach this listener by."""
    upstream = proxy.upstream
    origins = (f"{upstream.scheme}://{authority}" for authority in (upstream.authority, host.decode()))
    return Endpoints(frozenset(map(origin, origins)), b"https" if proxy.tls_cert else b"http")


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
    if isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL:
        return "no local port or address is left for it"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    if "refused" in str(error).lower():
        return "connection refused"  # of each address of the name
    return type(error).__name__


def what_to_do(error: Exception) -> str:
    """Say what helps where a connection could not be made."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.EMFILE, errno.ENFILE):
        return "raise the limit of open files: ulimit -n"
    if number == errno.EADDRNOTAVAIL:
        return "close connections, or widen the range of local ports: sysctl net.ipv4.ip_local_port_range"
    return "start the server, or correct the address"


class Listener:
    """One server's listener. Raises OSError when a certificate cannot be read."""

    def __init__(self, proxy: Proxy, streams: Streams) -> None:
        self.proxy = proxy
        self._streams = streams
        self._host = host_to_send(proxy)
        self._allowed = host_check(proxy)
        self._client_tls = listener_tls(proxy)
        self._server_tls = upstream_tls(proxy)
        self._endpoints = None if self._host is None else endpoints(proxy, self._host)
        self._sockets: list[socket.socket] = []
        self._accepting = False

    def start(self, sockets: Iterable[socket.socket]) -> None:
        """Accept on sockets that are listening. Needs a running loop."""
        self._sockets += sockets
        self._resume()

    def close(self) -> None:
        """Accept no more."""
        self._pause()
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()

    # -- accepting

    def _resume(self) -> None:
        if not self._accepting:
            self._accepting = True
            for sock in self._sockets:
                asyncio.get_running_loop().add_reader(sock, self._acceptable, sock)

    def _pause(self) -> None:
        if self._accepting:
            self._accepting = False
            for sock in self._sockets:
                asyncio.get_running_loop().remove_reader(sock)

    def _acceptable(self, sock: socket.socket) -> None:
        """Accept those who wait, as far as there is room for them."""
        capacity, loop = self._streams.capacity, asyncio.get_running_loop()
        room = capacity.room()
        if room <= 0:
            self._pause()
            capacity.wait(self._resume)
        for _ in range(min(room, AT_ONCE)):
            try:
                client, address = sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _ONE_CLIENT:
                    continue
                self._pause()
                capacity.wait(self._resume, error)
                return
            capacity.take()
            loop.create_task(self._serve(client, address))

    async def _serve(self, client: socket.socket, address: Any) -> None:
        """Take a client that was accepted, and connect to the server for it."""
        framing = None if self._host is None else Framing(self._host, self._allowed, self._endpoints)
        stream = Stream(
            self._streams.next_number(),
            self._streams.feed,
            self,
            peer=str(Address(*address[:2])) if isinstance(address, tuple) else "",  # a unix socket has none
            framing=framing,
            client_tls=self._client_tls is not None,
            server_tls=self._server_tls is not None,
        )
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: stream.client, client, ssl=self._client_tls
            )
        except Exception:  # noqa: BLE001  whatever it is, this client is not there: it failed its TLS handshake
            client.close()
            if stream.client.transport is None:
                self._streams.capacity.give()
            return
        if stream.closing is None and not stream.client.lost:
            stream.connecting = asyncio.current_task()
            await self._connect(stream)

    def opened(self, stream: Stream) -> None:
        """A client is there, behind its TLS handshake: say so."""
        self._streams.add(stream)
        opening = {"peer": stream.peer, "upstream": self.proxy.upstream.url, "resumed": False}
        stream.note(Kind.OPEN, json.dumps(opening, separators=(",", ":")).encode())
        if self._streams.draining:
            stream.close(Closing.DRAIN)  # its handshake took until now; it is as idle as a stream can be

    def closed(self, stream: Stream) -> None:
        """Both ends of a stream are gone."""
        self._streams.forget(stream)

    # -- connecting

    async def _connect(self, stream: Stream) -> None:
        where = self.proxy.upstream.where
        refusal = None
        try:
            async with asyncio.timeout(self.proxy.connect_timeout):
                await self._reach(lambda: stream.server)
        except TimeoutError:
            why = "timed out"
            refusal = Refusal(504, f"connecting to {where} took too long", "see whether the server is overloaded")
        except Exception as error:  # noqa: BLE001  whatever it is, the client gets an answer
            why = why_not(error)
            refusal = Refusal(502, f"cannot connect to {where} ({why})", what_to_do(error))
        finally:
            stream.connecting = None
        if refusal is not None:
            stream.note(Kind.CONNECT_FAILED, why.encode())
            stream.refuse(refusal)

    async def _reach(self, half: Callable[[], Half]) -> None:
        upstream, tls = self.proxy.upstream, self._server_tls
        loop = asyncio.get_running_loop()
        if upstream.socket:
            await loop.create_unix_connection(half, upstream.socket)
        else:
            name = upstream.host if tls else None
            await loop.create_connection(half, upstream.host, upstream.port, ssl=tls, server_hostname=name)
