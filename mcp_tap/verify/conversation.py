"""What is asked, and the bytes that come back.

Sockets are plain and blocking, and heads and chunk sizes are read here: an HTTP library would tidy up what is compared.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mcp_tap import __version__
from mcp_tap.model import Era

if TYPE_CHECKING:
    import ssl

LEGACY: Final = "2025-11-25"
MODERN: Final = "2026-07-28"

#: Seconds that an answer may take, and the head of a stream: a server may hold it back until it has something to say.
PATIENCE: Final = 10.0
STREAM_PATIENCE: Final = 2.0
#: Seconds for which an open stream is read.
STREAM_READ: Final = 0.1

#: A head that is longer is none.
MAX_HEAD: Final = 1 << 20

#: How an answer can end, in words.
ENDS: Final = {
    "kept": "the connection is kept",
    "fin": "the connection is ended",
    "reset": "the connection is reset",
    "silent": "no end of the answer in time",
    "garbled": "the framing of the answer is broken",
    "left": "the stream stays open",
}

_INFO: Final = {"name": "mcp-tap-verify", "version": __version__}
_LISTS: Final = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")

# ------------------------------------------------------------------------------------------------ the conversation


Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the conversation. ``last`` asks the server to close, ``stream`` is left while still open."""

    name: str
    verb: str
    headers: Headers = ()
    message: dict[str, Any] | None = None
    last: bool = False
    stream: bool = False

    def encoded(self, host: str, target: str) -> bytes:
        """Return the bytes to send."""
        body = b"" if self.message is None else json.dumps(self.message, separators=(",", ":")).encode()
        lines = [f"{self.verb} {target} HTTP/1.1", f"Host: {host}", f"User-Agent: mcp-tap/{__version__}"]
        lines.append(f"Accept: {'text/event-stream' if self.verb == 'GET' else 'application/json, text/event-stream'}")
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.last:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@dataclass(slots=True)
class Answer:
    """What came back, as it stood on the wire."""

    head: bytes = b""  # with those of interim answers before it
    body: bytes = b""  # with its framing
    end: str = "kept"  # one of ENDS
    lag: float = 0.0  # seconds from the last byte to the end
    seconds: float = 0.0  # from the last byte of the request to the last of the answer
    reused: bool = False  # came on the connection of the answer before it

    @property
    def status(self) -> int:
        """The final status, or 0 where there was no head."""
        found = re.findall(rb"^HTTP/1\.[01] (\d{3})", self.head, re.MULTILINE)
        return int(found[-1]) if found else 0

    @property
    def status_line(self) -> bytes:
        """The status line, with those of interim answers before it."""
        return b" ".join(head.partition(b"\r\n")[0] for head in self.head.split(b"\r\n\r\n") if head)

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """Names as they were spelled and values as they stood, in order."""
        lines = [line for line in self.head.split(b"\r\n") if line and not line.startswith(b"HTTP/1.")]
        return [(name, value) for name, _, value in (line.partition(b":") for line in lines)]

    def header(self, name: bytes) -> str | None:
        """Return the value of a header, or None."""
        values = (value for key, value in self.fields if key.lower() == name)
        value = next(values, None)
        return None if value is None else value.strip().decode("latin-1")

    @property
    def result(self) -> dict[str, Any] | None:
        """The JSON-RPC result, plain or in an event stream."""
        body = unchunked(self.body) if self.header(b"transfer-encoding") else self.body
        if (self.header(b"content-type") or "").startswith("text/event-stream"):
            parts = [line[5:] for line in body.splitlines() if line.startswith(b"data:")]
        else:
            parts = [body]
        for part in parts:
            with contextlib.suppress(ValueError, RecursionError):
                message = json.loads(part)
                if isinstance(message, dict) and isinstance(message.get("result"), dict):
                    return dict(message["result"])
        return None


Conversation = Generator[Request, Answer, None]


def legacy() -> Conversation:
    """Open a session, ask for the lists, open a stream, end the session. Sends nothing that changes anything."""
    params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": _INFO}
    opened = yield _post("initialize", 0, params)
    if opened.result is None:
        return
    headers: Headers = (("MCP-Protocol-Version", str(opened.result.get("protocolVersion", LEGACY))),)
    session = opened.header(b"mcp-session-id")
    if session is not None:
        headers += (("Mcp-Session-Id", session),)
    yield _post("notifications/initialized", None, None, headers)
    for number, method in enumerate(_LISTS, 1):
        yield _post(method, number, None, headers)
    yield Request("GET stream", "GET", headers, stream=True)
    yield _post("ping", len(_LISTS) + 1, None, headers, last=session is None)
    if session is not None:
        yield Request("DELETE session", "DELETE", headers, last=True)


def modern() -> Conversation:
    """Ask who is there and for the lists."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": _INFO,
    }
    for number, method in enumerate(("server/discover", *_LISTS), 1):
        headers = (("MCP-Protocol-Version", MODERN), ("Mcp-Method", method))
        answer = yield _post(method, number, {"_meta": meta}, headers, last=method == _LISTS[-1])
        if number == 1 and answer.result is None:
            return


def _post(method: str, number: int | None, params: Any, headers: Headers = (), *,
          last: bool = False) -> Request:  # fmt: skip
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if number is not None:
        message |= {"id": number}
    if params is not None:
        message |= {"params": params}
    return Request(method, "POST", headers, message, last=last)


CONVERSATIONS: Final[dict[Era, Callable[[], Conversation]]] = {Era.LEGACY: legacy, Era.MODERN: modern}

# --------------------------------------------------------------------------------------------------------- the wire


@dataclass(frozen=True, slots=True)
class Place:
    """Where to connect, what to call it in `Host`, and the request target; ``unix`` is the path of a socket."""

    host: str
    port: int
    authority: str
    target: str
    tls: ssl.SSLContext | None = None
    unix: str = ""

    def connect(self) -> socket.socket:
        """Return a connection. Raises OSError."""
        if self.unix:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE)
            try:
                sock.connect(self.unix)
            except OSError:
                sock.close()
                raise
            return sock
        sock = socket.create_connection((self.host, self.port), PATIENCE)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock if self.tls is None else self.tls.wrap_socket(sock, server_hostname=self.host)
        except BaseException:
            sock.close()
            raise


def play(conversation: Conversation, place: Place) -> list[tuple[str, Answer]]:
    """Hold a conversation and return the name of each exchange with its answer. Raises OSError without a connection.

    Requests share one connection for as long as the server keeps it; a stream has one of its own.
    """
    said: list[tuple[str, Answer]] = []
    kept: socket.socket | None = None
    try:
        request = next(conversation)
        while True:
            if request.stream:
                with place.connect() as own:
                    answer = exchange(own, request, place)
            else:
                reused = kept is not None
                kept = kept or place.connect()
                answer = exchange(kept, request, place)
                answer.reused = reused
                if answer.end != "kept":
                    kept.close()
                    kept = None
            said.append((request.name, answer))
            request = conversation.send(answer)
    except StopIteration:
        return said
    finally:
        if kept is not None:
            kept.close()


def exchange(sock: socket.socket, request: Request, place: Place) -> Answer:
    """Send one request and read its answer, to the byte."""
    answer, reading = Answer(), Reading(sock)
    sock.settimeout(STREAM_PATIENCE if request.stream else PATIENCE)
    began = time.perf_counter()
    try:
        sock.sendall(request.encoded(place.authority, place.target))
        began = time.perf_counter()
        while True:
            head = reading.until(b"\r\n\r\n", MAX_HEAD)
            answer.head += head
            # RFC 9110 §15.2: interim answers come before the final one, and 101 is the last in HTTP.
            if not re.match(rb"HTTP/1\.[01] 1(?!01)\d\d", head):
                break
        if request.stream and answer.status == 200:
            _look_at_stream(answer, reading)
            return answer
        for part in _body(answer, request.verb, reading):
            answer.body += part
        answer.seconds = time.perf_counter() - began
        if request.last or (answer.header(b"connection") or "").lower() == "close":
            ended = time.perf_counter()
            answer.body += reading.rest()
            answer.end, answer.lag = "fin", time.perf_counter() - ended
    except TimeoutError:
        answer.end = "silent"
    except EOFError as error:
        answer.end = "fin"
        answer.body += error.args[0]
    except ValueError:
        answer.end = "garbled"
    except OSError:
        answer.end = "reset"
    answer.seconds = answer.seconds or time.perf_counter() - began
    return answer


def _look_at_stream(answer: Answer, reading: Reading) -> None:
    """Read what an open stream has to say at once, and leave it."""
    answer.end = "left"
    reading.sock.settimeout(STREAM_READ)
    try:
        while True:
            answer.body += reading.some()
    except TimeoutError:
        return


def _body(answer: Answer, verb: str, reading: Reading) -> Iterator[bytes]:
    """Yield the body as it stood on the wire, framing included (RFC 9112 §6.3)."""
    length = answer.header(b"content-length")
    if verb == "HEAD" or answer.status in (204, 304):
        return
    if (answer.header(b"transfer-encoding") or "").lower().endswith("chunked"):
        size = -1
        while size != 0:
            line = reading.until(b"\r\n", MAX_HEAD)
            yield line
            size = int(line.partition(b";")[0], 16)
            if size:
                yield reading.exactly(size + 2)
        while line != b"\r\n":  # the trailer section
            line = reading.until(b"\r\n", MAX_HEAD)
            yield line
    elif length is not None and length.isdecimal():
        yield reading.exactly(int(length))
    else:
        yield reading.rest()
        answer.end = "fin"


class Reading:
    """Reads a socket piece by piece. Raises EOFError, with what was there, where a piece is cut short."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._held = b""

    def some(self) -> bytes:
        """Return what there is, at least a byte."""
        held, self._held = self._held, b""
        data = held or self.sock.recv(65536)
        if not data:
            raise EOFError(b"")
        return data

    def _more(self) -> None:
        data = self.sock.recv(1 << 18)
        if not data:
            raise EOFError(self._held)
        self._held += data

    def until(self, mark: bytes, most: int) -> bytes:
        """Return everything up to and with a mark."""
        while (at := self._held.find(mark)) < 0:
            if len(self._held) > most:
                raise EOFError(self._held)
            self._more()
        return self._take(at + len(mark))

    def exactly(self, count: int) -> bytes:
        """Return so many bytes."""
        while len(self._held) < count:
            self._more()
        return self._take(count)

    def rest(self) -> bytes:
        """Return everything up to the end of the connection."""
        try:
            while True:
                self._more()
        except EOFError:
            return self._take(len(self._held))

    def _take(self, count: int) -> bytes:
        taken, self._held = self._held[:count], self._held[count:]
        return taken


def unchunked(body: bytes) -> bytes:
    """Return the content of a chunked body; as far as it goes where it was cut."""
    content, at = b"", 0
    while (line := body.find(b"\r\n", at)) > 0:
        try:
            size = int(body[at:line].partition(b";")[0], 16)
        except ValueError:
            break
        if not size:
            break
        content += body[line + 2 : line + 2 + size]
        at = line + size + 4
    return content
