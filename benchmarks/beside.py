"""What an open live page and pages over many calls cost the relay, in turns with none open, in one run.

``python -m benchmarks.beside [--rounds 5]`` records 100,000 calls, then measures CPU per call of the
relay and the delay of a lone stream, with and without a reader that follows `/api/live` and asks for pages without a
pause.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

from benchmarks.machine import LOAD_CPU, free_port, on
from benchmarks.measures import cheap_server, client
from benchmarks.routes import PLAIN, Way, laid, tap

#: Pages over everything that there is.
PAGES = ("/", "/tools", "/clients", "/errors", "/sessions", "/api/messages?limit=100")

#: Calls that are there to look at, and how many a second are recorded without loss.
RECORDED = 100_000
RATE = 8_000

#: Calls of one round, by connections.
CALLS = {64: 100_000, 1: 20_000}


async def watch(port: int) -> None:
    """Follow the live stream and ask for one page after the other, until killed."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

        async def follow() -> None:
            async with client.stream("GET", "/api/live") as stream:
                async for _ in stream.aiter_raw():
                    pass

        following = asyncio.create_task(follow())
        while not following.done():
            for page in PAGES:
                (await client.get(page)).raise_for_status()
        await following


def turn(way: Way, desk: int, connections: int, calls: int, *, watched: bool) -> dict[str, float]:
    """Run the load once, with or without somebody who watches; whatever the recorder has yet to write."""
    argv = [sys.executable, "-m", "benchmarks.beside", "--watch", str(desk)]
    watcher = subprocess.Popen(argv, preexec_fn=on(LOAD_CPU)) if watched else None
    try:
        before = way.cpu_us()["relay"]
        seen = client("load", way.port, "--connections", connections, "--calls", calls)
        return seen | {"relay": (way.cpu_us()["relay"] - before) / seen["calls"]}
    finally:
        if watcher is not None:
            watcher.terminate()
            watcher.wait()


def main(rounds: int) -> None:
    """Measure and print."""
    desk = free_port()
    route = PLAIN._replace(command=tap(desk=desk))
    with cheap_server() as server, tempfile.TemporaryDirectory() as name, laid(route, server, Path(name)) as way:
        client("load", way.port, "--connections", 64, "--calls", RECORDED, "--rate", RATE)
        way.settle()
        print(f"{RECORDED:,} calls recorded; medians of {rounds} rounds in turns")
        print(f"{'':26}{'relay µs/call':>14}{'p50 µs':>9}{'p99 µs':>9}{'max µs':>9}")
        for connections, calls in CALLS.items():
            runs: dict[bool, list[dict[str, float]]] = {False: [], True: []}
            for _ in range(rounds):
                for watched, of in runs.items():
                    of.append(turn(way, desk, connections, calls, watched=watched))
            middle = {
                watched: [statistics.median(run[key] for run in of) for key in ("relay", "p50", "p99", "max")]
                for watched, of in runs.items()
            }
            for watched, row in middle.items():
                label = f"{connections} connections, {'watched' if watched else 'alone'}"
                print(f"{label:26}{row[0]:14.1f}{row[1]:9.0f}{row[2]:9.0f}{row[3]:9.0f}")
            print(f"  relay CPU while watched: {middle[True][0] / middle[False][0] - 1:+.1%}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--watch", type=int)
    options = parser.parse_args()
    if options.watch:
        asyncio.run(watch(options.watch))
    else:
        main(options.rounds)
