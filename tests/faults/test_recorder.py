"""A recorder that is killed, or stands still, while real clients work: they notice nothing, and no loss is unsaid."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.faults.raw import RawClient, http
from tests.sdk.harness import run_client, sample_server
from tests.tap import PATIENCE, Tap, running

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc; run it there")

#: Calls of each client, and those of the first client's at which something happens to the recorder.
CALLS = 40
MIDDLE = 20
LATER = 25

#: How many raw clients of each era work at once.
RAW = 2

#: Sessions of clients that made more calls than are recorded, and that do not say so. One call opens a session.
UNMARKED = f"SELECT era, calls, origin_note FROM sessions WHERE dropped = 0 AND calls < {CALLS + 1}"

SDKS = [
    pytest.param((), id="raw"),
    pytest.param(("py1", "py2-auto", "py2-legacy", "ts"), id="sdk", marks=[pytest.mark.sdk, pytest.mark.matrix]),
]


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with sample_server() as url:
        yield url


def work(url: str, sdks: tuple[str, ...], middle: Callable[[], None], later: Callable[[], None] = lambda: None) -> int:
    """Let all clients work at once, check that each got every answer, and return how many calls they made."""

    def raw(number: int) -> None:
        with http(PATIENCE) as connections:
            client = RawClient(connections, url, modern=bool(number % 2), **{"user-agent": f"raw/{number}"})
            client.open()
            for call in range(CALLS):
                if (number, call) == (0, MIDDLE):
                    middle()
                elif (number, call) == (0, LATER):
                    later()
                seen = client.call(call + 2, "get_weather", city="Oslo")
                assert (seen["status"], seen["failed"], len(seen["messages"])) == (200, None, 1)
                assert seen["messages"][0]["id"] == call + 2

    def official(client: str) -> None:
        said = run_client(client, url, [("get_weather", {"city": "Oslo"})] * CALLS)
        assert [call["outcome"] for call in said["calls"]] == ["ok"] * CALLS

    with ThreadPoolExecutor() as pool:
        working = [pool.submit(raw, number) for number in range(2 * RAW)] + [pool.submit(official, sdk) for sdk in sdks]
        for each in working:
            each.result()
    return CALLS * len(working)


def death(recorder: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return what kills a recorder that surely has something it did not write: it stands still before."""
    return lambda: os.kill(recorder, signal.SIGSTOP), lambda: os.kill(recorder, signal.SIGKILL)


def need(sdks: tuple[str, ...], sdk: Callable[[str], None]) -> None:
    for each in sdks:
        sdk(each)


def called(tap: Tap) -> list[dict[str, Any]]:
    return tap.rows("SELECT status, failure_reason, dropped FROM events WHERE type = 'tools/call'")


def dropped(tap: Tap) -> list[dict[str, Any]]:
    return tap.rows("SELECT dropped, note FROM events WHERE type = 'records_dropped'")


@pytest.mark.parametrize("sdks", SDKS)
def test_a_recorder_that_is_killed_under_load(
    sdks: tuple[str, ...], sdk: Callable[[str], None], upstream: str, tmp_path: Path
) -> None:
    need(sdks, sdk)
    with running(upstream, tmp_path / "tap.db") as tap:
        first = tap.recorder
        made = work(tap.proxy, sdks, *death(first))
        tap.until(lambda: any("starting another" in line for line in tap.said))
        assert tap.stop() == 0
    (gap,) = dropped(tap)
    assert gap["note"] == "the recorder died"
    recorded = called(tap)
    assert {row["status"] for row in recorded} <= {"succeeded", "failed"}
    assert {row["failure_reason"] for row in recorded} <= {None, "abandoned"}
    whole = [row for row in recorded if row["status"] == "succeeded"]
    # a call is at least two pieces, one in each direction, and lacks at least one of them where it is not whole
    assert made - gap["dropped"] <= len(whole) < made
    assert len(recorded) - len(whole) <= gap["dropped"]
    assert tap.rows(f"SELECT * FROM ({UNMARKED}) WHERE era = 'legacy'") == []


def test_a_derived_connection_that_was_live_when_the_recorder_died_is_marked(upstream: str, tmp_path: Path) -> None:
    with running(upstream, tmp_path / "tap.db") as tap:
        first = tap.recorder
        work(tap.proxy, (), *death(first))
        tap.until(lambda: any("starting another" in line for line in tap.said))
        assert tap.stop() == 0
    assert tap.rows("SELECT 1 FROM sessions WHERE era = 'modern'") != []
    assert tap.rows(f"SELECT * FROM ({UNMARKED}) WHERE era = 'modern'") == []


@pytest.mark.parametrize("sdks", SDKS)
def test_a_recorder_that_stands_still_under_load(
    sdks: tuple[str, ...], sdk: Callable[[str], None], upstream: str, tmp_path: Path
) -> None:
    need(sdks, sdk)
    with running(upstream, tmp_path / "tap.db") as tap:
        recorder = tap.recorder
        made = work(tap.proxy, sdks, lambda: os.kill(recorder, signal.SIGSTOP))
        os.kill(recorder, signal.SIGCONT)
        assert tap.stop() == 0
    assert [row["status"] for row in called(tap)] == ["succeeded"] * made
    assert dropped(tap) == []
    assert tap.rows("SELECT 1 FROM sessions WHERE dropped > 0") == []


def test_more_than_may_wait_for_a_recorder_that_stands_still(upstream: str, tmp_path: Path) -> None:
    # What may wait of one stream is 8 MB; a connection that carries more than that has to lose some.
    made, answered = 24, 0
    with running(upstream, tmp_path / "tap.db") as tap, http(PATIENCE) as connections:
        client = RawClient(connections, tap.proxy, modern=False)
        client.open()
        recorder = tap.recorder
        os.kill(recorder, signal.SIGSTOP)
        for number in range(made):
            answered += client.call(number + 2, "search_products", query="x" * 1_000_000)["status"] == 200
        os.kill(recorder, signal.SIGCONT)
        connections.close()
        with http(PATIENCE) as later:  # what comes after it is whole again
            again = RawClient(later, tap.proxy, modern=False)
            again.headers = client.headers
            assert again.call(100, "get_weather", city="Oslo")["status"] == 200
        assert tap.stop() == 0
    assert answered == made
    lost = sum(row["dropped"] for row in dropped(tap))
    assert lost > 0
    (session,) = tap.rows("SELECT dropped, open_calls FROM sessions")
    assert session == {"dropped": lost, "open_calls": 0}
    *calls, last = called(tap)
    assert last["status"] == "succeeded"
    whole = [row for row in calls if row["status"] == "succeeded"]
    assert 0 < len(whole) < made <= len(whole) + lost
    assert {row["failure_reason"] for row in calls if row["status"] == "failed"} <= {"abandoned"}
