"""Three things that people come for, played from beginning to end in a browser, on the real tap."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import Watched
from .stage import HOSTILE, Client, Scene

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


@pytest.fixture
def expect() -> Callable[..., Any]:
    from playwright.sync_api import expect

    expect.set_options(timeout=10_000)
    return expect


def row_of(page: Page, client: Client) -> Locator:
    """Return the row of a client's session."""
    return page.locator("tr[data-row]", has_text=client.session[:8])


def test_from_a_failed_call_to_the_same_failure_in_a_shell(stage: Scene, context: Any, expect: Any) -> None:
    client = stage.client("story-one")
    client.call("search_products", query="boots")
    stage.recorded(client)
    page = context(permissions=["clipboard-read", "clipboard-write"]).new_page()
    page.goto("/")
    page.get_by_role("link", name="Sessions", exact=True).click()  # the first click
    row = row_of(page, client)
    expect(row).to_be_visible()
    expect(row).not_to_have_attribute("data-status", "failed")

    client.call("get_weather", city="Atlantis")
    client.call("get_weather", city="Oslo")
    expect(row).to_have_attribute("data-status", "failed")  # nobody reloaded
    expect(row.locator("[data-field=errors]")).to_contain_text("1")

    row.locator("a").first.click()  # the second one
    page.locator("tr[data-row][data-status=failed] a").first.click()  # the third one
    panel = page.locator("#panel")
    expect(panel).to_contain_text("no weather station in Atlantis")
    around = panel.locator(".ctx")
    expect(around).to_contain_text("search_products")
    expect(around).to_contain_text("get_weather")

    panel.locator("[data-copy=curl]").first.click()
    expect(page.locator("[data-announce]")).to_contain_text("copied")
    command = page.evaluate("navigator.clipboard.readText()")
    done = subprocess.run(
        ["bash", "-c", command],
        env={"MCP_SESSION_ID": client.session, "PATH": "/usr/bin:/bin", "no_proxy": "*"},
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert "no weather station in Atlantis" in done.stdout


def test_a_pending_call_turns_into_its_outcome_and_nothing_is_missed(
    stage: Scene, context: Any, watched: Watched, expect: Any, request: pytest.FixtureRequest
) -> None:
    client = stage.client("story-two")
    client.begin("hold", number="first")
    wire = stage.stage.wire(stage.desk)
    request.addfinalizer(wire.close)
    live = context().new_page()
    live.goto(f"{wire.url}/live?session={client.session}")
    waiting = live.locator("tr[data-row][data-status=waiting_for_response]")
    expect(waiting).to_have_count(1)
    identity = waiting.get_attribute("data-id")
    assert identity is not None
    held = live.locator(f"tr[data-id={identity}]")
    live.reload()
    expect(held).to_have_attribute("data-status", "waiting_for_response")

    watched.expect("net::ERR_(CONNECTION|SOCKET|EMPTY_RESPONSE|INCOMPLETE_CHUNKED)")
    wire.cut()
    expect(live.locator("[data-live-state]")).to_contain_text("reconnecting")
    stage.stage.release("let go by hand")
    client.call("search_products", query="boots")
    client.begin("hold", number="second")
    wire.mend()
    expect(held).to_have_attribute("data-status", "failed")
    expect(live.locator("tr[data-row]", has_text="search_products")).to_have_count(1)
    expect(live.locator("tr[data-row]", has_text="hold")).to_have_count(2)
    numbers = live.locator("tr[data-row]").evaluate_all("rows => rows.map(row => row.dataset.id)")
    assert len(numbers) == len(set(numbers))

    session = context().new_page()
    session.goto("/sessions")
    row_of(session, client).locator("a").first.click()
    pending = session.locator("tr[data-row][data-status=waiting_for_response]")
    expect(pending).to_have_count(1)
    second = session.locator(f"tr[data-id={pending.get_attribute('data-id')}]")
    expect(session.locator("body")).to_have_attribute("data-stream", "open")  # scripts have done what they do at first
    before = second.bounding_box()
    stage.stage.release()
    expect(second).to_have_attribute("data-status", "succeeded")
    expect(second.locator("[data-field=status]")).to_have_text("ok")
    client.call("search_products", query="umbrella")
    pill = session.locator("[data-pill]")
    expect(pill).to_contain_text("1 new event")
    after = second.bounding_box()
    assert before is not None
    assert after is not None
    assert before["y"] == after["y"]
    pill.click()
    expect(session.locator("tr[data-row]", has_text="search_products")).to_have_count(2)


def test_hostile_output_is_shown_and_does_nothing(stage: Scene, page: Page, expect: Any) -> None:
    client = stage.client("<img src=x onerror=alert(1)>", "\u202e1.0")
    client.call("hostile", query=HOSTILE)
    client.call("long")
    stage.recorded(client)
    page.goto("/sessions")
    expect(row_of(page, client)).to_contain_text("<img src=x onerror=alert(1)>")
    expect(row_of(page, client)).to_contain_text("\\u202e1.0")
    row_of(page, client).locator("a").first.click()
    page.locator("tr[data-row]", has_text="hostile").locator("a").first.click()
    panel = page.locator("#panel")
    expect(panel).to_contain_text("<script>window.owned = 1</script>")
    text = panel.inner_text()
    assert not re.search("[\x00-\x08\x1b\u202e\u2066\u200b]", text)
    page.wait_for_load_state()  # keys need the scripts
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    page.locator("tr[data-row]", has_text="long").locator("a").first.click()
    expect(panel).to_contain_text("tools/call long")
    hostile = page.locator("tr[data-row]", has_text="hostile").get_attribute("data-event")
    session = page.url.split("?")[0]
    for view in ("pretty", "raw", "network", "timing", "related"):
        page.goto(f"{session}?event={hostile}&view={view}")
        expect(panel).to_be_visible()
    assert page.evaluate("window.owned") is None
    assert page.evaluate("document.querySelectorAll('main script, main img, main iframe').length") == 0
    assert json.dumps(page.title()).isascii()
