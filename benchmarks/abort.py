"""How soon an aborted call reaches the server, directly and through the tap, alternating in one run.

``python -m benchmarks.abort [--times 300]`` prints medians. A client sends a request, gets the first event of its
answer and leaves: by closing its socket, or by breaking off. The time is from there to the server's seeing the end;
both read the same monotonic clock. Once more the client leaves before a byte of the answer has come.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Final

from benchmarks import routes
from benchmarks.routes import PLAIN, laid

_BODY: Final = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"slow"}}'
REQUEST: Final = (
    b"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    b"accept: application/json, text/event-stream\r\ncontent-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)
EVENT: Final = b"event: message\r\ndata: {}\r\n\r\n"
ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    b"%x\r\n%s\r\n" % (len(EVENT), EVENT)
)

#: Seconds for anything here.
PATIENCE: Final = 10

WAYS: Final = ("direct", "tap")
ENDINGS: Final[dict[str, tuple[bool, bool]]] = {  # whether the server answers, and whether the client resets
    "closes amid the answer": (True, False),
    "resets amid the answer": (True, True),
    "closes before the answer": (False, False),
    "resets before the answer": (False, True),
}


class Server(threading.Thread):
    """Takes one connection after another, and says when it saw each of them end."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listening.getsockname()[1]
        self.answers = True
        self.asked: Queue[None] = Queue()
        self.ended_ns: Queue[int] = Queue()

    def run(self) -> None:
        """Serve until the process ends."""
        while True:
            connection, _ = self.listening.accept()
            with connection:
                received = b""
                while _BODY not in received and (data := connection.recv(65536)):
                    received += data
                if not received:
                    continue  # somebody looked whether the port is open
                if self.answers:
                    connection.sendall(ANSWER)
                self.asked.put(None)
                try:
                    connection.recv(1)
                except ConnectionError:
                    pass
                self.ended_ns.put(time.monotonic_ns())


def abort(server: Server, port: int, *, answers: bool, reset: bool) -> float:
    """Make a call and leave; return the µs until the server sees it."""
    server.answers = answers
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(REQUEST)
        received = b""
        while answers and EVENT not in received:
            received += client.recv(65536)
        server.asked.get(timeout=PATIENCE)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        left_ns = time.monotonic_ns()
    return (server.ended_ns.get(timeout=PATIENCE) - left_ns) / 1000


def table(ports: dict[str, int], times: int, measure: Callable[[int, bool, bool], float]) -> None:
    """Measure every ending both ways in turn, and print the medians."""
    print(f"µs until the server sees that its client has left: median (p95) of {times}")
    print(f"{'the client …':28}" + "".join(f"{way:>20}" for way in WAYS) + f"{'added':>10}")
    for ending, (answers, reset) in ENDINGS.items():
        took: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(times):
            for way in WAYS:
                took[way].append(measure(ports[way], answers, reset))
        middle = {way: statistics.median(of) for way, of in took.items()}
        high = {way: statistics.quantiles(of, n=20)[-1] for way, of in took.items()}
        figures = "".join(f"{f'{middle[way]:.0f} ({high[way]:.0f})':>20}" for way in WAYS)
        print(f"{ending:28}{figures}{middle['tap'] - middle['direct']:10.0f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=300)
    options = parser.parse_args()
    server = Server()
    server.start()
    here = routes.Server(server.port, os.getpid())
    with tempfile.TemporaryDirectory() as name, laid(PLAIN, here, Path(name)) as way:
        table(
            {"direct": server.port, "tap": way.port},
            options.times,
            lambda port, answers, reset: abort(server, port, answers=answers, reset=reset),
        )


if __name__ == "__main__":
    main()
