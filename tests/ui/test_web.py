"""The frame of the pages: filter, range of time, what recording says of itself, refusals."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mcp_tap.api.desk import Recording
from mcp_tap.config import Proxy, parse_upstream
from mcp_tap.ui import cells, web
from mcp_tap.ui.frame import address
from tests.store.plausible import UPSTREAM, morning
from tests.store.recording import record
from tests.ui.document import Node
from tests.ui.looking import PROXIES, Seen, look


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("desk") / "tap.db"
    record(path, *morning())
    return path


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("desk") / "tap.db"
    record(path)
    return path


def hook(seen: Seen, name: str) -> Node:
    return seen.page.one(data_test=name)


def links(node: Node) -> dict[str, str]:
    return {link.text: link.attributes["href"] for link in node.all("a")}


def test_words_of_the_filter_are_chips_and_each_can_be_taken_away(file: Path) -> None:
    (seen,) = look(
        file, "/sessions?q=client:claude+-tool:ping&status=failed&from=2026-03-14T10:00&sort=calls&order=asc"
    )
    assert hook(seen, "filter").attributes["value"] == "client:claude -tool:ping status:failed"
    chips = [chip.text.split(" ")[0] for chip in hook(seen, "chips").all("li")]
    assert chips == ["client:claude", "-tool:ping", "status:failed", "from:2026-03-14T10:00"]
    kept = "&from=2026-03-14T10:00&sort=calls&order=asc"
    assert [link.attributes["href"] for link in hook(seen, "chips").all("a")] == [
        "/sessions?q=-tool:ping%20status:failed" + kept,
        "/sessions?q=client:claude%20status:failed" + kept,
        "/sessions?q=client:claude%20-tool:ping" + kept,
        "/sessions?q=client:claude%20-tool:ping%20status:failed&sort=calls&order=asc",
    ]
    # what the form of the box sends with it
    hidden = [
        (i.attributes["name"], i.attributes["value"]) for i in seen.page.one("form", role="search").all(type="hidden")
    ]
    assert hidden == [("from", "2026-03-14T10:00"), ("sort", "calls"), ("order", "asc")]


def test_a_range_of_time_stays_with_the_links_to_other_pages(file: Path) -> None:
    (seen,) = look(file, "/sessions?since=6h&q=tool:x&after=scn_00000000000000000000000002")
    nav = links(seen.page.one("nav", aria_label="Pages"))
    assert nav["Tools"] == "/tools?since=6h"
    assert seen.page.one("a", aria_current="page").text == "Sessions"
    ranges = links(seen.page.one("details", data_menu="range"))
    assert ranges["15m"] == "/sessions?q=tool:x&since=15m"  # and from the beginning of the list
    assert ranges["all"] == "/sessions?q=tool:x"
    assert hook(seen, "range").text.startswith("last 6 h")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("since=15m", "last 15 min"),
        ("since=2026-03-14T10:08:00Z", "{begin} to now"),
        ("from=2026-03-14T10:08:00Z&to=2026-03-14T10:18:00Z", "{begin} to {end}"),
        ("to=2026-03-14T10:18:00Z", "the beginning to {end}"),
        ("since=", "all time"),
    ],
)
def test_a_range_of_time_is_said_as_people_write_it(file: Path, asked: str, said: str) -> None:
    begin, end = (f"{datetime(2026, 3, 14, 10, at, tzinfo=UTC).astimezone():%d %b, %H:%M:%S}" for at in (8, 18))
    (seen,) = look(file, f"/sessions?{asked}")
    assert hook(seen, "range").text == said.format(begin=begin, end=end) + " ▾"


def test_a_file_that_is_looked_at_is_shown_as_a_whole(file: Path) -> None:
    (errors, sessions) = look(file, "/errors", "/sessions?q=status:active", recording=Recording(on=False), proxies=())
    assert hook(errors, "range").text == "all time ▾"
    assert errors.rows()
    (row,) = sessions.rows()
    assert row.one("td", data_field="status").text == "no end recorded"
    assert "data-ticking" not in sessions.html.partition("<template")[0]


def test_a_failing_store_is_told_with_what_was_lost(file: Path) -> None:
    waiting, lost = (Recording(on=True, failing="disk full", lost=count) for count in (0, 1214))
    for recording, said in ((waiting, "none lost so far"), (lost, "1,214 lost so far")):
        (seen,) = look(file, "/sessions", recording=recording)
        line = hook(seen, "promise").one("span", data_recording="").text
        assert line == f"▲ traffic flows, but records cannot be written: disk full — {said}"


def test_a_range_that_is_typed_takes_the_place_of_the_one_beside_the_box(file: Path) -> None:
    for url in ("/sessions?q=client:cur+since:1h&since=24h", "/errors?q=client:cur+since:1h&since=24h"):
        (seen,) = look(file, url)
        assert hook(seen, "range").text == "last 1 h ▾"
        assert "24h" not in hook(seen, "chips").text
        assert "since=24h" not in hook(seen, "twin").attributes["href"]


def test_where_there_are_several_servers_a_connection_names_its_own(file: Path) -> None:
    for proxies, named in ((PROXIES, False), (PROXIES * 2, True)):
        (seen,) = look(file, "/connections", proxies=proxies)
        assert (UPSTREAM in seen.rows()[0].text) is named


def test_one_session_is_no_sessions(file: Path) -> None:
    (seen,) = look(file, "/sessions?q=client:no-such-client")
    assert hook(seen, "count").text.endswith(" sessions")
    one = web.ENVIRONMENT.from_string("{% from 'macros.html' import count %}{{ count(n, total, 'sessions') }}")
    assert "1 session<" in one.render(n=1, total=1)
    assert "1 of 9 sessions<" in one.render(n=1, total=9)
    assert "2 sessions<" in one.render(n=2, total=None)


@pytest.mark.parametrize(
    ("url", "box", "said", "nearest"),
    [
        ("/sessions?q=tol:search&since=1h", "tol:search", '"tol:search" has no key', "did you mean tool:?"),
        ("/sessions?q=status:brokn", "status:brokn", '"brokn" is no status', "there are:"),
        ("/sessions?q=latency:fast", "latency:fast", '"fast" cannot be compared', "latency:>500ms"),
        ("/sessions?q=since:yesterday", "since:yesterday", '"yesterday" is no time', "2026-03-14T10:08"),
        ("/sessions?q=<script>:x", '"<script>:x"', "", ""),
    ],
)
def test_a_filter_that_cannot_be_read_stays_in_the_box_and_is_explained(
    file: Path, url: str, box: str, said: str, nearest: str
) -> None:
    (seen,) = look(file, url)
    assert hook(seen, "filter").attributes["value"] == box
    if not said:  # odd, but words to look for
        assert seen.status == 200
        return
    assert seen.status == 400
    assert said in hook(seen, "refused").text
    assert nearest in hook(seen, "refused").text
    assert hook(seen, "filter").attributes["aria-describedby"] == "refused"
    if "since=1h" in url:
        assert seen.page.one("form", role="search").one("input", name="since").attributes["value"] == "1h"


@pytest.mark.parametrize(
    ("url", "status", "said"),
    [
        ("/sessions/ses_unknown", 404, "ses_unknown"),
        ("/messages/smg_unknown", 404, "smg_unknown"),
        ("/sessions?limit=0", 400, "limit"),
        ("/sessions?limit=x", 400, "limit"),
        ("/sessions?after=%00", 400, "is no id"),
        ("/live?sort=colour", 400, "colour"),
    ],
)
def test_what_cannot_be_answered_is_a_page_too(file: Path, url: str, status: int, said: str) -> None:
    (seen,) = look(file, url)
    assert seen.status == status
    assert said in hook(seen, "refused").text
    assert "Traceback" not in seen.html


def test_a_page_beyond_the_end_is_empty(file: Path) -> None:
    (seen,) = look(file, "/sessions?after=scn_00000000000000000000000001")
    assert seen.status == 200
    assert hook(seen, "nothing-matches")


@pytest.mark.parametrize(
    ("recording", "said"),
    [
        (Recording(on=True), "● recording 0 dropped"),
        (Recording(on=True, dropped=1204), "▲ 1,204 dropped"),
        (Recording(on=True, failing="disk full since 10:08", lost=214), "disk full since 10:08 — 214 lost"),
        (Recording(on=True, overhead_us=80), "overhead 0.08 ms"),
        (Recording(on=False), "○ reading tap.db"),
    ],
)
def test_the_second_line_says_how_recording_goes(file: Path, recording: Recording, said: str) -> None:
    (seen,) = look(file, "/sessions", recording=recording)
    line = hook(seen, "promise")
    assert said in line.text
    assert PROXIES[0].upstream.url in line.text
    assert PROXIES[0].url in line.text
    if recording.dropped:
        assert links(line)["▲ 1,204 dropped"] == "/sessions?q=is:incomplete"


def test_the_same_as_json_and_as_a_command(file: Path) -> None:
    plain, guarded = (
        look(file, "/sessions?q=client:%22a+b%22&since=7d&theme=dark", token=token)[0] for token in ("", "secret")
    )
    twin = hook(plain, "twin").attributes["href"]
    assert twin == "/api/sessions?q=client:%22a%20b%22&since=7d"
    assert plain.page.one("textarea", id_="page-curl").text == f"curl -s 'http://127.0.0.1:6279{twin}'"
    command = guarded.page.one("textarea", id_="page-curl").text
    assert '-H "Authorization: Bearer $MCP_TAP_TOKEN"' in command
    assert "secret" not in guarded.html


def test_colours_are_those_of_the_system_until_somebody_chooses(file: Path) -> None:
    system, chosen = look(file, "/sessions", "/sessions?theme=dark")
    assert "data-theme" not in system.page.one("html").attributes
    assert chosen.page.one("html").attributes["data-theme"] == "dark"
    assert "theme=dark" in chosen.response.headers["set-cookie"]
    (remembered,) = look(file, "/sessions", cookies={"theme": "dark"})
    assert remembered.page.one("html").attributes["data-theme"] == "dark"
    (odd,) = look(file, "/sessions", cookies={"theme": '"><script>'})
    assert "data-theme" not in odd.page.one("html").attributes


def test_an_empty_recording_says_how_to_fill_it(empty: Path) -> None:
    named = Proxy(parse_upstream("http://127.0.0.1:9001/mcp"), name="it's mine")
    (seen,) = look(empty, "/sessions", proxies=(*PROXIES, named))
    first = hook(seen, "nothing-recorded")
    assert "Listening on 127.0.0.1:6278 — waiting for the first request" in first.text
    titles = [node.text for node in first.all("h2")]
    assert titles[:5] == ["Claude Code", "Cursor: .cursor/mcp.json", "VS Code: .vscode/mcp.json", "Others", "curl"]
    commands = [node.text for node in first.all("pre")]
    assert commands[0] == f"claude mcp add --transport http my-server {PROXIES[0].url}"
    assert commands[5] == f"claude mcp add --transport http 'it'\"'\"'s mine' {named.url}"  # quoted for a shell
    (opened,) = look(empty, "/sessions", recording=Recording(on=False), proxies=())
    assert "This recording is empty" in opened.main.text


def test_nothing_matches_offers_the_nearest_time_with_data(file: Path) -> None:
    (seen,) = look(file, "/sessions?since=1h&q=client:claude")
    empty = hook(seen, "nothing-matches")
    assert "No sessions match" in empty.text
    offered = links(empty)
    assert offered["clear the filter"] == "/sessions"
    newest = offered["Show the newest hour of it"]
    assert newest == "/sessions?q=client:claude&from=2026-03-14T10:20:00Z&to=2026-03-14T11:20:01Z"
    (there,) = look(file, newest.replace("client:claude", "client:night"))
    assert len(there.rows()) == 1


def test_times_and_quantities() -> None:
    assert web.percent(0) == "0 %"
    assert web.percent(0.004) == "0.4 %"
    assert web.percent(0.123) == "12 %"
    assert web.percent(None) == ""
    assert web.matched(9_999) == "9,999"
    assert web.matched(10_001) == "10,000+"
    assert web.harmless(None) == ""
    assert web.harmless("a\x1b[31m\u202eb", 40) == "a\\x1b[31m\\u202eb"
    assert cells.relative("not a time\x07") == "not a time\\x07"
    assert cells.clock(None) == ""


def test_urls_keep_filters_readable() -> None:
    assert address("/sessions", []) == "/sessions"
    assert address("/live", [("q", "name:file:///* a&b=c#d")]) == "/live?q=name:file:///*%20a%26b%3Dc%23d"


def test_a_server_that_does_not_answer_is_named_and_asked_once(file: Path) -> None:
    asked: list[Proxy] = []

    async def refused(proxy: Proxy) -> str:
        asked.append(proxy)
        return "does not answer (connection refused)"

    async def connected(_: Proxy) -> str:
        return "connected in 1 ms"

    async def silent(_: Proxy) -> str:
        await asyncio.Event().wait()
        return ""

    first, second = look(file, "/sessions", "/live", reach=refused)
    said = hook(first, "down").text
    assert f"{PROXIES[0].upstream.url} does not answer (connection refused), as of" in said
    assert hook(second, "down").one("time").attributes == hook(first, "down").one("time").attributes
    assert asked == [*PROXIES]  # and not by every page
    (fine,) = look(file, "/sessions", reach=connected)
    assert not fine.page.all(data_test="down")
    (unknown,) = look(file, "/sessions", reach=silent)  # nobody waits for it
    assert unknown.status == 200


def test_pruning_is_said(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mcp_tap.store.sqlite.reader import Reader

    facts = Reader.facts

    async def pruned(self: Reader) -> dict[str, object]:
        return {**await facts(self), "pruned_before": "2026-03-12T00:00:00.000Z"}

    monkeypatch.setattr(Reader, "facts", pruned)
    (seen,) = look(file, "/sessions")
    assert "was pruned (kept for 30 days)" in hook(seen, "pruned").text


def test_a_store_that_cannot_be_read_is_said_in_words(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mcp_tap.model import StoreError
    from mcp_tap.store.sqlite.reader import Reader

    async def broken(_: Reader) -> dict[str, object]:
        raise StoreError("the database is gone", hint="look for it")

    monkeypatch.setattr(Reader, "facts", broken)
    (seen,) = look(file, "/sessions", recording=Recording(on=True, failing="disk full"))
    assert seen.status == 503
    assert "the database is gone look for it" in hook(seen, "refused").text
    assert "disk full" in hook(seen, "promise").text


def test_a_stranger_cannot_put_a_value_in_the_place_of_a_method() -> None:
    template = web.ENVIRONMENT.from_string("{{ row.title }} {{ row.get('title') }}")
    assert template.render(row={"title": "a", "get": "b"}) == "a a"
    assert web.ENVIRONMENT.from_string("{{ row.items is defined }}").render(row={}) == "True"


def test_what_strangers_wrote_is_escaped_in_cells() -> None:
    row = {
        "type": "<i>\u202e", "name": "<b>", "attempt": 2, "truncated": 1, "dropped": 0, "status": "failed",
        "failure_reason": "rpc_error", "error_code": "<u>", "outcome": None,
    }  # fmt: skip
    assert str(cells.event(row)) == (
        '<span class="event">&lt;i&gt;\\u202e <b>&lt;b&gt;</b></span> '
        '<span class="badge" title="the same was asked before in this session">↻ 2nd try</span>'
        ' <span class="note" title="the record of this is not complete">1 body cut</span>'
    )
    assert str(cells.status(row)) == '<span class="err">✕ &lt;u&gt;</span>'
    assert str(cells.time("<now>", "full")).count("&lt;now&gt;") == 3
    assert [cells.nth(number) for number in (1, 2, 3, 4, 11, 21, 112)] == [
        "1st", "2nd", "3rd", "4th", "11th", "21st", "112th",
    ]  # fmt: skip
