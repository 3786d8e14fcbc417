"""A client, a server, and links that misbehave on either side of the tap, or with nothing between."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import httptools

from tests.faults.conversation import converse
from tests.faults.injector import Faults, Injector
from tests.tap import Tap, running

Row = dict[str, Any]
Seen = TypeVar("Seen")

#: Seconds after which a message that still waits for its answer is taken to wait for good.
SETTLED = 1.5

#: Where the fault is: between the client and the server, or on one side of the tap.
SIDES = ("client", "server")


class Played(NamedTuple):
    """What one conversation looked like from both ends."""

    client_saw: list[Row]
    server_saw: list[tuple[str, str]]  # method and target of each request; "cut" where it did not come to its end


class Chain:
    """client → front → tap → behind → server, and client → behind → server for comparison."""

    def __init__(self, front: Injector, tap: Tap, behind: Injector) -> None:
        self.front, self.tap, self.behind = front, tap, behind
        self._proxy = urlsplit(tap.proxy)
        self._marks = 0
        self._since = 0
        self._recorded = True

    def play(self, client: str, faults: Faults, side: str = "") -> Played:
        """Play a conversation with faults on one side of the tap; without a side, without the tap."""
        seen = self.between(lambda url: converse(client, url), faults, side)
        if side == "client":
            # the client may have seen the end of a link before the tap has passed on what came over it
            sent = passed(self.front)
            deadline = time.monotonic() + SETTLED
            self.tap.until(lambda: passed(self.behind) >= sent or time.monotonic() > deadline)
        return Played(seen, requests(self.behind))

    def between(self, client: Callable[[str], Seen], faults: Faults, side: str = "") -> Seen:
        """Let a client do what it does at the URL that it is given, likewise, and return what it returns."""
        if side and not self._recorded:
            self.record()  # of a test that failed before it could
        self._recorded = not side
        self.front.fail(faults if side == "client" else Faults())
        self.behind.fail(Faults() if side == "client" else faults)
        url = {"client": self.front.url, "server": self.tap.proxy}.get(side, self.behind.url)
        return client(url)

    def record(self, *, reset: bool = False) -> list[Row]:
        """Return what was recorded since the last time, once all of it is in the file.

        Where something waits for ever because nobody reads, the links are ended at last, in order or by a reset.
        """
        self._recorded = True
        self._marks += 1
        path = f"/mark-{self._marks}"  # something that is known: when it is written, all before it is
        with socket.create_connection((self._proxy.hostname, self._proxy.port)) as sock:
            sock.sendall(b"GET %s HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n" % path.encode())
            while sock.recv(65536):
                pass
        query = f"SELECT pk FROM timeline WHERE path = '{path}' AND status <> 'waiting_for_response'"
        self.tap.until(lambda: self.tap.rows(query))
        since, self._since = self._since, self.tap.rows(query)[0]["pk"]
        if not self._settled(since):
            self.front.end(reset=reset)
            self.behind.end(reset=reset)
            self._settled(since)
        return self.tap.rows(f"SELECT * FROM events WHERE pk > {since} AND pk < {self._since} ORDER BY pk")

    def _settled(self, since: int) -> bool:
        """Wait until nothing waits for an answer, and return whether that came to be."""
        waiting = f"SELECT 1 FROM timeline WHERE pk > {since} AND status = 'waiting_for_response'"
        deadline = time.monotonic() + SETTLED
        self.tap.until(lambda: not self.tap.rows(waiting) or time.monotonic() > deadline)
        return not self.tap.rows(waiting)


@contextlib.contextmanager
def chain(server: str, file: Path) -> Iterator[Chain]:
    """Put the tap in front of a server, with a link on either side of it."""
    at = urlsplit(server)
    assert at.port is not None
    with Injector(("127.0.0.1", at.port)) as behind, running(behind.url, file) as tap:
        proxy = urlsplit(tap.proxy)
        assert proxy.port is not None
        with Injector(("127.0.0.1", proxy.port)) as front:
            yield Chain(front, tap, behind)
        assert tap.stop() == 0, "\n".join(tap.said)


def passed(injector: Injector) -> int:
    """Return how many bytes passed an injector towards its server."""
    return sum(len(link.passed) for link in injector.links)


def requests(injector: Injector) -> list[tuple[str, str]]:
    """Return what passed an injector towards its server, in no particular order of connections."""
    return sorted(request for link in injector.links for request in _Requests(bytes(link.passed)).seen)


class _Requests:
    """The requests in the bytes of one connection, read by somebody else's parser."""

    def __init__(self, data: bytes) -> None:
        self.seen: list[tuple[str, str]] = []
        self._target = ""
        self._open = False
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(data)
        if self._open:
            self.seen.append(("cut", self._target))

    def on_message_begin(self) -> None:
        self._target, self._open = "", True

    def on_url(self, url: bytes) -> None:
        self._target += url.decode()

    def on_message_complete(self) -> None:
        self._open = False
        self.seen.append((self._parser.get_method().decode(), self._target))
