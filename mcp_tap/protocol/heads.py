"""What the heads of an exchange say to the record, worked out once for equal ones.

A client repeats its head with every call of the same length, and `http1` reads equal heads once: so the same
`Request` comes again and again, and its credentials, its masked path and its session need not be found anew. What is
remembered holds credentials like the head it came from: in memory only, and little of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from mcp_tap.model import Era
from mcp_tap.protocol import http1
from mcp_tap.protocol.http1 import HEADS_KEPT, Request, Response
from mcp_tap.protocol.jsonrpc import MAX_WORD
from mcp_tap.protocol.redact import Redactor, Secrets
from mcp_tap.protocol.revisions import era_of_version, header_value

#: Response headers that hold no credential; with any other one the whole head is looked at.
_HARMLESS: Final = frozenset(
    (
        b"content-type", b"content-length", b"transfer-encoding", b"content-encoding", b"connection", b"keep-alive",
        b"date", b"server", b"cache-control", b"vary", b"x-accel-buffering", b"allow", b"mcp-protocol-version",
    )
)  # fmt: skip

#: Characters that are kept of a `User-Agent`.
MAX_AGENT: Final = 256

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(slots=True, frozen=True, eq=False)
class Head:
    """What a request's head says."""

    secrets: Secrets  # its credentials
    path: str  # its target, masked
    agent: str | None  # `User-Agent`, masked
    era: Era | None  # that of its version header
    session_id: str | None  # `Mcp-Session-Id`, raw
    last_event_id: str | None  # where a stream goes on
    name: str | None  # `Mcp-Name`
    trace_id: str | None  # of `traceparent`


class Heads:
    """The heads that were seen lately."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._target = lru_cache(1024)(redactor.target)
        self._known = lru_cache(HEADS_KEPT)(self._read)
        self._harmless = lru_cache(HEADS_KEPT)(lambda response: _HARMLESS.issuperset(response.headers))
        self._both = lru_cache(HEADS_KEPT)(self._read_both)

    def forget(self) -> None:
        """Forget what was worked out lately: while nothing comes, it only holds memory."""
        for known in (self._target, self._known, self._harmless, self._both):
            known.cache_clear()
        http1.forget()

    def of(self, request: Request) -> Head:
        """Return what the head of a request says."""
        return self._known(request) if request.repeats else self._read(request)

    def secrets(self, head: Head, request: Request, response: Response) -> Secrets:
        """Return the credentials of an exchange, those of its answer included."""
        if not response.repeats:
            return self._read_both(request, response)
        if self._harmless(response):
            return head.secrets
        return self._both(request, response) if request.repeats else self._read_both(request, response)

    def _read(self, request: Request) -> Head:
        headers = request.headers
        version, session_id = headers.get(b"mcp-protocol-version"), headers.get(b"mcp-session-id")
        last_event_id, trace = headers.get(b"last-event-id"), headers.get(b"traceparent")
        target = self._target if request.repeats else self._redactor.target
        agent, secrets = headers.get(b"user-agent"), self._redactor.secrets(headers.items())
        return Head(
            secrets=secrets,
            path=self._redactor.text(target(request.target), secrets),
            agent=self._redactor.text(agent.decode("latin-1")[:MAX_AGENT], secrets) if agent else None,
            era=era_of_version(version.decode("latin-1")) if version else None,
            session_id=session_id.decode("latin-1")[:MAX_WORD] if session_id else None,
            last_event_id=last_event_id.decode("utf-8", "replace") if last_event_id is not None else None,
            name=header_value(headers, b"mcp-name"),
            trace_id=trace_id(trace.decode("latin-1")) if trace else None,
        )

    def _read_both(self, request: Request, response: Response) -> Secrets:
        return self._redactor.secrets([*request.headers.items(), *response.headers.items()])


def trace_id(traceparent: str) -> str | None:
    """Return the trace id of a W3C `traceparent`."""
    match = _TRACEPARENT.match(traceparent)
    return match[1] if match else None
