from __future__ import annotations

from typing import Any

from mcp_tap.store.filters import parse
from mcp_tap.ui.cards import before, behind, cards, recorded, scarce

NOW_US = 1_773_482_400_000_000
DAY = parse("since:24h tool:pay", now_us=NOW_US)


def totals(**figures: Any) -> dict[str, Any]:
    return {
        "sessions": 5, "active": 2, "calls": 100, "tool_calls": 80, "errors": 2,
        "p50_ms": 10.0, "p95_ms": 200.0, "p99_ms": 1500.0, "dropped": 0, "exact": True,
    } | figures  # fmt: skip


def test_every_figure_stands_beside_that_of_the_time_before() -> None:
    shown = cards(totals(), totals(calls=80, errors=8, p95_ms=100.0), DAY)
    assert [(card.label, card.value, card.change, card.tone) for card in shown] == [
        ("Calls", "100", "▲ 25 %", ""),
        ("Error rate", "2 %", "▼ 8.0 points", "better"),
        ("p95 latency", "200 ms", "▲ 100 %", "worse"),
        ("Active sessions", "2", "", ""),
    ]
    assert [card.note for card in shown] == ["80 of tools", "2 errors", "p50 10 ms · p99 1.50 s", "of 5 sessions"]
    assert [card.was for card in shown] == ["80 before", "10 % before", "100 ms before", ""]


def test_a_percentile_of_few_calls_is_not_shown_and_says_why() -> None:
    p95 = cards(totals(calls=7), None, DAY)[2]
    assert (p95.value, p95.note) == ("", "p95 needs 20 calls; 7 so far")
    assert scarce(20) == ""


def test_without_a_time_before_nothing_is_compared() -> None:
    assert {card.change for card in cards(totals(), None, DAY)} == {""}
    assert [card.change for card in cards(totals(), totals(calls=0, errors=0, p95_ms=None), DAY)][:3] == [
        "none before", "", "",
    ]  # fmt: skip


def test_nothing_called_has_no_rate() -> None:
    assert cards(totals(calls=0, tool_calls=0, errors=0), None, DAY)[1].value == "none"


def test_the_list_behind_a_span_keeps_the_filter_but_for_its_range() -> None:
    link = behind("/slow", DAY, over="0ms")
    assert link(NOW_US, NOW_US + 60_000_000) == (
        "/slow?q=tool:pay&over=0ms&from=2026-03-14T10:00:00.000Z&to=2026-03-14T10:01:00.000Z"
    )


def test_a_range_begins_with_the_recording_where_this_is_younger() -> None:
    young = {"oldest": "2026-03-14T09:48:00.000Z", "newest": "2026-03-14T09:49:00.000Z"}
    assert str(recorded(DAY, young)) == "tool:pay from:2026-03-14T09:48:00.000Z"
    assert before(DAY, young) is None, "nobody recorded the day before"
    old = {"oldest": "2026-03-01T00:00:00.000Z", "newest": "2026-03-14T09:59:00.000Z"}
    assert recorded(DAY, old) is DAY
    assert str(before(DAY, old)) == "tool:pay from:2026-03-12T10:00:00.000Z to:2026-03-13T10:00:00.000Z"
    for untouched in (parse("tool:pay", now_us=NOW_US), parse("from:2026-01-01 to:2026-01-02", now_us=NOW_US)):
        assert recorded(untouched, young) is untouched
    assert recorded(DAY, {"oldest": None}) is DAY


def test_a_range_ends_with_a_recording_that_is_over() -> None:
    over = {"oldest": "2026-03-14T09:48:00.000Z", "newest": "2026-03-14T09:49:00.000Z"}
    assert str(recorded(DAY, over, growing=False)) == (
        "tool:pay from:2026-03-14T09:48:00.000Z to:2026-03-14T09:49:00.001Z"
    )
    later = parse("since:1m", now_us=NOW_US)
    assert recorded(later, over, growing=False) is later, "nothing of it is in the range"
