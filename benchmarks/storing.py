"""What it takes to store calls: batches as the recorder makes them, through the writer, into a file.

``python -m benchmarks.storing [--calls 20000]`` prints µs of CPU per call, with two bodies and without any, for several
sizes of a batch: on the loop's own thread, in all threads, and with all of the log moved into the file.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from benchmarks.traffic import Following, Traffic
from mcp_tap.model import Batch
from mcp_tap.store import open_writer

CLIENTS = 64
BATCHES = (100, 500, 2000)


class Cost(NamedTuple):
    """CPU of one call in µs, and its room in the file in bytes."""

    loop: float
    writing: float
    all: float
    room: float


def batches(calls: int, size: int, *, bodies: bool) -> list[Batch]:
    """Return calls of 64 clients in batches of about so many."""
    traffic, following = Traffic(CLIENTS, now_ns=time.monotonic_ns()), Following()
    made = [following.take(piece) for piece in traffic.opening()]
    made += [following.take(piece) for piece in traffic.calls(calls, together=size)]
    return made if bodies else [replace(batch, bodies=[]) for batch in made]


async def cost(calls: int, size: int, *, bodies: bool) -> Cost:
    """Write batches into a new file and return what that took."""
    first, *rest = batches(calls, size, bodies=bodies)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tap.db"
        writer = await open_writer(f"sqlite:///{path}")
        await writer.write(first)
        gc.collect()
        began, thread_began = time.process_time(), time.thread_time()
        for batch in rest:
            await writer.write(batch)
        written, loop = time.process_time() - began, time.thread_time() - thread_began
        await writer.close()
        closed = time.process_time() - began
        loop, written, closed = (seconds / calls * 1e6 for seconds in (loop, written, closed))
        return Cost(loop, written, closed, path.stat().st_size / calls)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=20_000)
    calls = parser.parse_args().calls
    print(f"{'calls a batch':16}{'bodies':>8}{'loop':>8}{'writing':>9}{'in all':>8}{'bytes a call':>14}")
    for size in BATCHES:
        for bodies in (True, False):
            best = min((asyncio.run(cost(calls, size, bodies=bodies)) for _ in range(3)), key=lambda each: each.all)
            print(
                f"{size:<16}{'two' if bodies else 'none':>8}{best.loop:8.2f}{best.writing:9.2f}{best.all:8.2f}"
                f"{best.room:14.0f}"
            )


if __name__ == "__main__":
    main()
