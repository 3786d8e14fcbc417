"""`make screenshots`: the pages as pictures, of a recording that is worth looking at.

The demonstration is played, a tool changes its definition, calls fail; then a browser looks at every page. The two
pictures that README shows go to docs/images, all others to .cache/screenshots; a folder as argument takes them all.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from mcp_tap.demo import play

from .environment import chromium, missing
from .png import with_palette
from .stage import Scene, in_thread, scene

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT: Final = Path(__file__).resolve().parents[2]

#: What README shows.
SHOWN: Final = {"sessions", "session"}

WIDE: Final = (1440, 900)
NARROW: Final = (400, 800)


class Picture(NamedTuple):
    """One picture: where the browser goes, and what it does there before."""

    name: str
    path: str
    before: Callable[[Page], object] = lambda page: None
    theme: str = "light"
    viewport: tuple[int, int] = WIDE


def pictures(scene: Scene) -> list[Picture]:
    """Return all pictures of a scene."""
    session, failed = _worst_session(scene)
    panel = f"/sessions/{session}?event={failed}"
    plain = [
        Picture("overview", "/"),
        Picture("sessions", "/sessions", _expand),
        Picture("session", panel),
        Picture("message", f"/messages/{failed.replace('sev_', 'smg_')}"),
        Picture("live", "/live"),
        Picture("waiting", "/sessions?q=status:pending"),
        Picture("tools", "/tools"),
        Picture("tool", "/tools/search_products"),
        Picture("definition", "/tools/search_products/versions/1..2"),
        Picture("clients", "/clients"),
        Picture("errors", "/errors"),
        Picture("slow", "/slow"),
        Picture("connections", "/connections"),
        Picture("patterns", "/_patterns"),
        Picture("help", "/sessions", lambda page: page.keyboard.press("?")),
        Picture("nothing-matches", "/sessions?q=tool:no_such_tool"),
    ]
    dark = [each._replace(name=f"{each.name}-dark", theme="dark") for each in plain]
    narrow = [each._replace(name=f"{each.name}-400", viewport=NARROW) for each in plain]
    return [*plain, *dark, *narrow]


def _worst_session(scene: Scene) -> tuple[str, str]:
    """Return the session with the most errors, and the second of its failed messages."""
    (row,) = scene.tap.rows(
        "select connection_id, session_id from sessions"
        " where client_name = 'desk-assistant' order by errors desc limit 1"
    )
    failed = scene.tap.rows(
        f"select event_id from events where connection_id = '{row['connection_id']}' and status = 'failed' order by seq"
    )
    return row["session_id"], failed[1]["event_id"]


def _expand(page: Page) -> None:
    page.locator("tr[data-row]", has_text="code-editor").locator("[data-expand]").click()
    page.locator(".expanded tr").first.wait_for()


def perform(scene: Scene) -> None:
    """Give the recording something to show: the demonstration, further clients, errors, a call that waits."""
    for name, version, city in (("n8n", "1.98.1", "Oslo"), ("claude-desktop", "1.2.3", "Hamburg")):
        client = scene.client(name, version)
        client.request("tools/list")
        for query in ("umbrella", "boots", "jacket"):
            client.call("search_products", query=query)
        for _ in range(6):
            client.call("get_weather", city=city)
        client.call("get_weather", city="Atlantis")
        scene.recorded(client)
    inspector = scene.client("mcp-inspector", "2.12.0")
    inspector.request("tools/list")
    inspector.call("import_catalog")
    inspector.end()
    in_thread(lambda: asyncio.run(play(scene.tap.proxy, once=True)))
    waiting = scene.client("cursor", "2.4.0")
    waiting.request("tools/list")
    waiting.call("search_products", query="umbrella")
    waiting.begin("export_orders")
    time.sleep(1)  # as people see it: what was played has been written


def take(browser: Browser, scene: Scene, folder: Path | None) -> list[Path]:
    """Take all pictures and return their files."""
    files = []
    for picture in pictures(scene):
        width, height = picture.viewport
        context = browser.new_context(
            base_url=scene.desk,
            viewport={"width": width, "height": height},
            color_scheme=picture.theme,  # type: ignore[arg-type]
        )
        page = context.new_page()
        answer = page.goto(picture.path)
        if answer is None or not answer.ok:
            print(f"{picture.path}: {answer and answer.status}", file=sys.stderr)
        picture.before(page)
        home = ROOT / "docs" / "images" if picture.name in SHOWN else ROOT / ".cache" / "screenshots"
        file = (folder or home) / f"{picture.name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        page.mouse.move(0, 0)
        png = page.screenshot(full_page=picture.name not in SHOWN)
        file.write_bytes(with_palette(png) if picture.name in SHOWN else png)
        files.append(file)
        context.close()
    return files


def main(arguments: list[str]) -> int:
    """Take the pictures."""
    if why := missing():
        print(why, file=sys.stderr)
        return 1
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as home, scene(Path(home) / "tap.db", seconds=1) as playing:
        perform(playing)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), chromium_sandbox=os.geteuid() != 0)
            for file in take(browser, playing, Path(arguments[0]) if arguments else None):
                print(file)
            browser.close()
        playing.stage.release()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
