"""Every page in every dress: themes, widths, what 200 % zoom leaves; contrast and names for who cannot see it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import pytest

from .conftest import need
from .environment import axe
from .stage import Scene

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.matrix

#: Pages that are there whatever was recorded; those of single things are added by `address`.
PAGES: Final = {
    "overview": "/",
    "sessions": "/sessions",
    "sessions-open": "/sessions?open={connection}",
    "session": "/sessions/{session}",
    "panel": "/sessions/{session}?event={event}",
    "message": "/messages/{message}",
    "message-raw": "/messages/{message}?view=raw",
    "message-network": "/messages/{message}?view=network",
    "message-timing": "/messages/{message}?view=timing",
    "message-related": "/messages/{message}?view=related",
    "live": "/live",
    "tools": "/tools",
    "tool": "/tools/search_products",
    "definition": "/tools/search_products/versions/1..2",
    "clients": "/clients",
    "client": "/clients/desk-assistant@1.4.2",
    "errors": "/errors",
    "error": "/errors/{group}",
    "slow": "/slow",
    "connections": "/connections",
    "patterns": "/_patterns",
    "nothing": "/sessions?q=tool:no_such_tool",
    "refused": "/sessions?q=tol:x",
    "missing": "/sessions/ses_none",
}

#: What the browser itself says of an answer that is not 2xx.
REFUSED: Final = "status of 40[04]"


def address(scene: Scene, name: str) -> str:
    """Return the path of a page, with the ids of things of the assistant's session, the second failed message first."""
    failed = scene.tap.rows(
        "select e.* from events e join sessions s using (connection_id)"
        " where s.client_name = 'desk-assistant' and s.client_version = '1.4.2' and e.status = 'failed' order by e.seq"
    )
    row = failed[1]
    path = PAGES[name]
    if "{group}" in path:
        import httpx

        group = httpx.get(f"{scene.desk}/api/errors", trust_env=False).json()["items"][0]
        path = path.replace("{group}", group.get("group_id") or group["id"])
    for word, column in (
        ("connection", "connection_id"),
        ("session", "session_id"),
        ("event", "event_id"),
        ("message", "message_id"),
    ):
        path = path.replace(f"{{{word}}}", row[column])
    return path


each_page = pytest.mark.parametrize("name", PAGES)


@each_page
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_accessible(played: Scene, context: Callable[..., BrowserContext], watched: Any, name: str, theme: Any) -> None:
    need("axe")
    watched.expect(REFUSED)
    page = context(color_scheme=theme, viewport={"width": 1440, "height": 900}).new_page()
    page.goto(address(played, name))
    found = violations(page)
    assert found == [], json.dumps(found, indent=1)


def violations(page: Page) -> list[dict[str, Any]]:
    """Return what axe-core finds serious or critical."""
    page.evaluate(axe().read_text())  # through the debugger: the pages' own policy lets no foreign script in
    options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    found = page.evaluate("options => axe.run(document, options)", options)
    return [
        {
            "rule": rule["id"],
            "help": rule["help"],
            "nodes": [(n["html"][:160], n["failureSummary"]) for n in rule["nodes"][:4]],
        }
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
    ]


#: What sticks out of the page on the right, unless something around it scrolls.
WIDER: Final = """() => {
    const limit = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= limit) return [];
    const scrolls = element => getComputedStyle(element).overflowX !== 'visible' && element !== document.body;
    const inside = element => element && (scrolls(element) || inside(element.parentElement));
    return [...document.querySelectorAll('body *')]
        .filter(element => element.getBoundingClientRect().right > limit + 1 && !inside(element.parentElement))
        .map(element => `${element.tagName}.${element.getAttribute('class')}`).slice(0, 6);
}"""


@each_page
@pytest.mark.parametrize("width", [360, 400, 720])
def test_no_page_scrolls_sideways(played: Scene, context: Any, watched: Any, name: str, width: int) -> None:
    """Narrow telephones, and 720 points: what remains of 1440 at 200 % zoom."""
    watched.expect(REFUSED)
    page = context(viewport={"width": width, "height": 800}).new_page()
    page.goto(address(played, name))
    assert page.evaluate(WIDER) == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
