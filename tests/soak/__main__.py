"""The soak: ``python -m tests.soak --minutes 30 --seed 1``.

Two taps stand in front of one server and work for minutes under mixed traffic, while things go wrong: one keeps
everything, the other has a file so small that it deletes all the time. At the end the books have to balance (what
clients made, the server saw and the recordings hold, call by call), memory and descriptors have to be flat, the size
of the file explained, and no process left. Prints a table and a verdict; ends with 1 when something is not as it must.

Linux only: it reads /proc. Recorders are killed in the first third; over the second half, memory is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.soak.faults import ROOT, Faults, Server, recorder_of
from tests.soak.ledger import Account, Made, Seen, Stored, balance
from tests.soak.samples import Process, Sample, growth, left, size
from tests.soak.traffic import Traffic, everybody
from tests.tap import Tap, children

#: Numbered calls in a second, of all clients of both taps; beyond `FASTEST` a machine of two cores has no room for it.
RATE: Final = 60.0
FASTEST: Final = 200.0

#: What the second tap may keep: a minute or so.
SMALL: Final = "8MB"

#: After so long a session has ended, and is forgotten a minute later: what is remembered of sessions is full within
#: minutes, and a rise beyond that is none of theirs. It is half an hour where nothing is said.
IDLE: Final = "20s"

#: Seconds after the start until everything is there, after the end until memory is given back, and that clients take.
START: Final = 5.0
REST: Final = 20.0
LEAVING: Final = 45.0

#: Seconds that a run must have for its second half to tell growth from warming up.
WARM: Final = 60.0

#: Seconds between two looks into the recordings.
FOLLOW: Final = 2.0

#: What a file may hold besides bodies: bytes for each line of a timeline with its indices, and for everything else.
LINE: Final = 1_500
OTHER: Final = 3_000_000


class Quiet(Tap):
    """A tap whose live view is read and forgotten: in half an hour it says a lot."""

    def _read_events(self) -> None:
        assert self.process.stdout is not None
        for _ in self.process.stdout:
            pass


@dataclass
class Station:
    """One tap with everything that is known of it."""

    name: str
    tap: Tap
    stored: Stored
    traffic: Traffic
    samples: list[Sample] = field(default_factory=list)
    recorders: set[int] = field(default_factory=set)
    status: int | None = None

    def sample(self, at: float) -> Sample | None:
        """Look at both processes and the file; None when the relay is gone."""
        relay, pid = Process.of(self.tap.process.pid), recorder_of(self.tap)
        if relay is None:
            return None
        recorder = None if pid is None else Process.of(pid)
        if recorder is not None:
            self.recorders.add(recorder.pid)
        file = self.stored.file
        return Sample(at, relay, recorder, size(file), size(Path(f"{file}-wal")))


def main(arguments: Sequence[str]) -> int:
    """Soak, print what came of it and return the exit status."""
    parser = argparse.ArgumentParser(prog="make soak", description="Mixed traffic and random faults for minutes.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None, help="of the order of things; printed, to be given again")
    parser.add_argument("--rate", type=float, default=RATE, help=f"numbered calls a second, {FASTEST:g} at most")
    given = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    print(f"soak: {given.minutes:g} minutes, seed {seed}, {min(given.rate, FASTEST):g} numbered calls/s", flush=True)
    with tempfile.TemporaryDirectory(prefix="mcp-tap-soak-") as directory:
        return asyncio.run(Soak(Path(directory), given.minutes * 60, seed, min(given.rate, FASTEST)).run())


class Soak:
    """One run."""

    def __init__(self, directory: Path, seconds: float, seed: int, rate: float) -> None:
        self._directory = directory
        self._seconds = seconds
        self._rng = random.Random(seed)
        self._rate = rate
        self._made = Made()
        self._seen = Seen(directory / "seen")
        self._began = time.monotonic()
        self._wrong: list[str] = []

    def _say(self, line: str) -> None:
        print(f"{time.monotonic() - self._began:7.0f} s  {line}", flush=True)

    async def run(self) -> int:
        """Run and return the exit status."""
        server = Server(self._directory / "seen")
        try:
            stations = [self._station(0, "keeps all", server), self._station(1, f"keeps {SMALL}", server)]
            try:
                await self._soak(stations, server)
            finally:
                for station in stations:
                    if station.tap.process.poll() is None:
                        station.tap.process.kill()
                    station.tap.process.wait()
        finally:
            server.stop()
            self._seen.close()
        left = [pid for pid in children(os.getpid()) if Path(f"/proc/{pid}").exists()]  # who was asked was one, too
        if left:
            self._wrong.append(f"processes left: {left}")
        print(f"\n{'FAILED' if self._wrong else 'passed'}: {len(self._wrong)} things are not as they must be")
        for line in self._wrong:
            print(f"  {line}")
        return int(bool(self._wrong))

    def _station(self, number: int, name: str, server: Server) -> Station:
        file = self._directory / f"tap{number + 1}.db"
        environment = os.environ | {"MCP_TAP_RECORD_SESSION_IDLE": IDLE}
        if number:
            environment["MCP_TAP_RECORD_MAX_SIZE"] = SMALL
        command = [sys.executable, "-m", "mcp_tap.cli", server.url, "--store", f"sqlite:///{file}"]
        command += ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT
        )
        tap = Quiet(process, file)
        rng = random.Random(self._rng.random())
        traffic = Traffic(number, tap.proxy, tap.desk, self._made, rng, self._rate / 2)
        return Station(name, tap, Stored(file), traffic)

    async def _soak(self, stations: list[Station], server: Server) -> None:
        await asyncio.sleep(START)
        idle = [station.sample(0) for station in stations]
        self._began = time.monotonic()
        working = [everybody(station.traffic) for station in stations]
        faults = Faults([station.tap for station in stations], server, random.Random(self._rng.random()), self._say)
        ending = asyncio.Event()
        going_wrong = asyncio.create_task(faults.run(max(3.0, min(15.0, self._seconds / 60)), ending))
        following = asyncio.create_task(self._follow(stations, ending))
        await self._watch(stations, faults)
        ending.set()
        for station in stations:
            station.traffic.ending.set()
        tasks = [task for tasks in working for task in tasks]
        _, late = await asyncio.wait([*tasks, going_wrong, following], timeout=LEAVING)
        self._wrong += [f"a client did not end: {task}" for task in late]
        for task in {*tasks, going_wrong, following} - late:
            if task.exception() is not None:
                self._wrong.append(f"a client of the soak itself failed: {task.exception()!r}")
        await asyncio.sleep(REST)
        after = [station.sample(self._seconds) for station in stations]
        accounts = [await asyncio.to_thread(self._closed, station) for station in stations]
        self._report(stations, faults, accounts, idle, after)
        for station, before, behind in zip(stations, idle, after, strict=True):
            if before is None or behind is None:
                self._wrong.append(f"{station.name}: the tap ended")
            else:
                self._judge(station, before, behind)

    async def _watch(self, stations: list[Station], faults: Faults) -> None:
        """Look at everything each second until the time is over."""
        shown = 0.0
        while (at := time.monotonic() - self._began) < self._seconds:
            faults.killing = at < self._seconds / 3
            for station in stations:
                sample = await asyncio.to_thread(station.sample, at)
                if sample is None:
                    self._wrong.append(f"{station.name}: the tap ended after {at:.0f} s: {station.tap.said[-5:]}")
                    return
                station.samples.append(sample)
            if at - shown >= 30:
                shown = at
                self._say(f"{self._made.count} calls; " + "; ".join(map(_moment, stations)))
            await asyncio.sleep(1)

    async def _follow(self, stations: list[Station], ending: asyncio.Event) -> None:
        """Read what the recordings hold before it is pruned."""
        while not ending.is_set():
            for station in stations:
                with contextlib.suppress(sqlite3.OperationalError):  # locked, or being made
                    await asyncio.to_thread(station.stored.follow)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), FOLLOW)

    def _closed(self, station: Station) -> Account:
        """Stop a tap in order, and hold what it recorded against what happened."""
        station.status = station.tap.stop()
        if Path(f"{station.stored.file}-wal").exists():
            self._wrong.append(f"{station.name}: the write-ahead log is left")
        station.stored.follow()
        return balance(self._made.through(station.traffic.tap), self._seen, station.stored)

    # ------------------------------------------------------------------------------------------------ the verdict

    def _judge(self, station: Station, before: Sample, after: Sample) -> None:
        account = balance(self._made.through(station.traffic.tap), self._seen, station.stored)
        wrong = [*account.faults(), *left(before, after)]
        if self._seconds >= WARM:
            wrong += growth(station.samples).faults()
        if station.status:
            wrong.append(f"the tap ended with status {station.status}")
        wrong += [f"it said: {line}" for line in station.tap.said if "error" in line.lower() or "Traceback" in line]
        if not account.whole:
            wrong.append("no call was recorded as answered")
        wrong += [f"process {pid} is left" for pid in station.recorders if Path(f"/proc/{pid}").exists()]
        weight = _weight(station.stored.file)
        if weight.file > weight.explained:
            wrong.append(f"the file has {weight.file / 1e6:.1f} MB, {weight.explained / 1e6:.1f} MB are explained")
        if station.traffic.tap and not weight.pruned:
            print("note: the run was too short for anything to be pruned")
        self._wrong += [f"{station.name}: {line}" for line in wrong]

    def _report(
        self,
        stations: list[Station],
        faults: Faults,
        accounts: list[Account],
        idle: list[Sample | None],
        after: list[Sample | None],
    ) -> None:
        print(f"\n{'':34}" + "".join(f"{station.name:>22}" for station in stations))

        def row(name: str, *cells: object) -> None:
            print(f"{name:34}" + "".join(f"{cell!s:>22}" for cell in cells))

        for label, key in (
            ("calls made", "made"), ("  answered", "answered"), ("  given up by the client", "given_up"),
            ("  cut by a fault", "failed"), ("seen by the server", "seen"), ("stored", "stored"),
            ("  of the answered, as succeeded", "whole"), ("lost", "lost"),
            ("  marked so in their own row", "abandoned"), ("pieces marked as dropped", "dropped"),
            ("seen twice, stored twice, invented", ""),
        ):  # fmt: skip
            row(label, *(getattr(a, key) if key else a.seen_twice + a.stored_twice + a.invented for a in accounts))
        row("calls without a number, stored", *(len(station.stored.others) for station in stations))
        for what in sorted({key for station in stations for key in station.traffic.counts}):
            row(what, *(station.traffic.counts[what] for station in stations))
        samples = [station.samples for station in stations]
        grown, rests = [growth(each) for each in samples], [*zip(idle, after, strict=True)]
        row("relay: MB under load, at the end", *(f"{each[-1].relay.memory / 1e6:.1f}" for each in samples))
        row("  rise over the second half", *(f"{each.relay / 1e6:+.2f}" for each in grown))
        row("  at rest before, after", *(_at_rest(b.relay if b else None, a.relay if a else None) for b, a in rests))
        row("recorder: MB under load, at the end", *(f"{_last(each).memory / 1e6:.1f}" for each in samples))
        row("  rise over the second half", *(f"{each.recorder / 1e6:+.2f}" for each in grown))
        row(
            "  at rest before, after",
            *(_at_rest(b.recorder if b else None, a.recorder if a else None) for b, a in rests),
        )
        row("relay: descriptors, most", *(max(s.relay.descriptors for s in each) for each in samples))
        row("recorder: descriptors, most", *(max(p.descriptors for p in _recorders(each)) for each in samples))
        row("recorder: threads, most", *(max(p.threads for p in _recorders(each)) for each in samples))
        row("write-ahead log: MB, most", *(f"{max(s.log for s in each) / 1e6:.1f}" for each in samples))
        weights = [_weight(station.stored.file) for station in stations]
        row("file: MB", *(f"{weight.file / 1e6:.1f}" for weight in weights))
        row("  lines in it, pruned", *(f"{weight.lines}, {weight.pruned}" for weight in weights))
        row("  bytes a line, of them bodies", *(f"{weight.each:.0f}, {weight.bodies_each:.0f}" for weight in weights))
        print("\nfaults: " + "; ".join(f"{what} {count}" for what, count in sorted(faults.counts.items())))


@dataclass(frozen=True)
class Weight:
    """What a file holds."""

    file: int
    lines: int
    bodies: int  # bytes
    free: int  # bytes of pages that wait to be used again
    pruned: int  # lines that were there and are not any more

    @property
    def each(self) -> float:
        """Bytes of the file for each line."""
        return self.file / max(1, self.lines)

    @property
    def bodies_each(self) -> float:
        """Bytes of bodies for each line."""
        return self.bodies / max(1, self.lines)

    @property
    def explained(self) -> int:
        """How large the file may be for what it holds; pages of bodies have a last one that is not full."""
        return int(self.bodies * 1.5) + self.lines * LINE + self.free + OTHER


def _weight(file: Path) -> Weight:
    with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as db:
        lines, newest = db.execute("SELECT count(*), coalesce(max(pk), 0) FROM timeline").fetchone()
        bodies = db.execute("SELECT coalesce(sum(length(data)), 0) FROM body").fetchone()[0]
        free = db.execute("PRAGMA freelist_count").fetchone()[0] * db.execute("PRAGMA page_size").fetchone()[0]
    return Weight(size(file), lines, bodies, free, newest - lines)


def _recorders(samples: Sequence[Sample]) -> list[Process]:
    return [sample.recorder for sample in samples if sample.recorder is not None]


def _last(samples: Sequence[Sample]) -> Process:
    return _recorders(samples)[-1]


def _at_rest(before: Process | None, after: Process | None) -> str:
    return ", ".join("-" if each is None else f"{each.memory / 1e6:.1f}" for each in (before, after))


def _moment(station: Station) -> str:
    sample = station.samples[-1]
    recorder = f"{sample.recorder.memory / 1e6:.1f}" if sample.recorder else "-"
    return f"{station.name}: {sample.relay.memory / 1e6:.1f} + {recorder} MB, file {sample.file / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
