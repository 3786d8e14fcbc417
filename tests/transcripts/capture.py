"""Writes down what a real client and a real server say: ``python -m tests.transcripts.capture FILE SERVER CLIENT``.

The relay's own listener stands between them; its feed, which goes to the recorder otherwise, keeps every record.
SERVER is py1, py2 or everything, CLIENT is py1, py2-legacy, py2-auto or ts. The record is added to the file: read it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from mcp_tap.channel import Kind
from mcp_tap.config import Address, Proxy, Upstream
from mcp_tap.protocol.transcript import Step, Transcript, write
from mcp_tap.relay.listener import Listener
from mcp_tap.relay.sockets import listening_sockets
from mcp_tap.relay.streams import Streams
from tests.sdk.harness import CALLS, everything_server, python_server, run_client
from tests.transcripts.play import play, recorded

KEPT = (Kind.CLIENT, Kind.SERVER, Kind.OWN, Kind.CLIENT_EOF, Kind.SERVER_EOF, Kind.CLOSED, Kind.CONNECT_FAILED)


class Log:
    """A feed that keeps what it is given, with times in whole milliseconds."""

    def __init__(self) -> None:
        self.records: list[tuple[int, int, int, bytes]] = []

    def put(self, stream: int, kind: int, at_ns: int, payload: bytes = b"") -> None:
        self.records.append((stream, kind, at_ns, payload))

    def steps(self) -> list[Step]:
        steps: list[Step] = []
        now = None
        for stream, kind, at_ns, payload in self.records:
            if kind in KEPT:
                at_ms = at_ns // 1_000_000
                after_ms = 1 if now is None else max(0, at_ms - now)
                steps.append(Step(Kind(kind), stream, payload, after_ms * 1000))
                now = at_ms
        return steps


async def between(url: str, converse: list[str]) -> list[Step]:
    """Run a client against the server at ``url`` with the listener between them."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    upstream = Upstream(url, "http", parts.hostname, parts.port, parts.path)
    proxy = Proxy(upstream=upstream, listen=Address("127.0.0.1", 0))
    log = Log()
    streams = Streams(log)
    listener = Listener(proxy, streams)
    sockets = listening_sockets(proxy.listen)
    listener.start(sockets)
    here = f"http://127.0.0.1:{sockets[0].getsockname()[1]}{parts.path}"
    server, client = converse
    calls = CALLS["everything" if server == "everything" else "calculator"]
    await asyncio.to_thread(run_client, client, here, calls)
    listener.close()
    await streams.drain(0.5)
    return log.steps()


def main(file: Path, server: str, client: str) -> None:
    """Write one conversation into a file."""
    with everything_server() if server == "everything" else python_server(server) as url:
        steps = uvloop.run(between(url, [server, client]))
    transcript = Transcript([*steps, Step(Kind.STOP)])
    transcript.comments = [f"A client ({client}) and a server ({server}) made with the SDKs, as they were on the wire."]
    transcript.sessions, transcript.events = recorded(transcript, play(transcript.steps))
    file.write_text(write(transcript), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
