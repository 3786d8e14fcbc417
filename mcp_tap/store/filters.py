"""The filter language: `tool:search status:failed -method:ping latency:>500ms since:1h claude`.

One table of keys, `KEYS`, serves the box on the pages, their URLs, the API and the command line. Words stand side by
side and all have to hold; a comma inside a word means or, `-` before it means not, quotes keep spaces together. A word
without a key looks for ids, clients, tools and error texts.

A parsed filter becomes SQL over `timeline` (with its `connection`, which may be missing) or over `connection`, both
under these names and with `provider` and `session` joined; every value is bound, never written into the text.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from mcp_tap.model import UsageError, hash_session_id
from mcp_tap.store.conditions import (
    SIZES,
    SPANS,
    Condition,
    any_of,
    begins,
    compared,
    iso,
    joined,
    like,
    matches,
    moment,
    named,
    one_of,
)

#: What a filter may ask at once. Every word and every value makes the SQL deeper, which SQLite allows up to a depth of
#: 1,000 (https://www.sqlite.org/limits.html §4), and a long text makes comparing slower with every row.
MOST_WORDS: Final = 100
MOST_VALUES: Final = 400
MOST_CHARACTERS: Final = 8_000


class About(NamedTuple):
    """What a value is read with."""

    now_us: int  # the moment that spans count back from
    session_key: bytes = b""  # of the recording, where it is known: ids of sessions may be stored hashed
    since: str = ""  # lines from then on are looked at for what a session has; "" for all
    until: str = ""  # and those before then


class Term(NamedTuple):
    """One word of a filter."""

    key: str  # as the table names it; "" for a bare word
    value: str  # as written, commas and all, without quotes
    negated: bool = False

    def __str__(self) -> str:
        """Return the word as it is written, quoted where it must be."""
        value = self.value
        if not value or re.search(r"[\s\"']|^//", value) or (not self.key and (":" in value or value.startswith("-"))):
            value = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{'-' if self.negated else ''}{self.key}{':' if self.key else ''}{value}"


@dataclass(frozen=True)
class Filter:
    """Words that all have to hold. ``now_us`` is the moment that spans like `since:1h` count back from."""

    terms: tuple[Term, ...] = ()
    now_us: int = field(default=0, compare=False)

    def __bool__(self) -> bool:
        """Whether it asks for anything."""
        return bool(self.terms)

    def __str__(self) -> str:
        """Return the filter as it is written; `parse` of it gives the same filter."""
        return " ".join(map(str, self.terms))

    def value(self, key: str) -> str | None:
        """Return what stands behind a key, where it stands there once and is not negated."""
        found = [term.value for term in self.terms if term.key == key and not term.negated]
        return found[0] if len(found) == 1 else None

    def without(self, *keys: str) -> Filter:
        """Return the filter without the words of these keys."""
        return Filter(tuple(term for term in self.terms if term.key not in keys), self.now_us)

    def only(self, *keys: str) -> Filter:
        """Return the filter with the words of these keys alone."""
        return Filter(tuple(term for term in self.terms if term.key in keys), self.now_us)

    def fits_tool(self, name: str) -> bool:
        """Whether what the filter says of tools by name holds for one, whatever else it asks for."""
        for term in self.terms:
            if term.key in {"tool", "name"}:
                named = any(matches(name, value) for value in term.value.split(",") if value)
                if named == term.negated:
                    return False
        return True

    def minus(self, term: Term) -> Filter:
        """Return the filter without one word."""
        return Filter(tuple(each for each in self.terms if each != term), self.now_us)

    def plus(self, key: str, value: str, *, negated: bool = False) -> Filter:
        """Return the filter with one word more; raise UsageError where the key or the value is none."""
        term = Term(_known(key, f"{key}:{value}") if key else "", value, negated)
        _check(term, self.now_us)
        return self if term in self.terms else Filter((*self.terms, term), self.now_us)

    def replaced(self, key: str, value: str) -> Filter:
        """Return the filter with this word in the place of all words of the same key."""
        return self.without(key).plus(key, value)

    @property
    def since_us(self) -> int | None:
        """The moment from which on rows are asked for, in microseconds since the epoch; None for the beginning."""
        return max(self._moments("since", "from"), default=None)

    @property
    def until_us(self) -> int | None:
        """The moment before which rows are asked for; None for now."""
        return min(self._moments("to"), default=None)

    @property
    def searches_events(self) -> bool:
        """Whether lines have to be looked at one by one, since no index leads to those that fit."""
        asked = [term for term in self.terms if term.key not in _TIMES]
        return bool(asked) and not any(_indexed(term, self.now_us) for term in asked)

    @property
    def searches_sessions(self) -> bool:
        """Whether all lines have to be looked at for the sessions that have one which fits."""
        about = About(self.now_us)
        through = [term for term in self.terms if _HAS_EVENT in _Word(term).condition(SESSION, about)[0]]
        through = [term for term in through if term.negated or not _indexed(term, self.now_us)]
        # of a part of the lines nobody can say which sessions have none
        return bool(through) and not any(term.negated for term in through)

    def _moments(self, *keys: str) -> list[int]:
        return [moment(t.value, self.now_us) for t in self.terms if t.key in keys and not t.negated]

    def previous(self) -> Filter | None:
        """Return the same question about the equally long time before, or None without a beginning."""
        since = self.since_us
        if since is None:
            return None
        until = self.until_us or self.now_us
        rest = self.without("since", "from", "to")
        return rest.plus("from", iso(2 * since - until)).plus("to", iso(since))

    def events(self, session_key: bytes = b"") -> Condition:
        """Return the condition on rows of `timeline`, with `?` for each value in turn.

        ``session_key`` is that of the recording: with it, a raw `mcp-session-id` also finds its hash.
        """
        about = About(self.now_us, session_key)
        return joined(term.condition(EVENT, about) for term in map(_Word, self.terms))

    def sessions(self, session_key: bytes = b"", *, since: str = "", until: str = "") -> Condition:
        """Return the condition on rows of `connection`, with `?` for each value in turn; see `events`.

        ``since`` and ``until`` (ISO) bound the lines that are looked at for what a session has.
        """
        about = About(self.now_us, session_key, since, until)
        return joined(term.condition(SESSION, about) for term in map(_Word, self.terms))


_TIMES: Final = frozenset({"since", "from", "to"})


def _indexed(term: Term, now_us: int) -> bool:
    """Whether an index leads to the lines that fit a word."""
    if term.negated:
        return False
    if term.key in {"status", "latency"}:
        sql, _ = _Word(term).condition(EVENT, About(now_us))
        return "= 'failed'" in sql or "= 'waiting_for_response'" in sql or f">= {_SLOW_US}" in sql
    return term.key in {"conn", "session", "error"}


def parse(text: str, *, now_us: int) -> Filter:
    """Read a filter as people write it. Raises UsageError that names the word and the nearest one that exists."""
    if len(text) > MOST_CHARACTERS:
        raise _too_long(f"{len(text):,} characters", f"{MOST_CHARACTERS:,}")
    terms = []
    for word in _words(text):
        negated = word.startswith("-") and len(word) > 1
        key, colon, value = word.removeprefix("-" if negated else "").partition(":")
        if not colon or not key or not re.fullmatch(r"[A-Za-z_]+", key) or value.startswith("//"):
            term = Term("", _unquoted(key + colon + value), negated)
        else:
            term = Term(_known(key, word), _unquoted(value), negated)
        _check(term, now_us)
        terms.append(term)
    return _bounded(Filter(tuple(dict.fromkeys(terms)), now_us))


def from_parameters(parameters: Iterable[tuple[str, str]], *, now_us: int) -> Filter:
    """Read the filter of a URL: ``q`` holds words as people write them, every key is a parameter of its own, too.

    A parameter given several times means or. Parameters that are no keys are left alone. Raises UsageError.
    """
    read = Filter((), now_us)
    single: dict[tuple[str, bool], list[str]] = {}
    for name, value in parameters:
        negated, key = name.startswith("-"), name.removeprefix("-")
        if name == "q":
            read = Filter((*read.terms, *parse(value, now_us=now_us).terms), now_us)
        elif (key in KEYS or key in ALIASES) and value:
            single.setdefault((ALIASES.get(key, key), negated), []).append(value)
    for (key, negated), values in single.items():
        if (length := sum(map(len, values))) > MOST_CHARACTERS:
            raise _too_long(f"{length:,} characters", f"{MOST_CHARACTERS:,}")
        read = read.plus(key, ",".join(values), negated=negated)
    return _bounded(Filter(tuple(dict.fromkeys(read.terms)), now_us))


def _bounded(read: Filter) -> Filter:
    """Return the filter, unless it asks for more at once than can be asked."""
    values = sum(term.value.count(",") + 1 for term in read.terms)
    if len(read.terms) > MOST_WORDS:
        raise _too_long(f"{len(read.terms):,} words", f"{MOST_WORDS}")
    if values > MOST_VALUES:
        raise _too_long(f"{values:,} values", f"{MOST_VALUES}")
    return read


def _too_long(has: str, most: str) -> UsageError:
    return UsageError(f"the filter has {has}; at most {most} can be asked at once", hint="ask twice", code="filter")


def _words(text: str) -> Iterator[str]:
    """Yield the words, quotes still in them: blanks separate, except between double quotes."""
    for match in re.finditer(r'(?:[^\s"]|"(?:[^"\\]|\\.)*"?)+', text):
        yield match[0]


def _unquoted(text: str) -> str:
    if '"' not in text:
        return text
    return re.sub(r'"((?:[^"\\]|\\.)*)"?', lambda quoted: re.sub(r"\\(.)", r"\1", quoted[1]), text)


def _known(key: str, word: str) -> str:
    lower = key.lower()
    name = ALIASES.get(lower, lower)
    if name in KEYS:
        return name
    close = difflib.get_close_matches(lower, [*KEYS, *ALIASES], n=1)
    known = f"did you mean {close[0]}:?\n" if close else ""
    raise UsageError(
        f'"{word}" has no key that filters know',
        hint=f"{known}there are:  {' '.join(f'{k}:' for k in KEYS)}",
        code="filter",
    )


def _check(term: Term, now_us: int) -> None:
    """Refuse a value that its key cannot read, before anything is asked with it."""
    _Word(term).condition(EVENT, About(now_us))


# ------------------------------------------------------------------------------------------------- the table of keys

#: What a filter is asked about.
EVENT: Final = "event"
SESSION: Final = "session"

_Read = Callable[[str, About], Condition]  # a value → its condition


class Key(NamedTuple):
    """One key: what it means, an example, and the condition of one value on an event and on a session.

    Where ``session`` is None, a session fits that has an event which does.
    """

    help: str
    example: str
    event: _Read
    session: _Read | None = None
    split: bool = True  # a comma means or


def _tool(value: str, _: About) -> Condition:
    sql, values = named("timeline.name", value)
    return f"(timeline.type = 'tools/call' AND {sql})", values


def _called(value: str, _: About) -> Condition:
    sql, values = named("called.key", value)
    return f"EXISTS (SELECT 1 FROM json_each(connection.tools) AS called WHERE {sql})", values


def _who(name: str, version: str) -> _Read:
    def read(value: str, _: About) -> Condition:
        who, at, exactly = value.partition("@")
        if not at:
            return like(name, who)
        sql, values = begins(version, exactly)
        return f"({name} = ? AND {sql})", (who, *values)

    return read


_MESSAGE_STATUS: Final = {
    "ok": "succeeded", "succeeded": "succeeded", "error": "failed", "failed": "failed",
    "pending": "waiting_for_response", "waiting_for_response": "waiting_for_response",
    "active": "active", "ended": "ended",
}  # fmt: skip


def _status(value: str, _: About) -> Condition:
    status = one_of(value, _MESSAGE_STATUS, "status")
    column = "connection.status" if status in {"active", "ended"} else "timeline.status"
    return f"{column} = '{status}'", ()  # a word of ours, written out: only so can an index of part of the rows serve


def _session_status(value: str, _: About) -> Condition:
    status = one_of(value, _MESSAGE_STATUS, "status")
    counted = {"failed": "connection.errors > 0", "succeeded": "connection.errors = 0"}
    counted["waiting_for_response"] = "connection.open_calls > 0"
    return (counted[status], ()) if status in counted else ("connection.status = ?", (status,))


_REASONS: Final = {
    "tool": "tool_error", "rpc": "rpc_error", "http": "http_error", "transport": "transport_error",
    "tool_error": "tool_error", "rpc_error": "rpc_error", "http_error": "http_error",
    "transport_error": "transport_error", "no_response": "no_response", "timeout": "timeout",
    "cancelled": "cancelled", "abandoned": "abandoned",
}  # fmt: skip


def _error(value: str, _: About) -> Condition:
    if re.fullmatch(r"-?\d+", value):
        return "(timeline.status = 'failed' AND timeline.code = ?)", (value,)
    return "(timeline.status = 'failed' AND timeline.failure_reason = ?)", (one_of(value, _REASONS, "kind of error"),)


_DIRECTIONS: Final = {
    "client": "client_to_server", "client_to_server": "client_to_server", "to_server": "client_to_server",
    "server": "server_to_client", "server_to_client": "server_to_client", "to_client": "server_to_client",
}  # fmt: skip

_MARKS: Final = {
    "incomplete": ("timeline.dropped + timeline.request_cut + timeline.response_cut > 0",
                   "connection.dropped + connection.truncated > 0"),
    "shared": ("connection.origin_note LIKE 'shared%'", "connection.origin_note LIKE 'shared%'"),
    "quiet": ("(connection.status = 'active' AND connection.state = 'disconnected')",) * 2,
    "retry": ("timeline.attempt > 1", None),
    "call": ("(timeline.kind = 'request' AND timeline.direction = 'client_to_server')", None),
}  # fmt: skip


def _mark(value: str, _: About) -> Condition:
    return one_of(value, _MARKS, "mark")[0], ()


def _session_mark(value: str, about: About) -> Condition:
    about_session: str | None = one_of(value, _MARKS, "mark")[1]
    return _has_event(_mark(value, about), about) if about_session is None else (about_session, ())


def _id(value: str, _: About) -> Condition:
    if number := re.fullmatch(r"s(?:mg|ev)_[0-9a-z]{5}(\d{12})", value):
        return "timeline.pk = ?", (int(number[1]),)
    if value.startswith(("scn_", "ses_")):
        return any_of(begins("connection.id", value), begins("session.id", value))
    return "timeline.jsonrpc_id IN (?, ?)", (value, f'"{value}"')


def _session_id(value: str, about: About) -> Condition:
    own = _id(value, about)
    return own if value.startswith(("scn_", "ses_")) else _has_event(own, about)


def _belongs(value: str, about: About) -> Condition:
    columns = ("session.id", "connection.id", "connection.mcp_session_id")
    conditions = [begins(column, value) for column in columns]
    if about.session_key:
        conditions.append(("connection.mcp_session_id = ?", (hash_session_id(value, about.session_key),)))
    return any_of(*conditions)


def _text(value: str, _: About) -> Condition:
    sql, values = like("body.data", value)
    stored = (f"EXISTS (SELECT 1 FROM body WHERE body.timeline = timeline.pk AND {sql})", values)
    return any_of(like("timeline.message", value), like("timeline.note", value), stored)


def _bare(value: str, about: About) -> Condition:
    names = ("timeline.name", "timeline.message", "timeline.type", "connection.client_name", "timeline.trace_id")
    return any_of(_belongs(value, about), *(like(name, value) for name in names))


def _bare_session(value: str, about: About) -> Condition:
    names = ("connection.client_name", "connection.server_name", "connection.user_agent", "connection.tools")
    failed = "SELECT connection FROM timeline WHERE status = 'failed' AND "
    sql, values = like("timeline.message", value)
    errors = (f"connection.pk IN ({failed}{sql})", values)
    return any_of(_belongs(value, about), *(like(name, value) for name in names), errors)


_HAS_EVENT: Final = "connection.pk IN (SELECT timeline.connection FROM timeline WHERE "


def _has_event(condition: Condition, about: About) -> Condition:
    sql, values = condition
    for sign, bound in ((">=", about.since), ("<", about.until)):
        if bound:
            sql, values = f"timeline.time {sign} ? AND {sql}", (bound, *values)
    return f"{_HAS_EVENT}{sql})", values


#: What took longer stands in an index of its own.
_SLOW_US: Final = 100_000


def _latency(value: str, _: About) -> Condition:
    sql, values = compared("timeline.duration_us", value, SPANS, "latency:>500ms or 100ms..1s")
    slow = not value.lstrip().startswith("<") and values[0] >= _SLOW_US
    return (f"(timeline.duration_us >= {_SLOW_US} AND {sql})" if slow else sql), values


def _at_least(column: str) -> _Read:
    return lambda value, _: compared(column, value, SPANS, "duration:>10m or 1m..5m")


def _count(column: str) -> _Read:
    return lambda value, _: compared(column, value, {"": 1}, ">10")


def _column(form: Callable[[str, str], Condition], column: str) -> _Read:
    return lambda value, _: form(column, value)


def _word_of(column: str, words: Iterable[str], what: str) -> _Read:
    table = {word: word for word in words}
    return lambda value, _: (f"{column} = ?", (one_of(value, table, what),))


def _in(column: str) -> _Read:
    return _column(begins, column)


_ORIGIN = _word_of("connection.origin", ("header", "endpoint", "gateway", "derived"), "origin")
_STATE = _word_of("connection.state", ("connected", "disconnected"), "state")
_ERA = _word_of("connection.era", ("legacy", "modern"), "era")
_CLIENT = _who("connection.client_name", "connection.client_version")
_SERVER = _who("connection.server_name", "connection.server_version")
_DURATION = (
    "max(coalesce(connection.ended_us, connection.last_active_us)"
    " - coalesce(connection.started_us, connection.created_us), 0)"
)

KEYS: Final[dict[str, Key]] = {
    "tool": Key("the tool that is called; * stands for anything", "tool:create_*", _tool, _called),
    "method": Key("the JSON-RPC method or the name of the event", "-method:ping", _column(named, "timeline.type")),
    "name": Key("the tool, prompt or resource", "name:file:///*", _column(named, "timeline.name")),
    "client": Key("part of the client's name, or name@version", "client:claude", _CLIENT, _CLIENT),
    "server": Key("part of the server's name, or name@version", "server:weather", _SERVER, _SERVER),
    "session": Key("the beginning of a session's id or of an mcp-session-id", "session:85caee5d", _belongs, _belongs),
    "conn": Key("the beginning of a connection's id", "conn:scn_01k", _in("connection.id"), _in("connection.id")),
    "status": Key("ok, error or pending; for sessions active or ended", "status:failed", _status, _session_status),
    "error": Key("a code or a kind: tool, rpc, http, timeout, cancelled, …", "error:-32602,timeout", _error),
    "outcome": Key(
        "what a message came to", "outcome:input_required",
        _word_of("timeline.outcome", ("input_required", "task", "auth_challenge", "probe", "unparsed"), "outcome"),
    ),
    "dir": Key(
        "who sent it: client or server", "dir:server",
        lambda value, _: ("timeline.direction = ?", (one_of(value, _DIRECTIONS, "direction"),)),
    ),
    "era": Key("legacy or modern", "era:modern", _ERA, _ERA),
    "revision": Key(
        "the protocol's revision", "revision:2025-06-18",
        _in("connection.protocol_version"), _in("connection.protocol_version"),
    ),
    "origin": Key("header, endpoint, gateway or derived", "origin:derived", _ORIGIN, _ORIGIN),
    "upstream": Key(
        "part of the server's URL", "upstream:9000", _column(like, "provider.url"), _column(like, "provider.url")
    ),
    "id": Key("an id of ours, or a JSON-RPC id", "id:7", _id, _session_id),
    "trace": Key("the beginning of a trace id", "trace:4bf92f35", _in("timeline.trace_id")),
    "text": Key("words in bodies, errors and notes", 'text:"rate limited"', _text, split=False),
    "latency": Key("how long a message took", "latency:>500ms", _latency),
    "duration": Key("how long a session lasted", "duration:>10m", _at_least(_DURATION), _at_least(_DURATION)),
    "size": Key(
        "bytes of a message, both bodies", "size:>10kB",
        lambda v, _: compared("(timeline.request_bytes + timeline.response_bytes)", v, SIZES, "size:>10kB"),
        lambda v, _: compared("(connection.request_bytes + connection.response_bytes)", v, SIZES, "size:>10kB"),
    ),
    "calls": Key("how many calls a session has", "calls:>10", _count("connection.calls"), _count("connection.calls")),
    "errors": Key("how many of them failed", "errors:>0", _count("connection.errors"), _count("connection.errors")),
    "state": Key("connected, or disconnected: ended or not used lately", "state:disconnected", _STATE, _STATE),
    "is": Key("incomplete, shared, quiet, retry, call", "is:incomplete", _mark, _session_mark),
    "since": Key(
        "from then on: a span before now, or a time", "since:1h",
        lambda value, about: ("timeline.time >= ?", (iso(moment(value, about.now_us)),)),
        lambda value, about: ("connection.last_active >= ?", (iso(moment(value, about.now_us)),)),
        split=False,
    ),
    "from": Key(
        "from then on", "from:10:05",
        lambda value, about: ("timeline.time >= ?", (iso(moment(value, about.now_us)),)),
        lambda value, about: ("connection.last_active >= ?", (iso(moment(value, about.now_us)),)),
        split=False,
    ),
    "to": Key(
        "before then", "to:10:15",
        lambda value, about: ("timeline.time < ?", (iso(moment(value, about.now_us)),)),
        lambda value, about: ("connection.started < ?", (iso(moment(value, about.now_us)),)),
        split=False,
    ),
}  # fmt: skip

#: Other words for the same keys: those of the API's resources.
ALIASES: Final = {
    "connection": "conn", "connection_id": "conn", "connection_state": "state", "session_id": "session",
    "direction": "dir", "type": "method",
    "until": "to", "reason": "error", "code": "error", "trace_id": "trace", "protocol_version": "revision",
}  # fmt: skip

_BARE: Final = Key("ids, clients, tools and error texts", "claude", _bare, _bare_session, split=False)


class _Word:
    """A term on its way to become SQL."""

    def __init__(self, term: Term) -> None:
        self._term = term
        self._key = KEYS[term.key] if term.key else _BARE

    def condition(self, of: str, about: About) -> Condition:
        term, key = self._term, self._key
        values = [value for value in term.value.split(",") if value] if key.split else [term.value]
        if not any(value.strip() for value in values):
            raise UsageError(
                f'"{term.key}:" says nothing' if term.key else "an empty word says nothing",
                hint=f"for example:  {key.example}",
                code="filter",
            )
        try:
            read = [self._read(value, of, about) for value in values]
        except UsageError as error:
            raise UsageError(f'in "{term}": {error}', hint=error.hint, code="filter") from None
        sql, bound = any_of(*read) if len(read) > 1 else read[0]
        # what is unknown is not what was asked for, so its opposite holds
        return (f"NOT coalesce({sql}, 0)", bound) if term.negated else (sql, bound)

    def _read(self, value: str, of: str, about: About) -> Condition:
        if of == EVENT:
            return self._key.event(value, about)
        if self._key.session is not None:
            return self._key.session(value, about)
        return _has_event(self._key.event(value, about), about)
