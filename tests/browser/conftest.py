"""A browser, a tap with real traffic, and pages on which nothing may go wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from .environment import chromium, missing
from .stage import Scene, scene

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page


def need(what: str = "browser") -> None:
    """Skip the test where there is no browser or no axe-core; where CI is set, nothing may be skipped."""
    if why := missing(what):
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)


# Playwright's sync API keeps an event loop running in this thread: it must be gone when other folders' tests run.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    need()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # the kernel's sandbox is not there for root in a container
        browser = playwright.chromium.launch(executable_path=chromium(), chromium_sandbox=os.geteuid() != 0)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    need()
    with scene(tmp_path_factory.mktemp("browser") / "tap.db") as playing:
        yield playing


@pytest.fixture
def played(stage: Scene) -> Scene:
    """The stage after a round of the demonstration."""
    stage.play()
    return stage


class Watched:
    """What went wrong on pages: errors on the console, refused by policy, exceptions, dialogs."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self._expected: list[str] = []

    def expect(self, pattern: str) -> None:
        """Do not mind what matches."""
        self._expected.append(pattern)

    def watch(self, page: Page) -> None:
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.wrong.append(f"exception: {error}"))
        page.on("dialog", self._asked)
        page.add_init_script(
            "document.addEventListener('securitypolicyviolation', event =>"
            " console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`))"
        )

    def _said(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            self.wrong.append(said.text)

    def _asked(self, dialog: Dialog) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def check(self) -> None:
        assert [what for what in self.wrong if not any(re.search(pattern, what) for pattern in self._expected)] == []


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.check()


@pytest.fixture
def context(browser: Browser, stage: Scene, watched: Watched) -> Iterator[Callable[..., BrowserContext]]:
    """Return what makes a browser context on the desk; its pages are watched."""
    opened: list[BrowserContext] = []

    def open_context(**options: Any) -> BrowserContext:
        context = browser.new_context(base_url=stage.desk, **options)
        context.set_default_timeout(10_000)
        context.on("page", watched.watch)
        opened.append(context)
        return context

    yield open_context
    for each in opened:
        each.close()


@pytest.fixture
def page(context: Callable[..., BrowserContext]) -> Page:
    return context(viewport={"width": 1440, "height": 900}).new_page()
