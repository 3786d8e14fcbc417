"""What the tests of the API share: the morning of `tests.store.plausible` behind a desk, and questions to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
from starlette.types import ASGIApp

from mcp_tap.api.desk import Desk, Recording
from mcp_tap.app import application
from mcp_tap.config import Proxy, parse_upstream
from tests.store.plausible import UPSTREAM, morning
from tests.store.recording import reading, record

T = TypeVar("T")

DESK = "http://127.0.0.1:6279"
CLAUDE, CURSOR, CODE, AGENT = (f"00000000000000000000000{number:03d}" for number in (2, 1, 3, 4))


def written(directory: Path) -> Path:
    """Write the morning into a file, once for a module's tests."""
    path = directory / "morning.db"
    record(path, *morning())
    return path


@asynccontextmanager
async def desk(path: Path, **values: Any) -> AsyncIterator[Desk]:
    """Open a recording behind a desk, which says that it records."""
    async with reading(path) as reader:
        proxies = (Proxy(upstream=parse_upstream(UPSTREAM)),)
        values = {"proxies": proxies, "recording": lambda: Recording(on=True), **values}
        yield Desk(reader=reader, **values)


def client(asked: ASGIApp, **options: Any) -> httpx.AsyncClient:
    """Return a client of an application in this process; what crashes there crashes here."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(asked), base_url=DESK, **options)


class Asking:
    """Questions to one recording: each to a desk of its own, or all to one as long as it is entered."""

    def __init__(self, path: Path, **values: Any) -> None:
        self.path = path
        self.values = values
        self._runner: asyncio.Runner | None = None
        self._open = AsyncExitStack()
        self._application: ASGIApp | None = None

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner()
        of = self._runner.run(self._open.enter_async_context(desk(self.path, **self.values)))
        self._application = application(of)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._runner is not None
        self._runner.run(self._open.aclose())
        self._runner.close()
        self._runner = self._application = None

    def answer(self, url: str, **options: Any) -> httpx.Response:
        """Return the whole answer to GET, or to the ``method`` among the options."""
        method = options.pop("method", "GET")

        async def ask(http: httpx.AsyncClient) -> httpx.Response:
            return await http.request(method, url, **options)

        return self.within(ask)

    def json(self, url: str, status: int = 200, **options: Any) -> Any:
        """Return the JSON of an answer that has to have this status."""
        answer = self.answer(url, **options)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/json"
        return answer.json()

    def within(self, work: Callable[[httpx.AsyncClient], Awaitable[T]]) -> T:
        """Do several questions of one client."""
        if self._runner is None:
            with self:
                return self.within(work)

        async def ask() -> T:
            assert self._application is not None
            async with client(self._application) as http:
                return await work(http)

        return self._runner.run(ask())


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, 30))
