"""How long the desk takes on a month of a million lines: every question of the store, every list page.

``python -m benchmarks.desk [--rounds 5] [--only WORD] [--cpu]`` prints a table: the median of so many answers in
milliseconds for each range of time, and whether it keeps its bar. Pages are asked in-process, as the server sees them.
With ``--cpu`` it is the CPU time of all threads: what an answer takes where nothing else runs, on a machine where
something does.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from benchmarks.recording import BUSY_FROM_US, BUSY_US, HOUR, NOW_US, TOOLS, recording
from mcp_tap.api.desk import Desk, Recording
from mcp_tap.app import application
from mcp_tap.store import Paging, Reader, open_reader
from mcp_tap.store.filters import Filter, parse
from mcp_tap.store.rows import iso

#: Milliseconds within which an answer has to be there.
PAGE = 150
TIMELINE = 100
PERCENTILES = 100

RANGES = ("since:1h", "since:24h", "since:7d", "since:30d", "")

Ask = Callable[[], Awaitable[Any]]

#: What time is measured with.
CLOCK = [time.perf_counter]


def where(text: str) -> Filter:
    """Return a filter as at the end of the month."""
    return parse(text, now_us=NOW_US)


def questions(reader: Reader, text: str) -> dict[str, Ask]:
    """Return what the list pages ask under a filter, by name."""
    asked = where(text)
    return {
        "list_sessions": lambda: reader.list_sessions(asked),
        "list_sessions by errors": lambda: reader.list_sessions(asked, Paging(sort="errors")),
        "session_ids": lambda: reader.session_ids(asked),
        "list_events": lambda: reader.list_events(asked),
        "list_events, rare": lambda: reader.list_events(where(f"{text} text:nowhere")),
        "list_sessions, rare": lambda: reader.list_sessions(where(f"{text} text:nowhere")),
        "list_events failed": lambda: reader.list_events(where(f"{text} status:failed")),
        "slow": lambda: reader.list_events(where(f"{text} latency:>1s"), Paging(sort="latency_ms")),
        "totals": lambda: reader.totals(asked),
        "series": lambda: reader.series(asked),
        "heatmap": lambda: reader.heatmap(asked),
        "matrix": lambda: reader.matrix(asked),
        "tools": lambda: reader.tools(asked),
        "tool": lambda: reader.tool(TOOLS[3], asked),
        "clients": lambda: reader.clients(asked),
        "errors": lambda: reader.errors(asked),
    }


async def measure(ask: Ask, rounds: int) -> float:
    """Return the median of some answers in milliseconds."""
    taken = []
    for _ in range(rounds):
        began = CLOCK[0]()
        await ask()
        taken.append((CLOCK[0]() - began) * 1000)
    return statistics.median(taken)


def verdict(worst: float, bar: float) -> str:
    """Return whether a bar is kept, in a word."""
    return "ok" if worst < bar else "TOO SLOW"


async def tables(reader: Reader, rounds: int, only: str) -> int:
    """Print the questions of the store; return how many are too slow."""
    missed = 0
    by_range = [questions(reader, text) for text in RANGES]
    print(f"{'question, ms':28}" + "".join(f"{text or 'everything':>13}" for text in RANGES) + f"{'bar':>7}")
    for name in by_range[0]:
        if only in name:
            taken = [await measure(asked[name], rounds) for asked in by_range]
            missed += max(taken) >= PAGE
            print(f"{name:28}" + "".join(f"{ms:13.1f}" for ms in taken) + f"{PAGE:7}  {verdict(max(taken), PAGE)}")
    busy = where(f"from:{iso(BUSY_FROM_US)} to:{iso(BUSY_FROM_US + BUSY_US)}")
    long = (await reader.list_sessions(where("calls:>900 since:4h"))).rows[0]["connection_id"]
    newest = (await reader.list_events(where("status:failed since:24h"), Paging(limit=1))).rows[0]["message_id"]
    group = (await reader.errors(where("")))[0]["group_id"]
    change = (await reader.facts())["change"]
    single: dict[str, tuple[Ask, float]] = {
        "percentiles of 15 minutes": (lambda: reader.totals(busy), PERCENTILES),
        "series of 15 minutes": (lambda: reader.series(busy), PERCENTILES),
        "tools of 15 minutes": (lambda: reader.tools(busy), PAGE),
        "heatmap of 15 minutes": (lambda: reader.heatmap(busy), PERCENTILES),
        "timeline of 1,000 lines": (lambda: reader.waterfall(long), TIMELINE),
        "its lines, a page": (lambda: reader.list_events(where(f"conn:{long}"), Paging(limit=100)), PAGE),
        "around an error": (lambda: reader.context(newest), PAGE),
        "related": (lambda: reader.related(newest), PAGE),
        "one group of errors": (lambda: reader.error(group), PAGE),
        "changes": (lambda: reader.changes(change - 500), PAGE),
        "facts": (reader.facts, PAGE),
        "summary": (reader.summary, PAGE),
    }
    print()
    for name, (ask, bar) in single.items():
        if only in name:
            ms = await measure(ask, rounds)
            missed += ms >= bar
            print(f"{name:28}{ms:13.1f}{bar:7.0f}  {verdict(ms, bar)}")
    return missed


#: Every list page, and its JSON.
LISTS = ("/", "/sessions", "/connections", "/tools", "/clients", "/errors", "/slow", "/api/sessions", "/api/messages")


async def pages(reader: Reader, rounds: int, only: str) -> int:
    """Print the pages, as a browser gets them; return how many are too slow."""
    missed = 0
    transport = httpx.ASGITransport(application(Desk(reader, lambda: Recording(on=False))))
    print(f"\n{'page, ms':28}" + "".join(f"{text or 'everything':>13}" for text in RANGES) + f"{'bar':>7}")
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:6279") as client:
        long = (await reader.list_sessions(where("calls:>900 since:4h"))).rows[0]
        session = f"/sessions/{long['session_id']}"
        for path, bar, texts in ((path, bar, texts) for path, bar, texts in _asked(session) if only in path):
            taken = []
            for text in texts:
                key, _, value = text.partition(":")
                query = {key: value} if text else {}

                async def ask(path: str = path, query: dict[str, str] = query) -> None:
                    answer = await client.get(path, params=query)
                    assert answer.status_code == 200, f"{path} {query}: {answer.status_code} {answer.text[:200]}"

                taken.append(await measure(ask, rounds))
            missed += max(taken) >= bar
            print(f"{path[:27]:28}" + "".join(f"{ms:13.1f}" for ms in taken) + f"{bar:7}  {verdict(max(taken), bar)}")
    return missed


def _asked(session: str) -> list[tuple[str, int, tuple[str, ...]]]:
    # a page without a range asks for the last hour by itself; the month ended long ago, so ranges are moments
    ago = {"1h": HOUR, "24h": 24 * HOUR, "7d": 168 * HOUR, "30d": 720 * HOUR}
    texts = (*(f"from:{iso(NOW_US - length)}" for length in ago.values()), "since:")
    return [*((path, PAGE, texts) for path in LISTS), (session, TIMELINE, ("",))]


async def main(path: Path, rounds: int, only: str) -> int:
    """Measure everything; return how much is too slow."""
    reader = await open_reader(f"sqlite:///{path}")
    try:
        return await tables(reader, rounds, only) + await pages(reader, rounds, only)
    finally:
        await reader.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    if options.cpu:
        CLOCK[0] = time.process_time
    sys.exit(min(1, asyncio.run(main(recording(), options.rounds, options.only))))
