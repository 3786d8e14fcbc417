"""A recording that is deleted, moved or replaced underneath: it is said, and recording goes on under the same name."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.faults.test_kills import another, answered_once, recorded, unsaid, whole
from tests.faults.traffic import Traffic
from tests.tap import Tap, running

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="deletes files that are open; run it there"
)

IN_CI = True

#: Calls before and after something happens to the recording.
CALLS = 150


def all_of_it(file: Path) -> None:
    for part in ("", "-wal", "-shm", "-lock"):
        Path(f"{file}{part}").unlink()


def only_the_file(file: Path) -> None:
    file.unlink()


def the_log(file: Path) -> None:
    Path(f"{file}-wal").unlink()


def the_lock(file: Path) -> None:
    Path(f"{file}-lock").unlink()


def the_directory(file: Path) -> None:
    shutil.rmtree(file.parent)


def away(file: Path) -> None:
    file.rename(file.with_suffix(".old"))


def another_one(file: Path) -> None:
    other = file.with_suffix(".other")
    shutil.copy(file.parent.parent / "earlier.db", other)
    other.replace(file)


WAYS = [
    pytest.param(all_of_it, "tap.db was deleted"),
    pytest.param(only_the_file, "tap.db was deleted", marks=pytest.mark.matrix),
    pytest.param(the_log, "tap.db-wal was deleted", marks=pytest.mark.matrix),
    pytest.param(the_lock, "tap.db-lock was deleted", marks=pytest.mark.matrix),
    pytest.param(the_directory, "tap.db was deleted", marks=pytest.mark.matrix),
    pytest.param(away, "tap.db was deleted", marks=pytest.mark.matrix),
    pytest.param(another_one, "tap.db was replaced", marks=pytest.mark.matrix),
]


@pytest.mark.parametrize(("how", "what"), WAYS, ids=lambda each: getattr(each, "__name__", ""))
def test_recording_goes_on_under_its_name(how: Callable[[Path], None], what: str, tmp_path: Path) -> None:
    file = tmp_path / "here" / "tap.db"
    with Traffic() as traffic:
        if how is another_one:
            with running(traffic.url, tmp_path / "earlier.db") as tap:
                traffic.begin(tap.proxy, pause=0.01, clients=2)
                traffic.until(50)
                assert len(traffic.end().answered) == traffic.counts.made
                assert tap.stop() == 0
            earlier = set(recorded(tap))
        else:
            earlier = set()
        with running(traffic.url, file) as tap:
            traffic.begin(tap.proxy, pause=0.01, clients=4)
            traffic.until(traffic.counts.made + CALLS)
            before = tap.recorder
            moved_ns = time.monotonic_ns()
            how(file)
            traffic.until(traffic.counts.made + CALLS)
            tap.until(lambda: any("recording under that name" in line for line in tap.said))
            tap.until(lambda: another(tap, before) and desk_answers(tap))
            last = max(traffic.counts.answered)
            tap.until(lambda: last in recorded(tap))
            counts = traffic.end()
            page = httpx.get(f"{tap.desk}/api/messages?limit=1", trust_env=False)
            assert page.status_code == 200, page.text
            assert tap.stop() == 0
    assert [line for line in tap.said if what in line] != [], tap.said
    answered_once(traffic, counts)
    whole(tap)
    assert unsaid(tap, counts, moved_ns) == []
    calls = recorded(tap)
    assert earlier <= set(calls)
    if how is the_log or how is the_lock:
        assert unsaid(tap, counts) == []  # what was in the file is there
    if how is away:
        with sqlite3.connect(file.with_suffix(".old")) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert db.execute("SELECT count(*) FROM timeline WHERE type = 'tools/call'").fetchone()[0] > CALLS / 2
        db.close()


def desk_answers(tap: Tap) -> bool:
    try:
        return httpx.get(f"{tap.desk}/healthz", trust_env=False, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.matrix
def test_what_is_no_recording_is_left_alone_until_it_has_gone(tmp_path: Path) -> None:
    file = tmp_path / "tap.db"
    with Traffic() as traffic, running(traffic.url, file) as tap:
        traffic.begin(tap.proxy, pause=0.01, clients=2)
        traffic.until(50)
        notes = tmp_path / "notes"
        notes.write_text("no database at all, and longer than a page would be\n" * 1000)
        notes.replace(file)
        traffic.until(100)
        tap.until(lambda: any("no record is made" in line for line in tap.said))
        assert file.read_text().startswith("no database at all")
        file.unlink()
        last = max(traffic.counts.answered)
        tap.until(lambda: file.exists() and desk_answers(tap))
        tap.until(lambda: last in recorded(tap))
        counts = traffic.end()
        assert tap.stop() == 0
    assert sum("no record is made" in line for line in tap.said) == 1
    answered_once(traffic, counts)
    whole(tap)
