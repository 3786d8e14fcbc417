"""Accepting the clients of one listener, and connecting to its server for each of them."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator

from mcp_tap.channel import Closing, Kind
from mcp_tap.config import Address, Proxy, Settings
from mcp_tap.relay.endpoint import Endpoints, origin
from mcp_tap.relay.head import Framing, Refusal
from mcp_tap.relay.sockets import BACKLOG, listener_tls, upstream_tls
from mcp_tap.relay.splice import Half, Stream
from mcp_tap.relay.streams import Streams


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
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    if "refused" in str(error).lower():
        return "connection refused"  # of each address of the name
    return type(error).__name__


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
        self._servers: list[asyncio.Server] = []

    async def start(self, sockets: Iterable[socket.socket]) -> None:
        """Accept on sockets that are bound."""
        loop = asyncio.get_running_loop()
        for sock in sockets:
            if sock.family == socket.AF_UNIX:
                server = await loop.create_unix_server(self._accept, sock=sock, backlog=BACKLOG, ssl=self._client_tls)
            else:
                server = await loop.create_server(self._accept, sock=sock, backlog=BACKLOG, ssl=self._client_tls)
            self._servers.append(server)

    def close(self) -> None:
        """Accept no more."""
        for server in self._servers:
            server.close()

    def _accept(self) -> Half:
        framing = None
        if self._host is not None:
            framing = Framing(self._host, self._allowed, self._endpoints)
        return Stream(
            self._streams.next_number(),
            self._streams.feed,
            self._opened,
            self._streams.forget,
            framing=framing,
            client_tls=self._client_tls is not None,
            server_tls=self._server_tls is not None,
        ).client

    def _opened(self, stream: Stream) -> None:
        """A client is there, behind its TLS handshake: say so, and connect to the server for it."""
        transport = stream.client.transport
        assert transport is not None
        self._streams.add(stream)
        peer = transport.get_extra_info("peername")
        opening = {
            "peer": str(Address(*peer[:2])) if peer and isinstance(peer, tuple) else "",  # a unix socket has none
            "upstream": self.proxy.upstream.url,
            "resumed": False,
        }
        stream.note(Kind.OPEN, json.dumps(opening, separators=(",", ":")).encode())
        if self._streams.draining:
            stream.close(Closing.DRAIN)  # its handshake took until now; it is as idle as a stream can be
        else:
            stream.connecting = asyncio.get_running_loop().create_task(self._connect(stream))

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
            refusal = Refusal(502, f"cannot connect to {where} ({why})", "start the server, or correct the address")
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
