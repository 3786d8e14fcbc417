"""How cost grows: with calls, live sessions, open streams, the size of bodies, batches, and the size of the recording.

``python -m benchmarks.growth [--events 10000000] [--only WORD]`` measures CPU time, writes it to
benchmarks/results/growth.json, and draws a graph of each into docs/images. The recorder runs in this process, from the
bytes of the channel to the file.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import shutil
import statistics
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from textwrap import fill
from typing import Any, Final, NamedTuple, TypedDict, TypeVar

import httpx
import orjson

from benchmarks import storing
from benchmarks.graph import Line, graph, short
from benchmarks.machine import about
from benchmarks.recording import HOUR, month
from benchmarks.traffic import Following, Traffic
from mcp_tap.api.desk import Desk, Recording
from mcp_tap.app import application
from mcp_tap.model import Batch
from mcp_tap.store import Paging, Writer, open_reader, open_writer
from mcp_tap.store.filters import Filter
from mcp_tap.store.rows import iso

T = TypeVar("T")

_ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = _ROOT / "benchmarks" / "results" / "growth.json"
IMAGES: Final = _ROOT / "docs" / "images"

#: Columns of the document.
WIDTH: Final = 118

#: Bytes that a line of the long recording takes, with a fifth of all bodies, and what has to stay free beside it.
_ROOM: Final = 600
_RESERVE: Final = 5_000_000_000

#: Points of a line: what it grows with, and what that costs.
Points = list[tuple[float, float]]
#: What was found: the lines of each graph, by their names.
Found = dict[str, dict[str, Points]]


class Results(TypedDict):
    """What is kept: what was found, when, and on which machine."""

    measured: str
    machine: dict[str, str]
    found: Found


class Clock:
    """CPU time of this process, without what is spent on making traffic."""

    def __init__(self) -> None:
        self._made = 0.0
        self._began = time.process_time()

    def made(self, source: Iterable[T]) -> Iterator[T]:
        """Give what a source gives, on nobody's account. Other threads go on meanwhile, and they count."""
        each = iter(source)
        while True:
            began = time.thread_time()
            found = next(each, None)
            self._made += time.thread_time() - began
            if found is None:
                return
            yield found

    def reset(self) -> None:
        """Begin anew."""
        self._made, self._began = 0.0, time.process_time()

    def us(self, count: int) -> float:
        """Return µs for each of so many."""
        return (time.process_time() - self._began - self._made) / count * 1e6


@asynccontextmanager
async def writing() -> AsyncIterator[tuple[Writer, Path]]:
    """Open a recording that is gone afterwards."""
    folder = _ROOT / ".cache" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "growth.db"
    _remove(path)
    writer = await open_writer(f"sqlite:///{path}")
    try:
        yield writer, path
    finally:
        await writer.close()
        _remove(path)


def _remove(path: Path) -> None:
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()


class Tap:
    """The recorder over a recording."""

    def __init__(self, writer: Writer, clients: int) -> None:
        self.clock = Clock()
        self.traffic = Traffic(clients, now_ns=time.monotonic_ns())
        self._writer = writer
        self._following = Following()

    async def record(self, pieces: Iterable[bytes]) -> None:
        """Follow pieces of the channel and write what is due after each."""
        for piece in self.clock.made(pieces):
            await self._writer.write(self._following.take(piece))

    async def cost(self, count: int, pieces: Iterable[bytes]) -> float:
        """Return µs of CPU for each of so many, once they are recorded."""
        gc.collect()
        self.clock.reset()
        await self.record(pieces)
        return self.clock.us(count)


# ----------------------------------------------------------------------------------------------- what cost grows with


async def calls(_: int) -> Found:
    """Calls in one run, of 64 clients."""
    points: Points = []
    for count in (1000, 3000, 10_000, 30_000, 100_000):
        async with writing() as (writer, _path):
            tap = Tap(writer, 64)
            await tap.record(tap.traffic.opening())
            points.append((count, await tap.cost(count, tap.traffic.calls(count))))
    return {"calls": {"a call": points}}


async def live(_: int) -> Found:
    """Sessions that are live at the same time, each calling in turn."""
    found: dict[str, Points] = {"a call": [], "a session's first call": []}
    for clients in (1, 10, 100, 1000, 10_000):
        async with writing() as (writer, _path):
            tap = Tap(writer, clients)
            first = await tap.cost(clients, tap.traffic.opening())
            if clients >= 100:  # fewer take less time than can be measured
                found["a session's first call"].append((clients, first))
            await tap.record(tap.traffic.calls(clients))
            found["a call"].append((clients, await tap.cost(20_000, tap.traffic.calls(20_000))))
    return {"live": found}


async def bodies(_: int) -> Found:
    """The size of an answer; over 64 kB its beginning is stored."""
    points: Points = []
    for size in (100, 1000, 10_000, 30_000, 100_000, 1_000_000, 5_000_000):
        async with writing() as (writer, _path):
            tap = Tap(writer, 8)
            await tap.record(tap.traffic.opening())
            count = max(8, min(5000, 50_000_000 // size))
            together = max(1, min(1000, 5_000_000 // size))
            points.append((size, await tap.cost(count, tap.traffic.calls(count, size, together))))
    return {"bodies": {"a call": points}}


async def streams(_: int) -> Found:
    """Streams of events that are open at the same time, with an event in turn."""
    points: Points = []
    for clients in (1, 10, 100, 1000, 10_000):
        async with writing() as (writer, _path):
            tap = Tap(writer, clients)
            await tap.record(tap.traffic.opening())
            await tap.record([tap.traffic.listening()])
            await tap.record(tap.traffic.events(clients))
            points.append((clients, await tap.cost(20_000, tap.traffic.events(20_000))))
    return {"streams": {"an event": points}}


async def batches(_: int) -> Found:
    """Calls that are written together."""
    found: dict[str, Points] = {"with two bodies": [], "without bodies": []}
    for size in (10, 30, 100, 300, 1000, 3000):
        for name, both in (("with two bodies", True), ("without bodies", False)):
            count = min(20_000, size * 300)
            found[name].append((size, (await storing.cost(count, size, bodies=both)).all))
    return {"batches": found}


#: The first pages of the desk: of the last hour, of a day, or of everything.
_PAGES: Final[dict[str, tuple[str, int | None]]] = {
    "overview of an hour": ("/", HOUR),
    "overview of everything": ("/", None),
    "sessions": ("/sessions", None),
    "tools": ("/tools", None),
    "errors": ("/errors", None),
    "a session": ("/sessions/{session}", None),
}


def _recording(events: int) -> Iterator[Batch]:
    """Give a month in batches, with a hundred lines in a session."""
    for batch in month(events=events + events // 20 + 3000, sessions=max(3, events // 100), busy=0):
        for event in batch.events:
            event.peer = None  # of a line that belongs to a session its connection knows the address
        yield batch


async def database(events: int) -> Found:
    """A recording of a month that grows to so many lines, a hundred of them in a session."""
    folder = _ROOT / ".cache"
    folder.mkdir(exist_ok=True)
    if shutil.disk_usage(folder).free < events * _ROOM + _RESERVE:
        raise SystemExit(
            f"{events:,} lines need {events * _ROOM / 1e9:.0f} GB and some to spare: name fewer, --events N"
        )
    marks = [mark for power in range(4, 8) for mark in (10**power, 3 * 10**power) if mark < events] + [events]
    write: Points = []
    fold: Points = []
    pages: dict[str, Points] = {name: [] for name in _PAGES}
    by_session: Points = []
    async with writing() as (writer, path):
        clock, done, since, sessions = Clock(), 0, 0, 0
        clock.reset()
        for batch in clock.made(_recording(events)):
            await writer.write(batch)
            done, since = done + len(batch.events), since + len(batch.events)
            sessions += sum(event.type == "session_start" for event in batch.events)
            if done < marks[0]:
                continue
            write.append((done, clock.us(since)))
            now_us = max(event.at_us for event in batch.events)
            clock.reset()
            while await writer.fold(now_us):
                pass
            fold.append((done, clock.us(since)))
            for name, ms in (await _pages(path, now_us)).items():
                pages[name].append((done, ms))
            by_session.append((sessions, pages["sessions"][-1][1]))
            print(f"  {done:,} lines, {sessions:,} sessions, {path.stat().st_size / 1e9:.2f} GB", flush=True)
            since = 0
            clock.reset()
            del marks[0]
            if not marks:
                break
    written = {"writing a line": write, "counting it ahead": fold}
    return {"database": written, "sessions": {"first page": by_session}, "pages": pages}


async def _pages(path: Path, now_us: int) -> dict[str, float]:
    """Return the CPU time of each page in milliseconds, the median of three."""
    reader = await open_reader(f"sqlite:///{path}")
    try:
        newest = (await reader.list_sessions(Filter((), now_us), Paging(limit=1))).rows[0]["session_id"]
        transport = httpx.ASGITransport(application(Desk(reader, lambda: Recording(on=False))))
        taken: dict[str, float] = {}
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:6279") as client:
            for name, (page, length) in _PAGES.items():
                query = {"since": ""} if length is None else {"from": iso(now_us - length)}
                times = []
                for _ in range(4):
                    began = time.process_time()
                    answer = await client.get(page.format(session=newest), params=query)
                    times.append((time.process_time() - began) * 1000)
                    if answer.status_code != 200:
                        raise SystemExit(f"{page}: {answer.status_code} {answer.text[:200]}")
                taken[name] = statistics.median(times[1:])  # the first one reads the file
        return taken
    finally:
        await reader.close()


MEASURED: Final[dict[str, Callable[[int], Coroutine[Any, Any, Found]]]] = {
    "calls": calls,
    "live": live,
    "bodies": bodies,
    "streams": streams,
    "batches": batches,
    "database": database,
}

# ------------------------------------------------------------------------------------------------------ what it shows


class _Graph(NamedTuple):
    """What a graph shows."""

    title: str
    one: str  # what is across, one of them and many
    many: str
    up: str
    text: str = ""  # what the figures alone do not say
    log: bool = False  # whether up is logarithmic, too


_GRAPHS: Final = {
    "calls": _Graph("CPU of the recorder by calls", "call in one run", "calls in one run", "µs a call"),
    "live": _Graph(
        "CPU of the recorder by live sessions",
        "live session",
        "live sessions",
        "µs a call",
        "They call in turn. The recorder remembers a few hundred different heads; where more come by in turn, it reads "
        "each anew. The row of a session is written once in a batch, here once for each call.",
    ),
    "bodies": _Graph(
        "CPU of the recorder by the size of answers",
        "byte of an answer",
        "bytes of an answer",
        "µs a call",
        "The first 64 kB are masked and stored; of the rest the frame of JSON-RPC is read.",
        log=True,
    ),
    "streams": _Graph(
        "CPU of the recorder by open streams",
        "open stream",
        "open streams",
        "µs an event",
        "An event of 300 bytes on each in turn, a row for each. The rows of an open stream and of its session are "
        "written once in a batch, here once for each event.",
    ),
    "batches": _Graph(
        "CPU of the writer by calls in a batch",
        "call in a batch",
        "calls in a batch",
        "µs a call",
        "A batch is written five times a second: five hundred calls a second make batches of a hundred.",
    ),
    "database": _Graph(
        "CPU of the writer by the length of the recording",
        "line in the file",
        "lines in the file",
        "µs a line",
        "A hundred lines in a session, a fifth of the calls with both bodies. What pages over weeks show is counted "
        "ahead once an hour and once a day.",
    ),
    "sessions": _Graph(
        "CPU of the list of sessions by sessions", "session in the file", "sessions in the file", "ms a page"
    ),
    "pages": _Graph(
        "CPU of the desk's pages by the length of the recording",
        "line in the file",
        "lines in the file",
        "ms a page",
        "Every page is made anew each time. Five in a hundred calls failed, and errors are grouped by reading each.",
        log=True,
    ),
}


def draw(results: Results, folder: Path = IMAGES) -> None:
    """Write a graph of each result."""
    for name, (title, _, many, up, _text, log) in _GRAPHS.items():
        if name in results["found"]:
            lines = [Line(each, points) for each, points in results["found"][name].items()]
            (folder / f"growth-{name}.svg").write_text(graph(title, many, up, lines, log=log), encoding="utf-8")


def part(results: Results) -> str:
    """Return the part of the document on how cost grows, in Markdown: a graph and what it says for each result."""
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    told = [
        fill(
            "CPU time of the recorder in one process, from the bytes of the channel to the file, and of the desk on "
            "that file. Everything is recorded as by default: both bodies of every call, masked. "
            f"{results['measured']}, {machine}.",
            WIDTH,
        )
    ]
    for name, shown in _GRAPHS.items():
        if name in results["found"]:
            said = " ".join(_sentence(line, shown, each) for line, each in results["found"][name].items() if each)
            told += [f"### {shown.title}", f"![{shown.title}](images/growth-{name}.svg)", fill(said, WIDTH)]
            told += [fill(shown.text, WIDTH)] if shown.text else []
    return "\n\n".join(told) + "\n"


def _sentence(line: str, shown: _Graph, points: Points) -> str:
    (x, first), (far, last) = points[0], points[-1]
    unit, (_, most) = shown.up.partition(" ")[0], max(points, key=lambda point: point[1])
    begin = (
        f"{line[0].upper()}{line[1:]}: {_figure(first)} {unit} with {short(x)} {shown.one if x == 1 else shown.many}"
    )
    between = f", at most {_figure(most)} {unit} between" if most > 1.25 * max(first, last) else ""
    ratio = last / first
    grown = (
        "less"
        if ratio < 0.8
        else "no more"
        if ratio < 1.25
        else f"{_figure(ratio)} times as much for {_figure(far / x)} times as many"
    )
    return f"{begin}, {_figure(last)} {unit} with {short(far)}{between}: {grown}."


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    """Measure, keep the results and draw them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=10_000_000, help="lines of the longest recording")
    parser.add_argument("--only", default="", choices=["", *MEASURED])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    found: Found = {}
    if options.only and options.out.exists():
        found = orjson.loads(options.out.read_bytes())["found"]
    for name, measure in MEASURED.items():
        if options.only in {"", name}:
            print(name, flush=True)
            found |= asyncio.run(measure(options.events))
    results = Results(measured=f"{datetime.now(UTC):%Y-%m-%d}", machine=about(), found=found)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2) + b"\n")
    draw(results)
    print(part(results))


if __name__ == "__main__":
    main()
