"""Sockets to listen on, and what they and the connections to servers need for TLS."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from mcp_tap.config import Address, Proxy

if TYPE_CHECKING:
    import ssl

#: Connections that may wait to be accepted. The kernel cuts it to its own limit.
BACKLOG: Final = 4096


def listening_sockets(address: Address) -> list[socket.socket]:
    """Bind and listen on every address that the host has, or on a unix socket.

    Raises OSError when none, or one, cannot be had.
    """
    if address.socket:
        return [_unix_socket(address.socket)]
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


def _unix_socket(path: str) -> socket.socket:
    """Listen on a unix socket. What nobody listens on any more is taken over; a file that is no socket never is."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.setblocking(False)
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _stale(path):
                raise
            Path(path).unlink()
            sock.bind(path)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _stale(path: str) -> bool:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # one whose backlog is full is listened on
        return probe.connect_ex(path) == errno.ECONNREFUSED


class SocketFile(NamedTuple):
    """The name of a unix socket in the file system, which outlives the socket unless somebody removes it."""

    path: str
    device: int
    inode: int
    made_ns: int  # the number of a removed file goes to the next one

    @classmethod
    def of(cls, sock: socket.socket) -> SocketFile | None:
        """Return the file of a listening socket, or None where it has none."""
        if sock.family != socket.AF_UNIX:
            return None
        path = sock.getsockname()
        found = os.lstat(path)
        return cls(path, found.st_dev, found.st_ino, found.st_mtime_ns)

    def remove(self) -> None:
        """Remove it, unless another process has put its own in that place."""
        try:
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino, found.st_mtime_ns) == (self.device, self.inode, self.made_ns):
                Path(self.path).unlink()
        except OSError:
            pass  # gone, or no longer ours to remove


def listener_tls(proxy: Proxy) -> ssl.SSLContext | None:
    """Return the context for connections of clients, or None for plain ones. Raises OSError for bad files."""
    if proxy.tls_cert is None:
        return None
    import ssl

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # Without a function for it, an encrypted key would be asked for on the terminal.
    context.load_cert_chain(proxy.tls_cert, proxy.tls_key, password=lambda: b"")
    context.set_alpn_protocols(["http/1.1"])
    return context


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
