"""A soak finds what it is there to find, and a short one passes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.soak.faults import ROOT
from tests.soak.ledger import Made, Outcome, Seen, Stored, balance, read, written
from tests.soak.samples import (
    CONNECTIONS,
    RECORDER_LEFT,
    RECORDER_RISE,
    RELAY_RISE,
    Process,
    Sample,
    growth,
    left,
    slope,
)

#: Bytes of the file of a run.
FILE = 10_000_000


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[Seen]:
    shared = Seen(tmp_path / "seen")
    yield shared
    shared.close()


def test_a_number_comes_back() -> None:
    assert [read(written(7)), read("soak"), read(7), read(None)] == [7, None, None, None]


def books(seen: Seen) -> tuple[Made, Stored]:
    """Return books that balance: three calls that were answered, one that was cut before the server saw it."""
    made, stored = Made(), Stored(Path("nowhere"))
    for outcome in (Outcome.ANSWERED, Outcome.ANSWERED, Outcome.ANSWERED, Outcome.FAILED):
        made.end(made.begin(0), outcome)
    for number in range(3):
        seen.add(number)
        stored.rows[number] = number + 1, "succeeded"
    return made, stored


def test_books_that_balance(seen: Seen) -> None:
    made, stored = books(seen)
    made.end(made.begin(1), Outcome.ANSWERED)  # through the other tap
    account = balance(made.through(0), seen, stored)
    assert account.faults() == []
    assert (account.made, account.answered, account.failed, account.seen, account.whole, account.lost) == (
        4,
        3,
        1,
        3,
        3,
        0,
    )


@pytest.mark.parametrize("how", ["not stored", "http_error"])
def test_a_call_that_is_lost_and_not_marked(seen: Seen, how: str) -> None:
    made, stored = books(seen)
    if how == "not stored":
        del stored.rows[1]
    else:
        stored.rows[1] = 2, how
    [fault] = balance(made.through(0), seen, stored).faults()
    assert fault == f"1 calls are lost (1 {how}), but only 0 pieces are marked as dropped"
    stored.dropped[9] = 2
    assert balance(made.through(0), seen, stored).faults() == []


def test_a_call_whose_row_says_that_its_answer_was_not_recorded(seen: Seen) -> None:
    made, stored = books(seen)
    stored.rows[1] = 2, "abandoned"
    account = balance(made.through(0), seen, stored)
    assert (account.faults(), account.lost, account.abandoned) == ([], 1, 1)


def test_what_must_never_be(seen: Seen) -> None:
    made, stored = books(seen)
    seen.add(0)
    stored.twice.add(1)
    stored.rows[77] = 9, "succeeded"
    made.end(3, Outcome.ANSWERED)
    stored.rows[3] = 4, "succeeded"
    faults = balance(made.through(0), seen, stored).faults()
    assert [fault.partition(" calls ")[2] for fault in faults] == [
        "reached the server twice",
        "are stored twice",
        "are stored that nobody made",
        "were answered that the server never saw",
    ]


def test_a_recording_is_followed_by_change(tmp_path: Path) -> None:
    stored = Stored(tmp_path / "tap.db")
    columns = "change INTEGER, pk INTEGER PRIMARY KEY, type TEXT, jsonrpc_id TEXT, status TEXT, dropped INTEGER, "
    columns += "failure_reason TEXT"
    with sqlite3.connect(stored.file) as db:
        db.execute(f"CREATE TABLE timeline ({columns})")
        rows = [
            (1, 1, "tools/call", '"soak-5"', "waiting_for_response", 0), (2, 2, "tools/call", "1", "succeeded", 0),
            (3, 3, "ping", '"soak-6"', "succeeded", 0), (4, 4, "records_dropped", None, None, 12),
        ]  # fmt: skip
        db.executemany("INSERT INTO timeline VALUES (?, ?, ?, ?, ?, ?, NULL)", rows)
        db.commit()
        stored.follow()
        db.execute("UPDATE timeline SET change = 5, status = 'succeeded' WHERE pk = 1")
        db.execute("DELETE FROM timeline WHERE pk = 4")  # pruned: it was there all the same
        db.execute("INSERT INTO timeline VALUES (6, 9, 'tools/call', '\"soak-5\"', 'failed', 0, 'abandoned')")
        db.commit()
        stored.follow()
    db.close()
    assert (stored.rows, stored.twice, stored.others, stored.dropped) == ({5: (9, "abandoned")}, {5}, {2}, {4: 12})


def run(relay: float = 0, recorder: float = 0, pids: int = 1) -> list[Sample]:
    """Return the samples of a minute in which these grow by so many bytes a second."""
    return [
        Sample(
            float(at),
            Process(1, 15_000_000 + int(relay * at) + at % 3 * 10_000, 20, 1),
            Process(2 + at * pids // 61, 50_000_000 + int(recorder * at), 30, 9) if at % 7 else None,
            FILE,
            0,
        )
        for at in range(61)
    ]


def test_a_straight_line() -> None:
    assert slope([(float(x), 3.0 * x + 7) for x in range(10)]) == pytest.approx(3)
    assert slope([(1.0, 5.0)]) == 0


def test_memory_that_is_flat_or_holds_pages_of_the_file() -> None:
    assert growth(run()).faults() == []
    assert growth(run(recorder=(RECORDER_RISE + FILE) / 30)).faults() == []


@pytest.mark.parametrize(
    ("samples", "word"),
    [
        (run(relay=RELAY_RISE * 1.2 / 30), "relay's memory"),
        (run(recorder=(RECORDER_RISE + CONNECTIONS * FILE) * 1.2 / 30), "recorder's memory"),
        (run(pids=3), "2 recorders"),
    ],
)
def test_growth_without_a_reason(samples: list[Sample], word: str) -> None:
    [fault] = growth(samples).faults()
    assert word in fault


def test_what_is_left_when_all_is_at_rest() -> None:
    idle = run()[1]
    assert idle.recorder is not None
    assert left(idle, idle) == []
    relay, recorder = idle.relay._replace(descriptors=22), idle.recorder._replace(memory=50_000_000 + RECORDER_LEFT + 1)
    assert left(idle, replace(idle, relay=relay, recorder=recorder)) == [
        "the relay has 22 descriptors at rest, 20 before",
        f"the recorder has {(50_000_001 + RECORDER_LEFT) / 1e6:.1f} MB of memory at rest, 50.0 MB before",
    ]
    assert left(idle, replace(idle, recorder=None)) == ["there is no recorder"]


@pytest.mark.matrix
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc; run it there")
def test_a_short_soak() -> None:
    command = [sys.executable, "-m", "tests.soak", "--minutes", "0.2", "--seed", "1", "--rate", "30"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed: 0 things" in done.stdout
