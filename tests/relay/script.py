"""A small language for raw clients and servers, and what plays it: bytes out, bytes in, and the manner of ending."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

#: No step may take longer (seconds): a step that does has found a difference.
PATIENCE = 5.0


class Player:
    """One side of a case: a socket, what it has received, and how the other side ended."""

    def __init__(self, sock: socket.socket, marks: dict[str, threading.Event]) -> None:
        self.sock = sock
        self.marks = marks
        self.received = bytearray()
        self.ending = "open"  # fin | rst | open | closed (by this side first) | timeout
        sock.settimeout(PATIENCE)

    def play(self, steps: Iterable[Step]) -> None:
        try:
            for step in steps:
                step(self)
        except TimeoutError:
            self.ending = "timeout"
        except OSError:
            self.ending = "rst"

    def more(self, most: int = 65536) -> bool:
        """Receive once. Return whether there may be more."""
        if self.ending != "open":
            return False
        data = self.sock.recv(most)
        self.received += data
        if not data:
            self.ending = "fin"
        return bool(data)

    def settle(self, seconds: float) -> None:
        """Take in what comes after the last step, for so long or to the end."""
        if self.ending != "open":
            return
        self.sock.settimeout(seconds)
        try:
            while self.more():
                pass
        except TimeoutError:
            pass
        except OSError:
            self.ending = "rst"


Step = Callable[[Player], None]


def send(data: bytes) -> Step:
    return lambda player: player.sock.sendall(data)


def drip(data: bytes, size: int = 1) -> Step:
    """Send piece by piece, each in a segment of its own as far as TCP_NODELAY goes."""

    def step(player: Player) -> None:
        if player.sock.family != socket.AF_UNIX:
            player.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), size):
            player.sock.sendall(data[at : at + size])

    return step


def read(what: bytes | int) -> Step:
    """Receive until the bytes are there, or so many of them in all."""

    def step(player: Player) -> None:
        while (what not in player.received) if isinstance(what, bytes) else (len(player.received) < what):
            if not player.more():
                return

    return step


def end(player: Player) -> None:
    """Receive until the other side ends."""
    while player.more():
        pass


def fin(player: Player) -> None:
    """End this direction. TLS has no such thing: there it is the end of both."""
    if isinstance(player.sock, ssl.SSLSocket):
        player.sock = player.sock.unwrap()
        player.ending = "fin"
    else:
        player.sock.shutdown(socket.SHUT_WR)


def rst(player: Player) -> None:
    """Break off."""
    player.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    close(player)


def close(player: Player) -> None:
    player.sock.close()
    if player.ending == "open":
        player.ending = "closed"


def mark(name: str) -> Step:
    """Tell the other side, beside the wire, that this step was reached."""
    return lambda player: player.marks[name].set()


def until(name: str) -> Step:
    """Wait for the other side's mark."""

    def step(player: Player) -> None:
        if not player.marks[name].wait(PATIENCE):
            raise TimeoutError

    return step


@dataclass
class Case:
    """A client's script and a server's. ``framed`` is the status of our own answer where framed mode refuses."""

    name: str
    client: list[Step]
    server: list[Step]
    framed: int | None = None
    passed: bytes = b""  # what of the client's bytes reaches the server all the same in that case
    first: bytes = b""  # what the client gets before our answer
    edited: bytes = b""  # what the client gets in framed mode, where that differs
    in_turn: bool = False  # one asks, one answers, and only then they part: as it is over TLS, too


@dataclass(frozen=True)
class Outcome:
    """What one run of a case looked like from both ends."""

    server_got: bytes
    server_saw: str
    client_got: bytes
    client_saw: str


def run(
    case: Case,
    listening: socket.socket,
    address: tuple[str, int] | str,
    like: Outcome | None = None,
    *,
    client_tls: ssl.SSLContext | None = None,
    server_tls: ssl.SSLContext | None = None,
) -> Outcome:
    """Play a case against whatever listens at the address (or unix socket) and ends up at the listening socket.

    ``like`` is what is expected: an end that is expected gets time to arrive, an open connection must stay open only
    for a moment.
    """
    marks = {name: threading.Event() for name in ("client", "server", "connected")}
    client_sock = _connected(address)
    if client_tls is not None:
        client_sock = client_tls.wrap_socket(client_sock, server_hostname="localhost")
    listening.settimeout(PATIENCE)
    server_sock, _ = listening.accept()
    if server_tls is not None:
        server_sock = server_tls.wrap_socket(server_sock, server_side=True)
    client, server = Player(client_sock, marks), Player(server_sock, marks)
    thread = threading.Thread(target=server.play, args=(case.server,))
    thread.start()
    client.play(case.client)
    thread.join()
    for player, expected in ((client, like and like.client_saw), (server, like and like.server_saw)):
        player.settle(0.03 if expected in (None, "open") else PATIENCE)
    outcome = Outcome(bytes(server.received), server.ending, bytes(client.received), client.ending)
    client.sock.close()
    server.sock.close()
    return outcome


def _connected(address: tuple[str, int] | str) -> socket.socket:
    if not isinstance(address, str):
        return socket.create_connection(address, PATIENCE)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(address)
    return sock
