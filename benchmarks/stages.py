"""Where the recorder's CPU goes: the same traffic through more and more of it, in one process.

``python -m benchmarks.stages [--calls 20000] [--profile]`` prints µs of CPU per call after each stage, with ``--sse``
µs per event of 16 streams, each event a piece of its own as when they come slowly, and with ``--big`` µs per MB of
JSON results of 1 MB. ``--rounds`` is how often each stage is tried; the least counts.
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
from benchmarks.upstream import FIRST_ID, answer, body, progress
from mcp_tap.channel import Closing, Decoder, Kind, encode, encode_json
from mcp_tap.config import Redact
from mcp_tap.protocol.exchange import Ended, Exchange, Stream
from mcp_tap.protocol.http1 import RequestReader, ResponseReader
from mcp_tap.protocol.jsonrpc import Frame
from mcp_tap.protocol.redact import Redactor
from mcp_tap.protocol.tracker import Tracker
from mcp_tap.recorder import Recorder
from mcp_tap.store import open_writer

CONNECTIONS = 64
#: Streams with events, and bytes that the relay and the recorder read at once.
STREAMS = 16
READ = 64 * 1024
CHANNEL_READ = 200_000


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


def event_streams(events: int) -> list[bytes]:
    """Return the channel's bytes for so many events on 16 streams in turn, each in a record of its own."""
    pieces, piece = [], bytearray()
    now = time.monotonic_ns()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    for stream in range(1, STREAMS + 1):
        piece += encode_json(stream, Kind.OPEN, now, {"peer": f"127.0.0.1:{stream}", "upstream": "http://up/mcp"})
        piece += encode(stream, Kind.CLIENT, now, request(FIRST_ID, stream))
        piece += encode(stream, Kind.SERVER, now, head)
    for number in range(events):
        event = progress(1_000_000_000_000 + number)
        chunk = b"%x\r\n%b\r\n" % (len(event), event)
        piece += encode(number % STREAMS + 1, Kind.SERVER, now + number * 1_000_000 // STREAMS, chunk)
        if len(piece) > 64_000:
            pieces.append(bytes(piece))
            piece.clear()
    return [*pieces, bytes(piece)]


def large_results(results: int) -> list[bytes]:
    """Return the channel's bytes for so many results of 1 MB, cut as a socket cuts them."""
    whole = bytearray()
    now = time.monotonic_ns()
    for number in range(results):
        stream = number + 1
        plain = body(b"/mcp/json/1000000", FIRST_ID)
        data = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
            len(plain),
            plain,
        )
        whole += encode_json(stream, Kind.OPEN, now, {"peer": f"127.0.0.1:{stream}", "upstream": "http://up/mcp"})
        whole += encode(stream, Kind.CLIENT, now, request(FIRST_ID, stream))
        for at in range(0, len(data), READ):
            whole += encode(stream, Kind.SERVER, now + at, data[at : at + READ])
        whole += encode(stream, Kind.CLOSED, now + len(data), Closing.END)
    return [bytes(whole[at : at + CHANNEL_READ]) for at in range(0, len(whole), CHANNEL_READ)]


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
            elif kind != Kind.CLOSED:
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
            elif kind == Kind.CLOSED:
                streams.pop(stream).close(payload, at_ns // 1000)
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


#: Each kind of traffic: how it is made, of how much, and what the cost is told for.
TRAFFIC: dict[str, tuple[Callable[[int], list[bytes]], int, str]] = {
    "calls": (channel, 20_000, "call"),
    "sse": (event_streams, 20_000, "event"),
    "big": (large_results, 20, "MB"),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, help="how many calls, events or results")
    parser.add_argument("--sse", dest="kind", action="store_const", const="sse", default="calls")
    parser.add_argument("--big", dest="kind", action="store_const", const="big")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="print where the last stage spends its time")
    options = parser.parse_args()
    make, usual, unit = TRAFFIC[options.kind]
    count = options.calls or usual
    pieces = make(count)
    print(f"{'stage':26}{f'CPU µs/{unit}':>14}")
    for name, run in STAGES.items():
        best = float("inf")
        for _ in range(options.rounds):
            began = time.process_time()
            run(pieces)
            best = min(best, time.process_time() - began)
        print(f"{name:26}{best / count * 1e6:14.1f}")
    if options.profile:
        profile = cProfile.Profile()
        profile.runcall(track, pieces, "redacted")
        pstats.Stats(profile).sort_stats("tottime").print_stats(28)


if __name__ == "__main__":
    main()
