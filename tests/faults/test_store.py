"""A store that is full, locked, slow or read for long: traffic does not notice, and no loss is unsaid."""

from __future__ import annotations

import contextlib
import os
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.test_kills import LONG, answered_once, recorded, whole
from tests.faults.traffic import Counts, Traffic
from tests.tap import Tap, running

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs limits from outside; run it there")

#: Bytes of a result that is stored whole.
LARGE = 60_000

IN_CI = True


def health(tap: Tap) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{tap.desk}/healthz", trust_env=False, timeout=10).json()
    return answer


def nothing_lost(tap: Tap, traffic: Traffic, counts: Counts) -> None:
    """Check that every call was answered once and is whole in the record."""
    answered_once(traffic, counts)
    whole(tap)
    calls = recorded(tap)
    assert [number for number in counts.answered if calls.get(number) != "succeeded"] == []
    assert tap.rows("SELECT * FROM timeline WHERE type = 'records_dropped'") == []


@contextlib.contextmanager
def full(tap: Tap) -> Iterator[None]:
    """Let no file of the recorder grow: for this one process the disk is full."""
    free = resource.prlimit(tap.recorder, resource.RLIMIT_FSIZE)
    resource.prlimit(tap.recorder, resource.RLIMIT_FSIZE, (4096, free[1]))
    yield
    resource.prlimit(tap.recorder, resource.RLIMIT_FSIZE, free)


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the write lock of a recording, as another program may."""
    with contextlib.closing(sqlite3.connect(file, timeout=30, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


def failing_and_back(tap: Tap) -> None:
    """Wait until writing works again, of which people are told as they were of the failure."""
    tap.until(lambda: any("records are written again" in line for line in tap.said))
    assert any("warning: traffic flows, but records cannot be written" in line for line in tap.said)
    assert health(tap)["status"] == "ok"


def test_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    with Traffic() as traffic, running(traffic.url, tmp_path / "tap.db") as tap:
        traffic.begin(tap.proxy, pause=0.01)
        traffic.until(50)
        with full(tap):
            tap.until(lambda: health(tap)["status"] == "degraded")
            assert health(tap)["recording"].startswith("records cannot be written: ")
            traffic.until(traffic.counts.made + 100)
        failing_and_back(tap)
        counts = traffic.end()
        assert tap.stop() == 0
    nothing_lost(tap, traffic, counts)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a file system of 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("no right to mount a small file system; the same is tested with a limit on the size of files")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.matrix
def test_a_file_system_without_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    with Traffic() as traffic, running(traffic.url, small_disk / "tap.db") as tap:
        traffic.begin(tap.proxy, pause=0.01)
        traffic.until(50)
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        tap.until(lambda: health(tap)["status"] == "degraded")
        assert "the disk is full" in health(tap)["recording"]
        traffic.until(traffic.counts.made + 50)
        ballast.unlink()
        failing_and_back(tap)
        counts = traffic.end()
        assert tap.stop() == 0
        nothing_lost(tap, traffic, counts)


@pytest.mark.matrix
@pytest.mark.links
def test_more_than_may_wait_for_a_full_disk(tmp_path: Path) -> None:
    with Traffic() as traffic, running(traffic.url, tmp_path / "tap.db") as tap:
        traffic.begin(tap.proxy, pause=0.02, size=LARGE)
        traffic.until(50)
        with full(tap):
            tap.until(lambda: health(tap)["lost"] > 100)
        failing_and_back(tap)
        counts = traffic.end()
        assert tap.stop() == 0
    answered_once(traffic, counts)
    whole(tap)
    calls = recorded(tap)
    lost = [number for number in counts.answered if calls.get(number) != "succeeded"]
    said = tap.rows("SELECT dropped, note FROM timeline WHERE type = 'records_dropped'")
    assert {row["note"] for row in said} == {"the store could not be written"}
    assert 100 < len(lost) <= sum(row["dropped"] for row in said)


@pytest.mark.parametrize("seconds", [pytest.param(3, marks=pytest.mark.matrix), pytest.param(30, marks=LONG)])
def test_a_file_that_another_program_locks(seconds: int, tmp_path: Path) -> None:
    with Traffic() as traffic, running(traffic.url, tmp_path / "tap.db") as tap:
        traffic.begin(tap.proxy, pause=0.01)
        traffic.until(50)
        with locked(tap.file):
            time.sleep(seconds)
            assert "is locked by another program" in health(tap)["recording"]
        failing_and_back(tap)
        counts = traffic.end()
        assert tap.stop() == 0
    nothing_lost(tap, traffic, counts)


@pytest.mark.matrix
@pytest.mark.links
def test_a_store_that_is_slower_than_the_traffic_for_a_minute(tmp_path: Path) -> None:
    ending = threading.Event()

    def slow_down(file: Path) -> None:
        """Leave the recorder a moment for each write, as a disk does that takes a second to sync."""
        while not ending.wait(0.05):
            with locked(file):
                time.sleep(1.5)

    with Traffic() as traffic, running(traffic.url, tmp_path / "tap.db") as tap:
        traffic.begin(tap.proxy, pause=0.02, size=4 * LARGE)
        slowing = threading.Thread(target=slow_down, args=(tap.file,))
        slowing.start()
        time.sleep(60)
        peaks = [peak_mb(pid) for pid in (tap.process.pid, tap.recorder)]
        ending.set()
        slowing.join()
        counts = traffic.end()
        assert tap.stop() == 0
    answered_once(traffic, counts)
    whole(tap)
    calls = recorded(tap)
    lost = [number for number in counts.answered if calls.get(number) != "succeeded"]
    said = sum(row["dropped"] for row in tap.rows("SELECT dropped FROM timeline WHERE type = 'records_dropped'"))
    assert 0 < len(lost) <= said
    assert peaks[0] < 32 + 64 + 64, peaks  # its own, what may wait, and as much again in pieces that are under way
    assert peaks[1] < 400, peaks


def peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@pytest.mark.matrix
def test_a_reader_that_stays_for_long_stops_no_writing(tmp_path: Path) -> None:
    count = "SELECT count(*) FROM timeline WHERE type = 'tools/call'"
    with Traffic() as traffic, running(traffic.url, tmp_path / "tap.db") as tap:
        traffic.begin(tap.proxy, pause=0.005)
        traffic.until(50)
        with contextlib.closing(sqlite3.connect(f"{tap.file.as_uri()}?mode=ro", uri=True, isolation_level=None)) as db:
            db.execute("BEGIN")
            before = db.execute(count).fetchone()
            traffic.until(1000)
            tap.until(lambda: len(recorded(tap)) >= 1000)
            assert db.execute(count).fetchone() == before
            db.execute("COMMIT")
        log = Path(f"{tap.file}-wal")
        grown = log.stat().st_size
        traffic.until(2500)  # more than the log held: it begins anew when nobody reads its old pages any more
        tap.until(lambda: len(recorded(tap)) >= 2500)
        assert log.stat().st_size < 2 * grown
        counts = traffic.end()
        assert health(tap)["status"] == "ok"
        assert tap.stop() == 0
    nothing_lost(tap, traffic, counts)


@pytest.mark.matrix
def test_commands_beside_a_tap_under_load(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'tap.db'}"
    with Traffic() as traffic, running(traffic.url, tmp_path / "tap.db") as tap:
        traffic.begin(tap.proxy, pause=0.005)
        traffic.until(500)
        for verb in (
            ["sessions"],
            ["sql", "SELECT count(*) FROM events"],
            ["prune", "--older-than", "1h"],
            ["export", "--since", "1h"],
        ):
            command = [sys.executable, "-m", "mcp_tap.cli", *verb, "--store", store]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, (verb, done.stderr)
        counts = traffic.end()
        assert tap.stop() == 0
    nothing_lost(tap, traffic, counts)
