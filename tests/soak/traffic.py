"""Clients of a soak: each works until it is told to stop, through one tap, and takes every failure as part of the day.

What they are, beside the numbered calls that are accounted for: streams that only listen, clients that hang up, the
stories of the demonstration, the official SDK where it is installed, and people at the desk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from httpx_sse import aconnect_sse

from mcp_tap.demo.client import play
from mcp_tap.model import UpstreamError
from tests.faults.raw import INFO, LEGACY, META, MODERN
from tests.sdk.environments import missing
from tests.sdk.harness import CALLS, run_client
from tests.soak.ledger import Made, Outcome, read, written
from tests.tap import HEADERS, rpc

Json = dict[str, Any]

#: Seconds that a client waits for the next bytes, and a person for a page.
PATIENCE: Final = 10.0

#: What is called, how often of a hundred, and with what: JSON answers, event streams, large bodies in each direction.
MIX: Final[tuple[tuple[int, str, Json], ...]] = (
    (50, "get_weather", {"city": "Oslo"}),
    (25, "search_products", {"query": "boots"}),
    (8, "import_catalog", {}),
    (7, "search_products", {"query": "b" * 100_000}),
    (6, "long_text", {"size": 20_000}),
    (3, "long_text", {"size": 1_000_000}),
    (1, "slow_report", {}),
)

#: Of a hundred calls, those that their client gives up, and those of clients that end their half at once.
GIVEN_UP: Final = 4
HALF_CLOSED: Final = 4

PAGES: Final = (
    "/", "/sessions", "/tools", "/clients", "/errors", "/slow", "/connections", "/live", "/api/sessions?limit=50",
    "/api/messages?limit=50", "/api/events?q=text:boots", "/sessions?q=status:error", "/tools/get_weather", "/healthz",
)  # fmt: skip

#: Seconds between two rounds of the stories, of the SDK's clients, of pages, and of exports.
STORIES: Final = 15.0
SDK: Final = 30.0
PAGE: Final = 1.0
EXPORT: Final = 10.0


@dataclass
class Traffic:
    """What the clients of one tap share."""

    tap: int
    proxy: str
    desk: str
    made: Made
    rng: random.Random
    rate: float  # numbered calls in a second, of all clients together
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    counts: Counter[str] = field(default_factory=Counter)  # of everything that has no number

    async def pause(self, seconds: float) -> None:
        """Sleep, or wake up for the end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ending.wait(), seconds)

    def chosen(self) -> tuple[str, Json]:
        """Return what is called next."""
        weights = [weight for weight, _, _ in MIX]
        _, tool, arguments = self.rng.choices(MIX, weights)[0]
        return tool, arguments


class Gone(Exception):  # noqa: N818
    """The server does not know the session any more."""


class Client:
    """A client that numbers its calls."""

    def __init__(self, traffic: Traffic, http: httpx.AsyncClient, *, modern: bool) -> None:
        self._traffic = traffic
        self._http = http
        self._modern = modern
        self._session: dict[str, str] = {}

    async def open(self) -> None:
        """Shake hands, where the era has that. Raises httpx.HTTPError."""
        if self._modern:
            return
        opening = rpc("initialize", 0, protocolVersion=LEGACY, capabilities={}, clientInfo=INFO)
        self._session = {}
        answer = await self._http.post(self._traffic.proxy, json=opening, headers=HEADERS)
        answer.raise_for_status()
        self._session = {"mcp-session-id": answer.headers["mcp-session-id"], "mcp-protocol-version": LEGACY}
        await self._http.post(self._traffic.proxy, json=rpc("notifications/initialized"), headers=self.headers())

    def headers(self, tool: str = "") -> dict[str, str]:
        """Return the headers of a request."""
        if not self._modern:
            return HEADERS | self._session
        return HEADERS | {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": tool}

    def message(self, number: int, tool: str, arguments: Json) -> Json:
        """Return a numbered call."""
        params: Json = {"name": tool, "arguments": arguments, "_meta": META if self._modern else {}}
        return {"jsonrpc": "2.0", "id": written(number), "method": "tools/call", "params": params}

    async def call(self, tool: str, arguments: Json, give_up: float | None = None) -> None:
        """Make a call and note what becomes of it; ``give_up`` closes the stream after so many seconds."""
        made = self._traffic.made
        number = made.begin(self._traffic.tap)
        outcome = Outcome.FAILED
        try:
            message = self.message(number, tool, arguments)
            async with self._http.stream(
                "POST", self._traffic.proxy, json=message, headers=self.headers(tool)
            ) as response:
                if give_up is not None:
                    await asyncio.sleep(give_up)
                    outcome = Outcome.GIVEN_UP
                elif response.status_code == 404:
                    raise Gone
                elif _answers(number, [line async for line in response.aiter_lines()]):
                    outcome = Outcome.ANSWERED
        except httpx.HTTPError:
            pass
        finally:
            made.end(number, outcome)

    async def half_closed(self, tool: str, arguments: Json) -> None:
        """Make a call on a connection whose own half is ended behind it."""
        made = self._traffic.made
        number = made.begin(self._traffic.tap)
        where = urlsplit(self._traffic.proxy)
        body = json.dumps(self.message(number, tool, arguments)).encode()
        fields = {"host": where.netloc, "content-type": "application/json", "content-length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in (fields | self.headers(tool)).items())
        outcome = Outcome.FAILED
        try:
            reader, writer = await asyncio.open_connection(where.hostname, where.port)
            try:
                writer.write(f"POST {where.path} HTTP/1.1\r\n{head}connection: close\r\n\r\n".encode() + body)
                writer.write_eof()
                told = await asyncio.wait_for(reader.read(), PATIENCE)
                if b'"result"' in told and f'"{written(number)}"'.encode() in told:
                    outcome = Outcome.ANSWERED
            finally:
                writer.close()
        except (OSError, TimeoutError):
            pass
        finally:
            made.end(number, outcome)


def _answers(number: int, lines: list[str]) -> bool:
    """Whether one of the lines of an answer is the result of a call. One that was cut is no JSON."""
    for line in lines:
        with contextlib.suppress(ValueError):
            message = json.loads(line.removeprefix("data:"))
            if isinstance(message, dict) and read(message.get("id")) == number and "result" in message:
                return True
    return False


def connections() -> httpx.AsyncClient:
    """Return an HTTP client that takes nothing from its environment."""
    return httpx.AsyncClient(trust_env=False, timeout=PATIENCE)


async def calls(traffic: Traffic, *, modern: bool, share: float) -> None:
    """Make numbered calls, each as soon as it is due; ``share`` is this client's of the rate."""
    while not traffic.ending.is_set():
        try:
            async with connections() as http:
                client = Client(traffic, http, modern=modern)
                await client.open()
                # a client of flesh and blood starts anew now and then
                for _ in range(traffic.rng.randint(20, 400)):
                    if traffic.ending.is_set():
                        break
                    due = asyncio.create_task(traffic.pause(traffic.rng.expovariate(traffic.rate * share)))
                    dice = traffic.rng.randrange(100)
                    if dice < GIVEN_UP:
                        await client.call("slow_report", {}, traffic.rng.uniform(0.01, 0.5))
                    elif dice < GIVEN_UP + HALF_CLOSED:
                        await client.half_closed(*traffic.chosen())
                    else:
                        await client.call(*traffic.chosen())
                    await due
        except (httpx.HTTPError, KeyError, Gone):
            await traffic.pause(0.5)


async def listens(traffic: Traffic) -> None:
    """Hold a legacy session's GET stream open, and open another when it ends."""
    while not traffic.ending.is_set():
        with contextlib.suppress(httpx.HTTPError, KeyError):
            async with httpx.AsyncClient(trust_env=False, timeout=httpx.Timeout(PATIENCE, read=None)) as http:
                client = Client(traffic, http, modern=False)
                await client.open()
                async with http.stream("GET", traffic.proxy, headers=client.headers()) as response:
                    traffic.counts["listening streams opened"] += 1
                    reading = asyncio.create_task(response.aread())
                    while not reading.done() and not traffic.ending.is_set():
                        await asyncio.wait([reading], timeout=1)
                    reading.cancel()
                    await asyncio.wait([reading])
        await traffic.pause(1)


async def hangs_up(traffic: Traffic) -> None:
    """Open connections and leave them in every bad manner: at once, in the middle of a head, of a body, by a reset."""
    where = urlsplit(traffic.proxy)
    head = f"POST {where.path} HTTP/1.1\r\nhost: {where.netloc}\r\ncontent-type: application/json\r\n".encode()
    while not traffic.ending.is_set():
        for part in (b"", head[:20], head, head + b"content-length: 100\r\n\r\n" + b'{"jsonrpc"'):
            sock = socket.socket()
            sock.setblocking(False)
            with sock, contextlib.suppress(OSError):
                loop = asyncio.get_running_loop()
                await loop.sock_connect(sock, (where.hostname, where.port))
                await loop.sock_sendall(sock, part)
                if traffic.rng.random() < 0.5:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                traffic.counts["connections hung up"] += 1
        await traffic.pause(traffic.rng.uniform(0.2, 1))


async def stories(traffic: Traffic) -> None:
    """Play the stories of the demonstration."""
    while not traffic.ending.is_set():
        with contextlib.suppress(UpstreamError, httpx.HTTPError, KeyError, ValueError, StopAsyncIteration):
            await play(traffic.proxy, once=True)
            traffic.counts["rounds of stories"] += 1
        await traffic.pause(STORIES)


async def official(traffic: Traffic) -> None:
    """Let the official SDK's clients call, where they are installed."""
    installed = [client for client in ("py1", "py2-auto") if not missing(client.partition("-")[0])]
    while installed and not traffic.ending.is_set():
        client = traffic.rng.choice(installed)
        try:
            await asyncio.to_thread(run_client, client, traffic.proxy, CALLS["sample"][:2] * 5)
            traffic.counts["SDK sessions"] += 1
        except Exception:  # a fault met it: it died with a traceback of its own, or took too long
            traffic.counts["SDK sessions cut"] += 1
        await traffic.pause(SDK)


async def looks(traffic: Traffic) -> None:
    """Read pages of the desk."""
    async with connections() as http:
        while not traffic.ending.is_set():
            try:
                answer = await http.get(traffic.desk + traffic.rng.choice(PAGES))
                traffic.counts["pages" if answer.status_code == 200 else f"pages: {answer.status_code}"] += 1
            except httpx.HTTPError:
                traffic.counts["pages without an answer"] += 1
            await traffic.pause(PAGE)


async def watches(traffic: Traffic) -> None:
    """Follow the live stream as a page does: from where it was cut."""
    after = "0"
    while not traffic.ending.is_set():
        with contextlib.suppress(httpx.HTTPError):
            async with (
                connections() as http,
                aconnect_sse(
                    http, "GET", f"{traffic.desk}/api/live", headers={"last-event-id": after}, timeout=30
                ) as stream,
            ):
                async for told in stream.aiter_sse():
                    after = told.id or after
                    traffic.counts["live messages"] += 1
                    if traffic.ending.is_set():
                        break
        await traffic.pause(0.5)


async def exports(traffic: Traffic) -> None:
    """Take the newest session away, with bodies."""
    async with connections() as http:
        while not traffic.ending.is_set():
            with contextlib.suppress(httpx.HTTPError, KeyError, IndexError, ValueError):
                newest = (await http.get(f"{traffic.desk}/api/sessions?limit=1&order=desc")).json()["items"][0]
                form = traffic.rng.choice(("csv", "jsonl"))
                whole = await http.get(f"{traffic.desk}/sessions/{newest['id']}/export.{form}?bodies=1")
                traffic.counts["exports" if whole.status_code == 200 else "exports refused"] += 1
            await traffic.pause(EXPORT)


def everybody(traffic: Traffic, clients: int = 8) -> list[asyncio.Task[None]]:
    """Set everybody to work; they stop when ``traffic.ending`` is set."""
    works = [calls(traffic, modern=bool(number % 2), share=1 / clients) for number in range(clients)]
    works += [listens(traffic) for _ in range(4)]
    works += [work(traffic) for work in (hangs_up, stories, official, looks, watches, exports)]
    return [asyncio.create_task(work) for work in works]
