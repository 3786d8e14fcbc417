"""The pages of figures over real recordings: what they show, and that nothing foreign gets out of its place."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from mcp_tap.api.desk import Desk, Recording
from mcp_tap.app import application
from mcp_tap.model import Batch, FailureReason, ToolSeen
from mcp_tap.store import open_reader
from tests.store import plausible
from tests.store.recording import record, run
from tests.ui.document import Node, offences, outside, parsed

Get = Callable[[str], httpx.Response]

HOSTILE = "<script>alert(1)</script>\u202eevil\x1b[31m\"'&/..%2F" + "x" * 10_000


@contextmanager
def desk_of(file: Path, *, on: bool = True) -> Iterator[Get]:
    """Give what gets pages of a recording, in-process."""

    def get(path: str) -> httpx.Response:
        async def work() -> httpx.Response:
            reader = await open_reader(f"sqlite:///{file}")
            try:
                desk = Desk(reader=reader, recording=lambda: Recording(on=on))
                transport = httpx.ASGITransport(app=application(desk))
                async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:6279") as client:
                    return await client.get(path)
            finally:
                await reader.close()

        return run(work())

    yield get


def definition(name: str, **properties: str) -> str:
    schema = {"type": "object", "properties": {key: {"type": of} for key, of in properties.items()}}
    return json.dumps({"name": name, "description": f"what {name} does", "inputSchema": schema})


def busy() -> Iterator[Batch]:
    """A client with enough calls for percentiles, and a tool that was defined twice."""
    scene = plausible.scene(9, "10:00:00.000", "busy", "1.0")
    for version, clock in ((1, "10:00:01.000"), (2, "10:20:00.000")):
        given = {"query": "string"} | ({"city": "string"} if version > 1 else {})
        text = definition("lookup", **given)
        scene.batch.tools.append(ToolSeen(scene.connection, plausible.at(clock), "lookup", f"hash-{version}", text))
    for minute in range(30):
        failed = {"failure_reason": FailureReason.TOOL_ERROR, "message": f"no row {minute}"} if minute % 10 == 4 else {}
        scene.call("tools/call", f"10:{minute:02}:30.000", 10.0 * (minute + 1), "lookup", **failed)
    scene.call("tools/call", "10:59:00.000", 20.0, "rarely")
    yield scene.batch


def hostile() -> Iterator[Batch]:
    scene = plausible.scene(1, "10:00:00.000", HOSTILE, HOSTILE, server_name=HOSTILE, protocol_version=HOSTILE)
    for version in (1, 2):
        text = json.dumps({
            "name": HOSTILE, "title": HOSTILE, "description": HOSTILE, "annotations": {HOSTILE: HOSTILE},
            "inputSchema": {"properties": {HOSTILE: {"type": HOSTILE, "default": version}}},
        })  # fmt: skip
        scene.batch.tools.append(ToolSeen(scene.connection, plausible.at("10:00:01.000"), HOSTILE, f"h{version}", text))
    for code in (None, HOSTILE):
        scene.call(
            "tools/call", "10:00:02.000", 1500.0, HOSTILE,
            failure_reason=FailureReason.RPC_ERROR, code=code, message=HOSTILE,
        )  # fmt: skip
    scene.call(HOSTILE, "10:00:03.000", 1200.0)
    yield scene.batch


@pytest.fixture(scope="module")
def morning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Get]:
    file = tmp_path_factory.mktemp("figures") / "tap.db"
    record(file, *plausible.morning(), *busy())
    with desk_of(file) as get:
        yield get


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Get]:
    file = tmp_path_factory.mktemp("trap") / "tap.db"
    record(file, *hostile())
    with desk_of(file) as get:
        yield get


def page(get: Get, path: str, status: int = 200) -> Node:
    answer = get(path)
    assert answer.status_code == status, answer.text[-2000:]
    document = parsed(answer.text)
    assert offences(document) == []
    for drawing in re.findall(r"<svg class=\"(?:chart|spark).*?</svg>", answer.text, re.DOTALL):
        assert outside(drawing) == []
    return document


def column(table: Node, number: int) -> list[str]:
    (body,) = [node for node in table if node.tag == "tbody"]
    return [[cell.text for cell in row if cell.tag in {"td", "th"}][number] for row in body.all("tr")]


PAGES = [
    "/", "/tools", "/tools/lookup", "/tools/search_products", "/tools/refund_order", "/clients",
    "/clients/claude-desktop@1.2.3", "/errors", "/slow", "/connections",
]  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_whole_with_its_json_beside_it(morning: Get, path: str) -> None:
    document = page(morning, f"{path}?since=")
    twin = document.one("a", data_test="twin").attributes["href"]
    assert twin == ("/api?since=" if path == "/" else f"/api{path}?since=")
    assert morning(twin).json()["object"], "and answers"
    for row in document.all("tr", data_row=""):
        assert any(node.tag == "a" for node in row), "a row leads somewhere"
        assert row.attributes["data-href"].startswith("/")


@pytest.mark.parametrize("path", [path for path in PAGES if path != "/connections"])
def test_figures_are_of_the_last_day_unless_asked_otherwise(morning: Get, path: str) -> None:
    document = page(morning, path)
    (chip,) = document.all("ul", data_test="chips")[0].all("li")
    assert chip.text.startswith("since:24h ")
    assert chip.one("a").attributes["href"] == f"{path}?since="
    assert document.one("a", data_test="twin").attributes["href"].endswith("?since=24h")
    everything = page(morning, f"{path}?since=")
    assert not everything.all("ul", data_test="chips")
    (current,) = [a for a in everything.one("p", class_="ranges").all("a") if "aria-current" in a.attributes]
    assert current.text == "all"
    narrower = page(morning, f"{path}?q=client:busy%20since:9000d")
    assert "since:24h" not in narrower.all("ul", data_test="chips")[0].text


def test_overview_says_whether_it_is_fine(morning: Get) -> None:
    document = page(morning, "/?since=")
    shown = {
        card.attributes["data-card"]: card.one("dd").text for card in document.one("dl", data_test="cards").all("div")
    }
    assert shown["Calls"].startswith("47 40 of tools")
    assert shown["Error rate"] == "13 % 6 errors"
    assert re.fullmatch(r"890 ms p50 .* · p99 2\.34 s", shown["p95 latency"])
    assert shown["Active sessions"] == "2 of 5 sessions"
    for name in ("latency", "calls", "heatmap"):
        figure = document.one("figure", data_test=f"chart-{name}")
        assert figure.one("details").all("tr"), "the table behind the chart"
    assert "Streams that last by design are left out." in document.one("figure", data_test="chart-latency").text
    parts = document.one("section", data_test="shares").all("li")
    assert parts[0].text == "busy@1.0 31 · 66 %"
    assert parts[0].one("a").attributes["href"] == "/?q=client:busy@1.0"
    assert len(document.one("section", data_test="newest-sessions").all("tr", data_row="")) == 5
    assert len(document.one("section", data_test="newest-errors").all("tr", data_row="")) == 5


def test_overview_hides_percentiles_of_few_calls_and_says_why(morning: Get) -> None:
    document = page(morning, "/?q=client:cursor&since=")
    (card,) = document.all("div", data_card="p95 latency")
    assert card.one("dd").text == "p95 needs 20 calls; 4 so far"
    drawn = [figure.attributes["data-test"] for figure in document.all("figure")]
    assert drawn == ["chart-calls", "chart-heatmap"]


def test_overview_of_a_recording_covers_what_is_recorded(tmp_path: Path) -> None:
    record(tmp_path / "tap.db", *plausible.morning())
    with desk_of(tmp_path / "tap.db", on=False) as get:
        document = page(get, "/?since=9000d")
    assert len(document.one("figure", data_test="chart-calls").all("tr")) > 5, "not one bar of years"
    assert "beside" not in document.one("p", class_="sub").text


def test_overview_of_a_time_without_calls_says_so(morning: Get) -> None:
    document = page(morning, "/")
    assert "No call has ended in the last 24 h" in document.one("p", data_test="no-calls").text
    assert not document.all("figure")


def test_tools_tell_the_used_from_the_unused(morning: Get) -> None:
    document = page(morning, "/tools?since=")
    assert document.one("p", data_test="summary").text == "5 tools · 5 used · 0 unused"
    table = document.one("table", data_test="tools")
    assert column(table, 0) == ["create_payment", "lookup", "search_products", "refund_order", "rarely not listed"]
    (lookup,) = [row for row in table.all("tr", data_row="") if row.attributes["data-id"] == "lookup"]
    cells = [cell.text for cell in lookup.all("td")]
    assert cells[1:5] == ["◐ degraded", "30", "3 ✕", "10 %"]
    assert cells[-1].startswith("v2, changed ")
    assert lookup.all("a")[-1].attributes["href"] == "/tools/lookup/versions/1..2"
    (rarely,) = [row for row in table.all("tr", data_row="") if row.attributes["data-id"] == "rarely"]
    assert "percentiles need 20 calls; 1 so far" in {span.attributes.get("title") for span in rarely.all("span")}
    empty = page(morning, "/tools")
    assert {row.attributes.get("class") for row in empty.one("table", data_test="tools").all("tr", data_row="")} == {
        "unused"
    }


@pytest.mark.parametrize(
    "sort", ["name", "health", "calls", "errors", "rate", "p50", "p99", "last_called", "clients", "changed"]
)
def test_tools_sort_by_every_column_both_ways(morning: Get, sort: str) -> None:
    down = page(morning, f"/tools?since=&sort={sort}").one("table", data_test="tools")
    (head,) = [th for th in down.all("th") if "aria-sort" in th.attributes]
    assert head.attributes["aria-sort"] == "descending"
    turned = head.one("a").attributes["href"]
    up = page(morning, turned).one("table", data_test="tools")
    (head,) = [th for th in up.all("th") if "aria-sort" in th.attributes]
    assert head.attributes["aria-sort"] == "ascending"
    assert sorted(column(down, 0)) == sorted(column(up, 0))
    if sort == "name":
        assert column(down, 0) == column(up, 0)[::-1]
    if sort in {"calls", "errors"}:
        numbers = [int(re.sub(r"\D", "", each)) for each in column(up, {"calls": 2, "errors": 3}[sort])]
        assert numbers == sorted(numbers)


def test_a_tool_has_its_figures_and_what_it_was_defined_as(morning: Get) -> None:
    document = page(morning, "/tools/lookup?since=")
    assert document.one("h1").text == "lookup"
    assert column(document.one("table", data_test="versions"), 0) == ["v2 what changed", "v1"]
    assert '"city"' in document.one("pre", data_test="inputSchema").text
    slowest = document.one("table", data_test="slowest")
    assert column(slowest, 3)[:2] == ["300 ms", "290 ms"]
    assert len(column(slowest, 3)) == 10
    assert "no row …" in document.text
    assert document.one("p", class_="said").text == "what lookup does"
    arguments = page(morning, "/tools/create_payment?since=").one("ul", data_test="arguments")
    assert arguments.text == "order 3"


def test_two_definitions_side_by_side(morning: Get) -> None:
    document = page(morning, "/tools/lookup/versions/1..2")
    assert document.one("ul", data_test="sentences").text == "added argument city (optional)"
    added = [row.text for row in document.one("table", data_test="diff").all("tr", class_="added")]
    assert added[0] == '+added"city": {'
    assert not document.one("table", data_test="diff").all("tr", class_="removed")
    assert "busy 1.0" in document.one("section", data_test="seen-v2").text
    missing = page(morning, "/tools/lookup/versions/2..3", 404)
    assert "there are: 1 to 2" in missing.one("div", data_test="refused").text


def test_a_client_has_its_tools_versions_and_sessions(morning: Get) -> None:
    table = page(morning, "/clients?since=").one("table", data_test="clients")
    assert column(table, 0)[0] == "busy"
    document = page(morning, "/clients/busy@1.0?since=")
    assert column(document.one("table", data_test="tools"), 0) == ["lookup", "rarely"]
    assert column(document.one("table", data_test="versions"), 0) == ["1.0"]
    nobody = page(morning, "/clients/nobody@1", 404)
    assert 'there is no client "nobody@1"' in nobody.one("div", data_test="refused").text


def test_errors_stand_in_groups_with_what_was_around_them(morning: Get) -> None:
    document = page(morning, "/errors?since=")
    assert document.one("span", data_test="count").text == "6 errors in 4 groups"
    table = document.one("table", data_test="errors")
    assert column(table, 0)[0] == "lookup no row …"
    assert column(table, 1)[0] == "tool error"
    assert column(table, 2)[0] == "3 ✕"
    href = table.all("tr", data_row="")[0].all("a")[0].attributes["href"]
    group = page(morning, href)
    occurrences = group.one("div", data_test="occurrences").all("section")
    assert len(occurrences) == 3
    around = occurrences[0].all("li")
    minus = "\N{MINUS SIGN}"
    assert [line.one("span", class_="offset").text for line in around] == [
        f"{minus}3 min 0 s", f"{minus}2 min 0 s", f"{minus}60 s", "0 ms", "+60 s", "+2 min 0 s", "+3 min 0 s",
    ]  # fmt: skip
    assert around[3].attributes == {"class": "now", "aria-current": "true"}
    assert around[3].one("span", class_="err").text == "✕ tool error"


def test_no_error_is_good_news(morning: Get) -> None:
    nothing = page(morning, "/errors").one("p", data_test="no-errors")
    assert nothing.text == "No message failed in the last 24 h. Show all time"
    assert page(morning, "/errors?q=client:night-agent&since=").all("div", data_test="nothing-matches")


def test_slow_calls_stand_beside_their_tools_median(morning: Get) -> None:
    document = page(morning, "/slow?since=")
    assert column(document.one("table", data_test="slow"), 4) == ["2.34 s", "1.84 s"]
    faster = page(morning, "/slow?since=&over=250ms&q=tool:lookup")
    table = faster.one("table", data_test="slow")
    assert column(table, 4)[0] == "300 ms"
    assert column(table, 5)[0] == "2.0 times 150 ms"
    (current,) = [a for a in page(morning, "/slow?since=&over=5s").all("a") if a.text == "5 s"]
    assert current.attributes["aria-current"] == "true"
    nothing = page(morning, "/slow?since=&over=30s").one("p", data_test="nothing-slow")
    assert nothing.one("a").attributes["href"] == "/slow?since=&over=0ms"


def test_connections_have_what_stands_between(morning: Get) -> None:
    document = page(morning, "/connections")
    table = document.one("table", data_test="connections")
    assert len(column(table, 0)) == 5
    assert "Visual Studio Code" in column(table, 4)[0] or "night-agent" in column(table, 4)[0]
    (vscode,) = [row for row in table.all("tr", data_row="") if "Visual Studio" in row.text]
    assert vscode.all("td")[3].one("span", class_="badge").text == "2025-11-25"
    assert vscode.all("td")[7].text == "1"
    answer = morning("/connections/scn_00000000000000000000000002")
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/sessions/ses_00000000000000000000000002")
    page(morning, "/connections/scn_nothing", 404)


@pytest.mark.parametrize("path", ["/", "/tools", "/tools/lookup", "/clients", "/errors", "/slow", "/connections"])
def test_a_wrong_filter_is_refused_in_words(morning: Get, path: str) -> None:
    refused = page(morning, f"{path}?q=tol:x", 400)
    assert "did you mean tool:?" in refused.one("div", data_test="refused").text


def test_the_pattern_page_shows_every_element(morning: Get) -> None:
    document = page(morning, "/_patterns")
    assert {figure.attributes["data-test"] for figure in document.all("figure")} == {
        "chart-latency", "chart-calls", "chart-heatmap", "chart-nothing",
    }  # fmt: skip
    states = {node.attributes["data-state"] for node in document.all("span") if "data-state" in node.attributes}
    assert states == {"active", "quiet", "ended"}
    assert len(document.one("table", data_test="messages").all("tr", data_status="failed")) == 3


# --------------------------------------------------------------------------------------------------- hostile names


def links(document: Node) -> set[str]:
    return {
        a.attributes["href"]
        for a in document.one("main").all("a")
        if a.attributes["href"].startswith(("/tools", "/clients", "/errors", "/slow", "/connections", "/?"))
    }


def test_foreign_text_is_shown_and_stays_text(trap: Get) -> None:
    seen: set[str] = set()
    waiting = ["/?since=", "/tools?since=", "/clients?since=", "/errors?since=", "/slow?since=", "/connections"]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        answer = trap(path)
        if answer.status_code == 303:
            continue
        document = page(trap, path)
        assert len(document.all("script")) == 1, "ours alone"
        # the box of the filter alone holds what was asked to the letter, to be sent again
        shown = re.sub(r'<input type="(?:search|hidden)"[^>]*>', "", answer.text)
        assert not re.search("[\u202e\x1b]", shown)
        assert len(answer.text) < 600_000
        # every kind of page that can be reached from these, once
        known = {kind(each) for each in seen}
        waiting += [link for link in sorted(links(document)) if kind(link) not in known]
    assert {"/tools/…", "/tools/…/versions/1..2", "/clients/…", "/errors/…"} <= {kind(each) for each in seen}


def kind(path: str) -> str:
    return re.sub(r"[^/]{20,}", "…", path.partition("?")[0])


# -------------------------------------------------------------------------------------------------- nothing at all


@pytest.mark.parametrize("path", ["/", "/tools", "/clients", "/errors", "/slow", "/connections"])
def test_an_empty_recording_says_how_to_fill_it(tmp_path: Path, path: str) -> None:
    record(tmp_path / "tap.db")
    with desk_of(tmp_path / "tap.db") as get:
        assert page(get, path).all("section", data_test="nothing-recorded")
