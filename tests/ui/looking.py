"""Looking at pages: they are served in this process, from a recording made by the real writer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import httpx
from starlette.applications import Starlette

from mcp_tap.api.desk import Desk, Recording
from mcp_tap.config import Proxy, parse_upstream
from mcp_tap.store import open_reader
from mcp_tap.ui.pages import routes
from tests.store.plausible import UPSTREAM
from tests.ui.document import Node, offences, parsed

PROXIES = (Proxy(parse_upstream(UPSTREAM)),)

RECORDING = Recording(on=True)


class Seen(NamedTuple):
    """An answer of a page."""

    status: int
    html: str
    page: Node
    response: httpx.Response

    @property
    def main(self) -> Node:
        return self.page.one("main")

    def rows(self) -> list[Node]:
        """The rows of the page's list, without the template of one."""
        return [row for row in self.main.all("tr") if "data-row" in row.attributes and row.attributes["data-id"]]


def look(
    file: Path,
    *urls: str,
    recording: Recording = RECORDING,
    proxies: tuple[Proxy, ...] = PROXIES,
    reach: Callable[[Proxy], Awaitable[str]] | None = None,
    token: str = "",
    cookies: dict[str, str] | None = None,
) -> list[Seen]:
    """Return what the pages at ``urls`` answer; each of them keeps the rules of the content security policy."""

    async def ask() -> list[httpx.Response]:
        reader = await open_reader(f"sqlite:///{file}")
        try:
            desk = Desk(reader, lambda: recording, proxies, reach=reach, token=token, keep="30 days")
            app = httpx.ASGITransport(Starlette(routes=routes(desk)))
            async with httpx.AsyncClient(transport=app, base_url="http://127.0.0.1:6279", cookies=cookies) as client:
                return [await client.get(url) for url in urls]
        finally:
            await reader.close()

    seen = []
    for answer in asyncio.run(ask()):
        page = parsed(answer.text)
        if answer.text:
            found = offences(page)
            assert found == [], f"{found} on {answer.url}"
        seen.append(Seen(answer.status_code, answer.text, page, answer))
    return seen
