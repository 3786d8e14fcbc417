"""The page about performance is what the kept results give, and what they come from finds what is wrong."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import document
from benchmarks.bars import BARS, Verdict, verdicts
from benchmarks.document import DOCUMENT, RESULTS, bar_lines, cell, kept, kept_growth, page
from benchmarks.load import unchunked
from benchmarks.routes import ROUTES
from benchmarks.scenarios import SCENARIOS, Column
from benchmarks.streams import Chunks
from benchmarks.upstream import EVENT_SIZE, FIRST_ID, SIZE, answer, body, progress

if TYPE_CHECKING:
    from collections.abc import Callable

AGAIN = "docs/performance.md is not of these results: run `make bench ARGS=--page`"


def test_the_page_is_what_the_kept_results_give() -> None:
    assert page(kept(), kept_growth()) == DOCUMENT.read_text(), AGAIN


def test_every_bar_stands_on_the_page_with_its_figure_or_with_that_it_was_not_measured() -> None:
    text = DOCUMENT.read_text()
    for line in bar_lines(verdicts({name: part.rounds for name, part in kept().items()})):
        assert line in text, AGAIN
    for bar in BARS:
        assert f"| {bar.what}" in text, AGAIN


def test_results_are_of_scenarios_and_routes_that_there_are() -> None:
    names = {scenario.name: {route.name for route in scenario.routes} for scenario in SCENARIOS}
    assert {path.stem for path in RESULTS.glob("*.json")} <= {*names, "growth"}
    for name, part in kept().items():
        assert part.rounds, name
        for one in part.rounds:
            assert set(one) <= names[name], name


def test_bars_and_columns_are_of_scenarios_and_routes_that_there_are() -> None:
    assert {bar.scenario for bar in BARS} <= {scenario.name for scenario in SCENARIOS}
    assert len({route.name for route in ROUTES}) == len(ROUTES)
    for scenario in SCENARIOS:
        assert {column.against for column in scenario.columns} - {None} <= {route.name for route in scenario.routes}


# Figures


def test_a_bar_is_the_median_of_ratios_within_the_rounds() -> None:
    rounds = [
        {"nginx": {"cpu": 10.0}, "tap": {"relay": 10.0, "cpu": 30.0}},
        {"nginx": {"cpu": 20.0}, "tap": {"relay": 40.0, "cpu": 100.0}},  # the machine was busy
        {"nginx": {"cpu": 10.0}, "tap": {"relay": 15.0, "cpu": 45.0}},
    ]
    relay, both = verdicts({"json-64": rounds}, [bar for bar in BARS if bar.scenario == "json-64"])
    assert (relay.figure, relay.holds) == (1.5, True)
    assert (both.figure, both.holds) == (4.5, False)


def test_a_bar_that_does_not_hold_says_so_and_one_without_figures_too() -> None:
    over = {"nginx": {"cpu": 10.0}, "tap": {"relay": 21.0, "cpu": 30.0}}
    first, second, *_ = (line for line in bar_lines(verdicts({"json-64": [over]})) if "64 connections" in line)
    assert first.endswith("| **no** |")
    assert second.endswith("| yes |")
    assert all(line.endswith("| not measured |") for line in [*bar_lines(verdicts({}))][2:])


def test_why_a_bar_does_not_hold_stands_below_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    bar = BARS[0]._replace(floor="A socket's four system calls alone take 8 µs.")
    for figure, told in ((bar.limit + 1, True), (bar.limit, False)):
        monkeypatch.setattr(document, "verdicts", lambda _results, figure=figure: [Verdict(bar, figure)])
        assert (bar.floor in page({}, "")) == told


def test_cells_are_medians_spreads_and_ratios() -> None:
    rounds = [{"tap": {"cpu": cpu}, "nginx": {"cpu": 10.0}} for cpu in (30.0, 20.0, 400.0)]
    assert cell(Column("cpu", "CPU"), "tap", rounds) == "30"
    assert cell(Column("cpu", "CPU", spread=True), "tap", rounds) == "20 / 30 / 400"
    assert cell(Column("cpu", against="nginx"), "tap", rounds) == "3.00"
    assert cell(Column("relay", "relay"), "nginx", rounds) == ""


# The load


def test_answers_have_the_size_and_the_id_that_was_asked_for() -> None:
    for size in (1_000, 64_001, 1_000_000):
        large = body(b"/mcp/json/%d" % size, FIRST_ID + 7)
        assert len(large) == size
        assert json.loads(large)["id"] == FIRST_ID + 7
    assert len(answer(FIRST_ID)) == SIZE
    assert len(progress(10**15)) == EVENT_SIZE
    stream = body(b"/mcp/sse/3", FIRST_ID)
    assert [json.loads(one.partition(b"data: ")[2])["jsonrpc"] for one in stream.split(b"\n\n")[:-1]] == ["2.0"] * 4


def test_chunks_are_read_wherever_a_proxy_has_cut_them() -> None:
    wire = b"5\r\nabc\r\n\r\n1\r\nd\r\n0\r\n\r\n"
    assert unchunked(b"head" + wire, 4) == b"abc\r\nd"
    for size in range(1, len(wire) + 1):
        chunks = Chunks()
        pieces = [wire[at : at + size] for at in range(0, len(wire), size)]
        assert b"".join(map(chunks.feed, pieces)) == b"abc\r\nd"
        assert chunks.ended


def altered(answer: bytes) -> bytes:
    return answer.replace(b"work", b"pork", 1)


def cut(answer: bytes) -> bytes:
    return answer[:-1]


@pytest.mark.parametrize(("change", "errors"), [(bytes, 0), (altered, 20), (cut, 20)])
def test_the_load_counts_answers_that_are_not_what_the_server_sent(
    change: Callable[[bytes], bytes], errors: int
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(10):
            try:
                await reader.readuntil(b"\r\n\r\n")
                request = await reader.readuntil(b"}}}")
            except asyncio.IncompleteReadError:
                break
            assert json.loads(request)["id"] == FIRST_ID + number
            writer.write(change(answer(FIRST_ID + number)))
            if change is cut:
                break
        writer.close()

    async def main() -> dict[str, Any]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            async with await asyncio.start_server(serve, sock=listener):
                argv = [sys.executable, "-m", "benchmarks.load", str(port), "--connections", "2", "--calls", "20"]
                load = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
                output, _ = await load.communicate()
        said: dict[str, Any] = json.loads(output)
        return said

    said = asyncio.run(main())
    assert (said["calls"], said["errors"]) == (20 - errors, errors)
