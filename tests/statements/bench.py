"""A tap in front of a server, and questions to its record."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.tap import PATIENCE, Tap, initialize, rpc, running

Row = dict[str, Any]


class Bench:
    """What a test needs: the tap, its URL, and its record by session id."""

    _marks = itertools.count(1)

    def __init__(self, tap: Tap) -> None:
        self.tap = tap
        self.url = tap.proxy

    def client(self, agent: str = "tester") -> httpx.AsyncClient:
        """Return a client; its name tells who it is where nothing else does."""
        return client(agent)

    def settle(self) -> None:
        """Wait until everything that has passed is in the file: what passes now comes behind it."""
        path = f"/mark/{next(self._marks)}"
        httpx.get(httpx.URL(self.url).copy_with(path=path), trust_env=False, headers={"user-agent": "mark"})
        query = f"SELECT status FROM timeline WHERE path = '{path}' AND status <> 'waiting_for_response'"
        self.tap.until(lambda: self.tap.rows(query))

    def connections(self, session_id: str) -> list[Row]:
        """Return the connections of an `Mcp-Session-Id`."""
        return self.tap.rows(f"SELECT * FROM connection WHERE mcp_session_id = '{session_id}'")

    def connection(self, session_id: str) -> Row:
        """Return the one connection of an `Mcp-Session-Id`."""
        (row,) = self.connections(session_id)
        return row

    def until(self, session_id: str, **columns: object) -> Row:
        """Wait until the one connection of an `Mcp-Session-Id` has these values."""

        def is_so() -> bool:
            rows = self.connections(session_id)
            return bool(rows) and {name: rows[0][name] for name in columns} == columns

        self.tap.until(is_so)
        return self.connection(session_id)

    def timeline(self, connection: Row, type: str | None = None) -> list[Row]:  # noqa: A002
        """Return the timeline of a connection, or its lines of one type."""
        rows = self.tap.rows(f"SELECT * FROM timeline WHERE connection = {connection['pk']} ORDER BY seq")
        return [row for row in rows if type in (None, row["type"])]


@contextlib.contextmanager
def bench(upstream: str, file: Path, **environment: str) -> Iterator[Bench]:
    """Run a tap in front of a server; it ends in order."""
    with running(upstream, file, env=os.environ | environment) as tap:
        yield Bench(tap)
        if tap.process.poll() is None:
            assert tap.stop() == 0, "\n".join(tap.said)


def client(agent: str = "tester") -> httpx.AsyncClient:
    return httpx.AsyncClient(trust_env=False, timeout=PATIENCE, headers={"user-agent": agent})


def in_session(url: str, test: Callable[[httpx.AsyncClient, dict[str, str]], Awaitable[None]]) -> str:
    """Open a legacy session, run what a test does in it, and return its id."""

    async def run() -> str:
        async with client() as http:
            headers = await initialize(http, url)
            await test(http, headers)
            return headers["mcp-session-id"]

    return asyncio.run(run())


def tool(id: int, name: str = "search_products", **arguments: Any) -> dict[str, Any]:  # noqa: A002
    """Return a call of a tool."""
    return rpc("tools/call", id, name=name, arguments=arguments)
