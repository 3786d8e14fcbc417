"""The waterfall: what is drawn where, what is folded, what stands below what."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from mcp_tap.ui import waterfall
from mcp_tap.ui.waterfall import FOLD, GAP_US, HEIGHT, LEAST, MINI, WIDTH, Axis, Bar, Line, Pause
from tests.ui.document import outside

S = 1_000_000
T0 = 1_773_482_924_998_000


def row(pk: int, at_s: float, took_s: float | None = None, **values: Any) -> dict[str, Any]:
    """Return a row as `Reader.waterfall` has it, ``at_s`` seconds after the beginning."""
    took = None if took_s is None else round(took_s * S)
    given: dict[str, Any] = {
        "pk": pk, "at_us": T0 + round(at_s * S), "duration_us": took,
        "first_byte_us": None if took is None else took // 2, "sse_events": [], "type": "tools/call", "name": "search",
        "status": "succeeded", "direction": "client_to_server", "kind": "request", "parent": None,
        "operation_id": f"smg_x{pk:012d}", "outcome": None,
        "latency_ms": None if took is None else took / 1000,
    }  # fmt: skip
    return given | values


def bars(*rows: dict[str, Any]) -> list[Bar]:
    return [waterfall.bar(each) for each in rows]


def shapes(svg: str) -> list[tuple[str, str, float, float]]:
    """Return what is drawn: element, class, left, width."""
    found = []
    for node in ElementTree.fromstring(svg):
        if node.tag == "rect":
            found.append((node.tag, node.attrib["class"], float(node.attrib["x"]), float(node.attrib["width"])))
        elif node.tag == "polygon":
            points = [float(point.split(",")[0]) for point in node.attrib["points"].split()]
            found.append((node.tag, node.attrib["class"], points[0], max(points) - min(points)))
    return found


def test_waiting_and_receiving_are_two_shades_on_one_axis() -> None:
    rows = [row(1, 0, 1), row(2, 1, 3)]
    axis = Axis(bars(*rows))
    assert shapes(waterfall.picture(waterfall.bar(rows[0]), axis)) == [
        ("rect", "wait", 0, 125), ("rect", "recv", 125, 125),
    ]  # fmt: skip
    assert shapes(waterfall.picture(waterfall.bar(rows[1]), axis)) == [
        ("rect", "wait", 250, 375), ("rect", "recv", 625, 375),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ({"status": "failed"}, [("rect", "bad wait", 0, 250), ("rect", "bad recv", 250, 250)]),
        ({"first_byte_us": None}, [("rect", "wait", 0, 500)]),
        ({"status": "waiting_for_response", "duration_us": None}, [("rect", "pending", 0, WIDTH)]),
        ({"duration_us": None, "kind": "lifecycle", "status": None}, [("rect", "tick", 0, LEAST)]),
        ({"duration_us": None, "direction": "server_to_client"}, [("polygon", "back", 0, 8)]),
        (
            {"direction": "server_to_client"},
            [("rect", "back wait", 0, 250), ("rect", "back recv", 250, 250), ("polygon", "back", 0, 8)],
        ),
        (
            {"sse_events": [600_000, 900_000]},
            [
                ("rect", "wait", 0, 250), ("rect", "recv", 250, 250),
                ("rect", "tick", 299.25, 1.5), ("rect", "tick", 449.25, 1.5),
            ],
        ),
    ],
)  # fmt: skip
def test_what_a_line_looks_like(values: dict[str, Any], drawn: list[Any]) -> None:
    of = row(1, 0, 1, **values)
    axis = Axis(bars(row(1, 0, 1), row(2, 1, 1)))
    assert shapes(waterfall.picture(waterfall.bar(of), axis)) == drawn


def test_a_stream_that_listens_is_a_thin_line_and_no_traffic() -> None:
    listening = [
        row(1, 0, 3600, type="subscriptions/listen", name=None),
        row(2, 0, 3600, type="http", kind="http", name="GET /mcp"),
    ]
    calls = [row(3, 1, 1), row(4, 1800, 1)]
    axis = Axis(bars(*listening, *calls))
    assert axis.folds == 1
    assert axis.end == T0 + 1801 * S
    for each in listening:
        (first, *_) = ElementTree.fromstring(waterfall.picture(waterfall.bar(each), axis)).iter("rect")
        assert first.attrib["height"] == "2"
    assert "3,600" not in waterfall.minimap(bars(*listening, *calls), axis, title="x")


def test_what_is_short_can_still_be_seen() -> None:
    rows = [row(1, 0, 0.000_001), row(2, 4, 1)]
    axis = Axis(bars(*rows))
    drawn = shapes(waterfall.picture(waterfall.bar(rows[0]), axis))
    assert sum(width for *_, width in drawn) == pytest.approx(LEAST, abs=0.1)
    assert drawn[-1][1] == "recv"


def test_a_pause_is_folded_and_its_break_drawn() -> None:
    rows = [row(1, 0, 1), row(2, 61, 1)]
    axis = Axis(bars(*rows))
    left, fold, right = axis.stretches
    assert fold.folded
    assert fold.right - fold.left == FOLD
    assert right.right == pytest.approx(WIDTH)
    assert left.right - left.left == pytest.approx(right.right - right.left)  # one second is as long as the other
    (line,) = ElementTree.fromstring(waterfall.picture(waterfall.bar(rows[0]), axis)).iter("line")
    assert line.attrib["class"] == "break"
    assert float(line.attrib["x1"]) == pytest.approx((fold.left + fold.right) / 2)
    # one second, a minute's pause on 24 units, one second: what scripts read times by
    assert 'data-knots="0:0 488:1000 512:61000 1000:62000"' in waterfall.minimap(bars(*rows), axis, title="x")

    real = Axis(bars(*rows), fold=False)
    assert real.folds == 0
    assert real(T0 + 31 * S) == pytest.approx(WIDTH / 2)
    assert real.knots() == f"0:0 1000:{round((real.end - real.begin) / 1000)}"


@pytest.mark.parametrize(("gap_us", "folds"), [(GAP_US, 0), (GAP_US + 1, 1)])
def test_the_length_of_a_pause_that_is_folded(gap_us: int, folds: int) -> None:
    second = row(2, 0, 1) | {"at_us": T0 + S + gap_us}
    assert Axis(bars(row(1, 0, 1), second)).folds == folds


def test_waiting_for_an_answer_is_no_pause() -> None:
    assert Axis(bars(row(1, 0, 600), row(2, 599, 1))).folds == 0


def test_the_last_moment_is_drawn() -> None:
    rows = [row(1, 0, 10), row(2, 10, None, kind="lifecycle", status=None), row(3, 10, 0)]
    axis = Axis(bars(*rows))
    assert all(shapes(waterfall.picture(each, axis)) for each in bars(*rows))


def test_many_pauses_take_half_of_the_room_at_most() -> None:
    axis = Axis(bars(*(row(n, n * 60, 1) for n in range(200))))
    assert axis.folds == 199
    assert sum(s.right - s.left for s in axis.stretches if s.folded) == pytest.approx(WIDTH / 2)
    assert axis.stretches[-1].right == pytest.approx(WIDTH)
    # and in a line they are not drawn: it would be all breaks
    assert "<line" not in waterfall.picture(waterfall.bar(row(1, 60, 1)), axis)


def test_places_grow_with_time_and_stay_inside() -> None:
    axis = Axis(bars(row(1, 0, 1), row(2, 30, 0.1), row(3, 31, 40), row(4, 500, 0)))
    places = [axis(T0 + n * S) for n in range(-10, 520)]
    assert places == sorted(places)
    assert places[0] == 0
    assert places[-1] == WIDTH


@pytest.mark.parametrize("rows", [[], [row(1, 0)], [row(1, 0, 0)], [row(1, 0), row(2, 0)], [row(1, 0), row(2, 3600)]])
def test_little_to_draw(rows: list[dict[str, Any]]) -> None:
    found = bars(*rows)
    axis = Axis(found)
    assert len(axis.marks()) == 5
    for each in found:
        assert outside(waterfall.picture(each, axis)) == []
    assert outside(waterfall.minimap(found, axis, title="x")) == []


@pytest.mark.parametrize("zoom", [None, (0.0, 0.1), (0.25, 0.5), (0.99, 1.0)])
@pytest.mark.parametrize("fold", [True, False])
def test_nothing_is_drawn_outside_of_the_picture(zoom: tuple[float, float] | None, fold: bool) -> None:
    rows = [
        row(1, 0, 0.5, sse_events=[100_000, 400_000]), row(2, 1, None, kind="lifecycle", status=None), row(3, 2, 30),
        row(4, 40, 0.001, status="failed"), row(5, 41, None, direction="server_to_client"),
        row(6, 90, None, status="waiting_for_response"), row(7, 99, None),
    ]  # fmt: skip
    found = bars(*rows)
    axis = Axis(found, fold=fold, zoom=zoom)
    for each in found:
        picture = waterfall.picture(each, axis)
        # an arrow is a polygon, which has no place in the check
        assert outside(picture) == []
        assert all(-0.01 <= left <= WIDTH + 8 for _, _, left, _ in shapes(picture))


def test_zooming_looks_at_a_part() -> None:
    rows = [row(1, 0, 1), row(2, 1, 1), row(3, 2, 1), row(4, 3, 1)]
    axis = Axis(bars(*rows), zoom=(0.25, 0.5))
    drawn = [shapes(waterfall.picture(waterfall.bar(each), axis)) for each in rows]
    assert [len(each) for each in drawn] == [0, 2, 0, 0] or drawn[1][0][2] == 0
    assert sum(width for *_, width in drawn[1]) == pytest.approx(WIDTH)
    assert axis.marks(3) == ["1.00 s", "1.50 s", "2.00 s"]


def test_what_came_on_a_stream_stands_below_its_request() -> None:
    rows = [
        row(1, 0, 3), row(2, 1, kind="notification", parent=1),
        row(3, 1.5, 0.1, parent=1, direction="server_to_client"),
        row(4, 1.6, kind="notification", parent=3), row(5, 2), row(6, 2.5, kind="notification", parent=999),
        row(7, 2.6, parent=7),
    ]  # fmt: skip
    found = list(waterfall.lines(rows, bars(*rows), Axis(bars(*rows))))
    assert [line.depth for line in found if isinstance(line, Line)] == [0, 1, 1, 2, 0, 0, 0]


def test_a_further_leg_is_a_round_where_the_server_asked_for_input() -> None:
    rows = [
        row(1, 0, 1, operation_id="a", outcome="input_required"), row(2, 2, 1, operation_id="a"),
        row(3, 4, 1, operation_id="b"), row(4, 6, 1, operation_id="b"),
    ]  # fmt: skip
    found = list(waterfall.lines(rows, bars(*rows), Axis(bars(*rows))))
    assert [line.leg for line in found if isinstance(line, Line)] == ["round", "round", "try", "try"]


def test_pauses_stand_between_the_lines() -> None:
    rows = [row(1, 0, 1), row(2, 31, 1), row(3, 32.5, 1)]
    axis = Axis(bars(*rows))
    found = waterfall.lines(rows, bars(*rows), axis)
    kinds = [each.ms if isinstance(each, Pause) else each.row["pk"] for each in found]
    assert kinds == [1, 30_000, 2, 3]
    assert not any(isinstance(each, Pause) for each in waterfall.lines(rows, bars(*rows), axis, fold=False))


def test_rows_of_a_list_are_drawn_as_well() -> None:
    """A long timeline is read in pages, whose rows have texts and milliseconds in place of microseconds."""
    listed = {
        "pk": 1, "time": "2026-03-14T10:08:44.998Z", "latency_ms": 2340.0, "first_byte_ms": 2000.0,
        "type": "tools/call", "name": "x", "status": "failed", "direction": "client_to_server", "kind": "request",
        "parent_id": "smg_ab1cd000000000042", "operation_id": None, "outcome": None,
    }  # fmt: skip
    found = waterfall.bar(listed)
    assert (found.begin, found.first, found.end) == (T0, T0 + 2 * S, T0 + 2_340_000)
    parent = listed | {"pk": 42, "parent_id": None}
    lines = list(waterfall.lines([parent, listed], bars(parent, listed), Axis([found])))
    assert [line.depth for line in lines if isinstance(line, Line)] == [0, 1]


def test_ticks_of_a_long_stream_are_spread() -> None:
    of = row(1, 0, 1000, sse_events=list(range(0, 1000 * S, S // 10)))
    drawn = shapes(waterfall.picture(waterfall.bar(of), Axis(bars(of))))
    assert sum(kind == "tick" for _, kind, _, _ in drawn) <= waterfall.TICKS


def test_the_small_picture_draws_what_lies_on_one_place_once() -> None:
    found = bars(*(row(n, n / 1000, 0.0005) for n in range(5000)))
    svg = waterfall.minimap(found, Axis(found), title="The session in time")
    assert svg.count("<rect") < 1100
    assert 'role="img"' in svg
    assert f'viewBox="0 0 {WIDTH} {MINI}"' in svg


def test_foreign_names_are_text_in_a_picture() -> None:
    of = row(1, 0, 1, name='<script>alert(1)</script>"\x1b[31m\u202e')
    svg = waterfall.picture(waterfall.bar(of), Axis(bars(of)))
    assert {node.tag for node in ElementTree.fromstring(svg).iter()} == {"svg", "title", "rect"}
    assert "\x1b" not in svg
    assert "\u202e" not in svg


def test_a_picture_looks_like_this() -> None:
    rows = [row(1, 0, 0.2, status="failed", sse_events=[150_000]), row(2, 10, 0.8)]
    svg = waterfall.picture(waterfall.bar(rows[0]), Axis(bars(*rows)))
    assert re.sub("(?<=>)(?=<)", "\n", svg).splitlines() == [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" data-waterfall="" aria-hidden="true">',
        "<title>tools/call search 200 ms</title>",
        '<line x1="207.2" x2="207.2" y1="0" y2="14" class="break"/>',
        '<rect x="0" y="3" width="97.6" height="8" class="bad wait"/>',
        '<rect x="97.6" y="3" width="97.6" height="8" class="bad recv"/>',
        '<rect x="145.65" y="1" width="1.5" height="12" class="tick"/>',
        "</svg>",
    ]
