"""Who says what of every call: the client that made it, the server that saw it, and the store that kept it.

A call has a number of its own for the whole run, which travels as its JSON-RPC id. The server counts into a mapped
file, so that a server that is killed forgets nothing. The store is followed by change number while the run goes on, as
a live reader does it: a row that is pruned later was there all the same.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Final

#: More calls than the longest run makes at the highest rate, in four hours.
MOST: Final = 3_000_000

_PREFIX: Final = "soak-"

_PAGE: Final = 5_000


class Outcome(IntEnum):
    """What became of a call, as its client sees it."""

    NOT_MADE = 0
    UNDER_WAY = 1
    ANSWERED = 2
    FAILED = 3  # the connection was cut, or something else than an answer came
    GIVEN_UP = 4  # by the client


def written(number: int) -> str:
    """Return the JSON-RPC id of a numbered call."""
    return f"{_PREFIX}{number}"


def read(id_: object) -> int | None:
    """Return the number in a JSON-RPC id, or None where it is the id of another call."""
    if not isinstance(id_, str) or not id_.startswith(_PREFIX):
        return None
    return int(id_.removeprefix(_PREFIX))


class Seen:
    """What the server saw: how often each numbered call arrived. Shared between processes through a file."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(MOST))
        with path.open("r+b") as file:
            self._counts = mmap.mmap(file.fileno(), MOST)

    def add(self, number: int) -> None:
        """Count one arrival."""
        self._counts[number] = min(255, self._counts[number] + 1)

    def __getitem__(self, number: int) -> int:
        return self._counts[number]

    def close(self) -> None:
        """Let go of the file."""
        self._counts.close()


class Made:
    """What clients made: through which tap, and with what outcome."""

    def __init__(self) -> None:
        self.count = 0
        self._outcomes = bytearray(MOST)
        self._taps = bytearray(MOST)

    def begin(self, tap: int) -> int:
        """Return the number of a new call through a tap."""
        number = self.count
        self.count += 1
        self._outcomes[number], self._taps[number] = Outcome.UNDER_WAY, tap
        return number

    def end(self, number: int, outcome: Outcome) -> None:
        """Note what became of a call."""
        self._outcomes[number] = outcome

    def through(self, tap: int) -> dict[int, Outcome]:
        """Return the outcomes of all calls through a tap."""
        return {number: Outcome(self._outcomes[number]) for number in range(self.count) if self._taps[number] == tap}


@dataclass
class Stored:
    """What one recording keeps, followed while it grows."""

    file: Path
    rows: dict[int, tuple[int, str]] = field(default_factory=dict)  # number -> pk, and why it failed, else its status
    twice: set[int] = field(default_factory=set)  # numbers with two rows
    others: set[int] = field(default_factory=set)  # rows of calls without a number
    dropped: dict[int, int] = field(default_factory=dict)  # row -> pieces of traffic that it says are missing
    _after: int = 0

    def follow(self) -> None:
        """Read what was written or changed since the last time."""
        with contextlib.closing(sqlite3.connect(f"{self.file.as_uri()}?mode=ro", uri=True, timeout=10)) as db:
            while rows := db.execute(
                "SELECT change, pk, type, jsonrpc_id, coalesce(failure_reason, status), dropped FROM timeline "
                "WHERE change > ? ORDER BY change LIMIT ?",
                (self._after, _PAGE),
            ).fetchall():
                for change, pk, type_, id_, status, dropped in rows:
                    self._after = change
                    if type_ == "records_dropped":
                        self.dropped[pk] = dropped
                    elif type_ == "tools/call":
                        self._take(pk, id_, status)

    def _take(self, pk: int, id_: str | None, status: str) -> None:
        number = None if id_ is None else read(json.loads(id_))
        if number is None:
            self.others.add(pk)
            return
        known = self.rows.get(number)
        if known is not None and known[0] != pk:
            self.twice.add(number)
        self.rows[number] = pk, status


@dataclass(frozen=True)
class Account:
    """The three sides of one tap's calls held against each other; each number is one of calls."""

    made: int
    answered: int
    given_up: int
    failed: int
    seen: int  # by the server
    stored: int
    whole: int  # stored as succeeded, of those that were answered
    lost: int  # answered or seen, and not stored, or not as succeeded though answered
    abandoned: int  # of the lost, those whose own row says so: a recorder died between question and answer
    otherwise: str  # how the rest of the lost is stored
    dropped: int  # pieces of traffic that the recording says are missing: a call has at least two
    seen_twice: int
    stored_twice: int
    invented: int  # stored and never made
    unseen: int  # answered and never seen by the server

    def faults(self) -> list[str]:
        """Return what must not be, in words."""
        wrong = [
            f"{count} calls {what}"
            for count, what in (
                (self.seen_twice, "reached the server twice"),
                (self.stored_twice, "are stored twice"),
                (self.invented, "are stored that nobody made"),
                (self.unseen, "were answered that the server never saw"),
            )
            if count
        ]
        if self.lost - self.abandoned > self.dropped:
            lost = f"{self.lost - self.abandoned} calls are lost ({self.otherwise})"
            wrong.append(f"{lost}, but only {self.dropped} pieces are marked as dropped")
        return wrong


def balance(calls: dict[int, Outcome], seen: Seen, stored: Stored) -> Account:
    """Hold the calls through one tap against what the server saw and what is stored."""
    outcomes = [*calls.values()]
    answered = {number for number, outcome in calls.items() if outcome is Outcome.ANSWERED}
    arrived = {number for number in calls if seen[number]}
    whole = {number for number in answered if stored.rows.get(number, (0, ""))[1] == "succeeded"}
    lost = (answered - whole) | (arrived - stored.rows.keys())
    how = Counter(stored.rows.get(number, (0, "not stored"))[1] for number in lost)
    abandoned = how.pop("abandoned", 0)
    return Account(
        made=len(calls),
        answered=len(answered),
        given_up=outcomes.count(Outcome.GIVEN_UP),
        failed=outcomes.count(Outcome.FAILED) + outcomes.count(Outcome.UNDER_WAY),
        seen=len(arrived),
        stored=len(stored.rows),
        whole=len(whole),
        lost=len(lost),
        abandoned=abandoned,
        otherwise=", ".join(f"{count} {what}" for what, count in sorted(how.items())),
        dropped=sum(stored.dropped.values()),
        seen_twice=sum(seen[number] > 1 for number in calls),
        stored_twice=len(stored.twice),
        invented=len(stored.rows.keys() - calls.keys()),
        unseen=len(answered - arrived),
    )
