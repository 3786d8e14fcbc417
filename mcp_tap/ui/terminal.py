"""The live view: a log of events with a status line below it, or one JSON object per line.

It is not a full-screen program: scrolling back, copying and piping go on working. `Lines` turns rows into lines and
is shared with `tail` and `session`; `Live` writes them without ever waiting for whoever reads.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final, Literal

from mcp_tap.config import Settings
from mcp_tap.model import Direction, FailureReason, Kind, Status
from mcp_tap.store import Row, Summary
from mcp_tap.ui.text import columns, counted, duration, harmless, json_line, left, local, right, size

#: Lines are never wider than this, however wide the terminal is: the eye has to find its way back.
WIDTH: Final = 100

#: Bytes that may wait for a slow terminal or a full pipe before lines are dropped and counted: some seconds of a
#: busy recording, so that a reader which is merely busy loses nothing.
BACKLOG: Final = 4 * 1024 * 1024

#: Nobody reads faster than this; what goes by in the same second is counted in one line instead. JSON has no such cap.
LINES_PER_SECOND: Final = 200

#: A request still unanswered after this many seconds is shown once before its answer.
PATIENCE: Final = 1.0

#: Connections and events that the view remembers; a number or a repeat beyond that is not worth the memory.
REMEMBERED: Final = 10_000

_CODES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}

_END_REASONS: Final = {
    "client_delete": "deleted by the client",
    "session_not_found": "404 from the server",
    "stream_closed": "stream closed",
    "initialize_failed": "initialize failed",
    "idle_timeout": "idle",
    "replaced": "replaced by a new session",
    "shutdown": "tap stopped",
}

_OUTCOMES: Final = {
    "input_required": "input",
    "task": "task",
    "auth_challenge": "auth",
    "probe": "probe",
    "unparsed": "unparsed",
}


def paint(text: str, style: str, *, color: bool) -> str:
    """Return ``text`` in a colour or weight, or as it is where there is to be none."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if color and style and text else text


def wants_color(stream: IO[str] | None, env: Mapping[str, str]) -> bool:
    """Whether to colour what goes to ``stream``: NO_COLOR says no, FORCE_COLOR yes, else a capable terminal does."""
    if env.get("NO_COLOR"):
        return False
    if env.get("FORCE_COLOR", "0") != "0":
        return True
    return stream is not None and stream.isatty() and env.get("TERM") != "dumb"


# ---------------------------------------------------------------------------------------------------------- words


def status_word(row: Row) -> tuple[str, str]:
    """Return a word for how a message stands, and its colour; two empty texts for what cannot stand any way."""
    status, outcome = row.get("status"), row.get("outcome")
    if status == Status.WAITING:
        return "…", "dim"
    if outcome in _OUTCOMES:
        return _OUTCOMES[outcome], "yellow"
    if row.get("failure_reason") == FailureReason.CANCELLED:
        return "cancelled", "yellow"
    if status == Status.FAILED:
        return "ERROR", "red"
    return ("ok", "green") if status == Status.SUCCEEDED else ("", "")


def failure_text(row: Row) -> str:
    """Return why a message failed: the reason or the code, and what the other side said."""
    reason, code, said = row.get("failure_reason"), row.get("error_code"), row.get("error_message")
    if not reason and not said:
        return ""
    words = str(reason or "").replace("_", " ")
    if reason == FailureReason.RPC_ERROR and code:
        words = str(code)
    elif reason == FailureReason.HTTP_ERROR and code:
        words = f"HTTP {code}"
    elif reason == FailureReason.TOOL_ERROR and said:
        words = ""
    return f"{words} {said or ''}".strip()


def end_text(session: Row | None) -> str:
    """Return how a session went, in one line: 46 s, 6 calls, 2 errors, idle."""
    if session is None:
        return ""
    parts = [
        duration(session.get("duration_ms")),
        counted(session.get("calls") or 0, "call"),
        counted(session.get("errors") or 0, "error"),
        _END_REASONS.get(session.get("end_reason") or "", str(session.get("end_reason") or "")),
    ]
    if session.get("dropped"):
        parts.append(f"{session['dropped']} dropped")
    return ", ".join(part for part in parts if part)


def peers_text(session: Row | None) -> str:
    """Return who talks to whom: client 1.2.3 → server 0.4."""
    row = session or {}
    names = []
    for side in ("client", "server"):
        name, version = row.get(f"{side}_name") or f"unknown {side}", row.get(f"{side}_version") or ""
        names.append(f"{name} {version}".strip())
    return " → ".join(names)


# ---------------------------------------------------------------------------------------------------------- lines


class Lines:
    """Turns rows of `events` into lines, each event once when it is final.

    Connections are numbered as they appear; with ``numbers="event"`` each line has the number of its event instead,
    which is what `show` takes.
    """

    def __init__(self, *, width: int, color: bool, numbers: Literal["connection", "event"] = "connection") -> None:
        self.width = max(60, min(width, WIDTH))
        self.color = color
        self._by_event = numbers == "event"
        self._numbers: OrderedDict[str, int] = OrderedDict()
        self._next = 1
        self._shown: OrderedDict[str, None] = OrderedDict()

    def line(self, row: Row, session: Row | None) -> str | None:
        """Return the line of an event, or None when its line was already given or it waits for its answer."""
        if row.get("status") == Status.WAITING or not self._first(row["event_id"]):
            return None
        return self.render(row, session)

    def waiting(self, row: Row) -> str | None:
        """Return the line that says that a request is still without an answer, once."""
        return self.render(row, None) if self._first(f"{row['event_id']}…") else None

    def render(self, row: Row, session: Row | None) -> str:
        """Return the line of an event as it stands."""
        at = paint(local(row.get("time"), "%H:%M:%S.%f").ljust(12), "dim", color=self.color)
        number = (
            str(row.get("pk") or "").rjust(5) if self._by_event else self._number(row.get("connection_id")).ljust(3)
        )
        rest = self.width - 12 - 1 - len(number) - 1
        head = f"{at} {number} "
        kind = row.get("type") or ""
        if kind == "session_start":
            return head + self._started(session, rest)
        if kind == "session_end":
            dot = paint("○", "dim", color=self.color)
            return f"{head}{dot} {harmless('ended ' + end_text(session), rest - 2)}"
        if row.get("kind") == Kind.LIFECYCLE:
            words = (kind, row.get("name"), row.get("error_message"), row.get("note"))
            return f"{head}· {harmless(' '.join(word for word in words if word), rest - 2)}"
        return (head + self._message(row, rest)).rstrip()

    def _started(self, session: Row | None, rest: int) -> str:
        dot = paint("●", "green", color=self.color)
        revision = (session or {}).get("protocol_version") or ""
        if not revision:
            return f"{dot} {harmless('session ' + peers_text(session), rest - 2)}"
        revision = harmless(revision, 12)
        peers = harmless("session " + peers_text(session), rest - 4 - columns(revision))
        return f"{dot} {peers}  {revision}"

    def _message(self, row: Row, rest: int) -> str:
        what = f"{row.get('type') or ''} {row.get('name') or ''}".strip()
        arrow = "←" if row.get("direction") == Direction.TO_CLIENT else "→"
        if row.get("kind") == Kind.HTTP:
            what, arrow = row.get("name") or what, "·"
        if row.get("parent_id"):  # it came on the stream of a request that is not answered yet
            arrow = f"  {arrow}"
        word, style = status_word(row)
        detail = failure_text(row).removeprefix("cancelled").strip()
        if not detail and (row.get("attempt") or 1) > 1:
            detail = f"try {row['attempt']}"
        if not detail and row.get("type") == "tools/list":
            detail = row.get("note") or ""  # how many tools
        what_width = min(32, max(14, rest - 35))
        after = rest - 2 - what_width - (1 + 8) - (2 + 9)
        # On a narrow terminal the reason of a failure is worth more than the size of its answer.
        sized = after >= 9 and not (detail and after < 24)
        room = after - (9 if sized else 0) - 2
        line = f"{arrow} {left(what, what_width + 1 - len(arrow))} {right(duration(row.get('latency_ms')), 8)}  "
        line += paint(word, style, color=self.color) + " " * (9 - columns(word))
        if sized:
            line += f" {right(size(row.get('response_bytes') or None), 8)}"
        return f"{line}  {harmless(detail, room)}" if detail and room > 3 else line

    def _number(self, connection: str | None) -> str:
        if not connection:
            return ""
        number = self._numbers.get(connection)
        if number is None:
            number = self._numbers[connection] = self._next
            self._next += 1
            if len(self._numbers) > REMEMBERED:
                self._numbers.popitem(last=False)
        else:
            self._numbers.move_to_end(connection)
        return f"#{number}"

    def _first(self, event: str) -> bool:
        if event in self._shown:
            return False
        self._shown[event] = None
        if len(self._shown) > REMEMBERED:
            self._shown.popitem(last=False)
        return True


# --------------------------------------------------------------------------------------------------------- outlet


class Outlet:
    """Writes to descriptors in the order given, from a thread of its own, so that nobody waits for a reader.

    A non-blocking descriptor would do without the thread, but that flag belongs to the open file, which a terminal
    shares with every other process on it.
    """

    def __init__(self, name: str) -> None:
        self.dropped = 0  # lines that found the backlog full, or the reader gone
        self.queued = 0  # bytes not yet written
        self._queue: deque[tuple[int, bytes]] = deque()
        self._change = threading.Condition()
        self._stopping = False
        self._gone: set[int] = set()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, fd: int, data: bytes) -> bool:
        """Queue ``data``; False when it was dropped."""
        with self._change:
            if fd in self._gone or self._stopping or self.queued + len(data) > BACKLOG:
                self.dropped += data.count(b"\n")
                return False
            self._queue.append((fd, data))
            self.queued += len(data)
            self._change.notify_all()
        return True

    def close(self, seconds: float = 1.0) -> None:
        """Write out what is queued, for at most ``seconds``; a reader that has stalled is left to itself."""
        with self._change:
            self._stopping = True
            self._change.notify_all()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            with self._change:
                while not self._queue:
                    if self._stopping:
                        return
                    self._change.wait()
                fd, data = self._queue.popleft()
                gone = fd in self._gone
            rest = data
            try:
                while rest and not gone:
                    rest = rest[os.write(fd, rest) :]
            except OSError:  # EPIPE, EIO: whoever read this is gone for good
                gone = True
            with self._change:
                self.queued -= len(data)
                if gone:
                    self._gone.add(fd)
                    self.dropped += rest.count(b"\n")


# ----------------------------------------------------------------------------------------------------------- live


class Live:
    """The view of a running recorder. No method of it waits for a reader or raises because of one.

    ``out`` gets the events, ``err`` what is said to people (on a terminal both appear in the order written); either
    may be None, which is what Python has for a descriptor that was closed. Without a ``width`` the terminal's own is
    asked for again with every status.
    """

    def __init__(
        self,
        out: IO[str] | None,
        err: IO[str] | None,
        *,
        format: Literal["text", "json", "none"],  # noqa: A002 - the name of the setting and of the flag
        color: bool,
        width: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._format, self._width, self._clock = format, width, clock
        self._out, self._err = (
            os.open(os.devnull, os.O_WRONLY) if each is None else each.fileno() for each in (out, err)
        )
        self._out_terminal = os.isatty(self._out)
        # Escapes that move the cursor need a terminal that says it understands them.
        self._status_line = format == "text" and self._out_terminal and os.environ.get("TERM", "dumb") != "dumb"
        self._color = color
        self._events = Outlet("live view")
        self._people = self._events if self._out_terminal and os.isatty(self._err) else Outlet("notices")
        self._lines = Lines(width=self._columns(), color=color)
        self._waiting: OrderedDict[str, tuple[float, Row]] = OrderedDict()
        self._status = ""
        self._reported = 0
        self._second, self._shown, self._skipped = 0, 0, 0

    def banner(
        self, settings: Settings, *, version: str, upstream_notes: Sequence[str], summary: Summary | None
    ) -> None:
        """Say what runs where. ``upstream_notes`` are how connecting to each server went, in words."""
        if self._format == "none":
            return
        lines = ["", *banner_lines(settings, version=version, upstream_notes=upstream_notes, summary=summary), ""]
        if self._format == "text" and self._out_terminal:
            self._write("".join(f"{line}\n" for line in lines))
        else:
            self._say("".join(f"{line}\n" for line in lines))

    def show(self, pairs: Iterable[tuple[Row, Row | None]]) -> None:
        """Show events, each with its row of `sessions` (needed for the start and the end of one) or None."""
        if self._format == "json":
            for row, _ in pairs:
                self._events.put(self._out, json_line(row).encode() + b"\n")
            self._tell_dropped()
        elif self._format == "text":
            lines: list[str] = []
            for row, session in pairs:
                event = row["event_id"]
                if row.get("status") == Status.WAITING:
                    self._waiting.setdefault(event, (self._clock(), row))
                    continue
                self._waiting.pop(event, None)
                if self._cap(lines) and (line := self._lines.line(row, session)) is not None:
                    lines.append(line)
                    self._shown += 1
            self._write_lines([*lines, *self._patience()])

    def status(
        self,
        *,
        sessions: int,
        active: int,
        calls: int,
        errors: int,
        p95_ms: float | None = None,
        overhead_ms: float | None = None,
        dropped: int = 0,
    ) -> None:
        """Keep the last line of a terminal up to date; to be called a few times a second. Elsewhere nothing."""
        if self._format != "text":
            return
        parts = [
            f"{counted(sessions, 'session')}, {active} active",
            counted(calls, "call"),
            counted(errors, "error"),
            f"p95 {duration(p95_ms)}" if p95_ms is not None else "",
            f"overhead {duration(overhead_ms)}" if overhead_ms is not None else "",
            f"{dropped:,} dropped",
        ]
        width = self._columns()
        self._lines.width = max(60, min(width, WIDTH))
        while columns(status := "  " + " · ".join(part for part in parts if part)) >= width and len(parts) > 4:
            del parts[-2]  # the last one, what was dropped, is a promise: it goes last
        status = harmless(status, width - 1)
        lines = self._patience()
        self._cap(lines)
        changed, self._status = status != self._status, status
        if lines or (changed and self._events.queued < BACKLOG // 64):
            self._write_lines(lines, always=True)

    def notice(self, text: str) -> None:
        """Say something to people, on stderr whatever the format: a warning, a loss, a failing store."""
        body = "".join(f"{harmless(line)}\n" for line in text.split("\n"))
        self._say(body)

    def close(self) -> None:
        """Leave the last status as a line of the log and write out what is queued."""
        if self._status_line and self._status:
            self._events.put(self._out, f"\r\x1b[2K\n{self._status}\n".encode())
            self._status = ""
        self._events.close()
        if self._people is not self._events:
            self._people.close()

    # Inside

    def _cap(self, lines: list[str]) -> bool:
        """Whether one more line may be shown in this second; what was not is counted as soon as the next begins."""
        second = int(self._clock())
        if second != self._second:
            if self._skipped:
                lines.append(f"… {counted(self._skipped, 'event')} more in a second; all are in the record")
            self._second, self._shown, self._skipped = second, 0, 0
        if self._shown < LINES_PER_SECOND:
            return True
        self._skipped += 1
        return False

    def _patience(self) -> list[str]:
        """Return the lines of requests that have been waiting for so long that people start to wonder."""
        lines: list[str] = []
        now = self._clock()
        while self._waiting:
            event, (since, row) = next(iter(self._waiting.items()))
            if now - since < PATIENCE and len(self._waiting) <= REMEMBERED:
                break
            del self._waiting[event]
            if self._cap(lines) and (line := self._lines.waiting(row)) is not None:
                lines.append(line)
                self._shown += 1
        return lines

    def _write_lines(self, lines: list[str], *, always: bool = False) -> None:
        if lines or always:
            self._write("".join(f"{line}\n" for line in lines))
        self._tell_dropped()

    def _write(self, text: str) -> None:
        if self._status_line:
            text = f"\r\x1b[2K{text}{paint(self._status, 'dim', color=self._color)}"
        if text:
            self._events.put(self._out, text.encode("utf-8", "backslashreplace"))

    def _say(self, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        if self._people is self._events and self._status_line:
            data = b"\r\x1b[2K" + data + paint(self._status, "dim", color=self._color).encode()
        self._people.put(self._err, data)

    def _tell_dropped(self) -> None:
        """Say that lines were lost to a slow reader: the record has them, this view has not."""
        lost = self._events.dropped
        if lost < max(1, 2 * self._reported):
            return
        apart = self._people is not self._events
        if apart or self._events.queued < BACKLOG // 2:  # else the warning would only be lost as well
            self._reported = lost
            self.notice(f"warning: the reader of the live view is too slow or gone: {counted(lost, 'line')} dropped")

    def _columns(self) -> int:
        if self._width is not None:
            return self._width
        if not self._out_terminal:
            return WIDTH
        try:
            return os.get_terminal_size(self._out).columns or 80
        except OSError:
            return shutil.get_terminal_size().columns


def banner_lines(
    settings: Settings, *, version: str, upstream_notes: Sequence[str], summary: Summary | None
) -> list[str]:
    """Return the lines that say what runs where."""
    record = settings.record
    store = record.store.removeprefix("sqlite:///") if record.store.startswith("sqlite:///") else record.store
    home = str(Path.home())
    store = f"~{store[len(home) :]}" if store.startswith(f"{home}/") else store
    bodies = {"none": "no bodies", "redacted": "secrets redacted", "full": "bodies in full"}[record.bodies]
    kept = "kept for ever"
    if record.keep is not None:
        days, rest = divmod(record.keep, 86400)
        kept = f"kept {duration(record.keep * 1000) if rest else counted(int(days), 'day')}"
    if record.max_size is not None:
        kept = f"{kept}, at most {size(record.max_size)}"
    held = []
    if summary is not None:
        held = [counted(summary.sessions, "session"), size(summary.file_bytes)]
    rows = []
    for proxy, note in zip(settings.proxies, upstream_notes, strict=True):
        named = f"{proxy.name}: " if proxy.name else ""
        rows.append(("upstream", proxy.upstream.url, f"{named}{note}"))
        what = "clients connect to this socket" if proxy.listen.socket else "give this URL to your MCP client"
        rows.append(("proxy", proxy.url, f"← {what}"))
    rows += [
        ("desk", settings.admin.url, "sessions, tools, live view"),
        ("record", store, ", ".join([*held, bodies, kept])),
    ]
    wide = max(columns(harmless(value)) for _, value, _ in rows)
    wide = min(wide, 48)
    lines = [f"  mcp-tap {version}"]
    for word, value, note in rows:
        shown = harmless(value)
        lines.append(f"  {word:<10} {shown}{' ' * max(0, wide - columns(shown))}  {harmless(note)}".rstrip())
    return lines
