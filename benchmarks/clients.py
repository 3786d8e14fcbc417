"""MCP clients as they are in the field: a session each, unique ids, calls that succeed, fail and tell their progress.

``python -m benchmarks.clients PORT [--clients 8] [--seconds 3]`` talks to the calculator of `tests/sdk` and prints one
JSON line: calls that were answered as they should be, errors, seconds, and latencies of one tool in µs at the 50th and
the 99th percentile. Plain sockets: what an SDK's client costs is not to be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import Any, Final

import uvloop

from benchmarks.load import PATIENCE, at

Json = dict[str, Any]

REVISION: Final = "2025-11-25"

#: Calls of the tool that adds in one session; beside them one that fails, one that tells its progress, and the list.
ADDITIONS: Final = 40


class Wrong(Exception):  # noqa: N818 - what it says is no failure of ours
    """An answer is not what it should be."""


class Session:
    """One client and its connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._host = "{}:{}".format(*writer.get_extra_info("peername"))  # servers check under which name they are asked
        self._id = 0
        self._head = ""

    async def open(self) -> None:
        """Go through what comes before the first call."""
        info = {"name": "bench", "version": "1"}
        status, headers, _ = await self._post(
            "initialize", self._next(), protocolVersion=REVISION, capabilities={}, clientInfo=info
        )
        if status != 200:
            raise Wrong(f"initialize: {status}")
        self._head = f"MCP-Protocol-Version: {REVISION}\r\n"
        if session := headers.get("mcp-session-id"):
            self._head += f"Mcp-Session-Id: {session}\r\n"
        await self._post("notifications/initialized")

    async def request(self, method: str, **params: Any) -> Json:
        """Send a request and return its result."""
        number = self._next()
        status, _, messages = await self._post(method, number, **params)
        if status != 200 or not messages or messages[-1].get("id") != number or "result" not in messages[-1]:
            raise Wrong(f"{method}: {status} {messages}")
        result: Json = messages[-1]["result"]
        return result

    async def tool(self, name: str, *, fails: bool = False, **arguments: Any) -> str:
        """Call a tool and return the text of its result."""
        result = await self.request("tools/call", name=name, arguments=arguments, _meta={"progressToken": self._id})
        if bool(result.get("isError")) != fails:
            raise Wrong(f"{name}: {result}")
        text: str = result["content"][0]["text"]
        return text

    async def close(self) -> None:
        """End the session and the connection."""
        if self._head:
            await self._exchange("DELETE", b"")
        self._writer.close()

    def _next(self) -> int:
        self._id += 1
        return self._id

    async def _post(
        self, method: str, number: int | None = None, **params: Any
    ) -> tuple[int, dict[str, str], list[Json]]:
        message: Json = {"jsonrpc": "2.0", "method": method, "params": params}
        if number is not None:
            message["id"] = number
        return await self._exchange("POST", json.dumps(message).encode())

    async def _exchange(self, method: str, body: bytes) -> tuple[int, dict[str, str], list[Json]]:
        self._writer.write(
            f"{method} /mcp HTTP/1.1\r\nHost: {self._host}\r\nAccept: application/json, text/event-stream\r\n"
            f"User-Agent: bench/1\r\nContent-Type: application/json\r\n{self._head}"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        answer = await self._body(headers)
        if headers.get("content-type", "").startswith("text/event-stream"):
            data = (line.removeprefix("data:") for line in answer.decode().splitlines() if line.startswith("data:"))
            messages = [json.loads(one) for one in data if one.strip()]
        else:
            messages = [json.loads(answer)] if answer.startswith(b"{") else []
        return int(first.split(" ")[1]), headers, messages

    async def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return await self._reader.readexactly(int(headers.get("content-length", 0)))
        parts = []
        while size := int(await self._reader.readline(), 16):
            parts.append((await self._reader.readexactly(size + 2))[:-2])
        await self._reader.readline()
        return b"".join(parts)


class Tally:
    """What all clients have seen."""

    def __init__(self) -> None:
        self.calls = 0
        self.errors = 0
        self.latencies: list[float] = []


async def client(port: int, until: float, tally: Tally) -> None:
    """Open one session after the other until the time is over."""
    while time.monotonic() < until:
        session = Session(*await asyncio.open_connection("127.0.0.1", port))
        await session.open()
        tally.calls += 1
        await session.request("tools/list")
        tally.calls += 1
        for number in range(ADDITIONS):
            began = time.perf_counter_ns()
            if await session.tool("add", a=number, b=1) != str(number + 1):
                raise Wrong("add")
            tally.latencies.append((time.perf_counter_ns() - began) / 1000)
            tally.calls += 1
            if time.monotonic() >= until:
                break
        else:
            await session.tool("fail", fails=True, reason="on purpose")
            await session.tool("count", to=2)
            tally.calls += 2
        await session.close()


async def main(port: int, clients: int, seconds: float) -> None:
    """Run the clients and print what they saw."""
    tally, began = Tally(), time.monotonic()
    said: list[str] = []

    async def one() -> None:
        try:
            async with asyncio.timeout(seconds + PATIENCE):
                await client(port, began + seconds, tally)
        except (Wrong, OSError, EOFError, ValueError, TimeoutError, KeyError) as error:
            tally.errors += 1
            said.append(repr(error)[:200])

    await asyncio.gather(*(one() for _ in range(clients)))
    tally.latencies.sort()
    figures = {"calls": tally.calls, "errors": tally.errors, "seconds": time.monotonic() - began}
    print(json.dumps(figures | {"p50": at(tally.latencies, 50), "p99": at(tally.latencies, 99), "said": said[:3]}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    uvloop.run(main(options.port, options.clients, options.seconds))
