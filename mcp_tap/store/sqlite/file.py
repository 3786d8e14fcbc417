"""The file of a recording: where it is, who may write it, which version it has, and what can be wrong with it.

Everything here blocks and is meant for a thread. Whatever is wrong becomes one StoreError that says what, where and
what to do.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import sqlite3
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import aiosqlite

from mcp_tap.model import StoreError, UsageError, new_replica
from mcp_tap.store.rows import iso
from mcp_tap.store.sqlite.migrations import APPLICATION_ID, LATEST, migrate

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_SCHEME: Final = "sqlite:///"

# The driver looks for an adapter of every value that is neither number nor text. For None, of which rows are full,
# finding one and running it (it returns None) takes a third of the time that finding none does.
sqlite3.register_adapter(type(None), {}.get)  # type: ignore[arg-type]

#: Seconds to wait for a foreign program that holds the write lock. A batch that could not be written is tried again,
#: so a short wait is enough, and a stop must not hang on it.
_BUSY_TIMEOUT: Final = 2.0

#: Another file is always a way out.
_ELSEWHERE: Final = "try:  --store sqlite:///other.db"


def location(url: str) -> Path:
    """Return the path that `sqlite:///relative.db`, `sqlite:////absolute.db` or `sqlite:///~/home.db` names."""
    if not url.startswith(_SCHEME) or url == _SCHEME:
        raise UsageError(
            f'"{url}" does not name a file',
            hint="try:  sqlite:///relative.db, sqlite:////absolute/path.db or sqlite:///~/below/home.db",
        )
    return Path(url.removeprefix(_SCHEME)).expanduser().absolute()


class Thread(aiosqlite.Connection):
    """A connection with a thread of its own, which runs whole functions.

    A transaction or a query takes one hop to the thread instead of one for each statement, and one that has begun
    is finished there whatever becomes of the caller.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connect, iter_chunk_size=64)
        self._thread.daemon = True  # a process that ends by an error must not wait for a connection nobody closed

    async def open(self) -> None:
        """Open the connection; raise what ``connect`` raises, once the thread is gone."""
        try:
            await self
        except BaseException:
            await asyncio.to_thread(self._thread.join)
            raise

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what ``work`` returns for the connection, in its thread."""
        result: T = await self._execute(work, self._conn)  # type: ignore[no-untyped-call]
        return result

    def interrupt_now(self) -> None:
        """Stop the statement that is running, if one is: it raises `sqlite3.OperationalError`."""
        self._conn.interrupt()


# -------------------------------------------------------------------------------------------------------- writing


class Lock:
    """The right to write a recording, held by one process as long as it lives.

    It is a lock on a file beside the recording: opening and closing the recording itself would drop the locks that
    SQLite holds on it (https://www.sqlite.org/howtocorrupt.html §2.2).
    """

    def __init__(self, path: Path) -> None:
        # not through a link: what it leads to would be emptied
        self._fd = os.open(f"{path}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = os.read(self._fd, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            if not isinstance(error, BlockingIOError):
                raise
            raise StoreError(
                f"{path} is being written by another mcp-tap (pid {pid})",
                hint=f"stop it, or record to another file\n{_ELSEWHERE}",
                code="store_locked",
            ) from None
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let another process write. The lock file stays: removing it would race with whoever opens it just now."""
        os.close(self._fd)


def prepare(path: Path) -> Lock:
    """Make the file and its directory where they are missing, and return the right to write it."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_dir():
            raise StoreError(f"{path} is a directory, not a recording", hint=f"try:  --store sqlite:///{path}/tap.db")
        _refuse_strangers(path)
        lock = Lock(path)
        if not path.exists():
            discard_log(path, identities(path))
        try:
            # SQLite gives -wal and -shm the mode of the file itself. An existing file keeps the mode it has.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            pass
        except OSError:
            lock.release()
            raise
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror or error}",
            hint=f"check the permissions of {path.parent}, or record to another file\n{_ELSEWHERE}",
            code="store_path",
        ) from None
    return lock


def _refuse_strangers(path: Path) -> None:
    """Raise StoreError where somebody else has put a file, or a link, in the place of the recording or beside it.

    That is possible where everybody may write, as in /tmp, and what is recorded would be theirs to read. It is what
    Linux does for root with fs.protected_regular, where that is on.
    """
    if not path.parent.stat().st_mode & stat.S_IWOTH:
        return
    for end in ("", "-wal", "-shm", "-journal", "-lock"):
        try:
            owner = os.lstat(f"{path}{end}").st_uid
        except FileNotFoundError:
            continue
        if owner != os.geteuid():
            raise StoreError(
                f"{path}{end} belongs to another user (uid {owner}), where everybody may write",
                hint=f"record into a directory of your own\n{_ELSEWHERE}",
                code="store_path",
            )


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection that may write the recording at ``path``, brought up to the latest version."""
    db: sqlite3.Connection | None = None
    try:
        if not os.access(path, os.W_OK):
            raise StoreError(
                f"{path} is read-only",
                hint=f"make it writable (chmod u+w), or record to another file\n{_ELSEWHERE}",
                code="store_readonly",
            )
        db = sqlite3.connect(path, timeout=_BUSY_TIMEOUT, isolation_level=None)
        check(db, path, writing=True)
        db.execute("PRAGMA page_size = 8192")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # can only be chosen before the first table
        mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StoreError(
                f"{path} lies on a file system that cannot share memory between processes",
                hint=f"record to a local disk\n{_ELSEWHERE}",
            )
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA cache_size = -65536")
        db.execute("PRAGMA temp_store = MEMORY")
        # Checkpoints run beside the writer (`Writer`): done by the writer itself they stop it for 100 ms.
        db.execute("PRAGMA wal_autocheckpoint = 0")
        migrate(db)
        db.execute(
            "INSERT INTO store (pk, replica, created, session_key) VALUES (1, ?, ?, ?) ON CONFLICT DO NOTHING",
            (new_replica(), iso(time.time_ns() // 1000), secrets.token_bytes(32)),
        )
    except BaseException as error:
        if db is not None:
            db.close()
        if isinstance(error, sqlite3.Error):
            raise explain(error, path, "opened") from error
        raise
    return db


def connect_beside(path: Path) -> sqlite3.Connection:
    """Return a connection that may delete from the recording at ``path``, beside the one that writes it.

    It brings nothing up to date and makes nothing: what it finds is of this version, or it is refused.
    """
    connect_readonly(path).close()
    if not os.access(path, os.W_OK):
        raise StoreError(f"{path} is read-only", hint="make it writable:  chmod u+w", code="store_readonly")
    db = sqlite3.connect(path, timeout=_BUSY_TIMEOUT, isolation_level=None)
    db.execute("PRAGMA synchronous = NORMAL")
    return db


#: The files of a recording, by what is behind its name.
PARTS: Final = ("", "-wal", "-shm", "-lock")

#: Which file a name leads to: its device and inode. None: to none.
Identity = tuple[int, int] | None


def identities(path: Path) -> dict[str, Identity]:
    """Return which files the names of a recording lead to."""
    return {part: _identity(f"{path}{part}") for part in PARTS}


def _identity(name: str) -> Identity:
    try:
        found = os.stat(name)  # noqa: PTH116
    except OSError:
        return None
    return found.st_dev, found.st_ino


def discard_log(path: Path, known: dict[str, Identity]) -> None:
    """Delete what is left of the log of a recording that is not there any more.

    Another file under the same name would be given its pages (https://www.sqlite.org/howtocorrupt.html §1.4).
    """
    for part in ("-wal", "-shm"):
        if known[part] is not None and _identity(f"{path}{part}") == known[part]:
            Path(f"{path}{part}").unlink(missing_ok=True)


def size(path: Path) -> int:
    """Return how many bytes the recording at ``path`` takes, with what is not moved into the file yet."""
    files = (path, Path(f"{path}-wal"))
    return sum(each.stat().st_size for each in files if each.exists())


# -------------------------------------------------------------------------------------------------------- reading


def frozen(path: Path) -> bool:
    """Whether the recording at ``path`` can only be read as what never changes.

    Readers share memory with the writer through a file beside the recording (https://www.sqlite.org/wal.html §4). It
    cannot be made in a directory without the right to write, and without a log nothing is missing in the file.
    """
    beside = (Path(f"{path}{end}") for end in ("-wal", "-shm"))
    return not os.access(path.parent, os.W_OK) and not any(each.exists() for each in beside)


def connect_readonly(path: Path) -> sqlite3.Connection:
    """Return a connection that can only read the recording at ``path``, whether or not a writer is at work."""
    if not path.exists():
        raise StoreError(
            f"there is no recording at {path}",
            hint="record one:  mcp-tap URL\nor name another:  --store sqlite:///other.db",
            code="store_missing",
        )
    if path.is_dir():
        raise StoreError(f"{path} is a directory, not a recording", hint=f"try:  --store sqlite:///{path}/tap.db")
    db: sqlite3.Connection | None = None
    try:
        how = "mode=ro&immutable=1" if frozen(path) else "mode=ro"
        db = sqlite3.connect(f"{path.as_uri()}?{how}", uri=True, timeout=_BUSY_TIMEOUT, isolation_level=None)
        # a file that somebody sent may have views of its own: they call no function that does more than compute
        db.execute("PRAGMA trusted_schema = OFF")
        check(db, path, writing=False)
        db.execute("PRAGMA cache_size = -32768")
        db.execute("PRAGMA temp_store = MEMORY")
    except BaseException as error:
        if db is not None:
            db.close()
        if isinstance(error, sqlite3.Error):
            raise explain(error, path, "read") from error
        raise
    return db


# --------------------------------------------------------------------------------------------------- what is wrong


def check(db: sqlite3.Connection, path: Path, *, writing: bool) -> None:
    """Raise StoreError unless the file is a recording of a version that this program can use."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    application_id = db.execute("PRAGMA application_id").fetchone()[0]
    empty = not application_id and not version and not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if empty and writing:
        return
    if empty:
        raise StoreError(f"{path} holds no recording yet", hint="record one:  mcp-tap URL", code="store_missing")
    if application_id != APPLICATION_ID:
        raise StoreError(
            f"{path} is a database of another program, not a recording",
            hint=f"nothing was changed in it; record to another file\n{_ELSEWHERE}",
            code="store_foreign",
        )
    if version > LATEST:
        raise StoreError(
            f"{path} was written by a newer mcp-tap (version {version} of the tables; this one knows {LATEST})",
            hint=f"upgrade mcp-tap, or use another file\n{_ELSEWHERE}",
            code="store_newer",
        )
    if version < LATEST and not writing:
        raise StoreError(
            f"{path} was written by an older mcp-tap (version {version} of the tables; this one reads {LATEST})",
            hint=f"bring it up to date by recording to it once:  mcp-tap URL --store sqlite:///{path}",
            code="store_older",
        )


def explain(error: sqlite3.Error, path: Path, verb: str) -> StoreError:
    """Return what an error of SQLite means for the recording at ``path`` that should have been read or written."""
    # The low byte is the primary result code: https://www.sqlite.org/rescode.html
    known: dict[int, tuple[str, str, str]] = {
        sqlite3.SQLITE_NOTADB: ("store_foreign", "is not a database", f"use another file\n{_ELSEWHERE}"),
        sqlite3.SQLITE_CORRUPT: (
            "store_corrupt",
            "is damaged",
            f"save what can be read:  sqlite3 {path} .recover | sqlite3 recovered.db\nand record anew\n{_ELSEWHERE}",
        ),
        sqlite3.SQLITE_CANTOPEN: (
            "store_path",
            f"cannot be {verb}",
            f"its -wal and -shm files need a directory that you can write\ncopy all three out of {path.parent}",
        ),
        sqlite3.SQLITE_READONLY: (
            "store_readonly",
            "is read-only",
            f"make the file and {path.parent} writable, or use another file\n{_ELSEWHERE}",
        ),
        sqlite3.SQLITE_BUSY: ("store_locked", "is locked by another program", "close what else has it open"),
        sqlite3.SQLITE_FULL: ("store_full", f"cannot be {verb}: the disk is full", f"make room on {path.parent}"),
        sqlite3.SQLITE_IOERR: ("store_io", f"cannot be {verb}: the disk reports an error", "check disk and memory"),
    }
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if primary == sqlite3.SQLITE_READONLY and verb == "read":
        primary = sqlite3.SQLITE_CANTOPEN  # no -shm file is there, and none can be made
    code, what, hint = known.get(primary, ("store", f"cannot be {verb}", _ELSEWHERE))
    detail = "" if primary in known and primary != sqlite3.SQLITE_IOERR else f" ({error})"
    return StoreError(f"{path} {what}{detail}", hint=hint, code=code)
