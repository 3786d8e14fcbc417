r"""Transcripts: what a tap saw of a conversation, and what its record should say, as text that people read and write.

A transcript is the channel's records in words, one after another, and below them the rows that come of them::

    # A comment.
    1> POST /mcp HTTP/1.1
    1> content-type: application/json
    1> content-length: \#
    1>
    1> {"jsonrpc":"2.0","id":1,"method":"ping"}\

    +250ms
    1< HTTP/1.1 202 Accepted
    1< content-length: 0
    1<

    1 closed

    events:
      type | status | failure_reason | latency_ms
      ping | failed | no_response    | 250.0

Each byte can be written, and is read back as the byte that it was. `docs/transcripts.md` has the rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mcp_tap.channel import Closing, Kind

#: Time between two steps where the transcript names none.
STEP_US: Final = 1000

#: What a stream is opened with where the transcript does not say.
UPSTREAM: Final = "http://up/mcp"

_UNITS: Final = {"us": 1, "ms": 1000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
_WAIT: Final = re.compile(r"\+(\d+(?:\.\d+)?)(us|ms|s|m|h)\Z")
_PIECE: Final = re.compile(r"(\d+)([<>!])(?: (.*))?\Z")
_STEP: Final = re.compile(r"(\d+) (open|client eof|server eof|closed|lost|unreachable)(?: (.+))?\Z")
_TABLE: Final = re.compile(r"(sessions|events):\Z")
_ESCAPE: Final = re.compile(rb"\\(x[0-9a-fA-F]{2}|.|\Z)", re.DOTALL)
_SAYS: Final = {">": Kind.CLIENT, "<": Kind.SERVER, "!": Kind.OWN}
_SIGN: Final = {kind: sign for sign, kind in _SAYS.items()}
_PLAIN: Final = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}
_CLOSINGS: Final = {value.decode() for name, value in vars(Closing).items() if name.isupper()}
_BODY: Final = b"\r\n\r\n"

#: Rows of cells; the first one names the columns.
Table = list[list[str]]


class TranscriptError(ValueError):
    """A transcript that cannot be read; the text names the line."""


@dataclass(slots=True, frozen=True)
class Step:
    """One record of the channel, and the time since the one before it. Without a kind only time passes."""

    kind: Kind | None
    stream: int = 0
    payload: bytes = b""
    after_us: int = STEP_US


@dataclass(slots=True, frozen=True)
class Opening:
    """The payload of an OPEN step, as its text says it."""

    peer: str
    upstream: str = UPSTREAM
    resumed: bool = False

    @classmethod
    def of(cls, step: Step) -> Opening:
        """Read the payload of a step; what it does not name has a default."""
        words = step.payload.decode().split()
        resumed = "resumed" in words
        peer, upstream, *_ = [*[word for word in words if word != "resumed"], "", ""]
        return cls(peer or f"127.0.0.1:{50_000 + step.stream}", upstream or UPSTREAM, resumed)


@dataclass(slots=True)
class Transcript:
    """A conversation and its record. ``comments`` are those before the first step, without their marks."""

    steps: list[Step] = field(default_factory=list)
    sessions: Table = field(default_factory=list)
    events: Table = field(default_factory=list)
    comments: list[str] = field(default_factory=list)

    def comment(self, key: str) -> str | None:
        """Return what stands behind ``key:`` in the comments at the top."""
        found = (line.partition(":") for line in self.comments)
        return next((rest.strip() for word, colon, rest in found if colon and word.strip() == key), None)


# ------------------------------------------------------------------------------------------------------------ reading


def read(text: str) -> Transcript:
    """Read a transcript. Raises TranscriptError."""
    found = Transcript()
    table: Table | None = None
    piece: _Piece | None = None
    after_us: int | None = None
    for number, line in enumerate(text.split("\n"), 1):
        try:
            if table is not None and line.strip() and not line.startswith("#"):
                table.append(_cells(line))
                continue
            match = _PIECE.match(line)
            if match:
                stream, kind = int(match[1]), _SAYS[match[2]]
                if piece is None or (piece.stream, piece.kind) != (stream, kind) or after_us is not None:
                    _close(found, piece)
                    piece, after_us = _Piece(stream, kind, STEP_US if after_us is None else after_us), None
                piece.add(match[3] or "")
                continue
            _close(found, piece)
            piece = None
            if line.startswith("#"):
                if not found.steps:
                    found.comments.append(line[1:].strip())
            elif not line.strip():
                table = None
            elif match := _TABLE.match(line):
                table = found.sessions if match[1] == "sessions" else found.events
            elif match := _WAIT.match(line):
                after_us = (after_us or 0) + round(float(match[1]) * _UNITS[match[2]])
            else:
                found.steps.append(_step(line, STEP_US if after_us is None else after_us))
                after_us = None
        except ValueError as error:
            raise TranscriptError(f"line {number}: {error}") from None
    _close(found, piece)
    if after_us is not None:
        found.steps.append(Step(None, after_us=after_us))
    return found


def _step(line: str, after_us: int) -> Step:
    if line == "stop":
        return Step(Kind.STOP, after_us=after_us)
    match = _STEP.match(line)
    if match is None:
        raise ValueError(f"not a step: {line[:60]}")
    stream, what, rest = int(match[1]), match[2], match[3] or ""
    kinds = {
        "open": Kind.OPEN,
        "client eof": Kind.CLIENT_EOF,
        "server eof": Kind.SERVER_EOF,
        "closed": Kind.CLOSED,
        "lost": Kind.LOST,
        "unreachable": Kind.CONNECT_FAILED,
    }
    if what == "closed":
        rest = rest or Closing.END.decode()
        if rest not in _CLOSINGS:
            raise ValueError(f"closed how? one of {', '.join(sorted(_CLOSINGS))}")
    elif what == "lost" and not rest.isdigit():
        raise ValueError("lost how many pieces?")
    return Step(kinds[what], stream, rest.encode(), after_us)


class _Piece:
    """Lines of one sender on one stream, until something else is said."""

    def __init__(self, stream: int, kind: Kind, after_us: int) -> None:
        self.stream, self.kind, self.after_us = stream, kind, after_us
        self._data = bytearray()
        self._lengths: list[int] = []  # where a `\#` stands
        self._chunk: int | None = None  # where a `\{` stands

    def add(self, text: str) -> None:
        line = text.encode()
        at = 0
        for match in _ESCAPE.finditer(line):
            self._data += line[at : match.start()]
            at = match.end()
            self._escape(match[1])
            if not match[1]:
                return
        self._data += line[at:] + b"\r\n"

    def _escape(self, escape: bytes) -> None:
        if escape in _PLAIN:
            self._data += _PLAIN[escape]
        elif escape[:1] == b"x" and len(escape) == 3:
            self._data.append(int(escape[1:], 16))
        elif escape == b"#":
            self._lengths.append(len(self._data))
        elif escape == b"{" and self._chunk is None:
            self._chunk = len(self._data)
        elif escape == b"}" and self._chunk is not None:
            self._data[self._chunk : self._chunk] = b"%x\r\n" % (len(self._data) - self._chunk)
            self._chunk = None
        elif escape:
            raise ValueError(f"what is \\{escape.decode(errors='replace')}?")

    def step(self) -> Step:
        if self._chunk is not None:
            raise ValueError("a chunk without its end")
        for at in reversed(self._lengths):
            body = self._data.find(_BODY, at)
            if body < 0:
                raise ValueError(r"\# without a body")
            self._data[at:at] = b"%d" % (len(self._data) - body - len(_BODY))
        return Step(self.kind, self.stream, bytes(self._data), self.after_us)


def _close(found: Transcript, piece: _Piece | None) -> None:
    if piece is not None:
        found.steps.append(piece.step())


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")]


# ------------------------------------------------------------------------------------------------------------ writing


def write(transcript: Transcript) -> str:
    """Return a transcript as text; `read` gives the same steps and rows back."""
    lines = [f"# {line}".rstrip() for line in transcript.comments]
    before: Step | None = None
    for step in transcript.steps:
        talk = step.kind in _SIGN
        if talk or before is None or before.kind in _SIGN or step.after_us != STEP_US:
            lines.append("")
        if step.after_us != STEP_US or step.kind is None:
            lines.append(_wait(step.after_us))
        lines += _lines(step)
        before = step
    for name, table in (("sessions", transcript.sessions), ("events", transcript.events)):
        if table:
            lines += ["", f"{name}:", *(f"  {row}" for row in aligned(table))]
    return "\n".join(lines).lstrip("\n") + "\n"


def _wait(us: int) -> str:
    unit = next(unit for unit in ("h", "m", "s", "ms", "us") if us % _UNITS[unit] == 0) if us else "ms"
    return f"+{us // _UNITS[unit]}{unit}"


def _lines(step: Step) -> Iterator[str]:
    kind, stream, payload = step.kind, step.stream, step.payload
    if kind is None:
        return
    if kind in _SIGN:
        for text in _written(payload):
            yield f"{stream}{_SIGN[kind]} {text}".rstrip(" ")
    elif kind is Kind.STOP:
        yield "stop"
    else:
        words = {
            Kind.OPEN: "open",
            Kind.CLIENT_EOF: "client eof",
            Kind.SERVER_EOF: "server eof",
            Kind.CLOSED: "closed",
            Kind.LOST: "lost",
            Kind.CONNECT_FAILED: "unreachable",
        }
        rest = "" if (kind, payload) == (Kind.CLOSED, Closing.END) else payload.decode("utf-8", "replace")
        yield f"{stream} {words[kind]} {rest}".rstrip(" ")


def _written(data: bytes) -> Iterator[str]:
    """Yield lines that stand for ``data``: one for each of its lines, however it ends."""
    length: re.Match[bytes] | None = None
    head, blank, body = data.partition(_BODY)
    if blank:  # a length that fits is written as such, so that whoever edits the body need not count
        length = re.search(rb"(?i)\r\ncontent-length: (%d)(?=\r\n|\Z)" % len(body), head)
    if length is not None:
        yield from _escaped(data[: length.start(1)], cut=length[0].split(b":")[0][2:] + rb": \#")
        data = data[length.end(1) + 2 :]
    yield from _escaped(data)


def _escaped(data: bytes, cut: bytes | None = None) -> Iterator[str]:
    lines = data.split(b"\n")
    for index, line in enumerate(lines):
        last = index == len(lines) - 1
        if last and cut is not None:
            yield cut.decode()
        elif last:
            if line:
                yield printable(line) + "\\"
        elif line.endswith(b"\r"):
            text = printable(line[:-1])
            yield text[:-1] + r"\x20" if text.endswith(" ") else text
        else:
            yield printable(line) + r"\n" + "\\"


def printable(data: bytes) -> str:
    """Return bytes as text of one line: what is no printable character of UTF-8 is escaped."""
    parts = []
    for char in data.decode("utf-8", "surrogateescape"):
        if char == "\\":
            parts.append("\\\\")
        elif char.isprintable() and not "\udc80" <= char <= "\udcff":
            parts.append(char)
        else:
            known = {"\r": r"\r", "\n": r"\n", "\t": r"\t", "\0": r"\0"}.get(char)
            parts.append(known or "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape")))
    return "".join(parts)


# ------------------------------------------------------------------------------------------------------------- tables


def cell(value: object) -> str:
    """Return a value as the text of a cell: None is ``-``, and what would end a cell or a line is escaped."""
    if value is None:
        return "-"
    text = printable(str(value).encode("utf-8", "surrogatepass")).replace("|", r"\x7c")
    if text != text.strip() or text in ("", "-"):
        return f'"{text}"'
    return text


def table_of(rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> Table:
    """Return the rows as a table of these columns. Raises KeyError for a column that no row has."""
    return [list(columns), *([cell(row[column]) for column in columns] for row in rows)]


def aligned(table: Table) -> list[str]:
    """Return a table as lines whose columns stand below each other."""
    widths = [max(len(row[i]) for row in table if i < len(row)) for i in range(max(map(len, table)))]
    return [" | ".join(text.ljust(width) for text, width in zip(row, widths, strict=False)).rstrip() for row in table]
