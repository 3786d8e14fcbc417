from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_tap.model import Batch, UsageError, hash_session_id
from mcp_tap.store import Paging, filters
from mcp_tap.store.filters import ALIASES, KEYS, Filter, Term, from_parameters, parse

from .plausible import at, morning
from .recording import connection, event, reading, record, run, writing

NOW = at("11:30:00")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filters") / "tap.db"
    record(path, *morning())
    return path


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


async def fitting(path: Path, text: str) -> tuple[list[int], list[int]]:
    """Return the numbers of the lines and of the connections that fit."""
    where = parse(text, now_us=NOW)
    async with reading(path) as reader:
        lines = await reader.list_events(where, Paging(limit=100, order="asc"))
        sessions = await reader.list_sessions(where, Paging(limit=100, order="asc"))
        assert lines.matched == len(lines.rows)
        assert sessions.matched == len(sessions.rows)
        return sorted(row["pk"] for row in lines.rows), sorted(row["pk"] for row in sessions.rows)


# The lines of the morning: 1-6 cursor, 7-14 claude-desktop, 15-19 Visual Studio Code, 20-24 night-agent, and
# 25, which belongs to no session.
ALL = list(range(1, 26))


FITS: list[tuple[str, list[int], list[int]]] = [
    ("", ALL, [1, 2, 3, 4]),
    ("tool:create_payment", [11, 12, 13], [2]),
    ("tool:*_orders,refund*", [18, 19], [3]),
    ("-tool:search_products", [n for n in ALL if n not in {4, 5, 10, 22, 23}], [3]),
    ("method:tools/list", [3, 9, 17], [1, 2, 3]),
    ("method:server/*", [21], [4]),
    ("name:refund_order", [18], [3]),
    ("client:claude", list(range(7, 15)), [2]),
    ("client:cursor@0.5", list(range(1, 7)), [1]),
    ("client:cursor@0.6", [], []),
    ('client:"visual studio"', list(range(15, 20)), [3]),
    ("-client:claude,cursor,night", [*range(15, 20), 25], [3]),
    ("server:sho", list(range(1, 25)), [1, 2, 3, 4]),
    ("server:shop@3", [], []),
    ("session:2f3a9c52", list(range(7, 15)), [2]),
    ("session:ses_00000000000000000000000003", list(range(15, 20)), [3]),
    ("conn:scn_00000000000000000000000001", list(range(1, 7)), [1]),
    ("connection_id:scn_0000000000000000000000000", list(range(1, 25)), [1, 2, 3, 4]),
    ("status:failed", [5, 11, 12], [1, 2]),
    ("status:pending", [19], [3]),
    ("status:ok tool:create_payment", [13], []),
    ("status:active", list(range(15, 20)), [3]),
    ("status:ended", [n for n in range(1, 25) if not 15 <= n < 20], [1, 2, 4]),
    ("error:-32000", [12], [2]),
    ("error:tool,http", [5, 11], [1, 2]),
    ("reason:rpc_error", [12], [2]),
    ("outcome:probe", [21], [4]),
    ("outcome:auth_challenge", [25], []),
    ("dir:server", [], []),
    ("dir:client -method:tools/call,initialize", [3, 9, 17, 21], []),
    ("era:modern", list(range(20, 25)), [4]),
    ("revision:2025", list(range(1, 20)), [1, 2, 3]),
    ("origin:derived", list(range(20, 25)), [4]),
    ("upstream::9000", list(range(1, 25)), [1, 2, 3, 4]),
    ("upstream:elsewhere", [], []),
    ("id:8", [14 - 0] if False else [], []),
    ("id:6", [13], [2]),
    ("id:scn_00000000000000000000000002", list(range(7, 15)), [2]),
    ("trace:4bf9", [], []),
    ('text:"processor busy"', [12], [2]),
    ("text:A-17", [11, 12, 13], [2]),
    ("text:100%", [], []),
    ("latency:>1s", [3, 11], [1, 2]),
    ("latency:<2ms", [21], [4]),
    ("latency:100ms..1s", [12, 13], [2]),
    ("latency:2340ms", [11], [2]),
    ("latency:=38.5ms", [4], [1]),
    ("duration:>10m", list(range(1, 7)), [1]),
    ("duration:<1m", [*range(7, 15), *range(20, 25)], [2, 4]),
    ("size:>5kB", [3, 9, 17, 22], [1, 2, 3, 4]),
    ("size:>50kB", [22], [4]),
    ("calls:>5", list(range(7, 15)), [2]),
    ("calls:3", [*range(1, 25)], [1, 2, 3, 4]),
    ("errors:>0", list(range(1, 15)), [1, 2]),
    ("is:incomplete", [22, 23], [4]),
    ("is:shared", list(range(20, 25)), [4]),
    ("is:quiet", [], []),
    ("state:connected", [*range(15, 20)], [3]),
    ("-connection_state:connected", [*range(1, 15), *range(20, 26)], [1, 2, 4]),
    ("is:retry", [12, 13], [2]),
    ("-is:call", [1, 6, 7, 14, 15, 20, 24, 25], []),
    ("since:1h", [*range(15, 26)], [3, 4]),
    ("from:10:08 to:10:09", [7, 8, 9, 10, 11, 12], [1, 2]),
    ("from:2026-03-14T11:00", list(range(20, 26)), [4]),
    ("to:2026-03-14T10:00:00Z", [1, 2, 3, 4], [1]),
    ("since:1h tool:search_products status:ok", [22, 23], [4]),
    ("cursor", list(range(1, 7)), [1]),
    ("create_payment", [11, 12, 13], [2]),
    ("shoos", [5], [1]),
    ("2f3a9c52-7d41-4c3e-9b7a-2f1f6f4f9a10", list(range(7, 15)), [2]),
    ("-search_products client:cursor", [1, 2, 3, 6], []),
]


@pytest.mark.parametrize(("text", "lines", "sessions"), FITS)
def test_what_fits(path: Path, text: str, lines: list[int], sessions: list[int]) -> None:
    assert run(fitting(path, text)) == (lines, sessions)


def test_every_key_has_a_row_above_and_an_example_that_is_one() -> None:
    used = {word.lstrip("-").partition(":")[0] for text, _, _ in FITS for word in re.findall(r"\S+:", text)}
    assert {*KEYS} <= {ALIASES.get(key, key) for key in used}
    for name, key in KEYS.items():
        assert parse(key.example, now_us=NOW).terms[0].key == name


def test_a_raw_id_finds_its_hash(tmp_path: Path) -> None:
    raw = "9c52f3a9-7d41-4c3e-9b7a-2f1f6f4f9a10"

    async def work() -> None:
        async with writing(tmp_path / "tap.db") as writer, reading(tmp_path / "tap.db") as reader:
            one = connection(1, mcp_session_id=hash_session_id(raw, writer.session_key))
            two = connection(2, mcp_session_id=hash_session_id("another", writer.session_key))
            await writer.write(Batch([one, two], [event(one), event(two)]))
            for text in (f"session:{raw}", raw):
                where = parse(text, now_us=NOW)
                assert [row["pk"] for row in (await reader.list_sessions(where)).rows] == [1]
                assert [row["pk"] for row in (await reader.list_events(where)).rows] == [1]

    run(work())


# ---------------------------------------------------------------------------------------------- writing and reading

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
values = {
    "status": st.sampled_from(["ok", "failed", "pending,active"]),
    "error": st.sampled_from(["-32602", "timeout,http", "tool"]),
    "outcome": st.just("probe"),
    "dir": st.just("client"),
    "era": st.just("legacy"),
    "origin": st.just("header"),
    "latency": st.sampled_from([">500ms", "1s..2s", "3min"]),
    "duration": st.just(">10m"),
    "size": st.sampled_from([">10kB", "5"]),
    "calls": st.just(">3"),
    "errors": st.just("=0"),
    "state": st.sampled_from(["connected", "disconnected,connected"]),
    "is": st.sampled_from(["retry", "incomplete,quiet"]),
    "since": st.sampled_from(["1h", "2026-03-14T10:08", "10:08"]),
    "from": st.just("10:05"),
    "to": st.just("10:15"),
}
said = words.filter(lambda text: any(part.strip() for part in text.split(",")))
terms = st.one_of(
    *(st.builds(Term, st.just(key), values.get(key, said), st.booleans()) for key in KEYS),
    st.builds(Term, st.just(""), words.filter(str.strip), st.booleans()),
)


@given(st.lists(terms, max_size=4, unique=True))
def test_a_filter_reads_as_it_is_written(some: list[Term]) -> None:
    written = Filter(tuple(some), NOW)
    assert parse(str(written), now_us=NOW) == written


@given(words)
def test_whatever_is_typed_is_a_filter_or_is_refused_with_a_hint(text: str) -> None:
    refused: UsageError | None = None
    try:
        where = parse(text, now_us=NOW)
    except UsageError as error:
        refused = error
    if refused is None:
        assert parse(str(where), now_us=NOW) == where
    else:
        assert refused.hint
        assert refused.code == "filter"


@pytest.mark.parametrize(
    ("text", "named", "hint"),
    [
        ("tol:x", "tol:x", "did you mean tool:?"),
        ("staus:failed", "staus:failed", "did you mean status:?"),
        ("status:faild", "status:faild", "did you mean failed?"),
        ("error:timout", "error:timout", "did you mean timeout?"),
        ("is:incomplet", "is:incomplet", "did you mean incomplete?"),
        ("dir:up", "dir:up", "client"),
        ("era:modrn", "era:modrn", "did you mean modern?"),
        ("origin:headr", "origin:headr", "did you mean header?"),
        ("outcome:prob", "outcome:prob", "did you mean probe?"),
        ("latency:fast", "latency:fast", "write latency:>500ms"),
        ("latency:1s..", "latency:1s..", "write"),
        ("size:>10 parsecs", "size:>10", ""),
        ("since:yesterday", "since:yesterday", "write 30m, 1h, 7d"),
        ("from:25:61", "from:25:61", "write"),
        ("tool:", "tool:", "tool:create_*"),
        ("tool:,", "tool:", "tool:create_*"),
        ('""', "", ""),
    ],
)
def test_a_bad_word_names_itself_and_the_nearest_good_one(text: str, named: str, hint: str) -> None:
    if text.startswith("size"):
        assert len(parse(text, now_us=NOW).terms) == 2  # blanks separate
        return
    with pytest.raises(UsageError) as caught:
        parse(text, now_us=NOW)
    assert named in str(caught.value)
    assert hint in caught.value.hint
    assert caught.value.code == "filter"


@pytest.mark.parametrize("key", ["", *KEYS])
@pytest.mark.parametrize(
    "attack",
    [
        "' OR 1=1 --",
        '"; DROP TABLE timeline; --',
        "') OR ('1'='1",
        "cre%e",
        "p_yment",
        "x' UNION SELECT 1 --",
        "?",
        "\\",
    ],
)
def test_a_value_is_never_sql(path: Path, key: str, attack: str) -> None:
    try:
        where = Filter((), NOW).plus(key, attack)
    except UsageError:
        return  # not a value of this key

    async def work() -> tuple[int, int]:
        async with reading(path) as reader:
            return (await reader.list_events(where)).matched, (await reader.list_sessions(where)).matched

    assert run(work()) == (0, 0)


# ------------------------------------------------------------------------------------------------------- of a URL


def test_parameters_are_words() -> None:
    given = [
        ("q", "tool:a client:b"),
        ("status", "failed"),
        ("tool", "c"),
        ("tool", "d"),
        ("-method", "ping"),
        ("x", "y"),
    ]
    assert str(from_parameters(given, now_us=NOW)) == "tool:a client:b status:failed tool:c,d -method:ping"
    assert from_parameters([("connection_id", "scn_1")], now_us=NOW) == parse("conn:scn_1", now_us=NOW)
    with pytest.raises(UsageError, match="status:faild"):
        from_parameters([("status", "faild")], now_us=NOW)


def test_a_filter_is_changed_word_by_word() -> None:
    where = parse("tool:a since:1h", now_us=NOW)
    assert str(where.plus("status", "failed")) == "tool:a since:1h status:failed"
    assert where.plus("tool", "a") is where
    assert str(where.replaced("since", "6h")) == "tool:a since:6h"
    assert str(where.minus(where.terms[0])) == "since:1h"
    assert str(where.without("since")) == "tool:a"
    assert str(where.only("since")) == "since:1h"
    assert where.value("tool") == "a"
    assert where.since_us == NOW - 3600 * 1_000_000
    assert where.until_us is None
    previous = where.previous()
    assert previous is not None
    assert (previous.since_us, previous.until_us) == (NOW - 7200 * 1_000_000, NOW - 3600 * 1_000_000)
    assert parse("tool:a", now_us=NOW).previous() is None


@pytest.mark.parametrize(
    ("text", "name", "fits"),
    [
        ("tool:a,b", "b", True),
        ("tool:cre*", "Create_it", True),
        ("-tool:cre*", "create_it", False),
        ("tool:a", "b", False),
        ("status:failed", "b", True),
    ],
)
def test_a_tool_fits_as_its_calls_do(text: str, name: str, *, fits: bool) -> None:
    assert parse(text, now_us=NOW).fits_tool(name) is fits


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (" ".join(f"word{number}" for number in range(10_000)), "characters"),
        (" ".join(f"w{number}" for number in range(filters.MOST_WORDS + 1)), "101 words"),
        ("tool:" + ",".join("a" * (filters.MOST_VALUES + 1)), "401 values"),
        ("text:" + "%" * 100_000, "characters"),
        ('text:"' + '\\"' * 50_000, "characters"),
        ('"' * 100_000, "characters"),
        ("tool:" + "*a" * 9, "stars"),
    ],
    ids=["long", "words", "values", "percent", "quoted", "quotes", "stars"],
)
def test_no_more_is_asked_than_can_be(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse(text, now_us=NOW)
    with pytest.raises(UsageError, match=says):
        from_parameters([("q", text)], now_us=NOW)


def test_as_much_is_asked_as_may_be(path: Path) -> None:
    words = [f"w{number}" for number in range(filters.MOST_WORDS - 1)]
    where = parse(" ".join([*words, "tool:" + ",".join("a" * (filters.MOST_VALUES - len(words)))]), now_us=NOW)

    async def ask() -> None:
        async with reading(path) as reader:
            assert not (await reader.list_events(where)).rows
            assert not (await reader.list_sessions(where)).rows

    run(ask())


@pytest.mark.parametrize("name", ["tool", "session", "method"])
def test_a_parameter_is_repeated_as_often_as_can_be_asked(name: str) -> None:
    with pytest.raises(UsageError, match="at most"):
        from_parameters([(name, f"a{number}") for number in range(10_000)], now_us=NOW)


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("*", "", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*b*c", "abcbc", True),
        ("a*b*c", "acb", False),
        ("**b**", "abc", True),
        ("*ab*ba*", "aba", False),
        ("*ab*ba*", "ab\nba", True),
    ],
)
def test_stars_stand_for_anything(pattern: str, name: str, *, fits: bool) -> None:
    assert Filter((Term("tool", pattern),)).fits_tool(name) is fits


def test_a_pattern_is_looked_for_once_in_a_long_name() -> None:
    # with every combination of places tried, this would not end
    assert not Filter((Term("tool", "*a" * 30 + "*b"),)).fits_tool("a" * 10_000)


@pytest.mark.parametrize(
    "text",
    [
        "since:999999w", "since:999999d", "from:1000-01-01", "to:1000-01-02", "latency:999999999999h",
        "latency:1s..999999999999h", "size:>999999999999gb", "calls:>999999999999", "error:-99999999999999999999",
        "id:smg_00000999999999999", "from:9999-12-30 to:1000-01-03", "from:1000-01-03 to:9999-12-30",
    ],
)  # fmt: skip
def test_numbers_beyond_everything_are_asked_all_the_same(path: Path, text: str) -> None:
    where = parse(text, now_us=NOW)
    where.previous()

    async def ask() -> None:
        async with reading(path) as reader:
            await reader.list_events(where)
            await reader.list_sessions(where)

    run(ask())
