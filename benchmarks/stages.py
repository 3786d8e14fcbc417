"""Where the recorder's CPU goes: the same calls through more and more of it, in one process.

``python -m benchmarks.stages [--calls 20000] [--profile]`` prints µs of CPU per call after each stage.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import tempfile
import time
from collections.abc import Callable
from typing import Literal

from benchmarks.load import request
from benchmarks.upstream import FIRST_ID, answer
from mcp_tap.channel import Decoder, Kind, encode, encode_json
from mcp_tap.config import Redact
from mcp_tap.protocol.exchange import Ended, Exchange, Stream
from mcp_tap.protocol.http1 import RequestReader, ResponseReader
from mcp_tap.protocol.jsonrpc import Frame
from mcp_tap.protocol.redact import Redactor
from mcp_tap.protocol.tracker import Tracker
from mcp_tap.recorder import Recorder
from mcp_tap.store import open_writer

CONNECTIONS = 64
BATCH = 1000


class Deaf:
    """An observer that does nothing."""

    def requested(self, x: Exchange, frames: list[Frame], reason: str | None, at_us: int) -> None:
        """Hear nothing."""

    def answered(self, x: Exchange, at_us: int) -> None:
        """Hear nothing."""

    def frame(self, x: Exchange, frame: Frame, at_us: int) -> None:
        """Hear nothing."""

    def sse_event(self, x: Exchange) -> None:
        """Hear nothing."""

    def endpoint(self, x: Exchange, uri: str, at_us: int) -> None:
        """Hear nothing."""

    def ended(self, x: Exchange, how: Ended, at_us: int) -> None:
        """Hear nothing."""

    def unreadable(self, stream: Stream, reason: str, at_us: int) -> None:
        """Hear nothing."""


def channel(calls: int) -> list[bytes]:
    """Return the channel's bytes for so many calls on 64 connections, in pieces as a socket gives them."""
    pieces, piece = [], bytearray()
    now = time.monotonic_ns()
    for stream in range(1, CONNECTIONS + 1):
        piece += encode_json(stream, Kind.OPEN, now, {"peer": f"127.0.0.1:{stream}", "upstream": "http://up/mcp"})
    for call in range(calls):
        stream = call % CONNECTIONS + 1
        number = FIRST_ID + call // CONNECTIONS
        piece += encode(stream, Kind.CLIENT, now + call * 1000, request(number, stream))
        piece += encode(stream, Kind.SERVER, now + call * 1000 + 500, answer(number))
        if len(piece) > 64_000:
            pieces.append(bytes(piece))
            piece.clear()
    return [*pieces, bytes(piece)]


def decode(pieces: list[bytes]) -> None:
    """Take the records apart."""
    decoder = Decoder()
    for piece in pieces:
        decoder.feed(piece)


def follow(pieces: list[bytes]) -> None:
    """Follow HTTP, too."""
    decoder, requests, responses = Decoder(), {}, {}
    for piece in pieces:
        for stream, kind, _, payload in decoder.feed(piece):
            if kind == Kind.OPEN:
                requests[stream], responses[stream] = RequestReader(), ResponseReader(lambda: "POST")
            else:
                (requests if kind == Kind.CLIENT else responses)[stream].feed(payload)


def exchanges(pieces: list[bytes]) -> None:
    """Pair them and read JSON-RPC, too."""
    decoder, deaf = Decoder(), Deaf()
    streams: dict[int, Stream] = {}
    for piece in pieces:
        for stream, kind, at_ns, payload in decoder.feed(piece):
            if kind == Kind.OPEN:
                streams[stream] = Stream(stream, deaf, peer="127.0.0.1:1", upstream="http://up/mcp")
            elif kind == Kind.CLIENT:
                streams[stream].client(payload, at_ns // 1000)
            else:
                streams[stream].server(payload, at_ns // 1000)


def track(pieces: list[bytes], bodies: Literal["none", "redacted", "full"]) -> None:
    """Make rows, too."""
    tracker = Tracker(Redactor(Redact(), bodies=bodies, max_body=64_000))
    recorder = Recorder(tracker, None, written=lambda _: None, notice=lambda _: None)  # type: ignore[arg-type]
    for number, piece in enumerate(pieces):
        recorder.data_received(piece)
        if number % 10 == 9:
            tracker.take()


def store(pieces: list[bytes], bodies: Literal["none", "redacted", "full"]) -> None:
    """Write them, too."""

    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            writer = await open_writer(f"sqlite:///{folder}/tap.db")
            tracker = Tracker(Redactor(Redact(), bodies=bodies, max_body=64_000))
            recorder = Recorder(tracker, writer, written=lambda _: None, notice=lambda _: None)
            for number, piece in enumerate(pieces):
                recorder.data_received(piece)
                if number % 10 == 9:
                    await writer.write(tracker.take())
            await writer.write(tracker.take())
            await writer.close()

    asyncio.run(main())


STAGES: dict[str, Callable[[list[bytes]], None]] = {
    "channel": decode,
    "+ HTTP": follow,
    "+ exchanges, JSON-RPC": exchanges,
    "+ tracker": lambda pieces: track(pieces, "none"),
    "+ bodies masked": lambda pieces: track(pieces, "redacted"),
    "+ SQLite without bodies": lambda pieces: store(pieces, "none"),
    "+ SQLite with bodies": lambda pieces: store(pieces, "redacted"),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--profile", action="store_true", help="print where the last stage spends its time")
    options = parser.parse_args()
    pieces = channel(options.calls)
    print(f"{'stage':26}{'CPU µs/call':>12}")
    for name, run in STAGES.items():
        best = float("inf")
        for _ in range(3):
            began = time.process_time()
            run(pieces)
            best = min(best, time.process_time() - began)
        print(f"{name:26}{best / options.calls * 1e6:12.1f}")
    if options.profile:
        profile = cProfile.Profile()
        profile.runcall(track, pieces, "redacted")
        pstats.Stats(profile).sort_stats("tottime").print_stats(28)


if __name__ == "__main__":
    main()
