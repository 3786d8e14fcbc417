from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_tap.ui import charts, svg
from tests.ui.document import outside

T0 = 1_773_482_400_000_000  # 14 March 2026, 10:00 UTC
MINUTE = 60_000_000


@pytest.fixture(autouse=True)
def utc() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def link(start: int, end: int) -> str:
    return f"/slow?from={(start - T0) // MINUTE}&to={(end - T0) // MINUTE}"


def span(minute: int, calls: int, errors: int = 0, *latencies: float) -> dict[str, Any]:
    p50, p95, p99 = latencies or (None, None, None)
    start = T0 + minute * MINUTE
    return {
        "start": start, "end": start + MINUTE, "calls": calls, "errors": errors,
        "p50_ms": p50, "p95_ms": p95, "p99_ms": p99,
    }  # fmt: skip


def cell(minute: int, low_ms: float, calls: int, errors: int = 0) -> dict[str, Any]:
    start = T0 + minute * MINUTE
    return {
        "start": start, "end": start + MINUTE, "low_ms": low_ms, "high_ms": 2 * low_ms or 1.0,
        "calls": calls, "errors": errors,
    }  # fmt: skip


def drawn(picture: str, *tags: str) -> list[tuple[str, ...]]:
    """Return elements of the picture itself (not of the links over it): tag, class and places."""
    root = ElementTree.fromstring(picture)
    (group,) = [g for g in root.iter("g") if g.attrib.get("role") == "img"]
    return [
        (each.tag, each.attrib.get("class", ""), *(f"{k}={v}" for k, v in each.attrib.items() if k != "class"))
        for each in group
        if each.tag in tags
    ]


# ------------------------------------------------------------------------------------------------------- pictures


def test_latency_breaks_where_there_was_no_call_and_names_its_lines_at_their_end() -> None:
    chart = charts.latency(
        [span(0, 3, 0, 10, 20, 20), span(1, 2, 0, 20, 40, 40), span(2, 0), span(3, 1, 0, 5, 5, 5)], link
    )
    assert drawn(chart.svg, "polyline", "circle") == [
        ("polyline", "line p50", "points=126.5,156.0 263.5,108.0"),
        ("circle", "point p50", "cx=537.5", "cy=180", "r=2.5"),
        ("polyline", "line p95", "points=126.5,108.0 263.5,12.0", "stroke-dasharray=7 3"),
        ("circle", "point p95", "cx=537.5", "cy=180", "r=2.5"),
        ("polyline", "line p99", "points=126.5,108.0 263.5,12.0", "stroke-dasharray=2 3"),
        ("circle", "point p99", "cx=537.5", "cy=180", "r=2.5"),
    ]
    ends = [each for each in drawn(chart.svg, "text") if each[1].startswith("end")]
    assert [each[1] for each in ends] == ["end p50", "end p95", "end p99"]
    heights = [float(each[3].removeprefix("y=")) for each in ends]
    assert heights == [184, 171, 158], "the names of lines that end in one point stand above each other"


def test_latency_over_decades_has_an_axis_of_powers() -> None:
    chart = charts.latency([span(0, 3, 0, 1, 40, 2000), span(1, 2, 0, 1, 40, 2000)], link)
    marks = [each.text for each in ElementTree.fromstring(chart.svg).iter("text") if each.get("text-anchor") == "end"]
    assert marks == ["1 ms", "10 ms", "100 ms", "1 s", "10 s"]
    assert "logarithmic axis" in chart.caption


def test_calls_stand_on_each_other() -> None:
    chart = charts.calls([span(0, 10), span(1, 8, 2), span(2, 0), span(3, 1000, 1)], link)
    bars = drawn(chart.svg, "rect")
    assert [each[1] for each in bars] == ["bar ok", "bar ok", "bar bad", "bar ok", "bar bad"]
    assert "height=2.5" in bars[-1], "one failure among a thousand can be seen"
    hatched = drawn(charts.calls([span(0, 10, 5)], link).svg, "rect")
    assert [each[2] for each in hatched][-1] == "fill=url(#calls-hatch)", "and is told apart without its colour"


def test_the_heatmap_has_a_row_for_each_doubling_and_hatches_what_failed() -> None:
    chart = charts.heatmap([cell(0, 8, 1), cell(0, 32, 90), cell(1, 8, 4, 2)], [span(0, 91), span(1, 4, 2)], link)
    boxes = drawn(chart.svg, "rect")
    assert [each[1] for each in boxes] == ["heat-1", "heat-5", "heat-2 bad", ""]
    assert "fill=url(#heatmap-hatch)" in boxes[-1]
    assert [each[3] for each in boxes[:3]] == ["y=140", "y=12", "y=140"], "8, 32 and 8; the row of 16 stays empty"
    assert chart.columns == ["From", "8 ms to 16 ms", "32 ms to 64 ms"]
    assert [line.cells for line in chart.lines] == [["14 Mar 10:00", "1", "90"], ["14 Mar 10:01", "4, 2 failed", ""]]


def test_a_chart_links_each_span_for_pointers_and_in_its_table_for_everyone() -> None:
    spans = [span(0, 3, 1, 10, 20, 20), span(1, 0), span(2, 1, 0, 5, 5, 5)]
    for chart in (
        charts.latency(spans, link),
        charts.calls(spans, link),
        charts.heatmap([cell(0, 8, 3), cell(2, 4, 1)], spans, link),
    ):
        root = ElementTree.fromstring(chart.svg)
        links = list(root.iter("a"))
        assert [each.attrib["href"] for each in links] == ["/slow?from=0&to=1", "/slow?from=2&to=3"]
        assert [line.href for line in chart.lines] == ["/slow?from=0&to=1", "/slow?from=2&to=3"]
        # one that sees the picture as one image must not find focus inside of it
        (hidden,) = [g for g in root.iter("g") if g.attrib.get("aria-hidden") == "true"]
        assert list(hidden.iter("a")) == links
        assert all(each.attrib["tabindex"] == "-1" for each in links)
        (image,) = [g for g in root.iter("g") if g.attrib.get("role") == "img"]
        named = {each.attrib["id"] for each in image if "id" in each.attrib}
        assert set(image.attrib["aria-labelledby"].split()) == named


def test_captions_say_what_the_figures_are() -> None:
    spans = [span(0, 3, 1, 10, 20, 20)]
    assert charts.latency(spans, link).caption == (
        "Streams that last by design are left out. Percentiles of every stored duration; times in UTC."
    )
    assert "within 3 %" in charts.latency(spans, link, exact=False).caption


def test_nothing_is_said_in_words() -> None:
    for chart in (
        charts.latency([span(0, 0)], link),
        charts.calls([span(0, 0)], link),
        charts.heatmap([], [span(0, 0)], link),
    ):
        assert "no calls in this range" in chart.svg
        assert chart.lines == []


def test_a_spark_line_draws_what_there_is() -> None:
    assert str(charts.spark([0, 2, 4], "6 calls")) == (
        '<svg class="spark" role="img" width="96" height="20" viewBox="0 0 96 20"><title>6 calls</title>'
        '<line x1="0" x2="96" y1="19.75" y2="19.75"/>'
        '<rect x="32.5" y="11" width="31" height="9"/><rect x="64.5" y="2" width="31" height="18"/></svg>'
    )


def test_shares_put_the_rest_together() -> None:
    shares = charts.proportion(
        [("b", 1), ("a", 6), ("d", 1), ("c", 2), ("none", 0)], lambda name: f"/?client={name}", most=2
    )
    assert [(part.client, part.calls, part.href) for part in shares.parts] == [
        ("a", 6, "/?client=a"), ("c", 2, "/?client=c"), ("2 others", 2, None),
    ]  # fmt: skip
    assert outside(shares.svg) == []
    assert charts.proportion([], lambda name: name).parts == []


def test_a_matrix_shades_by_calls_and_counts_what_it_leaves_out() -> None:
    rows = [
        {"tool": tool, "client": client, "calls": calls, "errors": errors}
        for tool, client, calls, errors in [("s", "a", 90, 1), ("s", "b", 1, 0), ("t", "a", 10, 10), ("u", "c", 2, 0)]
    ]
    matrix = charts.matrix(rows, tools=2, clients=2)
    assert matrix.clients == ["a", "c"]
    assert [(tool, [cell.calls for cell in cells]) for tool, cells in matrix.rows] == [("s", [90, 0]), ("t", [10, 0])]
    assert [cell.shade for cell in matrix.rows[0][1]] == [5, 0]
    assert (matrix.more_tools, matrix.more_clients) == (1, 1)


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [
        (0, 0, "0 %"),
        (0, 9, "0 %"),
        (1, 3, "33 %"),
        (1, 100_000, "0.1 %"),
        (1, 40, "2.5 %"),
        (999, 1000, "99 %"),
        (7, 7, "100 %"),
    ],
)
def test_shares_in_words(part: int, whole: int, words: str) -> None:
    assert charts.percent(part, whole) == words


# ----------------------------------------------------------------------------------------------------------- axes


@pytest.mark.parametrize(
    ("top", "marks"),
    [
        (0, [0, 1]),
        (1, [0, 1]),
        (3, [0, 1, 2, 3]),
        (10, [0, 3, 6, 9, 12]),
        (97, [0, 25, 50, 75, 100]),
        (1000, [0, 250, 500, 750, 1000]),
    ],
)
def test_counts_have_whole_marks(top: float, marks: list[float]) -> None:
    assert svg.linear(top, 200, 0, whole=True)[1] == marks


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        (1, 1000, [1, 10, 100, 1000]),
        (3, 40, [2, 5, 10, 20, 50]),
        (0.2, 0.2, [0.2, 0.5]),
        (0.01, 1e7, [0.01, 1, 100, 1e4, 1e6]),
    ],
)
def test_powers_have_few_marks(low: float, high: float, marks: list[float]) -> None:
    assert svg.logarithmic(low, high, 200, 0)[1] == pytest.approx(marks)


@pytest.mark.parametrize(
    ("minutes", "labels"),
    [
        (1, ["10:00:00", "10:00:15", "10:00:30", "10:00:45", "10:01:00"]),
        (60, ["10:00", "10:15", "10:30", "10:45", "11:00"]),
        (24 * 60, ["12:00", "18:00", "15 Mar", "06:00"]),
        (7 * 24 * 60, ["15 Mar", "16 Mar", "17 Mar", "18 Mar", "19 Mar", "20 Mar", "21 Mar"]),
    ],
)
def test_times_are_round(minutes: int, labels: list[str]) -> None:
    assert [label for _, label in svg.times(T0, T0 + minutes * MINUTE)] == labels


def test_days_begin_at_local_midnight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    assert [label for _, label in svg.times(T0, T0 + 24 * 60 * MINUTE)] == ["18:00", "15 Mar", "06:00", "12:00"]


# ------------------------------------------------------------------------------------------------ any numbers, any text

counts = st.integers(0, 10**9)
latencies = st.one_of(st.none(), st.floats(0, 1e12), st.sampled_from([0.0, 1e-9, 1e12]))


@st.composite
def spans(draw: st.DrawFn) -> list[dict[str, Any]]:
    length = draw(st.sampled_from([1, MINUTE, 30 * 86400 * 1_000_000]))
    start = draw(st.integers(0, 4 * 10**15))
    return [
        {
            "start": start + n * length, "end": start + (n + 1) * length, "calls": draw(counts), "errors": draw(counts),
            "p50_ms": draw(latencies), "p95_ms": draw(latencies), "p99_ms": draw(latencies),
        }
        for n in range(draw(st.integers(1, 8)))
    ]  # fmt: skip


@given(spans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_series_is_a_picture_inside_its_frame(series: list[dict[str, Any]], exact: bool) -> None:
    assert outside(charts.latency(series, link, exact=exact).svg) == []
    assert outside(charts.calls(series, link).svg) == []


@given(spans(), st.lists(st.tuples(st.integers(0, 7), st.integers(-12, 45), counts, counts), max_size=12))
@settings(max_examples=60, deadline=None)
def test_any_heatmap_is_a_picture_inside_its_frame(
    series: list[dict[str, Any]], some: list[tuple[int, int, int, int]]
) -> None:
    cells = []
    for n, power, calls, errors in some:
        at = series[n % len(series)]
        low = 0.0 if power == -12 else 2.0**power
        cells.append({**at, "low_ms": low, "high_ms": 2 * low or 1.0, "calls": calls, "errors": errors})
    assert outside(charts.heatmap(cells, series, link).svg) == []


@given(st.lists(st.tuples(st.text(), counts), max_size=9), st.lists(counts, max_size=30), st.text())
@settings(max_examples=60, deadline=None)
def test_any_text_stays_text(clients: list[tuple[str, int]], spark: list[int], said: str) -> None:
    shares = charts.proportion(clients, lambda name: f"/?client={name}")
    assert outside(shares.svg) == []
    root = ElementTree.fromstring(charts.spark(spark, said))
    assert {each.tag for each in root.iter()} <= {"svg", "title", "line", "rect"}
    assert outside(charts.spark(spark, said)) == []


def test_a_name_cannot_leave_its_place() -> None:
    picture = charts.proportion([('"><script>alert(1)</script>\u202e', 3)], lambda name: f"/?client={name}").svg
    root = ElementTree.fromstring(picture)
    assert not list(root.iter("script"))
    assert "\u202e" not in picture
    assert "\\u202e" in picture
