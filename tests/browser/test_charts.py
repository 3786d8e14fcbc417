"""Dragging over a chart asks for the time that was dragged over."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from .stage import Scene

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.matrix


@pytest.mark.parametrize(
    ("path", "chart"),
    [("/?q=-method:ping&since=1h", "calls"), ("/?since=1h", "heatmap"), ("/tools/search_products?since=1h", "calls")],
)
def test_a_drag_asks_for_the_time_under_it(played: Scene, page: Page, path: str, chart: str) -> None:
    page.goto(path)
    asked = parse_qs(urlsplit(page.url).query)
    svg = page.locator(f"svg[data-chart={chart}]")
    svg.scroll_into_view_if_needed()
    box, view = svg.bounding_box(), svg.get_attribute("viewBox")
    assert box is not None
    assert view is not None
    begin, end, left, right = (
        float(svg.get_attribute(f"data-{name}") or "") for name in ("from", "to", "left", "right")
    )
    unit = box["width"] / float(view.split()[2])
    places = [left + share * (right - left) for share in (0.75, 0.25)]  # from right to left is the same
    at = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + places[0] * unit, at)
    page.mouse.down()
    page.mouse.move(box["x"] + places[1] * unit, at, steps=5)
    assert svg.locator(".window").count() == 1
    with page.expect_navigation():
        page.mouse.up()
    query = parse_qs(urlsplit(page.url).query)
    assert query.keys() == asked.keys() - {"since"} | {"from", "to"}
    low, high = (datetime.fromisoformat(query[name][0]).timestamp() * 1e6 for name in ("from", "to"))
    pixel = (end - begin) / (right - left) / unit
    assert low == pytest.approx(begin + (end - begin) * 0.25, abs=3 * pixel)
    assert high == pytest.approx(begin + (end - begin) * 0.75, abs=3 * pixel)
    page.locator("[data-test=range]").wait_for()


def test_a_click_follows_the_link_and_escape_takes_a_drag_back(played: Scene, page: Page) -> None:
    page.goto("/?since=1h")
    svg = page.locator("svg[data-chart=calls]")
    target = svg.locator(".targets rect").last
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    assert box is not None
    page.mouse.move(box["x"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] - 80, box["y"] + 20, steps=3)
    page.keyboard.press("Escape")
    assert svg.locator(".window").count() == 0
    page.mouse.up()
    assert urlsplit(page.url).path == "/"
    with page.expect_navigation():
        target.click()
    assert urlsplit(page.url).path == "/sessions"
