"""HTTP/1.1 framing, and no more of it than the relay needs.

Theory of operation. In framed mode one thing of a request is edited, the value of `Host`, so the relay must know to
the byte where each request head begins. `Requests` walks the client's direction: a head is collected up to its blank
line, edited and let go; the body behind it is counted (`Content-Length`) or walked (chunk sizes and trailers) and
passes as it came. What cannot be walked is refused, because a guess would edit somebody's body.

`Responses` walks the other direction for three questions. Did the server switch protocols (101, or 2xx to CONNECT), so
that nothing may be edited any more? How many answers are still to come before one of our own may be sent? And does an
event stream begin, whose `endpoint` event leads past the tap (see `endpoint.py`)? It never refuses: a response that it
cannot follow is just not followed any longer.

Both take bytes cut anywhere and come to the same result for every cut. There is no I/O here and no clock.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from mcp_tap.relay.chunks import Chunks
from mcp_tap.relay.endpoint import EndpointEvent, Endpoints

#: Request heads beyond this are answered 431. Servers of this field allow 8 to 64 kB.
MAX_HEAD: Final = 64 * 1024

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_BLANK_LINES: Final = re.compile(rb"(?:\r?\n)*")
_HEAD_END: Final = re.compile(rb"\n\r?\n")
_METHOD: Final = re.compile(_TOKEN)
_VERSION: Final = re.compile(rb"HTTP/1\.[0-9]")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[0-9] +([1-9][0-9]{2})(?: [^\r]*)?\r?")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_SPACE: Final = b" \t"


class Refusal(NamedTuple):
    """Why a request gets an answer of ours instead of the server's: a status and two lines of text."""

    status: int
    what: str
    hint: str


def _request_line(line: bytes) -> tuple[bytes, bytes] | None:
    """Return method and version, or None if no HTTP/1 server could read this. The target is the server's business."""
    method, _, rest = line.removesuffix(b"\r").partition(b" ")
    target, _, version = rest.rstrip(_SPACE).rpartition(b" ")
    if b"\r" in rest or not target.strip() or not _METHOD.fullmatch(method) or not _VERSION.fullmatch(version):
        return None
    return method, version


class Asked(NamedTuple):
    """What of a request decides how its answer is to be read."""

    method: bytes
    host: bytes = b""  # empty where there was none, or more than one


class Requests:
    """The client's direction: gives back what goes to the server, with every `Host` value replaced.

    ``host`` is the value to send. ``allowed`` is asked for each value that is replaced, because the server's own check
    against DNS rebinding cannot see it any more. ``asked`` collects, for `Responses`, what is waiting for an answer.
    """

    __slots__ = (
        "_allowed",
        "_chunks",
        "_head",
        "_host",
        "_left",
        "_scanned",
        "asked",
        "in_body",
        "refusal",
        "switch",
    )

    def __init__(self, host: bytes, allowed: Callable[[bytes], bool]) -> None:
        self.asked: deque[Asked] = deque()
        self.refusal: Refusal | None = None  # once set, nothing more passes
        self.in_body = False  # the refusal concerns a request whose head has already passed
        self.switch = False  # the last request asked for another protocol: what follows it depends on the answer
        self._host = host
        self._allowed = allowed
        self._head = bytearray()
        self._scanned = 0  # up to here there is no end of the head
        self._left = 0  # bytes of a counted body still to come
        self._chunks: Chunks | None = None

    def feed(self, data: bytes, at: int = 0) -> tuple[bytes, int]:
        """Return what to send on, and the offset up to which ``data`` was used.

        That is all of it, except where ``switch`` was set or something was refused.
        """
        size = len(data)
        if at == 0 and self._left >= size:
            self._left -= size
            return data, size
        out: list[bytes] = []
        while at < size and self.refusal is None:
            if self._left:
                end = min(at + self._left, size)
                self._left -= end - at
                out.append(data[at:end])
                at = end
            elif self._chunks is not None:
                end = self._chunks.walk(data, at)
                out.append(data[at:end])
                at = end
                if self._chunks.bad:
                    self.in_body = True
                    self._refuse(400, "the chunks of this request body cannot be followed")
                elif self._chunks.done:
                    self._chunks = None
            elif self.switch:
                break
            else:
                head, at = self._collect(data, at)
                if head:
                    out.append(self._pass(head))
        return out[0] if len(out) == 1 else b"".join(out), at

    def rest(self) -> bytes:
        """Return the part of a head that was held back, once the client has gone. No server acts on half a head."""
        rest = b"" if self.refusal else bytes(self._head)
        self._head.clear()
        return rest

    def _refuse(self, status: int, what: str, hint: str = "") -> bytes:
        self.refusal = Refusal(status, what, hint or "send HTTP/1.1 that says where each request ends")
        return b""

    def _collect(self, data: bytes, at: int) -> tuple[bytes, int]:
        """Return a complete head, or nothing yet, and the offset behind what was used."""
        head = self._head
        before = len(head)
        head += data[at : at + MAX_HEAD + 1 - before]
        # RFC 9112 §2.2: empty lines before the request line are to be ignored
        blank = _BLANK_LINES.match(head)
        start = blank.end() if blank else 0
        end = _HEAD_END.search(head, max(start, self._scanned - 2))
        if self._unlike_request(head, start):
            return self._refuse(400, "this is not an HTTP/1.1 request"), len(data)
        if end is None:
            if len(head) > MAX_HEAD:
                return self._refuse(431, f"the request head is longer than {MAX_HEAD} bytes", "send less"), len(data)
            self._scanned = len(head)
            return b"", len(data)
        used = at + end.end() - before
        if end.end() > MAX_HEAD:
            return self._refuse(431, f"the request head is longer than {MAX_HEAD} bytes", "send less"), len(data)
        complete = bytes(head[: end.end()])
        head.clear()
        self._scanned = 0
        return complete, used

    @staticmethod
    def _unlike_request(head: bytearray, start: int) -> bool:
        """Whether what has come can no longer become a request: said at once, since no blank line may ever come."""
        if start == len(head) or head[start:] == b"\r":
            return False
        if _METHOD.match(head, start) is None:
            return True
        end = head.find(b"\n", start)
        return end >= 0 and _request_line(bytes(head[start:end])) is None

    def _pass(self, head: bytes) -> bytes:
        """Return the edited head and set up the walk over its body (RFC 9112 §6.3), or refuse."""
        blank = _BLANK_LINES.match(head)
        start = blank.end() if blank else 0
        lines = head[start:].split(b"\n")
        method, version = _request_line(lines[0]) or (b"", b"")
        hosts: list[bytes] = []
        lengths: set[bytes] = set()
        codings: list[bytes] = []
        switch = method == b"CONNECT"
        name = b""
        for index, line in enumerate(lines[1:-2], 1):
            content = line.removesuffix(b"\r")
            if b"\r" in content:
                return self._refuse(400, "a header line has a bare CR")  # RFC 9112 §2.2: invalid, and read in two ways
            if content[:1] in (b" ", b"\t"):
                # RFC 9112 §5.2: folding. Servers differ in what they make of it; only fields that matter here count
                if name in _OURS or index == 1:
                    return self._refuse(400, "a folded header line in a field that frames the request")
                continue
            raw, colon, rest = content.partition(b":")
            name = raw.strip().lower()
            if name not in _OURS:
                continue
            if raw.lower() != name or not colon:
                return self._refuse(400, "white space in a header name")  # RFC 9112 §5.1: must be refused
            value = rest.strip(_SPACE)
            if name == b"host":
                hosts.append(value)
                before = rest[: len(rest) - len(rest.lstrip(_SPACE))] if value else b""
                after = line[len(raw) + 1 + len(before) + len(value) :]
                lines[index] = raw + b":" + before + self._host + after
            elif name == b"content-length":
                lengths.update(part.strip(_SPACE) for part in value.split(b","))
            elif name == b"transfer-encoding":
                codings += [part.strip(_SPACE).lower() for part in value.split(b",") if part.strip(_SPACE)] or [b""]
            else:
                switch = True
        if any(not self._allowed(value) for value in hosts):
            return self._refuse(
                421,
                "this Host is not one that mcp-tap answers to",
                "use a loopback name, or list the name under hosts in the section [proxy]",
            )
        if codings:
            # RFC 9112 §6.1: both together, or a transfer coding in HTTP/1.0, is faulty framing; §6.3: chunked is last
            if lengths or version == b"HTTP/1.0" or codings[-1] != b"chunked" or codings.count(b"chunked") != 1:
                return self._refuse(400, "this Transfer-Encoding does not say where the request ends")
            self._chunks = Chunks()
        elif lengths:
            length = lengths.pop()
            if lengths or _LENGTH.fullmatch(length) is None:
                return self._refuse(400, "this Content-Length does not say where the request ends")
            self._left = int(length)
        self.switch = switch
        self.asked.append(Asked(method, hosts[0] if len(hosts) == 1 else b""))
        return head[:start] + b"\n".join(lines) if hosts else head


_OURS: Final = frozenset((b"host", b"content-length", b"transfer-encoding", b"upgrade"))


class Responses:
    """The server's direction, followed as far as it can be: gives back what goes to the client.

    That is every byte as it came, but for the one event that ``endpoints`` is about.
    """

    __slots__ = (
        "_asked",
        "_chunks",
        "_endpoint",
        "_endpoints",
        "_head",
        "_left",
        "_scanned",
        "_until_close",
        "following",
        "switched",
    )

    def __init__(self, asked: deque[Asked], endpoints: Endpoints | None = None) -> None:
        self.following = True
        self.switched = False  # to another protocol, by 101 or by 2xx to CONNECT
        self._asked = asked
        self._endpoints = endpoints
        self._endpoint: EndpointEvent | None = None  # while the first event of a stream is awaited
        self._head = bytearray()
        self._scanned = 0
        self._left = 0
        self._chunks: Chunks | None = None
        self._until_close = False

    @property
    def between(self) -> bool:
        """Whether the last byte seen was the end of a message."""
        return not (self._head or self._left or self._chunks or self._until_close)

    def feed(self, data: bytes) -> bytes:
        """Take what the server sent, and return what of it may go on."""
        at, size = 0, len(data)
        out, passed = b"", 0  # what goes on, of the bytes before this offset
        while at < size and self.following and not self.switched:
            if self._endpoint is not None:
                event, end = self._endpoint.feed(data, at)
                out += data[passed:at] + event
                at = passed = end
                self._after_event()
            elif self._until_close:
                break
            elif self._left:
                step = min(self._left, size - at)
                self._left -= step
                at += step
            elif self._chunks is not None:
                at = self._chunks.walk(data, at)
                self._after_chunks()
            else:
                at = self._collect(data, at)
        return out + data[passed:] if passed else data

    def rest(self) -> bytes:
        """Return what was kept of an event, once the server has gone."""
        return b"" if self._endpoint is None else self._endpoint.rest()

    def _after_event(self) -> None:
        if self._endpoint is not None and self._endpoint.done:
            self._endpoint = None
            self._after_chunks()

    def _after_chunks(self) -> None:
        if self._chunks is not None and self._chunks.bad:
            self.following = False
        elif self._chunks is not None and self._chunks.done:
            self._chunks = None

    def _collect(self, data: bytes, at: int) -> int:
        head = self._head
        before = len(head)
        head += data[at : at + MAX_HEAD + 1 - before]
        end = _HEAD_END.search(head, max(0, self._scanned - 2))
        if end is None:
            self.following = len(head) <= MAX_HEAD
            self._scanned = len(head)
            return len(data)
        at += end.end() - before
        lines = bytes(head[: end.end()]).split(b"\n")
        head.clear()
        self._scanned = 0
        status = _STATUS_LINE.fullmatch(lines[0])
        if status is None:
            self.following = False
        else:
            self._begin(int(status[1]), lines[1:-2])
        return at

    def _begin(self, status: int, lines: list[bytes]) -> None:
        """Decide how long the body is: the eight rules of RFC 9112 §6.3, in their order."""
        if status == 101:
            self.switched = True
            return
        if status < 200:
            return  # interim: the final answer is still to come
        if not self._asked:
            self.following = False  # an answer that nobody asked for, such as an early 408
            return
        method, host = self._asked.popleft()
        if method == b"CONNECT" and status < 300:
            self.switched = True
            return
        if method == b"HEAD" or status in (204, 304):
            return
        lengths: set[bytes] = set()
        codings: list[bytes] = []
        for line in lines:
            name, _, value = line.partition(b":")
            name = name.strip().lower()
            if name == b"content-length":
                lengths.update(part.strip() for part in value.split(b","))
            elif name == b"transfer-encoding":
                codings += [part.strip().lower() for part in value.split(b",")]
        counted = bool(lengths)
        if codings:
            if codings[-1] == b"chunked":
                self._chunks = Chunks()
            else:
                self._until_close = True
        elif lengths:
            length = lengths.pop()
            if lengths or _LENGTH.fullmatch(length) is None:
                self.following = False
            else:
                self._left = int(length)
        else:
            self._until_close = True
        plain = not counted and (self._chunks is not None or not codings)
        if self._endpoints is not None and (status, method) == (200, b"GET") and host and plain:
            self._endpoint = EndpointEvent(self._endpoints, host, self._chunks) if _is_event_stream(lines) else None


def _is_event_stream(lines: list[bytes]) -> bool:
    """Whether a body is an event stream that can be read as it is."""
    stream = False
    for line in lines:
        name, _, value = line.lower().partition(b":")
        name = name.strip()
        if name == b"content-type":
            stream = value.partition(b";")[0].strip() == b"text/event-stream"
        elif name == b"content-encoding" and value.strip() not in (b"", b"identity"):
            return False
    return stream


class Framing:
    """Both directions of one stream in framed mode."""

    __slots__ = ("_held", "requests", "responses")

    def __init__(self, host: bytes, allowed: Callable[[bytes], bool], endpoints: Endpoints | None = None) -> None:
        self.requests = Requests(host, allowed)
        self.responses = Responses(self.requests.asked, endpoints)
        self._held = b""

    @property
    def holding(self) -> bool:
        """Whether what the client sends next cannot be read before the server has answered an offer to switch.

        RFC 9110 §7.8 and §9.3.6: a client waits for that answer, so in practice nothing is ever held.
        """
        requests, responses = self.requests, self.responses
        return requests.switch and bool(requests.asked) and responses.following and not responses.switched

    @property
    def full(self) -> bool:
        """Whether no more should be read of the client while ``holding``.

        Before that it is read, so that its end is noticed: a server may wait for that instead of answering.
        """
        return len(self._held) > MAX_HEAD and self.holding

    @property
    def refusal_due(self) -> bool:
        """Whether it is now the turn of the refused request's answer, and the server has not begun one."""
        requests, responses = self.requests, self.responses
        ahead = len(requests.asked) - requests.in_body
        return requests.refusal is not None and responses.following and responses.between and ahead == 0

    def from_client(self, data: bytes) -> bytes:
        """Return what goes to the server."""
        if self._held:
            data, self._held = self._held + data, b""
        requests = self.requests
        out, at = requests.feed(data)
        while at < len(data) and requests.refusal is None:
            # the last request offered to switch: go on once that is decided
            if self.responses.switched:
                return out + data[at:]
            if self.holding:
                self._held = data[at:]
                return out
            requests.switch = False
            more, at = requests.feed(data, at)
            out += more
        return out

    def from_server(self, data: bytes) -> bytes:
        """Return what goes to the client."""
        return self.responses.feed(data)

    @property
    def releasable(self) -> bool:
        """Whether something held from the client may go on now."""
        return bool(self._held) and not self.holding

    def rest(self) -> bytes:
        """Return what was held back, once the client has gone."""
        held, self._held = self._held, b""
        return self.requests.rest() + held
