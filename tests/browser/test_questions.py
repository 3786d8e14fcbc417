"""The questions that people come with, each answered in at most three clicks from the first page."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from .stage import Scene

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.matrix

MOST = 3


class Walk:
    """Somebody at the first page, whose clicks are counted. What is typed is no click."""

    def __init__(self, page: Page, start: str = "/") -> None:
        self.page = page
        self.clicks = 0
        page.goto(start)

    def click(self, target: Locator) -> None:
        self.clicks += 1
        assert self.clicks <= MOST
        target.click()

    def to(self, name: str) -> None:
        """Click on a page's name in the line on top."""
        self.click(self.page.get_by_role("navigation", name="Pages").get_by_role("link", name=name, exact=True))

    def filter(self, words: str) -> None:
        """Type words into the box on top."""
        box = self.page.locator("[data-filter]")
        box.fill(words)
        box.press("Enter")

    def row(self, words: str) -> Locator:
        """Return the first row of the page with these words."""
        return self.page.locator("tr[data-row]", has_text=words).first


@pytest.fixture
def expect() -> Callable[..., Any]:
    from playwright.sync_api import expect

    expect.set_options(timeout=10_000)
    return expect


def test_a_user_says_that_the_tool_did_not_work(played: Scene, page: Page, expect: Any) -> None:
    walk = Walk(page)
    walk.to("Sessions")
    walk.filter("client:desk-assistant@1.4.2 since:1h")
    session = walk.row("desk-assistant")
    expect(session.locator("[data-field=errors]")).to_have_text(re.compile("3"))
    walk.click(session.locator("a").first)
    walk.click(page.locator("tr[data-row][data-status=failed] a").first)
    panel = page.locator("#panel")
    expect(panel.locator("[data-test=why]")).to_contain_text("rate limited")
    before_and_after = panel.locator(".ctx")
    expect(before_and_after).to_contain_text("search_products")
    expect(before_and_after.locator("[aria-current]")).to_contain_text("create_payment")


def test_what_happened_in_a_session_shows_in_place(played: Scene, page: Page, expect: Any) -> None:
    walk = Walk(page)
    walk.to("Sessions")
    walk.click(walk.row("code-editor").locator("[data-expand]"))
    expect(page.locator(".expanded tr").first).to_be_visible()
    lines = page.locator(".expanded tr").all_inner_texts()
    said = [" ".join(line.split()) for line in lines]
    wanted = ("session_start", "initialize", "tools/list", "slow_report", "refund_payment")
    places = [next(n for n, line in enumerate(said) if word in line) for word in wanted]
    assert places == sorted(places)  # in the order of time
    expect(page.locator(".expanded tr.bad")).to_contain_text("no tool refund_payment")


def test_whether_clients_have_discovered_a_tool(played: Scene, page: Page, expect: Any) -> None:
    walk = Walk(page)
    walk.to("Sessions")
    expect(walk.row("travel-agent").locator("[data-field=tools]")).to_contain_text("book_delivery")
    walk.to("Tools")
    walk.click(page.get_by_role("link", name="book_delivery", exact=True))
    versions = page.locator("[data-test=versions]")
    for client in ("desk-assistant", "code-editor", "travel-agent"):
        expect(versions).to_contain_text(client)


def test_a_tool_that_no_list_has_is_told_apart(played: Scene, page: Page, expect: Any) -> None:
    walk = Walk(page)
    walk.to("Tools")
    expect(walk.row("refund_payment")).to_contain_text("not listed")
    expect(walk.row("book_delivery")).not_to_contain_text("not listed")


def test_why_some_sessions_have_many_errors(played: Scene, page: Page, expect: Any) -> None:
    walk = Walk(page)
    walk.to("Sessions")
    walk.click(page.get_by_role("columnheader", name="Errors").get_by_role("link"))
    expect(page.get_by_role("columnheader", name="Errors")).to_have_attribute("aria-sort", "descending")
    counts = [int(text.split()[0]) for text in page.locator("tr[data-row] [data-field=errors]").all_inner_texts()]
    assert counts[0] == max(counts) > 0
    walk.click(page.locator("tr[data-row] [data-expand]").first)
    expect(page.locator(".expanded tr.bad").first).to_be_visible()
    assert page.locator(".expanded tr.bad").count() == counts[0]


def test_whether_errors_belong_to_one_tool(played: Scene, page: Page, expect: Any) -> None:
    walk = Walk(page)
    walk.to("Errors")
    group = walk.row("create_payment")
    expect(group).to_contain_text("rate limited")
    walk.click(group.locator("a").first)
    around = page.locator(".occurrence").first
    expect(around).to_contain_text("desk-assistant")
    expect(around.locator(".ctx")).to_contain_text("search_products")


def test_whether_a_failed_call_was_made_again(played: Scene, page: Page, expect: Any) -> None:
    walk = Walk(page)
    walk.to("Sessions")
    walk.filter("client:desk-assistant@1.4.2")
    walk.click(walk.row("desk-assistant").locator("a").first)
    tries = page.locator("tr[data-row]", has_text="create_payment")
    expect(tries).to_have_count(3)
    expect(tries.nth(1)).to_contain_text("2nd try")
    expect(tries.nth(2)).to_contain_text("3rd try")
    expect(tries.nth(2).locator("[data-field=status]")).to_have_text("ok")


def test_whether_discovery_is_slow(played: Scene, page: Page, expect: Any) -> None:
    walk = Walk(page, "/slow?over=0ms")
    walk.filter("method:tools/list")
    rows = page.locator("tr[data-row]")
    expect(rows.first).to_contain_text("tools/list")
    assert all("tools/list" in text and re.search(r"\d m?s", text) for text in rows.all_inner_texts())


def test_which_sessions_last_long(played: Scene, page: Page, expect: Any) -> None:
    walk = Walk(page)
    walk.to("Sessions")
    walk.click(page.get_by_role("link", name="Ended", exact=True))
    expect(page.locator("[data-test=chips]")).to_contain_text("status:ended")
    walk.click(page.get_by_role("columnheader", name="Duration").get_by_role("link"))
    expect(page.get_by_role("columnheader", name="Duration")).to_have_attribute("aria-sort", "descending")
    states = page.locator("tr[data-row] [data-field=status]").all_inner_texts()
    assert states
    assert all("ended" in state for state in states)


@pytest.mark.parametrize("words", ["code-editor", "slow_report"])
def test_a_session_is_found_by_client_and_by_tool(played: Scene, page: Page, expect: Any, words: str) -> None:
    walk = Walk(page, "/sessions")
    walk.filter(words)
    expect(walk.row("code-editor")).to_be_visible()
    expect(page.locator("tr[data-row]", has_text="desk-assistant")).to_have_count(0)


def test_a_session_is_found_by_the_id_of_its_header(played: Scene, page: Page, expect: Any) -> None:
    (found,) = played.tap.rows("select mcp_session_id, session_id from sessions where client_name = 'code-editor'")
    walk = Walk(page, "/sessions")
    walk.filter(found["mcp_session_id"])
    expect(page.locator("tr[data-row]")).to_have_count(1)
    expect(page.locator("tr[data-row] a").first).to_have_attribute("href", f"/sessions/{found['session_id']}")
