"""The links themselves: every fault does what it says, to both ends, and nothing else."""

from __future__ import annotations

import socket
import threading

import pytest

from tests.faults.injector import (
    Close,
    Delay,
    Faults,
    HalfClose,
    HalfCloseWhenAnswered,
    Injector,
    Reset,
    Slice,
    StopReading,
    Throttle,
)
from tests.tap import PATIENCE

ASKED, ANSWERED = b"first, ask", b"0123456789"

#: What came, and how it ended: in order (fin), by a reset (rst).
End = tuple[bytes, str]


def read(sock: socket.socket, until: bytes | None = None) -> End:
    """Read to the end, or until something was read."""
    received = b""
    try:
        while data := sock.recv(100):
            received += data
            if until is not None and until in received:
                return received, "open"
    except ConnectionResetError:
        return received, "rst"
    return received, "fin"


@pytest.mark.parametrize(
    ("faults", "server", "client"),
    [
        (Faults(), (ASKED, "open"), (ANSWERED, "fin")),
        (Faults((Slice(),), (Slice(3),)), (ASKED, "open"), (ANSWERED, "fin")),
        (Faults((Delay(0.01),), (Delay(0.01), Throttle(1000))), (ASKED, "open"), (ANSWERED, "fin")),
        (Faults(down=(Reset(4),)), (ASKED, "open"), (b"0123", "rst")),
        (Faults(down=(Slice(2), Reset(b"34"))), (ASKED, "open"), (b"01234", "rst")),
        (Faults(down=(Close(b"3"),)), (ASKED, "open"), (b"0123", "fin")),
        (Faults(down=(HalfClose(4),)), (ASKED, "open"), (b"0123", "fin")),
        (Faults(up=(Reset(5),)), (b"first", "rst"), (b"", "rst")),
        (Faults(up=(Reset(1),), when=b"first,"), (b"first, ", "rst"), (b"", "rst")),
        (Faults(up=(Close(5),)), (b"first", "fin"), (b"", "fin")),
        (Faults(up=(HalfClose(5),)), (b"first", "fin"), (ANSWERED, "fin")),
        (Faults(up=(Reset(0),), when=b"never said"), (ASKED, "open"), (ANSWERED, "fin")),
    ],
    ids=str,
)
def test_both_ends_see_the_fault(faults: Faults, server: End, client: End) -> None:
    assert play(faults) == (server, client)


def test_a_direction_that_ends_with_the_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, Injector(listening.getsockname()) as injector:
        injector.fail(Faults(up=(HalfCloseWhenAnswered(),)))
        with socket.create_connection(("127.0.0.1", injector.port), PATIENCE) as client:
            client.sendall(ASKED)
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(PATIENCE)
                assert read(connection, ASKED) == (ASKED, "open")
                connection.sendall(ANSWERED)
                assert read(connection) == (b"", "fin")


def test_a_reader_that_goes_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, Injector(listening.getsockname()) as injector:
        injector.fail(Faults(down=(StopReading(4),)))
        with socket.create_connection(("127.0.0.1", injector.port), PATIENCE) as client:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(ANSWERED)
                assert injector.stopped.wait(PATIENCE)
                assert read(client, b"3") == (b"0123", "open")
                injector.resume()
                assert read(client, b"9") == (b"456789", "open")


def play(faults: Faults) -> tuple[End, End]:
    """Ask and answer through a link, and return what the server and the client saw."""
    seen: dict[str, End] = {}

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.settimeout(PATIENCE)
            seen["server"] = read(connection, ASKED)
            if seen["server"][1] != "rst":
                connection.sendall(ANSWERED)

    with socket.create_server(("127.0.0.1", 0)) as listening, Injector(listening.getsockname()) as injector:
        injector.fail(faults)
        server = threading.Thread(target=serve)
        server.start()
        with socket.create_connection(("127.0.0.1", injector.port), PATIENCE) as client:
            client.sendall(ASKED)
            seen["client"] = read(client)
        server.join()
    return seen["server"], seen["client"]
