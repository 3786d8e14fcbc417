"""The list of sessions, one session, one message, and the live tail, as a reader without scripts has them."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from mcp_tap.model import (
    Batch,
    Body,
    Codec,
    Connection,
    Direction,
    FailureReason,
    Kind,
    Origin,
    Outcome,
    Side,
    Status,
)  # fmt: skip
from mcp_tap.ui.pages import session as session_page
from tests.store.plausible import morning
from tests.store.recording import T0, connection, event, record
from tests.ui.document import Node
from tests.ui.looking import Seen, look

S = 1_000_000


def ses(number: int) -> str:
    return f"ses_{number:026d}"


def scn(number: int) -> str:
    return f"scn_{number:026d}"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("desk") / "tap.db"
    record(path, *morning())
    return path


def cell(row: Node, field: str) -> str:
    return row.one(data_field=field).text


def column(seen: Seen, field: str) -> list[str]:
    return [cell(row, field) for row in seen.rows()]


def link(node: Node, said: str) -> str:
    (found,) = [each.attributes["href"] for each in node.all("a") if each.text == said]
    return found


# ------------------------------------------------------------------------------------------------------- sessions


def test_every_column_of_the_list(file: Path) -> None:
    (seen,) = look(file, "/sessions")
    assert [th.text for th in seen.main.all("th")] == [
        "Session", "Client", "Started ↓", "Duration", "Calls", "Errors", "Status", "Tools", "Revision",
    ]  # fmt: skip
    assert column(seen, "session") == ["scn_…000004", "3f3a9c52", "2f3a9c52", "1f3a9c52"]
    assert column(seen, "client") == [
        "night-agent 7",
        "Visual Studio Code 1.99.0",
        "claude-desktop 1.2.3",
        "cursor 0.50.1",
    ]
    assert column(seen, "calls") == ["3", "4", "6", "4"]
    assert column(seen, "errors") == ["0", "0", "2 ✕", "1 ✕"]
    assert column(seen, "status") == ["ended tap stopped", "active", "ended idle", "ended deleted"]
    assert column(seen, "tools")[2] == "search_products, create_payment"
    assert column(seen, "revision") == ["2026-07-28", "2025-11-25", "2025-11-25", "2025-11-25"]
    assert [row.attributes["data-status"] for row in seen.rows()] == ["ended", "active", "failed", "failed"]
    night = seen.rows()[0].all("td")[0].text
    assert "derived" in night
    assert "shared" in night
    assert "3 records dropped, 1 body cut" in night
    # an id that is a credential is shortened, everywhere on the page
    assert "3f3a9c52-7d41" not in seen.html
    active = seen.rows()[1].one(data_field="duration").all("span")
    assert [each.attributes["data-ticking"] for each in active] == ["2026-03-14T10:40:00.004Z"]
    assert seen.page.one(data_test="count").text == "4 sessions"


@pytest.mark.parametrize(
    ("words", "clients"),
    [
        ("status:active", ["Visual"]), ("status:failed", ["claude-desktop", "cursor"]), ("client:cur", ["cursor"]),
        ("tool:refund_order", ["Visual"]), ("2f3a9c52", ["claude-desktop"]), ("calls:>4", ["claude-desktop"]),
        ("is:incomplete", ["night-agent"]), ("era:modern", ["night-agent"]),
        ("-client:claude", ["night-agent", "Visual", "cursor"]),
        ("from:2026-03-14T10:20:00Z to:2026-03-14T11:00:00Z", ["Visual"]),
    ],
)  # fmt: skip
def test_the_box_finds_sessions(file: Path, words: str, clients: list[str]) -> None:
    (seen,) = look(file, f"/sessions?q={words}")
    assert [name.split()[0] for name in column(seen, "client")] == clients
    assert seen.page.one(data_test="count").text == f"{len(clients)} of 4 sessions"


def test_choices_of_status_replace_each_other_and_keep_the_rest(file: Path) -> None:
    (seen,) = look(file, "/sessions?q=client:c+status:active&sort=calls")
    choices = seen.main.one("span", aria_label="Status")
    assert [each.text for each in choices.all("a") if "aria-current" in each.attributes] == ["Active"]
    assert link(choices, "With errors") == "/sessions?q=client:c%20status:failed&sort=calls"
    assert link(choices, "All") == "/sessions?q=client:c&sort=calls"


def test_sorting_is_links_that_say_how_it_is_sorted(file: Path) -> None:
    (seen,) = look(file, "/sessions?sort=calls")
    head = {th.text.split()[0]: th for th in seen.main.all("th")}
    assert head["Calls"].attributes["aria-sort"] == "descending"
    assert "aria-sort" not in head["Started"].attributes
    assert head["Calls"].one("a").attributes["href"] == "/sessions?sort=calls&order=asc"
    assert column(seen, "calls") == ["6", "4", "4", "3"]
    (turned,) = look(file, "/sessions?sort=calls&order=asc")
    assert column(turned, "calls") == ["3", "4", "4", "6"]
    (named,) = look(file, head["Client"].one("a").attributes["href"])
    names = column(named, "client")
    assert names in (sorted(names), sorted(names, key=str.lower))


def test_pages_of_the_list_lead_to_each_other(file: Path) -> None:
    (first,) = look(file, "/sessions?limit=3")
    assert len(first.rows()) == 3
    assert not first.page.all(data_test="newer")
    (last,) = look(file, first.page.one(data_test="older").attributes["href"])
    assert column(last, "client") == ["cursor 0.50.1"]
    assert not last.page.all(data_test="older")
    (again,) = look(file, last.page.one(data_test="newer").attributes["href"])
    assert column(again, "client") == column(first, "client")


def test_a_row_expands_in_place(file: Path) -> None:
    (seen,) = look(file, "/sessions")
    row = seen.rows()[2]
    toggle = row.one("a", data_expand="")
    assert toggle.attributes["aria-expanded"] == "false"
    (opened,) = look(file, toggle.attributes["href"])
    row = opened.rows()[2]
    toggle = row.one("a", data_expand="")
    assert toggle.attributes["aria-expanded"] == "true"
    below = opened.main.one(id_=toggle.attributes["aria-controls"])
    assert [cell(line, "event") for line in below.one("tbody").all("tr")] == [
        "session_start", "initialize", "tools/list", "tools/call → search_products", "tools/call → create_payment",
        "tools/call → create_payment", "tools/call → create_payment", "session_end",
    ]  # fmt: skip
    failed = [line for line in below.all("tr") if line.attributes.get("class") == "bad"]
    assert [cell(line, "note") for line in failed] == [
        "HTTP 504 upstream timeout",
        "-32000 card processor busy · 2nd try",
    ]
    assert [cell(line, "status") for line in failed] == ["failed", "failed"]
    assert link(below, "open the session") == f"/sessions/{ses(2)}"
    assert urlsplit(toggle.attributes["href"]).query == ""  # closes


def test_rows_of_one_session_stand_together(tmp_path: Path) -> None:
    file = tmp_path / "tap.db"
    connections = [
        connection(n, session_id=ses(900 if n in {1, 3} else n), created_us=T0 + n * S, last_active_us=T0 + n * S)
        for n in range(1, 5)
    ]
    record(file, Batch(connections=connections))
    (seen,) = look(file, "/sessions")
    assert [row.attributes["data-id"] for row in seen.rows()] == [scn(4), scn(3), scn(1), scn(2)]
    assert [row.attributes.get("class") for row in seen.rows()] == [None, "tied", None, None]
    # where the order is not that of time, it is nobody's business who belongs together
    (sorted_,) = look(file, "/sessions?sort=last_active")
    assert [row.attributes["data-id"] for row in sorted_.rows()] == [scn(4), scn(3), scn(2), scn(1)]
    # and its page has both, one below the other
    (one,) = look(file, f"/sessions/{ses(900)}")
    assert one.status == 200, one.main.text
    assert [node.attributes["id"] for node in one.main.all("section")] == [scn(1), scn(3)]


def test_a_short_timeline_ends_with_the_way_to_the_whole(tmp_path: Path) -> None:
    file = tmp_path / "tap.db"
    of = connection(1)
    record(file, Batch(connections=[of], events=[event(of, T0 + n * S) for n in range(60)]))
    (seen,) = look(file, f"/sessions?open={scn(1)}")
    below = seen.main.one(id_=f"of-{scn(1)}")
    assert len(below.one("tbody").all("tr")) == 50
    assert link(below, "50 of 60 events; open the session") == f"/sessions/{ses(1)}"


# -------------------------------------------------------------------------------------------------------- session


def test_the_page_of_a_session(file: Path) -> None:
    (seen,) = look(file, f"/sessions/{ses(2)}")
    assert seen.main.one("h1").text.startswith("claude-desktop 1.2.3 → shop 2.1.0")
    facts = {div.one("dt").text: div.one("dd").text for div in seen.main.one("dl", class_="facts").all("div")}
    assert facts["Status"] == "ended idle since then"
    assert facts["Calls"] == "6"
    assert facts["Errors"] == "2 ✕"
    assert facts["Revision"] == "2025-11-25 legacy, session id from header"
    assert [cell(row, "event") for row in seen.rows()][3:5] == [
        "tools/call search_products",
        "tools/call create_payment",
    ]
    assert [cell(row, "status") for row in seen.rows()] == ["", "ok", "ok", "ok", "✕ HTTP 504", "✕ -32000", "ok", ""]
    assert [cell(row, "latency") for row in seen.rows()][4] == "2.34 s"
    assert all(len(row.all("svg", data_waterfall="")) == 1 for row in seen.rows())
    assert [row.text for row in seen.main.all("tr", class_="folded")] == [
        "8.21 s without traffic, folded", "30 s without traffic, folded",
    ]  # fmt: skip
    assert len(seen.main.all("svg", data_minimap="")) == 1
    assert seen.main.one("a", data_key="[").attributes["href"] == f"/sessions/{ses(1)}"
    assert seen.main.one("a", data_key="]").attributes["href"] == f"/sessions/{ses(3)}"
    assert link(seen.main, "JSON Lines") == f"/sessions/{ses(2)}/export.jsonl"
    assert "2f3a9c52-7d41" not in seen.html
    (shown,) = look(file, link(seen.main, "show it whole"))
    assert "2f3a9c52-7d41-4c3e" in shown.main.text


def test_links_above_the_waterfall_choose_lines(file: Path) -> None:
    (seen,) = look(file, f"/sessions/{ses(2)}")
    (errors,) = look(file, link(seen.main, "Errors 2"))
    assert [cell(row, "status") for row in errors.rows()] == ["✕ HTTP 504", "✕ -32000"]
    assert errors.page.one(data_test="count").text.startswith("2 of 8 lines")
    assert not errors.main.all("tr", class_="folded")  # what is left out was traffic
    (slow,) = look(file, link(seen.main, "Slow 1"))
    assert [cell(row, "latency") for row in slow.rows()] == ["2.34 s"]
    (real,) = look(file, seen.main.one(data_test="fold").attributes["href"])
    assert real.main.one(data_test="fold").text == "real time"
    assert not real.main.all("tr", class_="folded")
    (found,) = look(file, f"/sessions/{ses(2)}?q=tool:create_payment+status:ok")
    assert [cell(row, "event") for row in found.rows()] == ["tools/call create_payment ↻ 3rd try"]


def test_zooming_is_links(file: Path) -> None:
    (seen,) = look(file, f"/sessions/{ses(2)}?only=errors")
    closer = seen.main.one("a", data_zoom="in").attributes["href"]
    assert parse_qs(urlsplit(closer).query) == {"only": ["errors"], "zoom": ["0.2500..0.7500"]}
    (zoomed,) = look(file, closer)
    back = zoomed.main.one("a", data_zoom="fit").attributes["href"]
    assert back == f"/sessions/{ses(2)}?only=errors"
    assert zoomed.main.one("svg", data_minimap="")  # the whole, always


@pytest.mark.parametrize(
    "query", ["zoom=1..0", "zoom=x", "zoom=0..2", "only=everything", "hide=me", "event=sev_no", "view=x&event=12"]
)
def test_what_cannot_be_chosen_is_refused_in_words(file: Path, query: str) -> None:
    (seen,) = look(file, f"/sessions/{ses(2)}?{query}")
    assert seen.status in {400, 404}
    assert seen.page.one(data_test="refused")


def test_other_ids_lead_to_the_session(file: Path) -> None:
    by_connection, by_header = look(file, f"/sessions/{scn(2)}?only=errors", "/sessions/2f3a9c52")
    assert by_connection.response.headers["location"] == f"/sessions/{ses(2)}?only=errors#{scn(2)}"
    assert by_header.response.headers["location"] == f"/sessions/{ses(2)}"


def test_a_session_that_nothing_names_says_so(file: Path) -> None:
    (seen,) = look(file, f"/sessions/{ses(4)}")
    said = seen.main.one(data_test="derived").text
    assert "This revision of MCP has no sessions." in said
    assert "nothing on the wire says" in said
    assert "shared (2 starts)" in said
    assert "incomplete: 3 records dropped, 1 body cut" in seen.main.text


def test_an_active_session_listens_and_its_open_call_ticks(file: Path) -> None:
    active, ended = look(file, f"/sessions/{ses(3)}", f"/sessions/{ses(2)}")
    assert active.page.one("body").attributes["data-live"] == f"/api/live?session={ses(3)}"
    assert "data-live" not in ended.page.one("body").attributes
    waiting = [row for row in active.rows() if row.attributes["data-status"] == "waiting_for_response"]
    assert [cell(row, "event") for row in waiting] == ["tools/call export_orders"]
    assert waiting[0].one(data_field="latency").one("span").attributes["data-ticking"] == "2026-03-14T10:42:03.500Z"
    assert waiting[0].all("rect", class_="pending")


def test_a_long_timeline_is_read_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_page, "LONG", 20)
    monkeypatch.setattr(session_page, "PAGE", 10)
    file = tmp_path / "tap.db"
    of = connection(1, messages=25)
    events = [
        event(of, T0 + n * S, duration_us=1000, status=Status.FAILED if n == 12 else Status.SUCCEEDED)
        for n in range(23)
    ]
    events.append(event(of, T0 + 23 * S, duration_us=1_500_000))
    events.append(event(of, T0 + 24 * S, type="subscriptions/listen", name=None, duration_us=60 * S))
    record(file, Batch(connections=[of], events=events))
    (first,) = look(file, f"/sessions/{ses(1)}?limit=10")
    assert len(first.rows()) == 10
    (second,) = look(file, first.page.one(data_test="older").attributes["href"])
    assert [row.attributes["data-status"] for row in second.rows()].index("failed") == 2
    assert all(row.all("svg", data_waterfall="") for row in second.rows())
    # both are beyond this page and counted all the same; what listens lasts by design and is not slow
    errors, slow = look(file, link(first.main, "Errors 1"), link(first.main, "Slow 1"))
    assert [row.attributes["data-status"] for row in errors.rows()] == ["failed"]
    assert [cell(row, "latency") for row in slow.rows()] == ["1.50 s"]


def test_the_panel_shows_a_message_beside_the_timeline(file: Path) -> None:
    (seen,) = look(file, f"/sessions/{ses(2)}?only=errors")
    row = seen.rows()[1]
    (opened,) = look(file, row.one(data_field="time").one("a").attributes["href"])
    panel = opened.page.one("aside", id_="panel")
    assert panel.one(data_test="why").text.startswith("JSON-RPC error -32000 card processor busy")
    assert [each.attributes["id"] for each in opened.rows() if "aria-selected" in each.attributes] == [
        row.attributes["id"]
    ]
    tab = link(panel, "Timing")
    assert parse_qs(urlsplit(tab).query)["only"] == ["errors"]  # the timeline stays as it is
    (timing,) = look(file, tab)
    assert "first byte" in timing.page.one("aside").text
    (closed,) = look(file, panel.one("a", data_close="").attributes["href"])
    assert not closed.page.all("aside")


# -------------------------------------------------------------------------------------------------------- message


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One connection with messages of every kind."""
    path = tmp_path_factory.mktemp("desk") / "tap.db"
    of = connection(
        1, client_name="talker", protocol_version="2026-07-28", mcp_session_id="abcdefgh-secret", user_agent="t/1"
    )
    batch = Batch(connections=[of])

    def add(
        asked: str | None, answered: str | None, codec: Codec = Codec.AS_SEEN, masked: int = 0, **values: object
    ) -> None:
        given = {
            "status": Status.SUCCEEDED, "direction": Direction.TO_SERVER, "duration_us": 5000, "first_byte_us": 4000,
            "request_bytes": len(asked or ""), "response_bytes": len(answered or ""), "http_method": "POST",
            "path": "/mcp", "http_status": 200, "jsonrpc_id": "1", "name": "search",
        } | values  # fmt: skip
        batch.events.append(event(of, T0 + len(batch.events) * S, **given))
        for side, data in ((Side.REQUEST, asked), (Side.RESPONSE, answered)):
            if data is not None:
                batch.bodies.append(Body(batch.events[-1], side, codec, data, masked))

    call = (
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":'
        '{"name":"search","arguments":{"n":12345678901234567890},"_meta":{"progressToken":7}}}'
    )
    content = [
        {"type": "text", "text": "two\nlines \x1b[31m"},
        {"type": "text", "text": '{"deep":{"json":1.50}}'},
        {"type": "image", "mimeType": "image/png", "data": "A" * 4000},
        {"type": "resource_link", "uri": "javascript:alert(1)", "name": "x"},
    ]
    add(call, json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"content": content, "structuredContent": {"rows": 3}}}))
    add(
        call,
        '{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"unknown","data":[1]}}',
        status=Status.FAILED,
        failure_reason=FailureReason.RPC_ERROR,
        code="-32602",
        message="unknown",
    )
    add(
        call,
        '{"jsonrpc":"2.0","id":1,"result":{"isError":true,"content":[{"type":"text","text":"no such city"}]}}',
        status=Status.FAILED,
        failure_reason=FailureReason.TOOL_ERROR,
        message="no such city",
    )
    add(
        '{"jsonrpc":"2.0","method":"tools/call","params":{"arguments":{"long":"xxx',
        None,
        Codec.CUT,
        request_bytes=90_000,
    )
    add(None, None, request_bytes=140, response_bytes=600)
    add(
        '{"jsonrpc":"2.0","id":2,"method":"resources/list","params":{"cursor":"c","token":"•••• (redacted: key)"}}',
        "[1,2]",
        Codec.MASKED,
        1,
        type="resources/list",
        name=None,
    )
    add(
        "name=value",
        "<html>bad gateway</html>",
        Codec.TEXT,
        status=Status.FAILED,
        type="http",
        kind=Kind.HTTP,
        failure_reason=FailureReason.HTTP_ERROR,
        code="502",
        http_status=502,
    )
    add(call, "[" * 50_000)
    add(call, None, status=Status.WAITING, duration_us=None, first_byte_us=None)
    add(call, '{"id":1,"result":{"resultType":"input_required"}}', outcome=Outcome.INPUT_REQUIRED)
    add(
        call,
        None,
        status=Status.SUCCEEDED,
        sse_events=[1000, 2500, 4500],
        headers_us=500,
        first_event_us=1000,
        last_byte_us=5000,
    )
    record(path, batch)
    return path


def test_arguments_and_result_side_by_side(talk: Path) -> None:
    (seen,) = look(talk, "/messages/1")
    assert seen.main.one(data_test="arguments").text == '{ "n": 12345678901234567890 }'
    assert seen.main.one(data_test="meta").text == '{ "progressToken": 7 }'
    assert seen.main.one(data_test="result").text == "two lines \\x1b[31m"  # text as text, and harmless
    shown = seen.main.one("article").text
    assert '"json": 1.50' in shown
    assert "image, image/png, 3.0 kB: not shown" in shown
    assert not seen.page.all("img")
    assert seen.main.one(data_test="structured content").text == '{ "rows": 3 }'
    assert seen.main.one(data_test="curl").text.startswith("# MCP_SESSION_ID is the id of a session")
    assert "abcdefgh-secret" not in seen.html


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (2, "JSON-RPC error -32602 unknown Invalid params: an argument is missing"),
        (3, "The tool reports an error no such city The call arrived and the tool answered"),
        (7, "HTTP error 502 Whoever stands before the server could not reach it."),
    ],
)
def test_an_error_comes_first_and_in_plain_language(talk: Path, number: int, said: str) -> None:
    (seen,) = look(talk, f"/messages/{number}")
    assert seen.main.one(data_test="why").text.startswith(said)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (3, "no such city"),
        (4, "cut in the record: the first 73 B of 90 kB"),
        (5, "140 B, not stored"),
        (6, "1 value redacted before it was stored"),
        (6, '"token": •••• redacted (key)'),
        (7, "<html>bad gateway</html>"),
        (8, "more characters"),
        (9, "no answer yet"),
        (10, "the server asks for input before it goes on"),
    ],
)
def test_every_kind_of_message_can_be_read(talk: Path, number: int, said: str) -> None:
    (seen,) = look(talk, f"/messages/{number}")
    assert said in seen.main.one("article").text


def test_what_is_too_long_leads_to_all_of_it(tmp_path: Path) -> None:
    file = tmp_path / "tap.db"
    of = connection(1)
    call = event(of, direction=Direction.TO_SERVER, response_bytes=1_000_000)
    said = json.dumps(
        {"result": {"content": [{"type": "text", "text": "A" * 1_000_000}], "structuredContent": ["B" * 9000]}}
    )
    record(file, Batch(connections=[of], events=[call], bodies=[Body(call, Side.RESPONSE, Codec.AS_SEEN, said)]))
    (pretty,) = look(file, "/messages/1")
    assert len(pretty.html) < 100_000
    ways = [each.attributes["href"] for each in pretty.main.all("a") if each.text == "show all of it"]
    assert ways == [link(pretty.main, "Raw")] * 2
    (raw,) = look(file, ways[0])
    assert len(raw.html) > 200_000
    assert "more characters" in raw.main.one(data_test="raw-response").text
    assert link(raw.main, "all of it as JSON") == link(raw.main, ".json")
    (short,) = look(file, "/messages/1?view=network")
    assert "show all of it" not in short.main.text


def test_raw_is_what_is_stored(talk: Path) -> None:
    (seen,) = look(talk, "/messages/6?view=raw")
    assert seen.main.one(data_test="raw-request").text.startswith('{"jsonrpc":"2.0","id":2,"method":"resources/list"')
    assert seen.main.one(data_test="raw-response").text == "[1,2]"


def test_network_names_what_is_known_and_no_credential(talk: Path) -> None:
    (seen,) = look(talk, "/messages/11?view=network")
    pairs = seen.main.one("dl")
    told = {dt.text: dd.text for dt, dd in zip(pairs.all("dt"), pairs.all("dd"), strict=True)}
    assert told["Request"].startswith("POST /mcp")
    assert told["MCP-Protocol-Version"].startswith("2026-07-28")
    assert told["Mcp-Session-Id"].startswith("abcdefgh… •••• redacted (credential)")
    assert told["Authorization"].startswith("•••• redacted (header)")
    assert told["SSE events"].startswith("3")
    assert "abcdefgh-secret" not in seen.html


def test_timing_is_a_table_with_every_event(talk: Path) -> None:
    (seen,) = look(talk, "/messages/11?view=timing")
    rows = [[td.text for td in tr.all("td")] for tr in seen.main.one("tbody").all("tr")]
    assert rows == [
        ["request", "0 ms", ""],
        ["answer's headers", "0.5 ms", "0.5 ms"],
        ["first SSE event", "1 ms", "0.5 ms"],
        ["SSE event 1", "1 ms", "0 ms"],
        ["SSE event 2", "2.5 ms", "1.5 ms"],
        ["first byte", "4 ms", "1.5 ms"],
        ["SSE event 3", "4.5 ms", "0.5 ms"],
        ["last byte", "5 ms", "0.5 ms"],
    ]
    assert len(seen.main.all("svg", data_waterfall="")) == 1


def test_related_and_what_came_before_and_after(file: Path) -> None:
    (seen,) = look(file, "/messages/12")
    around = [item.text for item in seen.main.one("ul", class_="ctx").all("li")]
    assert around[2] == "\N{MINUS SIGN}3.80 s tools/call create_payment ✕ HTTP 504"
    assert around[4] == "+9.10 s tools/call create_payment ok 340 ms"
    assert "2nd of 3 tries" in seen.main.text
    (related,) = look(file, link(seen.main, "Related"))
    assert "All tries and rounds" in related.main.text
    assert "Other calls with the same arguments" in related.main.text


def test_a_line_of_no_session_has_a_page_too(file: Path) -> None:
    (seen,) = look(file, "/messages/25")
    assert "before any session" in seen.main.text
    assert "the beginning of OAuth" in seen.main.text


# ----------------------------------------------------------------------------------------------------------- live


def test_the_tail_begins_with_the_newest_lines(file: Path) -> None:
    (seen,) = look(file, "/live?q=-method:initialize")
    assert seen.page.one("body").attributes["data-live"] == "/api/live?of=events&q=-method:initialize"
    assert seen.page.one(data_test="twin").attributes["href"].startswith("/api/events?")
    assert "initialize" not in column(seen, "event")
    assert column(seen, "event")[-1].startswith("http")  # newest at the bottom
    assert column(seen, "session")[-1] == "before any session"
    change = int(seen.page.one("body").attributes["data-change"])
    assert change == max(int(row.attributes["data-change"]) for row in seen.rows())
    template = seen.page.one("template", id_="row-template")
    fields = [td.attributes["data-field"] for td in template.all("td")]
    assert fields == [td.attributes["data-field"] for td in seen.rows()[0].all("td")]
    (earlier,) = look(file, "/live?limit=5")
    (before,) = look(file, earlier.page.one(data_test="older").attributes["href"])
    assert column(before, "time")[-1] <= column(earlier, "time")[0]
    (nothing,) = look(file, "/live?q=tool:nothing")
    assert not nothing.rows()
    assert "hidden" not in nothing.main.one(data_no_rows="").attributes


# -------------------------------------------------------------------------------------------------------- hostile

NASTY = (
    "<script>alert(1)</script><img src=x onerror=alert(1)><svg onload=alert(1)></textarea></template></title>"
    "<a href='javascript:alert(1)'>x</a>\"' onmouseover='alert(1) {{7*7}} {% raw %} &amp; &#x3c;b&#x3e;"
    "\x1b[31mred\x1b]0;title\x07\u202egnp.exe\u2066\u200b\x00\ufeff end"
)


def nasty(of: Connection) -> Batch:
    """Everything that somebody else writes, written by somebody who means harm."""
    batch = Batch(connections=[of])
    answers = [
        json.dumps({"result": {"content": [{"type": "text", "text": NASTY}, {"type": NASTY, "text": NASTY}]}}),
        json.dumps(
            {
                "result": {
                    "content": [{"type": "image", "mimeType": NASTY, "data": NASTY}],
                    "structuredContent": {NASTY: NASTY},
                }
            }
        ),
        json.dumps({"error": {"code": NASTY, "message": NASTY, "data": {NASTY: [NASTY]}}}),
        NASTY,
        json.dumps({"result": {"content": [{"type": "text", "text": "A" * 3_000_000}]}}),
    ]
    for at, answer in enumerate(answers):
        batch.events.append(
            event(
                of, T0 + at * S, type=NASTY if at == 2 else "tools/call", name=NASTY, direction=Direction.TO_SERVER,
                status=Status.FAILED, failure_reason=FailureReason.RPC_ERROR, code=NASTY, message=NASTY, note=NASTY,
                duration_us=1000, path=NASTY, peer=NASTY, http_method=NASTY, http_status=200, trace_id=NASTY,
                jsonrpc_id=NASTY, request_bytes=10, response_bytes=len(answer),
            )
        )  # fmt: skip
        asked = json.dumps({"params": {"name": NASTY, "arguments": {NASTY: NASTY}, "_meta": {NASTY: 1}}})
        batch.bodies += [
            Body(batch.events[-1], Side.REQUEST, Codec.AS_SEEN, asked),
            Body(batch.events[-1], Side.RESPONSE, Codec.TEXT if at == 3 else Codec.AS_SEEN, answer),
        ]
    return batch


def test_what_strangers_write_is_only_ever_text(tmp_path: Path) -> None:
    """Every page about a recording in which everything is hostile has the elements that our templates write, only."""
    file = tmp_path / "tap.db"
    of = connection(
        1, origin=Origin.DERIVED, client_name=NASTY, client_version=NASTY, server_name=NASTY, server_version=NASTY,
        user_agent=NASTY, origin_note=NASTY, protocol_version=NASTY, mcp_session_id=NASTY, client_address=NASTY,
        upstream=NASTY, tools={NASTY: 3}, client_capabilities=json.dumps({NASTY: NASTY}), instructions=NASTY,
        messages=5, errors=5, calls=5, dropped=1,
    )  # fmt: skip
    record(file, nasty(of))
    views = [
        f"/messages/{n}?view={view}" for n in range(1, 6) for view in ("pretty", "raw", "network", "timing", "related")
    ]
    panels = [f"/sessions/{ses(1)}?event={n}" for n in range(1, 6)]
    pages = [
        "/sessions",
        f"/sessions?open={scn(1)}",
        f"/sessions/{ses(1)}",
        f"/sessions/{ses(1)}?reveal=session_id",
        "/live",
    ]
    for seen in look(file, *pages, *panels, *views):
        where = seen.response.url
        assert seen.status == 200, where
        tags = {node.tag for node in seen.page}
        assert not tags & {"img", "iframe", "b<", "object"}, where
        assert [node.attributes["src"] for node in seen.page.all("script")] == ["/static/page.js"], where
        for node in seen.page:
            assert not any(name.startswith("on") for name in node.attributes), where
            assert not node.attributes.get("href", "").lower().startswith(("javascript", "data")), where
            # what is copied is the text as it was; what is read shows what is in it
            if node.tag != "textarea":
                own = "".join(child for child in node.children if isinstance(child, str))
                assert not set(own) & set("\x1b\x07\u202e\u2066\u200b\x00\ufeff"), (where, node.tag)
        assert "49" not in seen.main.one("h1").text
        assert len(seen.html) < 700_000, where


def test_a_search_says_how_far_it_went_and_goes_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_tap.store.sqlite.lists.SEARCHED", 5)
    (nothing,) = look(file, "/sessions?q=text:nowhere")
    said = nothing.page.one(data_test="searched-until")
    further = link(said, "Search further")
    assert "to=" in further
    (before,) = look(file, further)
    assert before.page.one(data_test="nothing-matches")
    assert link(before.page.one(data_test="searched-until"), "Search further") != further
    (all_of_it,) = look(file, "/sessions?q=client:nobody")
    assert not all_of_it.page.all(data_test="searched-until")
