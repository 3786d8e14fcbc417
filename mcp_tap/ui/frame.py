"""The frame of every page: where one is, what is asked, how recording goes, and the links that change the question.

A page's URL holds its whole state. The words of the filter stand in ``q``, the range of time beside it in ``since``,
``from`` and ``to``; sorting and what is opened have parameters of their own. Every link on a page is the page's own
URL with something changed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from urllib.parse import quote, urlencode

from starlette.requests import Request

from mcp_tap import __version__
from mcp_tap.api.desk import Desk, Recording
from mcp_tap.api.parameters import RESOURCE_WORDS, where
from mcp_tap.model import UsageError
from mcp_tap.store import Page, Row
from mcp_tap.store.filters import ALIASES, Filter, Term
from mcp_tap.store.filters import KEYS as KEYS_OF_FILTERS
from mcp_tap.ui.text import harmless, local, spaced
from mcp_tap.ui.upstreams import Down

#: Name, path, and the key that follows `g`.
NAV: Final = (
    ("Overview", "/", "o"),
    ("Sessions", "/sessions", "s"),
    ("Live", "/live", "l"),
    ("Tools", "/tools", "t"),
    ("Clients", "/clients", "c"),
    ("Errors", "/errors", "e"),
    ("Slow", "/slow", "w"),
    ("Connections", "/connections", "n"),
)

RANGES: Final = ("15m", "1h", "6h", "24h", "7d", "30d")

#: The parameters of the range of time; the other words of a filter stand in ``q``.
TIMES: Final = ("since", "from", "to")

_AGO: Final = re.compile(r"\d+(\.\d+)?[a-z]+")
_ISO: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:")

#: Where in a list one is: of no meaning as soon as the question is another one.
POSITION: Final = frozenset({"after", "before", "cursor"})

#: What a store that cannot be read says of itself.
NO_FACTS: Final[Row] = {
    "file": "", "file_bytes": 0, "events": 0, "sessions": 0, "oldest": None, "newest": None, "pruned_before": None,
    "change": 0, "upstreams": [],
}  # fmt: skip


class Link(NamedTuple):
    """A word that leads somewhere; ``current`` where one is there already."""

    text: str
    href: str
    current: bool = False
    key: str = ""


def address(path: str, parameters: Iterable[tuple[str, str]] = ()) -> str:
    """Return a URL of the desk; what filters are written with stays readable."""
    query = urlencode([*parameters], safe=":,*@/", quote_via=quote)
    return f"{path}?{query}" if query else path


def written(asked: Filter) -> list[tuple[str, str]]:
    """Return a filter as parameters of a URL."""
    times = [term for term in asked.terms if term.key in TIMES and not term.negated]
    words = Filter(tuple(term for term in asked.terms if term not in times))
    return ([("q", str(words))] if words else []) + [(term.key, term.value) for term in times]


def within(request: Request, since: str) -> Request:
    """Return the request with one range of time: what its filter says, else its parameters, else ``since``.

    The range that stands beside the box goes with every filter that is typed; a typed one takes its place.
    """
    given = request.query_params.multi_items()
    beside = [pair for pair in given if pair[0] in TIMES]
    try:
        typed = where(pair for pair in given if pair not in beside)
    except UsageError:
        return request  # refused in its place
    if any(term.key in TIMES and not term.negated for term in typed.terms):
        given = [pair for pair in given if pair not in beside]
    elif since and not beside:
        given = [*given, ("since", since)]
    else:
        return request
    return Request({**request.scope, "query_string": urlencode(given).encode()})


class Frame:
    """What every template knows as ``frame``."""

    version: Final = __version__

    def __init__(self, desk: Desk, request: Request, *, facts: Row, title: str) -> None:
        self.title = title
        self.facts = facts
        self.recording: Recording = desk.recording()
        self.proxies = desk.proxies
        self.keep = desk.keep
        self.path = _path(request)
        self.name = ""  # of the page, as its script and its style know it
        self.live = ""  # the URL of the page's live stream
        self.twin_path = f"/api{self.path}".rstrip("/")  # where the same is as JSON
        self.down: list[Down] = []  # servers that do not answer
        self.query_ms = 0.0
        self.now = _iso(datetime.now(UTC))
        self.theme = _theme(request)
        self.zone_minutes = _zone_minutes()
        self._given = request.query_params.multi_items()
        self._since = getattr(request.state, "since", "")  # what holds where the URL names no range of time
        self._token = bool(desk.token)
        self._root = str(request.base_url).rstrip("/")
        self.where = Filter()
        self.refused = False
        try:
            self.where = where(self._given)
        except UsageError:
            self.refused = True  # the page says so in its place; the box keeps what was written
            self.where = where(pair for pair in self._given if pair[0] in TIMES and _readable(*pair))
        self._others = [
            (name, value)
            for name, value in self._given
            if name not in POSITION and name not in {"q", "theme", "panel"} and not _is_filter(name)
        ]

    # -------------------------------------------------------------------------------------------- where one is

    @property
    def nav(self) -> list[Link]:
        """The pages, each with the range of time that is chosen here."""
        times = self._range_written(self.where)
        at = "/sessions" if self.path.startswith("/messages") else self.path
        return [
            Link(name, address(path, times), at == path or (path != "/" and at.startswith(f"{path}/")), key)
            for name, path, key in NAV
        ]

    @property
    def nothing_recorded(self) -> bool:
        """Whether the recording is empty."""
        return not self.facts["events"] and not self.facts["sessions"]

    @property
    def reading(self) -> str:
        """The name of the file that is looked at; "" while the tap records."""
        return "" if self.recording.on else str(self.facts["file"])

    # -------------------------------------------------------------------------------------------- what is asked

    @property
    def q(self) -> str:
        """What stands in the filter's box."""
        if self.refused:
            return " ".join(value for name, value in self._given if name == "q") or " ".join(
                f"{name}:{value}" for name, value in self._given if name not in POSITION
            )
        return next((value for name, value in written(self.where) if name == "q"), "")

    @property
    def hidden(self) -> list[tuple[str, str]]:
        """What the form of the filter's box sends beside it."""
        times = (written if self.refused else self._written)(self.where)
        kept = [(name, value) for name, value in self._others if name != "open"]
        return [pair for pair in times if pair[0] in TIMES] + kept

    @property
    def chips(self) -> list[Link]:
        """The words of the filter, each with the URL of the page without it."""
        return [Link(str(term), self.asking(self.where.minus(term))) for term in self.where.terms]

    @property
    def ranges(self) -> list[Link]:
        """The ranges of time that can be chosen with one click."""
        now = self.where.value("since")
        links = [Link(span, self.asking(self._timed("since", span)), span == now) for span in RANGES]
        return [*links, Link("all", self.all_time, not self._times)]

    @property
    def all_time(self) -> str:
        """The URL of this page without a range of time."""
        return self.asking(self.where.without(*TIMES))

    @property
    def range(self) -> str:
        """The range of time in words."""
        times = {term.key: term.value for term in self._times}
        if not times:
            return "all time"
        if [*times] == ["since"] and _AGO.fullmatch(times["since"]):
            return f"last {spaced(times['since'])}"
        begin = _moment(times.get("since") or times.get("from"))
        return f"{begin or 'the beginning'} to {_moment(times.get('to')) or 'now'}"

    @property
    def within(self) -> str:
        """The range of time inside a sentence."""
        said = self.range
        if said == "all time":
            return "in this recording"
        return f"in the {said}" if said.startswith("last ") else f"from {said}"

    @property
    def _times(self) -> list[Term]:
        return [term for term in self.where.terms if term.key in TIMES and not term.negated]

    def _timed(self, key: str, value: str) -> Filter:
        return self.where.without(*TIMES).plus(key, value)

    # ---------------------------------------------------------------------------------------------------- links

    def asking(self, asked: Filter) -> str:
        """Return the URL of this page with another filter, from the beginning of its list."""
        return address(self.path, [*self._written(asked), *self._others])

    def _written(self, asked: Filter) -> list[tuple[str, str]]:
        """Return a filter as parameters of this page: all time has to be said where a range holds by itself."""
        pairs = written(asked)
        return pairs if not self._since or any(name in TIMES for name, _ in pairs) else [*pairs, ("since", "")]

    def _range_written(self, asked: Filter) -> list[tuple[str, str]]:
        return [pair for pair in self._written(asked) if pair[0] in TIMES]

    def plus(self, key: str, value: str) -> str:
        """Return the URL of this page with one more word in its filter."""
        return self.asking(self.where.plus(key, value))

    def replaced(self, key: str, value: str) -> str:
        """Return the URL of this page with this word in the place of all of the same key."""
        return self.asking(self.where.replaced(key, value))

    def without(self, *keys: str) -> str:
        """Return the URL of this page without the words of these keys."""
        return self.asking(self.where.without(*keys))

    def link(self, **changes: object) -> str:
        """Return the URL of this page with some parameters changed; None takes one away.

        Where in a list one is gets lost, unless ``after`` or ``before`` is given. ``from_`` stands for ``from``.
        """
        new = {name.rstrip("_"): value for name, value in changes.items()}
        kept = [pair for pair in [*self._written(self.where), *self._others] if pair[0] not in new]
        return address(self.path, kept + [(name, str(value)) for name, value in new.items() if value is not None])

    def to(self, path: str, **words: object) -> str:
        """Return the URL of another page with this range of time and the given words as its filter."""
        times = self._range_written(self.where)
        terms = tuple(Term(key, str(value)) for key, value in words.items() if value is not None)
        return address(path, written(Filter(terms)) + times)

    @property
    def bare(self) -> str:
        """The URL of this page without any filter."""
        return self.asking(Filter())

    @property
    def nearest(self) -> str:
        """The URL of this page for the newest hour that has data."""
        newest = datetime.fromisoformat(self.facts["newest"])
        begin, end = newest - timedelta(hours=1), newest + timedelta(seconds=1)
        return self.asking(self.where.without(*TIMES).plus("from", _iso(begin)).plus("to", _iso(end)))

    def sorted_by(self, column: str, *, down: bool = True) -> Link:
        """Return the link that sorts by a column, the other way round where it is already; ``key`` is `aria-sort`."""
        sort, order = self.parameter("sort"), self.parameter("order") or "desc"
        current = sort == column
        turned = ("asc" if order == "desc" else "desc") if current else ("desc" if down else "asc")
        href = self.link(sort=column or None, order=None if turned == "desc" else turned)
        state = ("descending" if order == "desc" else "ascending") if current else ""
        return Link("", href, current, state)

    def newer(self, page: Page, key: str) -> str:
        """Return the URL of the rows before those of ``page``, "" where there are none; ``key`` is their id."""
        return self.link(before=page.rows[0][key]) if page.more_before and page.rows else ""

    def older(self, page: Page, key: str) -> str:
        """Return the URL of the rows after those of ``page``, "" where there are none."""
        return self.link(after=page.rows[-1][key]) if page.more_after and page.rows else ""

    def parameter(self, name: str) -> str:
        """Return a parameter that is no part of the filter, "" where it is not given."""
        return next((value for given, value in self._given if given == name), "")

    @property
    def twin(self) -> str:
        """The URL of the same as JSON."""
        return address(self.twin_path, [pair for pair in self._given if pair[0] != "theme"])

    @property
    def curl(self) -> str:
        """The command that fetches this page's data."""
        token = ' -H "Authorization: Bearer $MCP_TAP_TOKEN"' if self._token else ""
        return f"curl -s{token} {shlex.quote(self._root + self.twin)}"

    @property
    def other_theme(self) -> Link:
        """The link that turns the colours round, for browsers without scripts."""
        theme = "light" if self.theme == "dark" else "dark"
        return Link(theme, address(self.path, [*(p for p in self._given if p[0] != "theme"), ("theme", theme)]))

    @property
    def keys(self) -> Sequence[tuple[str, str]]:
        """What every key does, for the dialog of help."""
        return KEYS


#: Keys and what they do, as the help dialog says them.
KEYS: Final = (
    ("?", "this help"),
    ("/", "filter"),
    *((f"g {key}", name) for name, _, key in NAV),
    ("j k", "next, previous row"),
    ("Enter", "open the row"),
    ("x", "expand the row"),
    ("n N", "next, previous error"),
    ("← →", "previous, next event in the panel"),
    ("[ ]", "previous, next session"),
    ("Esc u", "close; up"),
    ("p f", "pause, follow (Live)"),
    ("y Y", "copy as curl; copy JSON"),
    (".", "range of time"),
    ("0 + -", "fit, zoom in, zoom out (waterfall)"),
)


def _is_filter(name: str) -> bool:
    key = name.removeprefix("-")
    return key in KEYS_OF_FILTERS or key in ALIASES or key in {*RESOURCE_WORDS, "session_provider_id"}


def _readable(name: str, value: str) -> bool:
    try:
        where([(name, value)])
    except UsageError:
        return False
    return True


def _moment(written: str | None) -> str:
    """Return a moment of a filter as people write it, in the server's zone; what is no ISO time stays as it is."""
    if not written:
        return ""
    return local(written, "%d %b, %H:%M:%S") if _ISO.match(written) else harmless(written, 40)


def _iso(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z"


def _path(request: Request) -> str:
    """Return the path as it was asked for: names of tools hold slashes and question marks, escaped there."""
    raw = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    # two slashes at the beginning would be the address of another host
    return "/" + quote(raw.decode("latin-1").partition("?")[0].lstrip("/"), safe="/%:@!$&'()*+,;=-._~")


def _theme(request: Request) -> str:
    chosen = request.query_params.get("theme") or request.cookies.get("theme") or ""
    return chosen if chosen in {"light", "dark"} else ""


def _zone_minutes() -> int:
    offset = datetime.now().astimezone().utcoffset()
    return 0 if offset is None else int(offset.total_seconds() // 60)
