"""A recording of a month: a million lines, twenty thousand sessions, written by the real writer.

The same each time but for its ids: chance is seeded, and time ends at `NOW_US`. Kept in .cache until something here
changes.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Iterator
from pathlib import Path

from mcp_tap.model import (
    Batch,
    Body,
    Codec,
    Connection,
    ConnectionState,
    ConnectionStatus,
    Direction,
    EndReason,
    Era,
    Event,
    FailureReason,
    Kind,
    Origin,
    Side,
    Status,
    ToolSeen,
    new_id,
)
from mcp_tap.store import open_writer
from mcp_tap.store.sqlite import folding, migrations

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR

#: 1 May 2026, 15:40 UTC: where the month ends.
NOW_US = 1_777_648_800 * SECOND + 20 * 60 * SECOND
DAYS = 30

#: A quarter of an hour with 100,000 calls, more than two days before the end.
BUSY_FROM_US = NOW_US - 2 * DAY - 5 * HOUR
BUSY_US = 15 * 60 * SECOND
BUSY_CALLS = 100_000

EVENTS = 1_000_000
SESSIONS = 20_000

TOOLS = tuple(
    f"{verb}_{noun}"
    for verb in ("search", "create", "update", "delete", "list")
    for noun in ("orders", "products", "payments", "customers", "reports")
)
CLIENTS = tuple(
    (name, f"{major}.{minor}.0")
    for name in ("claude-desktop", "cursor", "Visual Studio Code", "night-agent", "acme-bot")
    for major in (1, 2)
    for minor in (0, 4)
)
FAILURES = (
    (FailureReason.TOOL_ERROR, None, "order A-{n} was not found"),
    (FailureReason.TOOL_ERROR, None, 'unknown category: "{n}"'),
    (FailureReason.RPC_ERROR, "-32602", "missing argument customer at position {n}"),
    (FailureReason.RPC_ERROR, "-32000", "card processor busy"),
    (FailureReason.HTTP_ERROR, "504", "upstream timeout after {n} ms"),
    (FailureReason.TIMEOUT, None, "no answer within 30 s"),
    (FailureReason.CANCELLED, None, "the user changed their mind"),
)
_TEXT = "All work and no play makes a plausible body of a tool's answer. " * 8


class _Month:
    """Sessions of a month, told as lines."""

    def __init__(self) -> None:
        self.random = random.Random(4)  # the same month each time
        self.number = 0

    def session(self, start_us: int, calls: int, length_us: int) -> tuple[list[Event], list[Body], list[ToolSeen]]:
        """Return the lines of one session: its start, the handshake, ``calls`` calls, its end."""
        chance = self.random
        self.number += 1
        name, version = CLIENTS[min(len(CLIENTS) - 1, int(chance.expovariate(0.25)))]
        modern = chance.random() < 0.15
        connection = Connection(
            id=new_id("scn_", start_us),
            session_id=new_id("ses_", start_us),
            origin=Origin.DERIVED if modern else Origin.HEADER,
            created_us=start_us,
            started_us=start_us + 4000,
            upstream=f"http://127.0.0.1:{9000 + (self.number % 8 == 0)}/mcp",
            client_name=name,
            client_version=version,
            client_capabilities='{"sampling":{}}',
            client_address="127.0.0.1",
            server_name="shop",
            server_version="2.1.0",
            era=Era.MODERN if modern else Era.LEGACY,
            protocol_version="2026-07-28" if modern else "2025-11-25",
            transport="streamable_http",
            mcp_session_id=None if modern else f"{chance.getrandbits(128):032x}",
        )
        lines: list[Event] = []
        bodies: list[Body] = []
        tools: list[ToolSeen] = []

        def line(kind: Kind, type_: str, at_us: int, **values: object) -> Event:
            connection.seq += 1
            event = Event(kind, type_, at_us, connection=connection, seq=connection.seq)
            for key, value in values.items():
                setattr(event, key, value)
            lines.append(event)
            return event

        def call(type_: str, at_us: int, us: int, tool: str | None = None) -> Event:
            failure = chance.choice(FAILURES) if tool and chance.random() < 0.05 else None
            connection.calls += 1
            connection.messages += 1
            if tool:
                connection.tools[tool] = connection.tools.get(tool, 0) + 1
            event = line(
                Kind.REQUEST, type_, at_us, name=tool, direction=Direction.TO_SERVER,
                status=Status.FAILED if failure else Status.SUCCEEDED, duration_us=us, first_byte_us=us * 9 // 10,
                headers_us=us * 9 // 10, last_byte_us=us, request_bytes=chance.randint(80, 400),
                response_bytes=int(chance.expovariate(1 / 900)) + 100, http_method="POST", http_status=200,
                path="/mcp", peer="127.0.0.1:50000", stream=self.number, jsonrpc_id=str(connection.seq),
            )  # fmt: skip
            if failure:
                connection.errors += 1
                event.failure_reason, event.code = failure[:2]
                event.message = failure[2].format(n=chance.randint(1, 99999))
            connection.request_bytes += event.request_bytes
            connection.response_bytes += event.response_bytes
            return event

        line(Kind.LIFECYCLE, "session_start", start_us)
        if modern:
            call("server/discover", start_us + 1000, 2500)
        else:
            call("initialize", start_us + 1000, 3000)
            line(Kind.NOTIFICATION, "notifications/initialized", start_us + 6000, direction=Direction.TO_SERVER)
        listed = call("tools/list", start_us + 10_000, chance.randint(1500, 9000))
        late = start_us > NOW_US - 12 * DAY
        for tool in TOOLS:
            version_ = 2 if late and tool.startswith("create") else 1
            definition = f'{{"name":"{tool}","description":"version {version_}","inputSchema":{{"type":"object"}}}}'
            tools.append(ToolSeen(connection, listed.at_us, tool, f"{tool}-{version_}", definition))
        moments = sorted(start_us + 20_000 + int(chance.random() * length_us) for _ in range(calls))
        for at_us in moments:
            index = min(len(TOOLS) - 1, int(chance.expovariate(0.15)))
            kind = chance.random()
            if kind < 0.08:
                call("ping", at_us, chance.randint(300, 1500))
            elif kind < 0.18:
                line(
                    Kind.NOTIFICATION, "notifications/progress", at_us, direction=Direction.TO_CLIENT,
                    parent=lines[-1] if lines[-1].kind is Kind.REQUEST else None, response_bytes=120,
                )  # fmt: skip
            else:
                us = int(chance.lognormvariate(10.2 + index / 12, 0.9))
                event = call("tools/call", at_us, us, TOOLS[index])
                if chance.random() < 0.2:
                    asked = (
                        f'{{"jsonrpc":"2.0","id":{event.seq},"method":"tools/call","params":{{"name":"{TOOLS[index]}",'
                        f'"arguments":{{"query":"{chance.randint(1, 500)}","limit":10}}}}}}'
                    )
                    answered = (
                        f'{{"jsonrpc":"2.0","id":{event.seq},"result":{{"content":"{_TEXT[: event.seq % 500]}"}}}}'
                    )
                    bodies.append(Body(event, Side.REQUEST, Codec.AS_SEEN, asked))
                    bodies.append(Body(event, Side.RESPONSE, Codec.AS_SEEN, answered))
        end_us = lines[-1].at_us + 500_000
        connection.last_active_us = end_us
        if end_us < NOW_US - HOUR:
            connection.ended_us = end_us
            connection.status, connection.state = ConnectionStatus.ENDED, ConnectionState.DISCONNECTED
            connection.end_reason = chance.choice((EndReason.CLIENT_DELETE, EndReason.IDLE_TIMEOUT))
            line(Kind.LIFECYCLE, "session_end", end_us)
        return lines, bodies, tools

    def told(self, events: int, sessions: int, busy: int) -> Iterator[Batch]:
        """Give all of it in batches, in the order of time, some hours at a time."""
        chance = self.random
        ordinary = max(1, sessions - 1 - 200 * bool(busy))
        per_session = max(1, (events - busy - 1100) // ordinary - 5)
        begin = NOW_US - DAYS * DAY
        starts = sorted(begin + self._moment() for _ in range(ordinary))
        plan = [
            (at, max(1, int(chance.expovariate(1 / per_session))), chance.randint(1, 40) * 60 * SECOND) for at in starts
        ]
        plan.append((NOW_US - 3 * HOUR, 1000, HOUR))  # a long one
        plan += [(BUSY_FROM_US, int(busy / 200 / 0.82), BUSY_US - SECOND)] * (200 if busy else 0)
        plan.sort()
        waiting: list[tuple[Event, list[Body], list[ToolSeen]]] = []
        for number, (at_us, calls, length_us) in enumerate(plan):
            lines, bodies, tools = self.session(at_us, calls, min(length_us, max(SECOND, NOW_US - at_us - 2 * SECOND)))
            by_event: dict[int, list[Body]] = {}
            for body in bodies:
                by_event.setdefault(id(body.event), []).append(body)
            waiting += [(e, by_event.get(id(e), []), tools if e.type == "tools/list" else []) for e in lines]
            following = plan[number + 1][0] if number + 1 < len(plan) else NOW_US + DAY
            if len(waiting) > 30_000 or following > NOW_US:
                waiting.sort(key=lambda each: each[0].at_us)
                ready = [each for each in waiting if each[0].at_us < following]
                waiting = waiting[len(ready) :]
                for first in range(0, len(ready), 2000):
                    yield self._batch(ready[first : first + 2000])

    def _moment(self) -> int:
        """Return a moment of the month; nights are quiet."""
        while True:
            at = int(self.random.random() * DAYS * DAY)
            hour = (at // HOUR) % 24
            if self.random.random() < (1.0 if 7 <= hour < 19 else 0.15):
                return at

    @staticmethod
    def _batch(part: list[tuple[Event, list[Body], list[ToolSeen]]]) -> Batch:
        connections = dict.fromkeys(event.connection for event, _, _ in part if event.connection is not None)
        return Batch(
            connections=list(connections),
            events=[event for event, _, _ in part],
            bodies=[body for _, bodies, _ in part for body in bodies],
            tools=[tool for _, _, tools in part for tool in tools],
        )


def month(*, events: int = EVENTS, sessions: int = SESSIONS, busy: int = BUSY_CALLS) -> Iterator[Batch]:
    """Give a month in batches: about so many lines and sessions, ``busy`` of the calls in one quarter of an hour."""
    yield from _Month().told(events, sessions, busy)


async def _write(path: Path) -> None:
    writer = await open_writer(f"sqlite:///{path}")
    try:
        for batch in month():
            await writer.write(batch)
        while await writer.fold(NOW_US):
            pass
    finally:
        await writer.close()


def recording() -> Path:
    """Return the path of the month, made when it is not there yet."""
    made_of = Path(__file__).read_bytes() + repr(migrations.MIGRATIONS).encode() + Path(folding.__file__).read_bytes()
    folder = Path(__file__).parents[1] / ".cache" / "bench"
    path = folder / f"month-{hashlib.blake2b(made_of, digest_size=6).hexdigest()}.db"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        for old in folder.glob("month-*"):
            old.unlink()
        began = time.monotonic()
        print(f"making {path} …", flush=True)
        asyncio.run(_write(unfinished))
        unfinished.replace(path)
        Path(f"{unfinished}-lock").unlink(missing_ok=True)
        print(f"made in {time.monotonic() - began:.0f} s", flush=True)
    return path


if __name__ == "__main__":
    print(recording())
