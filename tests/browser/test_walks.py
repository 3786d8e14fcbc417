"""Ways through the pages: by keys, without scripts, with a token, back and forward, from a file."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import Watched
from .stage import Scene, scene

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.matrix


@pytest.fixture
def expect() -> Callable[..., Any]:
    from playwright.sync_api import expect

    return expect


def focused_row(page: Page) -> str | None:
    """Return the id of the row that the reader is at."""
    at: str | None = page.evaluate("document.activeElement.closest('tr[data-row]')?.dataset.id ?? null")
    return at


def press(page: Page, *keys: str) -> None:
    """Press keys one after the other."""
    for key in keys:
        page.keyboard.press(key)


def assistant(page: Page) -> None:
    """Open the session of the demonstration's assistant."""
    page.goto("/sessions?q=client:desk-assistant@1.4.2")
    page.locator("tr[data-row] a").first.click()
    page.wait_for_url("**/sessions/ses_*")
    page.wait_for_load_state()


# ----------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("letter", "path"),
    [
        ("o", "/"), ("s", "/sessions"), ("l", "/live"), ("t", "/tools"),
        ("c", "/clients"), ("e", "/errors"), ("w", "/slow"), ("n", "/connections"),
    ],
)  # fmt: skip
def test_g_and_a_letter_go_to_a_page(played: Scene, page: Page, letter: str, path: str) -> None:
    page.goto("/slow" if letter == "s" else "/sessions")
    press(page, "g", letter)
    page.wait_for_url(lambda url: url.split("?")[0] == f"{played.desk}{path}")


def test_keys_walk_and_open_rows(played: Scene, page: Page, expect: Any) -> None:
    page.goto("/sessions")
    rows = page.locator("tr[data-row]").evaluate_all("rows => rows.map(row => row.dataset.id)")
    press(page, "j", "j", "j", "k")
    assert focused_row(page) == rows[1]
    press(page, "x")
    expect(page.locator(".expanded")).to_be_visible()
    expect(page.locator(".expanded tr").first).to_be_visible()
    press(page, "x")
    expect(page.locator(".expanded")).to_have_count(0)
    press(page, "n")
    failed = page.locator("tr[data-row][data-status=failed]").evaluate_all("rows => rows.map(row => row.dataset.id)")
    next_failed = next(row for row in rows[2:] if row in failed)
    assert focused_row(page) == next_failed
    href = page.locator(f"tr[data-id={next_failed}] a").first.get_attribute("href")
    press(page, "Enter")
    page.wait_for_url(f"**{href}")
    press(page, "u")
    page.wait_for_url("**/sessions*")


def test_keys_of_the_session_page(played: Scene, context: Callable[..., BrowserContext], expect: Any) -> None:
    page = context(permissions=["clipboard-read", "clipboard-write"]).new_page()
    assistant(page)
    press(page, "n", "Enter")
    panel = page.locator("#panel")
    expect(panel).to_be_visible()
    expect(panel).to_contain_text("rate limited")
    first = page.url
    press(page, "ArrowRight")
    expect(page).not_to_have_url(first)
    press(page, "ArrowLeft")
    expect(page).to_have_url(first)
    press(page, "y")
    expect(page.locator("[data-announce]")).to_contain_text("copied curl")
    assert "curl" in page.evaluate("navigator.clipboard.readText()")
    press(page, "Y")
    expect(page.locator("[data-announce]")).to_contain_text("copied json")
    press(page, "Escape")
    expect(panel).to_be_hidden()
    assert focused_row(page) is not None, "the focus goes back to the row"
    view = page.locator("svg[data-waterfall]").first
    whole = view.get_attribute("viewBox")
    press(page, "+")
    expect(view).not_to_have_attribute("viewBox", whole or "")
    press(page, "-")
    expect(view).to_have_attribute("viewBox", whole or "")
    press(page, "+", "+", "0")
    expect(view).to_have_attribute("viewBox", whole or "")
    here = page.url.split("?")[0]
    press(page, "]")
    page.wait_for_url(lambda url: url.split("?")[0] != here)
    press(page, "[")
    page.wait_for_url(lambda url: url.split("?")[0] == here)


def test_dragging_over_the_minimap_zooms(played: Scene, page: Page, expect: Any) -> None:
    assistant(page)
    view = page.locator("svg[data-waterfall]").first
    whole = (view.get_attribute("viewBox") or "").split()
    box = page.locator("svg[data-minimap]").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 10, steps=4)
    page.mouse.up()
    zoomed = (view.get_attribute("viewBox") or "").split()
    assert float(zoomed[2]) == pytest.approx(float(whole[2]) / 2, rel=0.05)


def test_the_filter_the_range_and_the_help(played: Scene, page: Page, expect: Any) -> None:
    page.goto("/sessions")
    press(page, "/")
    expect(page.locator("[data-filter]")).to_be_focused()
    page.keyboard.type("client:code-editor")  # letters that are keys elsewhere
    press(page, "Enter")
    expect(page.locator("[data-test=chips]")).to_contain_text("client:code-editor")
    expect(page.locator("tr[data-row]")).to_have_count(1)
    page.wait_for_load_state()  # keys need the scripts
    press(page, ".")
    expect(page.locator("details[data-menu=range]")).to_have_attribute("open", "")
    press(page, "Escape")
    expect(page.locator("details[data-menu=range]")).not_to_have_attribute("open", "")
    page.locator("h1").click()
    press(page, "?")
    dialog = page.locator("dialog[open]")
    expect(dialog).to_be_visible()
    dialog.locator("[data-keys-switch]").uncheck()
    press(page, "Escape")
    expect(dialog).to_have_count(0)
    press(page, "j", "?")
    assert focused_row(page) is None
    expect(dialog).to_have_count(0)
    page.reload()
    press(page, "j")
    assert focused_row(page) is None, "the switch is kept"
    page.locator("[data-help]").click()
    dialog.locator("[data-keys-switch]").check()
    press(page, "Escape", "j")
    assert focused_row(page) is not None


def test_keys_with_modifiers_are_the_browsers(played: Scene, page: Page) -> None:
    page.goto("/sessions")
    press(page, "Control+j", "Alt+j", "Meta+j")
    assert focused_row(page) is None


def test_pause_and_follow_on_the_live_page(stage: Scene, page: Page, expect: Any) -> None:
    client = stage.client("pauser")
    page.goto(f"/live?session={client.session}")
    rows = page.locator("tr[data-row]", has_text="search_products")
    client.call("search_products", query="a")
    expect(rows).to_have_count(1)
    press(page, "p")
    client.call("search_products", query="b")
    client.call("search_products", query="c")
    expect(page.locator("[data-pause]")).to_contain_text("2 waiting")
    expect(rows).to_have_count(1)
    press(page, "p")
    expect(rows).to_have_count(3)
    expect(page.locator("[data-follow]")).to_have_attribute("aria-pressed", "true")


# --------------------------------------------------------------------------------------------------------- a tree


def test_json_is_a_tree_that_keys_walk(played: Scene, context: Callable[..., BrowserContext], expect: Any) -> None:
    page = context(permissions=["clipboard-read", "clipboard-write"]).new_page()
    assistant(page)
    page.locator("tr[data-row]", has_text="search_products").locator("a").first.click()
    page.locator("#panel [role=tree]").first.wait_for()
    tree = page.locator("#panel [role=tree]", has_text="umbrella").first
    tree.locator("[tabindex='0']").focus()
    press(page, "ArrowDown")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "treeitem"
    press(page, "C")
    expect(page.locator("[data-announce]")).to_contain_text("copied")
    assert page.evaluate("navigator.clipboard.readText()").startswith("$.")
    press(page, "Home", "ArrowLeft")
    expect(tree.locator("[role=group]").first).to_be_hidden()
    press(page, "ArrowRight")
    expect(tree.locator("[role=group]").first).to_be_visible()


# -------------------------------------------------------------------------------------------------------- no scripts


def test_everything_that_is_read_works_without_scripts(played: Scene, context: Any, expect: Any) -> None:
    page = context(java_script_enabled=False).new_page()
    page.goto("/")
    page.get_by_role("link", name="Sessions", exact=True).click()
    expect(page.locator("tr[data-row]").first).to_be_visible()
    page.locator("th a", has_text="Calls").click()
    expect(page.locator("th[aria-sort]", has_text="Calls")).to_have_attribute("aria-sort", "descending")
    calls = [int(text.split()[0]) for text in page.locator("[data-field=calls]").all_inner_texts()]
    assert calls == sorted(calls, reverse=True)
    page.goto("/sessions?limit=1")
    first = page.locator("tr[data-row]").get_attribute("data-id")
    page.locator("[data-test=older]").click()
    expect(page.locator("tr[data-row]")).not_to_have_attribute("data-id", first or "")
    page.locator("[data-test=newer]").click()
    expect(page.locator("tr[data-row]")).to_have_attribute("data-id", first or "")
    page.goto("/sessions?q=client:desk-assistant@1.4.2")
    page.locator("[data-expand]").first.click()
    expect(page.locator(".expanded")).to_contain_text("create_payment")
    page.locator(".first a").first.click()
    page.locator("tr[data-row][data-status=failed] a").first.click()
    panel = page.locator("#panel")
    expect(panel).to_contain_text("rate limited")
    panel.get_by_role("link", name=re.compile("raw", re.IGNORECASE)).first.click()
    expect(page.locator("main")).to_contain_text("create_payment")
    page.goto("/sessions")
    page.locator("[data-filter]").fill("client:code-editor")
    page.locator("[data-filter]").press("Enter")
    expect(page.locator("tr[data-row]")).to_have_count(1)
    page.locator("[data-theme-switch]").click()
    theme = page.locator("html").get_attribute("data-theme")
    page.goto("/tools")
    expect(page.locator("html")).to_have_attribute("data-theme", theme or "")
    expect(page.locator("main")).to_contain_text("search_products")


# ------------------------------------------------------------------------------------------------- colours and links


def test_the_theme_is_turned_without_loading_and_stays(played: Scene, page: Page, expect: Any) -> None:
    page.goto("/sessions")
    paper = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(paper)
    page.evaluate("window.stayed = true")
    page.locator("[data-theme-switch]").click()
    assert page.evaluate(paper) != before
    assert page.evaluate("window.stayed") is True
    page.reload()
    assert page.evaluate(paper) != before
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_the_systems_theme_holds_where_none_is_chosen(played: Scene, context: Any) -> None:
    colours = set()
    for scheme in ("light", "dark"):
        page = context(color_scheme=scheme).new_page()
        page.goto("/sessions")
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2


def test_back_and_forward_and_deep_links(played: Scene, page: Page, expect: Any) -> None:
    page.goto("/sessions")
    page.locator("[data-filter]").fill("client:desk-assistant@1.4.2")
    press(page, "Enter")
    expect(page.locator("tr[data-row]")).to_have_count(1)
    page.locator(".first a").first.click()
    page.locator("tr[data-row][data-status=failed] a").first.click()
    panel = page.locator("#panel")
    expect(panel).to_be_visible()
    deep = page.url
    text = panel.locator("h2").first.inner_text()
    page.go_back()
    expect(panel).to_be_hidden()
    page.go_forward()
    expect(panel).to_be_visible()
    page.go_back()
    page.go_back()
    expect(page.locator("[data-filter]")).to_have_value("client:desk-assistant@1.4.2")
    page.goto(deep)
    expect(panel.locator("h2").first).to_have_text(text)


def test_times_are_the_readers(played: Scene, context: Any, expect: Any) -> None:
    page = context(timezone_id="Asia/Tokyo").new_page()
    page.goto("/sessions")
    time = page.locator("tr[data-row] time").first
    utc = time.get_attribute("datetime") or ""
    hour = (int(utc[11:13]) + 9) % 24
    expect(time).to_contain_text(f"{hour:02d}:{utc[14:16]}")


# ----------------------------------------------------------------------------------------------------- around the desk


def test_a_desk_with_a_token(browser: Browser, tmp_path: Path, expect: Any) -> None:
    token = "a-secret-token-of-some-length"
    with scene(tmp_path / "tap.db", environment={"MCP_TAP_TOKEN": token}) as guarded:
        page = browser.new_context(base_url=guarded.desk.split("?")[0].rstrip("/")).new_page()
        refused = page.goto("/sessions")
        assert refused is not None
        assert refused.status == 401
        page.goto(f"/sessions?token={token}")
        expect(page.locator("h1, .empty, main")).not_to_have_count(0)
        assert "token" not in page.url
        answer = page.goto("/tools")
        assert answer is not None
        assert answer.ok
        page.context.close()


def test_a_recording_without_a_proxy(played: Scene, browser: Browser, expect: Any) -> None:
    command = [sys.executable, "-m", "mcp_tap.cli", "open", str(played.tap.file), "--admin-listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = next(line for line in process.stderr if "http://" in line)
            found = re.search(r"http://\S+", line)
            assert found is not None
            page = browser.new_page()
            page.goto(f"{found[0].rstrip('/')}/sessions")
            expect(page.locator("tr[data-row]", has_text="desk-assistant").first).to_be_visible()
            expect(page.locator("[data-test=promise]")).to_contain_text("reading tap.db")
            page.close()
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
    assert process.returncode == 0


def test_the_first_paint_of_sessions_is_light(played: Scene, context: Any) -> None:
    for number in range(45):  # a full page
        played.client(f"client-{number}", "1.0").call("search_products", query="boots")
    page = context().new_page()
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    weights: dict[str, int] = {}
    session.on("Network.loadingFinished", lambda said: weights.update({said["requestId"]: said["encodedDataLength"]}))
    page.goto("/sessions", wait_until="load")
    assert page.locator("tr[data-row]").count() == 50
    assert len(weights) >= 3, "page, style and script"
    assert sum(weights.values()) < 100_000, weights


def test_an_empty_recording_says_how_to_begin(tmp_path: Path, browser: Browser, watched: Watched, expect: Any) -> None:
    with scene(tmp_path / "tap.db") as empty:
        page = browser.new_context(base_url=empty.desk).new_page()
        watched.watch(page)
        page.goto("/sessions")
        expect(page.locator("main")).to_contain_text(empty.tap.proxy)
        client = empty.client("the-first")
        client.call("search_products", query="boots")
        expect(page.locator("tr[data-row]", has_text="the-first")).to_be_visible()
        page.context.close()
