"""A recorded session as a transcript, so that what somebody saw becomes a test.

A recording keeps no heads and no framing, so these are made anew from what it keeps: method, path, status, revision,
and whether the answer was an event stream. Bodies are as they were stored, which is masked; where none was kept, the
least that makes the same row. Session ids are replaced. What cannot be told from the record (how bytes were cut, what
was no JSON) is lost, and the head of the transcript says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson

from mcp_tap.channel import Closing, Kind
from mcp_tap.protocol.revisions import REVISIONS
from mcp_tap.protocol.transcript import STEP_US, Step, Transcript, table_of
from mcp_tap.store import ALL, Paging, Reader, Row

#: The columns of the record that the transcript asks for: what follows from it whatever the heads were.
SESSIONS: Final = ("client_name", "client_version", "server_name", "server_version", "era", "protocol_version",
                   "status", "end_reason", "messages", "calls", "errors")  # fmt: skip
EVENTS: Final = ("seq", "type", "name", "direction", "status", "outcome", "failure_reason", "error_code", "attempt")

#: Stands for the session id, which whoever has it could use.
SESSION_ID: Final = "session-1"

#: After this a connection is ended as idle, whatever the settings were.
_IDLE_US: Final = 24 * 3600 * 1_000_000

_NAMED_BY: Final = {
    "logging/setLevel": "level",
    "elicitation/create": "mode",
    "notifications/elicitation/complete": "elicitationId",
}
_META: Final = "io.modelcontextprotocol/"
_HEADER_SINCE: Final = ("2025-06-18", "2025-11-25")  # revisions that name themselves in a header and have sessions


class _Moment(NamedTuple):
    at_us: int
    order: int  # of those at one time
    step: Step


@dataclass(slots=True)
class _Exchange:
    """One HTTP exchange as far as the record tells of it. Times are µs since the epoch."""

    stream: int
    at_us: int
    end_us: int | None
    rows: list[Row]  # the messages of its request, or its one row of kind `http`
    told: list[tuple[int, bytes]] = field(default_factory=list)  # messages of the server and when they came

    @property
    def is_http(self) -> bool:
        return bool(self.rows[0]["kind"] == "http")

    @property
    def is_sse(self) -> bool:
        row = self.rows[0]
        stream = self.is_http and row["http_method"] == "GET" and row["http_status"] == 200
        return bool(self.told or stream or any(row["sse_events"] for row in self.rows))


async def transcribe(reader: Reader, session: Row, limit: int) -> Transcript:
    """Return one connection, a row of the view `sessions`, as a transcript of its first ``limit`` events."""
    where = ALL.plus("conn", session["connection_id"])
    listed = await reader.list_events(where, Paging(limit=limit, order="asc"))
    rows = [await reader.event(row["event_id"]) for row in listed.rows]
    rows.sort(key=lambda row: row["seq"])
    return _Scribe(session, rows).transcript()


class _Scribe:
    def __init__(self, session: Row, rows: list[Row]) -> None:
        self.session = session
        self.rows = rows
        self.modern = session["era"] == "modern"
        self.by_endpoint = session["origin"] == "endpoint"
        self.named = session["mcp_session_id"] is not None and not self.by_endpoint
        self.exchanges: list[_Exchange] = []
        self.moments: list[_Moment] = []
        self.streams = max([row["stream"] for row in rows], default=0)

    def transcript(self) -> Transcript:
        """Return the steps in the order of time, and the rows that should come of them."""
        self._pair()
        for x in self.exchanges:
            self._play(x)
        for row in self.rows:
            kind = (row["kind"], row["direction"])
            of_server = kind == ("request", "server_to_client") and _answered(row)
            if of_server or kind == ("response", "client_to_server"):
                self._client_answers(row, _message(row, "response_body", self._answer(row)))
        steps: list[Step] = []
        now = min((moment.at_us for moment in self.moments), default=0) - STEP_US
        for moment in sorted(self.moments):
            steps.append(Step(moment.step.kind, moment.step.stream, moment.step.payload, moment.at_us - now))
            now = moment.at_us
        if "shutdown" in {self.session["end_reason"], *(row["error_code"] for row in self.rows)}:
            steps.append(Step(Kind.STOP))
        elif self.session["end_reason"] == "idle_timeout":
            steps.append(Step(None, after_us=_IDLE_US))
        return Transcript(
            steps,
            table_of([self.session], SESSIONS),
            table_of(sorted(self.rows, key=lambda row: (row["time"], row["seq"])), EVENTS),
            [
                f"A session of {self.session['client_name'] or 'a client'}, from a recording.",
                "Heads and framing were made anew, session ids replaced; bodies are as they were stored: masked.",
            ],
        )

    # Which exchanges there were

    def _pair(self) -> None:
        latest: dict[int, _Exchange] = {}
        operations: dict[str, int] = {}
        told_us = 0
        opened_us = 0  # nobody goes on before `initialize` was answered
        for row in self.rows:
            to_client = row["direction"] == "server_to_client"
            if row["kind"] in ("request", "notification", "http") and not to_client:
                at_us, before = _at_us(row), latest.get(row["stream"])
                batch = self.session["protocol_version"] == "2025-03-26" and before is not None
                if batch and before is not None and _at_us(before.rows[0]) == at_us and not before.is_http:
                    before.rows.append(row)
                    before.end_us = max(before.end_us or 0, _end_us(row, before.at_us) or 0) or None
                    continue
                stream = row["stream"]
                at_us = max(at_us, opened_us, operations.get(row["operation_id"] or "", 0))
                if before is not None:
                    if before.end_us is None or self._breaks(before):
                        self.streams += 1
                        stream = self.streams
                    else:
                        at_us = max(at_us, before.end_us + 1)
                x = latest[row["stream"]] = _Exchange(stream, at_us, _end_us(row, at_us), [row])
                self.exchanges.append(x)
                if row["operation_id"]:
                    operations[row["operation_id"]] = (x.end_us or at_us) + 1
                if row["type"] == "initialize":
                    opened_us = (x.end_us or at_us) + 1
            elif to_client and row["kind"] != "lifecycle" and row["stream"] in latest:
                x = latest[row["stream"]]
                side = "response_body" if row["kind"] == "response" else "request_body"
                known = self._answer(row) if row["kind"] == "response" else self._request(row)
                at_us = max(_at_us(row), x.at_us + 1, told_us + 1)  # those of one millisecond in their order
                told_us = min(at_us, x.end_us - 1) if x.end_us else at_us
                x.told.append((told_us, _message(row, side, known)))

    def _breaks(self, x: _Exchange) -> bool:
        """Whether a connection does not outlive an exchange."""
        row = x.rows[0]
        reasons = ("transport_error", "abandoned")
        left = x.is_http and x.is_sse
        return left or row["failure_reason"] in reasons or row["error_code"] == "client_disconnected"

    # What was sent

    def _play(self, x: _Exchange) -> None:
        row, stream = x.rows[0], x.stream
        self._say(x.at_us, Kind.CLIENT, stream, self._asked(x))
        if row["failure_reason"] == "transport_error" and row["error_code"] == "unreachable":
            self._say(x.end_us or x.at_us, Kind.CONNECT_FAILED, stream, b"not recorded")
            self._say(x.end_us or x.at_us, Kind.OWN, stream, _head(502, b"mcp-tap: unreachable\n", b"text/plain"))
            return
        on_stream = self.by_endpoint and not x.is_http
        answers = [] if on_stream else [(a, b) for r in x.rows for a, b in self._answers(r, x)]
        head_us = x.at_us + round(1000 * (row["headers_ms"] or 0))
        status = row["http_status"]
        if on_stream:
            for each in x.rows:
                self._answer_on_stream(each, x)
            if status is not None:
                self._say(max(head_us, x.at_us + 1), Kind.SERVER, stream, _head(status, b"", None))
            return
        if status is None:
            self._break(x)
            return
        if x.is_sse and status < 400:
            head = b"HTTP/1.1 %d X\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n%s\r\n"
            self._say(head_us, Kind.SERVER, stream, head % (status, self._names(row)))
            if self.by_endpoint and x.is_http:
                self._say(head_us, Kind.SERVER, stream, _event(self._endpoint().encode(), b"endpoint"))
            for at_us, data in sorted([*x.told, *answers]):
                self._say(max(at_us, head_us), Kind.SERVER, stream, _event(data))
            if not self._break(x) and x.end_us is not None:
                self._say(max(x.end_us, head_us), Kind.SERVER, stream, b"0\r\n\r\n")
            return
        if row["failure_reason"] == "transport_error" or row["error_code"] in (
            "client_disconnected",
            "stopped",
            "lost",
        ):
            cut = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
            self._say(head_us, Kind.SERVER, stream, cut % status)
            self._break(x)
            return
        bodies = list(dict.fromkeys(data for _, data in answers))  # one error may answer a whole batch
        body = bodies[0] if len(bodies) == 1 else b"[" + b",".join(bodies) + b"]" if bodies else b""
        kind: bytes | None = b"application/json" if body else None
        if not body and status >= 400:
            code = row["error_code"]
            if x.is_http and code is not None and code != str(status):
                body, kind = _json({"jsonrpc": "2.0", "id": None, "error": _error(row)}), b"application/json"
            else:
                body, kind = (row["error_message"] or "").encode(), b"text/plain"
        elif not body and row["outcome"] == "unparsed":
            body, kind = b"not recorded", b"application/json"
        if x.end_us is None:
            self._break(x)
            return
        self._say(max(x.end_us, head_us), Kind.SERVER, stream, _head(status, body, kind, self._names(row)))

    def _asked(self, x: _Exchange) -> bytes:
        row = x.rows[0]
        method = row["http_method"] or "POST"
        lines = [f"{method} {_target(row['path'])} HTTP/1.1", "Host: upstream"]
        if self.session["user_agent"]:
            lines.append(f"User-Agent: {_word(self.session['user_agent'])}")
        opening = row["type"] == "initialize"
        if self.named and not opening and not self.modern and row["outcome"] != "probe":
            lines.append(f"Mcp-Session-Id: {SESSION_ID}")
        version = self.session["protocol_version"] or ""
        if row["outcome"] == "probe":
            version = next(name for name in REVISIONS if name not in _HEADER_SINCE and name > "2026")
        if (self.modern or row["outcome"] == "probe" or version in _HEADER_SINCE) and not opening:
            lines.append(f"MCP-Protocol-Version: {_word(version)}")
        if method != "POST":
            return "\r\n".join([*lines, "", ""]).encode()
        bodies = [_message(each, "request_body", self._request(each)) for each in x.rows]
        body = b"not recorded" if x.is_http else bodies[0] if len(bodies) == 1 else b"[" + b",".join(bodies) + b"]"
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
        return "\r\n".join(lines).encode() + body

    def _answers(self, row: Row, x: _Exchange) -> list[tuple[int, bytes]]:
        if row["kind"] != "request" or not _answered(row):
            return []
        return [(_end_us(row, x.at_us) or x.at_us, _message(row, "response_body", self._answer(row)))]

    def _answer_on_stream(self, row: Row, x: _Exchange) -> None:
        """Let an answer come on the GET stream (2024-11-05)."""
        stream = next((other.stream for other in self.exchanges if other.is_http and other.is_sse), x.stream)
        for at_us, data in self._answers(row, x):
            self._say(at_us, Kind.SERVER, stream, _event(data))

    def _client_answers(self, row: Row, body: bytes) -> None:
        """Let the client answer a request of the server, on a connection of its own."""
        self.streams += 1
        at_us = _end_us(row, _at_us(row)) or _at_us(row)
        head = f"POST {self._endpoint() if self.by_endpoint else '/mcp'} HTTP/1.1\r\n"
        if self.named:
            head += f"Mcp-Session-Id: {SESSION_ID}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._say(at_us, Kind.CLIENT, self.streams, head.encode() + body)
        self._say(at_us + 1, Kind.SERVER, self.streams, _head(202, b"", None))

    def _break(self, x: _Exchange) -> bool:
        """End the connection of an exchange, where that is what ended it."""
        row, end_us = x.rows[0], x.end_us
        if end_us is None:
            return True
        if row["failure_reason"] == "abandoned":
            if row["error_code"] == "lost":
                self._say(end_us, Kind.LOST, x.stream, str(row["dropped"] or 1).encode())
            elif row["error_code"] == "stopped":
                self._say(end_us, Kind.CLOSED, x.stream, Closing.DRAIN)
            return True
        lost = row["failure_reason"] == "transport_error"
        left = row["error_code"] == "client_disconnected" or (x.is_http and x.is_sse) or row["http_status"] is None
        if lost or left or (row["type"] == "subscriptions/listen" and row["note"] == "closed by the client"):
            how = Closing.SERVER_RESET if lost else Closing.CLIENT_RESET
            self._say(end_us, Kind.CLOSED, x.stream, how)
            return True
        return False

    def _say(self, at_us: int, kind: Kind, stream: int, payload: bytes) -> None:
        self.moments.append(_Moment(at_us, len(self.moments), Step(kind, stream, payload)))

    # Messages that were not stored

    def _request(self, row: Row) -> dict[str, Any]:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": row["type"]}
        if row["kind"] == "request":
            message["id"] = _id(row)
        params = _params(row["type"], row["name"]) if row["name"] else {}
        if row["type"] == "initialize":
            params = {"protocolVersion": self.session["protocol_version"], "clientInfo": self._client()}
        if self.modern:
            version = self.session["protocol_version"]
            params["_meta"] = {f"{_META}protocolVersion": version, f"{_META}clientInfo": self._client()}
        return message | ({"params": params} if params else {})

    def _client(self) -> dict[str, Any]:
        return {"name": self.session["client_name"], "version": self.session["client_version"]}

    def _answer(self, row: Row) -> dict[str, Any]:
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": _id(row)}
        if row["failure_reason"] == "rpc_error" or (row["error_code"] or "")[:2] == "-3":
            return message | {"error": _error(row)}
        if row["type"] == "initialize":
            server = {"name": self.session["server_name"], "version": self.session["server_version"]}
            return message | {"result": {"protocolVersion": self.session["protocol_version"], "serverInfo": server}}
        content = [{"type": "text", "text": row["error_message"]}] if row["error_message"] else []
        result: dict[str, Any] = {"content": content, "isError": True} if row["failure_reason"] == "tool_error" else {}
        if row["outcome"] in ("input_required", "task"):
            result["resultType"] = row["outcome"]
        return message | {"result": result}

    def _names(self, row: Row) -> bytes:
        """Return the header by which a server names the session."""
        return b"Mcp-Session-Id: %s\r\n" % SESSION_ID.encode() if row["type"] == "initialize" and self.named else b""

    def _endpoint(self) -> str:
        return next((_target(x.rows[0]["path"]) for x in self.exchanges if not x.is_http), "/messages")


def _answered(row: Row) -> bool:
    """Whether an answer of JSON-RPC was seen."""
    if row["outcome"] == "unparsed" or row["latency_ms"] is None:
        return False
    code = row["error_code"] or ""
    if row["response_body"] is not None or code.startswith("-"):
        return True
    succeeded = row["status"] == "succeeded" and not code and row["note"] != "closed by the client"
    return bool(row["failure_reason"] == "tool_error" or succeeded)


def _message(row: Row, side: str, otherwise: dict[str, Any]) -> bytes:
    """Return a stored body on one line, or what stands in for it."""
    body = row[side]
    if body is not None and str(body["codec"]).startswith("json"):
        return re.sub(rb"[\r\n]+", b" ", str(body["data"]).encode())
    return _json(otherwise)


def _json(value: Any) -> bytes:
    return orjson.dumps(value)


def _id(row: Row) -> Any:
    try:
        return orjson.loads(row["jsonrpc_id"] or "null")
    except orjson.JSONDecodeError:  # cut
        return row["pk"]


def _params(method: str, name: str) -> dict[str, Any]:
    """Return the least parameters that give a message its name; `protocol.revisions` says what that is made of."""
    if method == "notifications/cancelled":
        try:
            return {"requestId": orjson.loads(name)}
        except orjson.JSONDecodeError:
            return {}
    if method == "notifications/progress":
        done, _, total = name.partition("/")
        return {"progress": float(done)} | ({"total": float(total)} if total else {})
    if method == "notifications/message":
        level, _, logger = name.partition(" ")
        return {"level": level} | ({"logger": logger} if logger else {})
    if method.startswith(("resources/", "notifications/resources/")):
        return {"uri": name}
    if method.startswith(("tasks/", "notifications/tasks")):
        return {"taskId": name}
    return {_NAMED_BY.get(method, "name"): name}


def _error(row: Row) -> dict[str, Any]:
    code = row["error_code"] or ""
    number = int(code) if re.fullmatch(r"-?\d{1,15}", code) else 0
    return {"code": number, "message": row["error_message"] or ""}


def _head(status: int, body: bytes, kind: bytes | None, more: bytes = b"") -> bytes:
    content = b"Content-Type: %s\r\n" % kind if kind else b""
    length = b"" if status in (204, 304) else b"Content-Length: %d\r\n" % len(body)
    return b"HTTP/1.1 %d X\r\n%s%s%s\r\n%s" % (status, content, more, length, body)


def _event(data: bytes, kind: bytes = b"message") -> bytes:
    text = b"event: %s\r\ndata: %s\r\n\r\n" % (kind, data)
    return b"%x\r\n%s\r\n" % (len(text), text)


def _target(path: str | None) -> str:
    """Return a path as it may stand in a request line: what was masked in it holds spaces."""
    return re.sub(r"[^\x21-\x7e]+", "-", path or "/mcp")


def _word(text: str) -> str:
    return re.sub(r"[^\x20-\x7e]+", "-", text)


def _at_us(row: Row) -> int:
    return round(datetime.fromisoformat(row["time"]).timestamp() * 1000) * 1000


def _end_us(row: Row, at_us: int) -> int | None:
    """Return when the exchange of a message ended, as far as the end of the message tells."""
    given_up = row["failure_reason"] == "abandoned" and row["error_code"] not in ("stopped", "lost")
    if row["latency_ms"] is None or given_up or row["error_code"] == "cancelled":
        return None
    return at_us + round(1000 * float(row["latency_ms"]))
