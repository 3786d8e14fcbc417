from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_tap.model import Batch, StoreError, UsageError
from mcp_tap.store import open_reader, open_writer
from mcp_tap.store.sqlite.file import connect_readonly, location
from mcp_tap.store.sqlite.migrations import LATEST

from ..recording import connection, event, reading, record, run, select, writing


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refused(path: Path) -> StoreError:
    """Return why a recording cannot be written."""
    with pytest.raises(StoreError) as caught:
        run(open_writer(f"sqlite:///{path}"))
    assert str(path) in str(caught.value)
    assert caught.value.hint
    return caught.value


def unreadable(path: Path) -> StoreError:
    """Return why a recording cannot be read."""
    with pytest.raises(StoreError) as caught:
        run(open_reader(f"sqlite:///{path}"))
    assert str(path) in str(caught.value)
    assert caught.value.hint
    return caught.value


# ------------------------------------------------------------------------------------------------------- locations


def test_a_url_names_a_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert location("sqlite:///tap.db") == tmp_path / "tap.db"
    assert location("sqlite:////var/lib/tap.db") == Path("/var/lib/tap.db")
    assert location("sqlite:///~/state/tap.db") == Path("/home/somebody/state/tap.db")


@pytest.mark.parametrize("url", ["", "tap.db", "sqlite://", "sqlite:///", "sqlite://tap.db", "mysql://x/y"])
def test_what_is_no_url_of_a_store_says_how_one_looks(url: str) -> None:
    for opening in (open_writer, open_reader):
        with pytest.raises(UsageError) as caught:
            run(opening(url))
        assert "sqlite" in caught.value.hint


# --------------------------------------------------------------------------------------------------------- making


def test_a_new_recording_is_private_to_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "state" / "mcp-tap" / "tap.db"
    before = os.umask(0)
    try:

        async def work() -> None:
            async with writing(path) as writer:
                await writer.write(Batch(events=[event(None)]))
                assert [mode(Path(f"{path}{end}")) for end in ("", "-wal", "-shm", "-lock")] == [0o600] * 4

        run(work())
    finally:
        os.umask(before)
    assert mode(path.parent) == 0o700
    assert sorted(one.name for one in path.parent.iterdir()) == ["tap.db", "tap.db-lock"]


@pytest.mark.parametrize("end", ["", "-wal", "-shm", "-lock"])
@pytest.mark.parametrize("link", [False, True], ids=["file", "link"])
def test_what_another_user_has_put_there_is_not_written(
    end: str, link: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, path = tmp_path / "theirs", tmp_path / "shared" / "tap.db"
    path.parent.mkdir()
    path.parent.chmod(0o1777)
    placed = Path(f"{path}{end}")
    if link:
        theirs.write_text("kept")
        placed.symlink_to(theirs)
    else:
        placed.touch(0o666)
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    assert "belongs to another user" in str(refused(path))
    monkeypatch.undo()
    path.parent.chmod(0o755)
    if end == "-lock" and link:
        refused(path)  # of whomever it is: a lock empties its file
    if link:
        assert theirs.read_text() == "kept"


def test_a_view_of_a_foreign_recording_calls_nothing_that_does_more_than_compute(tmp_path: Path) -> None:
    path = tmp_path / "tap.db"
    record(path, Batch([connection()]))
    with contextlib.closing(connect_readonly(path)) as db:
        assert db.execute("PRAGMA trusted_schema").fetchone() == (0,)


def test_a_recording_is_laid_out_as_measured(tmp_path: Path) -> None:
    path = tmp_path / "tap.db"
    record(path, Batch([connection()]))
    assert select(path, "PRAGMA page_size") == [(8192,)]
    assert select(path, "PRAGMA auto_vacuum") == [(2,)]  # incremental
    assert select(path, "PRAGMA journal_mode") == [("wal",)]
    tables = select(path, "SELECT name, strict FROM pragma_table_list WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
    assert len(tables) == 11
    assert all(strict for _, strict in tables)
    assert select(path, "SELECT name FROM sqlite_schema WHERE type = 'view'") == [("sessions",), ("events",)]


def test_an_existing_recording_is_continued_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "tap.db"
    record(path, Batch(events=[event(None)]))
    path.chmod(0o640)
    record(path, Batch(events=[event(None)]))
    assert select(path, "SELECT count(*) FROM events") == [(2,)]
    assert mode(path) == 0o640


def test_an_empty_file_becomes_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "tap.db"
    path.touch()
    assert unreadable(path).code == "store_missing"
    record(path, Batch(events=[event(None)]))
    assert select(path, "SELECT count(*) FROM events") == [(1,)]
    assert select(path, "PRAGMA page_size") == [(8192,)]


# ------------------------------------------------------------------------------------------------------ one writer


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / "tap.db"

    async def work() -> None:
        async with writing(path):
            with pytest.raises(StoreError) as caught:
                await open_writer(f"sqlite:///{path}")
            assert str(caught.value) == f"{path} is being written by another mcp-tap (pid {os.getpid()})"
            assert "--store sqlite:///" in caught.value.hint
            assert caught.value.exit_status == 4
        async with writing(path):
            pass

    run(work())


def test_the_lock_of_a_killed_writer_is_free(tmp_path: Path) -> None:
    path = tmp_path / "tap.db"
    script = (
        "import asyncio, sys\nfrom mcp_tap.store import open_writer\n"
        "async def main():\n    await open_writer(sys.argv[1])\n    print('open', flush=True)\n"
        "    await asyncio.Event().wait()\nasyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", script, f"sqlite:///{path}"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        assert f"pid {child.pid}" in str(refused(path))
        child.send_signal(signal.SIGKILL)
    record(path, Batch(events=[event(None)]))


# --------------------------------------------------------------------------------------------------- what is wrong


def test_a_directory_is_no_recording(tmp_path: Path) -> None:
    assert "directory" in str(refused(tmp_path))
    assert "directory" in str(unreadable(tmp_path))


def test_a_path_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refused(tmp_path / "file" / "tap.db").code == "store_path"


def test_nothing_there_to_read(tmp_path: Path) -> None:
    assert unreadable(tmp_path / "none.db").code == "store_missing"
    assert list(tmp_path.iterdir()) == []


def test_something_else_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("milk, eggs, bread\n" * 100)
    for error in (refused(path), unreadable(path)):
        assert str(error) == f"{path} is not a database"
    assert path.read_text().startswith("milk")


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE bookmarks (url TEXT)")
    other.close()
    before = path.read_bytes()
    for error in (refused(path), unreadable(path)):
        assert error.code == "store_foreign"
        assert "another program" in str(error)
    assert path.read_bytes() == before


def test_a_newer_recording_names_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "tap.db"
    record(path, Batch(events=[event(None)]))
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version = {LATEST + 5}")
    newer.close()
    for error in (refused(path), unreadable(path)):
        assert f"version {LATEST + 5} " in str(error)
        assert f"knows {LATEST})" in str(error)
        assert "upgrade mcp-tap" in error.hint


def test_a_damaged_recording_says_so(tmp_path: Path) -> None:
    path = tmp_path / "tap.db"
    record(path, Batch([connection()], [event(None) for _ in range(500)]))
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xa5" * (len(data) - 8192)  # everything but the first page
    path.write_bytes(data)
    for error in (refused(path), unreadable(path)):
        assert error.code == "store_corrupt"
        assert ".recover" in error.hint


def test_a_failed_opening_lets_go_of_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "tap.db"
    path.write_text("not a database at all, but long enough to be looked at" * 10)
    refused(path)
    path.unlink()
    record(path, Batch(events=[event(None)]))


@pytest.fixture
def anybody_s() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    directory.chmod(0o755)
    shutil.rmtree(directory)


def as_nobody(opening: str, path: Path) -> str:
    """Open a recording without root's rights, which would reach everything; return the error.

    Everything is imported before the rights are given up: the interpreter itself may lie in root's home.
    """
    script = (
        "import asyncio, sys, mcp_tap.store.sqlite\nfrom mcp_tap import store\nfrom mcp_tap.model import TapError\n"
        "async def main():\n    await getattr(store, sys.argv[1])(sys.argv[2])\n"
        "import os, concurrent.futures.thread\nif os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "try: asyncio.run(main())\nexcept TapError as error: print(error.code, error)\nelse: print('opened')"
    )
    command = [sys.executable, "-c", script, opening, f"sqlite:///{path}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]).stdout


def test_a_file_without_the_right_to_write_it(anybody_s: Path) -> None:
    path = anybody_s / "tap.db"
    record(path, Batch(events=[event(None)]))
    path.chmod(0o444)
    Path(f"{path}-lock").chmod(0o666)
    assert as_nobody("open_writer", path) == f"store_readonly {path} is read-only\n"


def test_a_directory_without_the_right_to_write_it(anybody_s: Path) -> None:
    path = anybody_s / "tap.db"
    record(path, Batch(events=[event(None)]))
    path.chmod(0o444)
    anybody_s.chmod(0o555)
    assert as_nobody("open_reader", path) == "opened\n"
    assert as_nobody("open_writer", path).startswith("store_path ")
    assert as_nobody("open_writer", anybody_s / "new.db").startswith("store_path ")
    Path(f"{path}-wal").write_bytes(b"what a crash left behind")
    assert as_nobody("open_reader", path) == f"store_path {path} cannot be read\n"


def test_a_file_without_the_right_to_read_it(anybody_s: Path) -> None:
    path = anybody_s / "tap.db"
    record(path, Batch(events=[event(None)]))
    assert as_nobody("open_reader", path).startswith("store_path ")


def test_a_stopped_recording_is_read_without_leaving_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "tap.db"
    record(path, Batch(events=[event(None)]))
    before = path.read_bytes()

    async def work() -> None:
        async with reading(path) as reader:
            assert (await reader.summary()).events == 1

    run(work())
    assert path.read_bytes() == before
