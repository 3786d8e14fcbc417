"""Plays every case directly and through a relay, and compares: ``python -m tests.relay.compare [name …]``.

Prints one line per case and mode, and exits with 1 when anything differs but the `Host` value of framed mode.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import uvloop

from mcp_tap.channel import Kind
from mcp_tap.config import Address, Proxy, Upstream, parse_upstream
from mcp_tap.relay.listener import Listener
from mcp_tap.relay.sockets import listening_sockets
from mcp_tap.relay.streams import Streams
from tests.certificate import make
from tests.relay.cases import CASES, HOST, SENT_HOST
from tests.relay.script import PATIENCE, Case, Outcome, run

MODES = ("blind", "framed")
#: Other wires than TCP on both sides, all blind: a unix socket on both, TLS to the client, TLS to the server.
WIRES = ("unix", "tls listener", "tls upstream")


class Collector:
    """A feed that keeps everything."""

    def __init__(self) -> None:
        self.records: list[tuple[int, int, int, bytes]] = []
        self._more = threading.Condition()

    def put(self, stream: int, kind: int, at_ns: int, payload: bytes = b"") -> None:
        with self._more:
            self.records.append((stream, kind, at_ns, payload))
            self._more.notify_all()

    def wait(self) -> None:
        """Wait until every stream that was opened is closed."""
        with self._more:
            assert self._more.wait_for(
                lambda: self.kinds().count(Kind.OPEN) == self.kinds().count(Kind.CLOSED), PATIENCE
            )

    def forget(self) -> None:
        """Begin anew, without late records of earlier streams."""
        self.wait()
        self.records.clear()

    def bytes_of(self, *kinds: int) -> bytes:
        return b"".join(payload for _, kind, _, payload in self.records if kind in kinds)

    def kinds(self) -> list[int]:
        return [kind for _, kind, _, _ in self.records]


class Bench:
    """A listening socket for servers, and a relay of each mode in front of it; another one on a unix socket."""

    def __init__(self, directory: Path) -> None:
        self.certificate = make(directory)
        self.client_tls = ssl.create_default_context(cafile=self.certificate)
        self.server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.server_tls.load_cert_chain(self.certificate)
        self.sockets = {name: str(directory / name) for name in ("server", "tap")}
        self.listening_unix = socket.socket(socket.AF_UNIX)
        self.listening_unix.bind(self.sockets["server"])
        self.listening_unix.listen()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.addresses: dict[str, tuple[str, int]] = {"direct": self.listening.getsockname()}
        self.feeds = {mode: Collector() for mode in (*MODES, *WIRES)}
        self.listeners: dict[str, tuple[Listener, Streams]] = {}
        self.loop = uvloop.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self.loop.run_until_complete(self._relay())
        self.loop.close()

    async def _relay(self) -> None:
        host, port = self.addresses["direct"]
        upstream = Upstream(f"http://{host}:{port}/mcp", "http", host, port, "/mcp")
        secure = Upstream(f"https://localhost:{port}/mcp", "https", "localhost", port, "/mcp")
        tap, server = Address("", 0, self.sockets["tap"]), parse_upstream(f"http://unix:{self.sockets['server']}:/mcp")
        blind = Proxy(upstream, Address("127.0.0.1", 0), host="keep")
        proxies = {
            "blind": blind,
            "framed": replace(blind, host=SENT_HOST.decode()),
            "unix": replace(blind, upstream=server, listen=tap),
            "tls listener": replace(blind, tls_cert=str(self.certificate)),
            "tls upstream": replace(blind, upstream=secure, tls_ca=str(self.certificate)),
        }
        for mode, proxy in proxies.items():
            sockets = listening_sockets(proxy.listen)
            self.addresses[mode] = sockets[0].getsockname()
            streams = Streams(self.feeds[mode])
            listener = Listener(proxy, streams)
            self.listeners[mode] = (listener, streams)
            listener.start(sockets)
        self._ready.set()
        await self._stop.wait()
        for listener, streams in self.listeners.values():
            listener.close()
            await streams.drain(0)

    def start(self) -> None:
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self.listening.close()
        self.listening_unix.close()

    def compare(self, case: Case, mode: str) -> list[str]:
        """Return what is different, in words."""
        direct = run(case, self.listening, self.addresses["direct"])
        expected = as_expected(case, mode, direct)
        self.feeds[mode].forget()
        tapped = run(case, self.listening, self.addresses[mode], expected)
        return list(differences(case, mode, direct, expected, tapped))

    def compare_wire(self, case: Case, wire: str) -> list[str]:
        """The same for another wire. Over TLS only bytes are compared: the end of one direction is that of both."""
        self.feeds[wire].forget()
        if wire == "unix":
            direct = run(case, self.listening_unix, self.sockets["server"])
            tapped = run(case, self.listening_unix, self.sockets["tap"], direct)
        else:
            tls = {"client_tls": self.client_tls} if wire == "tls listener" else {"server_tls": self.server_tls}
            direct = run(case, self.listening, self.addresses["direct"])
            tapped = run(case, self.listening, self.addresses[wire], direct, **tls)
            direct = replace(direct, client_saw="fin", server_saw="fin")
            tapped = replace(tapped, client_saw="fin") if wire == "tls listener" else tapped
        return list(differences(case, wire, direct, direct, tapped))


def as_expected(case: Case, mode: str, direct: Outcome) -> Outcome:
    if mode != "framed":
        return direct
    if case.framed is not None:
        return Outcome(case.passed.replace(HOST, SENT_HOST), "", case.first, "fin")
    got = case.edited or direct.client_got
    return Outcome(direct.server_got.replace(HOST, SENT_HOST), direct.server_saw, got, direct.client_saw)


def differences(case: Case, mode: str, direct: Outcome, expected: Outcome, tapped: Outcome) -> Iterator[str]:
    if "timeout" in (direct.client_saw, direct.server_saw):
        yield f"the case itself does not work: {direct.server_saw}, {direct.client_saw}"
    if tapped.server_got != expected.server_got:
        yield f"server got {_short(tapped.server_got)} instead of {_short(expected.server_got)}"
    if mode == "framed" and case.framed is not None:
        answer = tapped.client_got.removeprefix(case.first)
        if not answer.startswith(b"HTTP/1.1 %d " % case.framed) or b"\r\n\r\nmcp-tap: " not in answer:
            yield f"client got {_short(answer)} instead of our {case.framed}"
    else:
        if tapped.client_got != expected.client_got:
            yield f"client got {_short(tapped.client_got)} instead of {_short(expected.client_got)}"
        if tapped.server_saw != expected.server_saw:
            yield f"server saw {tapped.server_saw} instead of {expected.server_saw}"
    if tapped.client_saw != expected.client_saw:
        yield f"client saw {tapped.client_saw} instead of {expected.client_saw}"


def _short(data: bytes) -> str:
    return repr(data) if len(data) < 200 else f"{data[:80]!r} … {data[-80:]!r} ({len(data)} bytes)"


@contextmanager
def bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory() as directory:
        made = Bench(Path(directory))
        made.start()
        try:
            yield made
        finally:
            made.stop()


def main(names: list[str]) -> int:
    different = 0
    with bench() as relays:
        chosen = [case for case in CASES if not names or case.name in names]
        for case in chosen:
            results = {mode: relays.compare(case, mode) for mode in MODES}
            print(
                f"{case.name:55}",
                *(f"{mode}: {'different' if found else _same(case, mode):10}" for mode, found in results.items()),
            )
            for mode, found in results.items():
                for line in found:
                    different += 1
                    print(f"    {mode}: {line}")
    print(f"{len(chosen)} cases in {len(MODES)} modes, {different} differences")
    return 1 if different else 0


def _same(case: Case, mode: str) -> str:
    return f"our {case.framed}" if mode == "framed" and case.framed else "same"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
