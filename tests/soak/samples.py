"""What the processes of a tap take, second by second, and whether that grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

#: Bytes that the memory of a process may rise by over half a run: one more arena of the allocator, and the noise of a
#: line through a saw of buffers that fill and empty.
RELAY_RISE: Final = 2_000_000
RECORDER_RISE: Final = 8_000_000

#: Connections of a recorder to its file: the writer's and those of readers. Under load each keeps pages of it in
#: memory, 64 MB and 32 MB at most, so that memory rises until these are full of as much as there is.
CONNECTIONS: Final = 5

#: Bytes that an idle process may have more after a run than after its start: modules that were loaded when they were
#: first needed, templates, what is remembered of the sessions of the last minutes, and pieces of arenas that cannot be
#: given back. However long a run is, it is no more: a leak of any pace would show in half an hour.
RELAY_LEFT: Final = 4_000_000
RECORDER_LEFT: Final = 48_000_000

#: The descriptor that a relay keeps in reserve, from its first connection on.
RESERVE: Final = 1

#: Descriptors that an idle recorder may have more at the end than at the beginning: connections of its pool to the
#: recording and to its log, which are opened when they are first needed.
POOL: Final = 16


class Process(NamedTuple):
    """One process at one moment."""

    pid: int
    memory: int  # bytes that are its own alone (USS)
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """Look at a process; None where there is none any more."""
        proc = Path("/proc") / str(pid)
        try:
            rollup = (proc / "smaps_rollup").read_text()
            status = (proc / "status").read_text()
            descriptors = sum(1 for _ in (proc / "fd").iterdir())
        except OSError:
            return None
        own = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))
        threads = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Threads:"))
        return cls(pid, own * 1024, descriptors, threads)


@dataclass(frozen=True)
class Sample:
    """A tap at one moment."""

    at: float  # seconds since the beginning
    relay: Process
    recorder: Process | None  # None between two
    file: int  # bytes
    log: int  # bytes of the write-ahead log


def size(path: Path) -> int:
    """Return the size of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the straight line that fits points best (least squares); 0 for fewer than three."""
    if len(points) < 3:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


@dataclass(frozen=True)
class Growth:
    """How memory went over the second half of a run, in bytes: what a straight line through it rises by."""

    seconds: float
    relay: float
    recorder: float
    file: int  # the most that there was to keep pages of: the file and its log
    lives: int  # recorders that there were in that time

    def faults(self) -> list[str]:
        """Return what must not be, in words."""
        wrong = []
        if self.relay > RELAY_RISE:
            wrong.append(f"the relay's memory rises by {self.relay / 1e6:.1f} MB in {self.seconds:.0f} s")
        if self.recorder > RECORDER_RISE + CONNECTIONS * self.file:
            wrong.append(
                f"the recorder's memory rises by {self.recorder / 1e6:.1f} MB in {self.seconds:.0f} s, "
                f"and its file has {self.file / 1e6:.1f} MB"
            )
        if self.lives > 1:
            wrong.append(f"{self.lives} recorders in a time in which none was killed")
        return wrong


def growth(samples: Sequence[Sample]) -> Growth:
    """Return how memory went over the second half."""
    half = [sample for sample in samples if sample.at >= samples[-1].at / 2]
    relay = [(sample.at, float(sample.relay.memory)) for sample in half]
    recorder = [(sample.at, float(sample.recorder.memory)) for sample in half if sample.recorder is not None]
    seconds = half[-1].at - half[0].at
    return Growth(
        seconds,
        slope(relay) * seconds,
        slope(recorder) * seconds,
        max(sample.file + sample.log for sample in half),
        len({sample.recorder.pid for sample in half if sample.recorder is not None}),
    )


def left(idle: Sample, after: Sample) -> list[str]:
    """Return what either process has more after a run than before it, both times at rest, beyond what it may have."""
    if idle.recorder is None or after.recorder is None:
        return ["there is no recorder"]
    return [
        f"the {name} has {unit(now)} {what} at rest, {unit(before)} before"
        for name, what, before, now, more, unit in (
            ("relay", "descriptors", idle.relay.descriptors, after.relay.descriptors, RESERVE, str),
            ("relay", "of memory", idle.relay.memory, after.relay.memory, RELAY_LEFT, _megabytes),
            ("recorder", "descriptors", idle.recorder.descriptors, after.recorder.descriptors, POOL, str),
            ("recorder", "of memory", idle.recorder.memory, after.recorder.memory, RECORDER_LEFT, _megabytes),
        )
        if now > before + more
    ]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
