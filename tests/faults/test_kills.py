"""Processes that are killed at random moments under load: traffic goes on, the file stays whole, no loss is unsaid.

The moments come from a seed that every failure prints; `FAULTS_SEED` sets it. What may be lost is one batch: what the
recorder had taken in and not yet written. It is checked call by call, with what client and server counted.
"""

from __future__ import annotations

import os
import random
import re
import signal
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.faults.traffic import Counts, Traffic
from tests.tap import Tap, running

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc; run it there")

#: Seconds of traffic that one kill may cost: a batch is collected for 0.2 s, and then written.
BATCH: Final = 0.6

#: Seconds between two calls of a client, and until a slow call is answered: some are always in flight.
PAUSE: Final = 0.01
SLOW: Final = 0.7

#: Microseconds by which two processes may see a moment apart: each joins the two clocks by itself.
CLOCKS_US: Final = 2000

#: Lines that say that a whole tap was killed.
KILLED: Final = "SELECT at_us, at_us + duration_us AS until_us FROM timeline WHERE note LIKE 'the tap was killed%'"

#: What takes longer than a moment is run by CI, too; what is `LONG` by `make faults` alone.
IN_CI = True
LONG = [pytest.mark.matrix, pytest.mark.links]

TIMES = [2, pytest.param(50, marks=LONG)]


@pytest.fixture
def moments() -> random.Random:
    seed = int(os.environ.get("FAULTS_SEED", time.time_ns() % 1_000_000))
    print(f"FAULTS_SEED={seed}")
    return random.Random(seed)


@pytest.mark.parametrize("times", TIMES)
def test_a_recorder_that_is_killed_again_and_again(times: int, moments: random.Random, tmp_path: Path) -> None:
    with Traffic() as traffic, running(traffic.url, tmp_path / "tap.db") as tap:
        traffic.begin(tap.proxy, pause=PAUSE)
        traffic.begin(tap.proxy, clients=3, wait=SLOW)
        for _ in range(times):
            time.sleep(moments.uniform(0, 1.5))
            killed = tap.recorder
            os.kill(killed, signal.SIGKILL)
            tap.until(partial(another, tap, killed))
        counts = traffic.end()
        assert tap.stop() == 0
    answered_once(traffic, counts)
    whole(tap)
    calls = recorded(tap)
    gaps = tap.rows("SELECT at_us, duration_us, dropped, note FROM timeline WHERE type = 'records_dropped'")
    assert {gap["note"] for gap in gaps} <= {"the recorder died"}
    assert len(gaps) <= times
    lost = [number for number in counts.answered if calls.get(number) != "succeeded"]
    # each of them lacks one piece at least, and its time is in what is said to be lacking
    assert len(lost) <= sum(gap["dropped"] for gap in gaps)
    assert unsaid(tap, counts) == []
    assert set(calls.values()) <= {"succeeded", "abandoned"}
    spans = [gap["duration_us"] for gap in gaps]
    assert statistics.median(spans or [0]) < BATCH * 1_000_000, spans


@pytest.mark.parametrize("times", [1, *TIMES[1:]])
def test_both_processes_killed_again_and_again(times: int, moments: random.Random, tmp_path: Path) -> None:
    file = tmp_path / "tap.db"
    killed_us, lost = 0, set[int]()
    with Traffic() as traffic:
        for number in range(times + 1):
            with running(traffic.url, file) as tap:
                if killed_us:
                    lost |= lost_with_a_kill(tap, traffic.counts, killed_us, lost)
                traffic.begin(tap.proxy, pause=PAUSE)
                if killed_us:
                    tap.until(partial(said_to_be_killed, tap, killed_us))
                traffic.begin(tap.proxy, clients=3, wait=SLOW)
                tap.until(partial(tap.rows, "SELECT 1 FROM connection"))
                time.sleep(moments.uniform(0.0, 1.0))
                if number == times:
                    traffic.end()
                    assert tap.stop() == 0
                    break
                both = [tap.process.pid, tap.recorder]
                moments.shuffle(both)
                for pid in both:
                    os.kill(pid, signal.SIGKILL)
                killed_us = time.time_ns() // 1000
                tap.process.wait()
                traffic.end()
                tap.join()
            assert len(tap.said) > 3
    whole(tap)
    assert set(recorded(tap).values()) <= {"succeeded", "abandoned"}


def test_a_stop_under_load_loses_nothing(tmp_path: Path) -> None:
    environment = os.environ | {"MCP_TAP_PROXY_DRAIN": "1s"}
    with Traffic() as traffic, running(traffic.url, tmp_path / "tap.db", env=environment) as tap:
        traffic.begin(tap.proxy, clients=32, pause=PAUSE)
        traffic.begin(tap.proxy, clients=3, wait=SLOW)
        traffic.until(500)
        assert tap.stop() == 0, "\n".join(tap.said)
        counts = traffic.end()
    whole(tap)
    calls = recorded(tap)
    assert [number for number in counts.answered if calls.get(number) != "succeeded"] == []
    # the others were cut off or refused; those that the server never saw are on record as that, or nowhere
    assert {number for number, status in calls.items() if status == "succeeded"} <= traffic.seen.keys()
    assert tap.rows("SELECT * FROM timeline WHERE type = 'records_dropped'") == []
    assert not any("not recorded" in line for line in tap.said)


@pytest.mark.matrix
@pytest.mark.links
def test_a_stop_after_the_recorder_has_died_says_what_it_lost(moments: random.Random, tmp_path: Path) -> None:
    for number in range(5):
        environment = os.environ | {"MCP_TAP_PROXY_DRAIN": "1s"}
        with Traffic() as traffic, running(traffic.url, tmp_path / f"{number}.db", env=environment) as tap:
            traffic.begin(tap.proxy, clients=4, pause=PAUSE)
            traffic.until(200)
            os.kill(tap.recorder, signal.SIGKILL)
            time.sleep(moments.uniform(0.0, 0.3))
            assert tap.stop() == 0, "\n".join(tap.said)
            counts = traffic.end()
        whole(tap)
        assert unsaid(tap, counts) == []


@pytest.mark.matrix
@pytest.mark.links
def test_a_stop_beyond_saturation_says_what_it_lost(tmp_path: Path) -> None:
    with Traffic() as traffic:
        with running(traffic.url, tmp_path / "tap.db") as tap:
            traffic.begin(tap.proxy, clients=32)
            time.sleep(5)
            assert tap.stop() == 0, "\n".join(tap.said)
            counts = traffic.end()
        whole(tap)
        calls = recorded(tap)
        lost = [number for number in counts.answered if calls.get(number) != "succeeded"]
        said = sum(row["dropped"] for row in tap.rows("SELECT dropped FROM timeline WHERE type = 'records_dropped'"))
        unwritten = sum(int(number) for line in tap.said for number in re.findall(r"the last (\d+) pieces", line))
        assert len(lost) <= said + unwritten, "\n".join(tap.said)
        if unwritten:  # on a busy machine not even a line about it may be written in time: the next start does that
            with running(traffic.url, tmp_path / "tap.db") as again:
                traffic.begin(again.proxy, clients=1, pause=PAUSE)
                again.until(lambda: again.rows(KILLED))
                traffic.end()
                assert again.stop() == 0
        assert unsaid(tap, counts) == []


def lost_with_a_kill(tap: Tap, counts: Counts, killed_us: int, before: set[int]) -> set[int]:
    """Return which answered calls a kill has cost beyond those lost before; check that it is one batch at most."""
    whole(tap)
    calls = recorded(tap)
    assert "waiting_for_response" not in calls.values()
    lost = {number for number in counts.answered if calls.get(number) != "succeeded"} - before
    for number in lost:
        assert wall_us(counts.answered[number][1]) > killed_us - BATCH * 1_000_000, number
    return lost


def said_to_be_killed(tap: Tap, killed_us: int) -> bool:
    """Whether the record says that a tap was killed around a moment."""
    return any(row["at_us"] <= killed_us <= row["until_us"] for row in tap.rows(KILLED))


def answered_once(traffic: Traffic, counts: Counts) -> None:
    """Check that no call was missed or made twice on its way."""
    assert counts.failed == {}
    assert set(traffic.seen) == set(counts.answered)
    assert set(traffic.seen.values()) == {1}


def whole(tap: Tap) -> None:
    """Check that nothing in the file contradicts itself."""
    assert tap.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    twice = "SELECT change FROM (SELECT change FROM timeline UNION ALL SELECT change FROM connection) GROUP BY 1"
    assert tap.rows(f"{twice} HAVING count(*) > 1") == []
    orphans = "SELECT pk FROM timeline WHERE connection NOT IN (SELECT pk FROM connection)"
    assert tap.rows(orphans) == []


def unsaid(tap: Tap, counts: Counts, since_ns: int = 0) -> list[int]:
    """Return the calls since a moment that are not whole in the record, and of whose time it does not say so."""
    calls = recorded(tap)
    gaps = tap.rows("SELECT at_us, at_us + duration_us AS until_us FROM timeline WHERE type = 'records_dropped'")
    lacking = []
    for number, (asked, answered) in counts.answered.items():
        if asked >= since_ns and calls.get(number) != "succeeded":
            begin, end = wall_us(asked) - CLOCKS_US, wall_us(answered) + CLOCKS_US
            if not any(begin <= gap["until_us"] and end >= gap["at_us"] for gap in gaps):
                lacking.append(number)
    return lacking


def recorded(tap: Tap) -> dict[int, str]:
    """Return what the record says of each call by its id: the reason of a failure, or its status."""
    rows = tap.rows("SELECT jsonrpc_id, status, failure_reason FROM timeline WHERE type = 'tools/call' ORDER BY pk")
    calls: dict[int, str] = {}
    for row in rows:
        number = int(row["jsonrpc_id"])
        assert number not in calls, "recorded twice"
        calls[number] = row["failure_reason"] or row["status"]
    return calls


def recorder(tap: Tap) -> int:
    """Return the recorder's process id, 0 while there is none."""
    children = Path(f"/proc/{tap.process.pid}/task/{tap.process.pid}/children").read_text().split()
    return int(children[0]) if children else 0


def another(tap: Tap, recorder_before: int) -> bool:
    """Whether another recorder was started."""
    return recorder(tap) not in (0, recorder_before)


def wall_us(monotonic_ns: int) -> int:
    """Return what the wall clock said at a moment."""
    return (time.time_ns() - time.monotonic_ns() + monotonic_ns) // 1000
