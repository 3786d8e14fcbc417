"""One message as people read it: what was asked, what came back, in parts that a page shows one below the other.

The parts are cut out of the stored text, so that numbers keep their digits and what cannot be read is shown as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from mcp_tap.model import Codec
from mcp_tap.store import Row
from mcp_tap.ui import json_text
from mcp_tap.ui.json_text import Piece
from mcp_tap.ui.text import counted, harmless, size

#: Pieces of content that are shown of one result, and characters of a text before it has to be asked for.
MOST_CONTENT: Final = 50
MOST_TEXT: Final = 8_000

#: What of a request's params is its arguments, by method; of others it is the params as a whole.
ARGUMENTS: Final = {"tools/call": "arguments", "prompts/get": "arguments"}


class Part(NamedTuple):
    """A titled part of a message."""

    title: str
    pieces: Sequence[Piece] = ()  # JSON to be coloured
    text: str = ""  # or plain text, harmless, with lines
    note: str = ""  # or something about what is not shown
    raw: str = ""  # what the button copies

    @property
    def cut(self) -> bool:
        """Whether there is more of it than is shown."""
        shortened = any(piece.kind == "more" or piece.text.endswith("more characters") for piece in self.pieces)
        return shortened or bool(self.text and self.text.endswith("more characters"))


def request(row: Row) -> list[Part]:
    """Return what was asked; ``row`` is one of `Reader.event`."""
    body = row["request_body"]
    if body is None:
        return [Part("Request", note=_absent(row, "request"))] if row["request_bytes"] else []
    params = _members(_members(body["data"]).get("params", ""))
    name = ARGUMENTS.get(row["type"], "")
    if name and name in params:
        found = [_json("Arguments", params[name])]
    elif name and params:
        found = [Part("Arguments", note="none")]
    elif params:
        found = [_json("Params", _members(body["data"])["params"])]
    else:
        found = [_whole("Request", body)]
    if name and params and "_meta" in params:
        found.append(_json("Meta", params["_meta"]))
    return _noticed(found, row, "request")


def answer(row: Row) -> list[Part]:
    """Return what came back."""
    body = row["response_body"]
    if body is None:
        if row["status"] == "waiting_for_response":
            return [Part("Result", note="no answer yet")]
        return [Part("Result", note=_absent(row, "response"))] if row["response_bytes"] else []
    top = _members(body["data"])
    if "error" in top:
        found = [_json("Error", top["error"])]
    elif "result" in top:
        found = _result(top["result"], failed=row["failure_reason"] == "tool_error")
    else:
        found = [_whole("Answer", body)]
    return _noticed(found, row, "response")


def raw(body: Row | None) -> Part | None:
    """Return a stored body as it is."""
    if body is None:
        return None
    return Part("", text=json_text.plain(body["data"], most=200_000), raw=body["data"])


def notices(row: Row, side: str) -> list[str]:
    """Return what the stored body of a side is not: cut, masked, incomplete."""
    body = row[f"{side}_body"]
    found = []
    if body is not None and body["codec"] == Codec.CUT:
        kept = len(body["data"].encode("utf-8", "surrogatepass"))
        found.append(f"cut in the record: the first {size(kept)} of {size(row[f'{side}_bytes'])}")
    if body is not None and body["masked"]:
        found.append(f"{counted(body['masked'], 'value')} redacted before it was stored")
    return found


def _noticed(found: list[Part], row: Row, side: str) -> list[Part]:
    return found + [Part("", note=notice) for notice in notices(row, side)]


def _absent(row: Row, side: str) -> str:
    return f"{size(row[f'{side}_bytes'])}, not stored"


def _whole(title: str, body: Row) -> Part:
    data = body["data"]
    if body["codec"] == Codec.TEXT or not data.lstrip().startswith(("{", "[")):
        return Part(title, text=json_text.plain(data, most=MOST_TEXT), raw=data)
    return _json(title, data)


def _json(title: str, text: str) -> Part:
    return Part(title, pieces=json_text.pieces(text), raw=text)


def _result(text: str, *, failed: bool) -> list[Part]:
    """Return the parts of a result: content as what it is, structured content as JSON."""
    result = _members(text)
    content = _items(result.get("content", ""))
    if not content:
        return [_json("Result", text)]
    title = "Error" if failed else "Result"
    found = [_content(title if at == 0 else "", item) for at, item in enumerate(content[:MOST_CONTENT])]
    if len(content) > MOST_CONTENT:
        found.append(Part("", note=f"{len(content) - MOST_CONTENT} more pieces of content: see Raw"))
    if "structuredContent" in result:
        found.append(_json("Structured content", result["structuredContent"]))
    return found


def _content(title: str, text: str) -> Part:
    item = _members(text)
    kind = _word(item.get("type", ""))
    if kind == "text" and (said := _word(item.get("text", ""))):
        if said.lstrip().startswith(("{", "[")) and _is_json(said):
            return _json(title, said)
        return Part(title, text=json_text.plain(said, most=MOST_TEXT), raw=said)
    if kind in {"image", "audio"}:
        data = item.get("data", "")
        told = f"{kind}, {harmless(_word(item.get('mimeType', '')), 60)}, {size(len(data) * 3 // 4)}: not shown"
        return Part(title, note=told)
    return _json(title, text)


def _is_json(text: str) -> bool:
    return bool(_members(text)) or bool(_items(text))


def _members(text: str) -> dict[str, str]:
    """Return the members of a JSON object, each as the text it stands in; empty where ``text`` is none."""
    try:
        return {key: bytes(value).decode() for key, value in _OBJECT.decode(text).items()}
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return {}


def _items(text: str) -> list[str]:
    try:
        return [bytes(value).decode() for value in _ARRAY.decode(text)]
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return []


def _word(text: str) -> str:
    """Return the string that a JSON text is, "" for anything else."""
    try:
        return _STRING.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return ""


_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])
_STRING: Final = msgspec.json.Decoder(str)


# -------------------------------------------------------------------------------------------------------- timing


class Moment(NamedTuple):
    """Something that happened to a message, and how long after its beginning."""

    what: str
    ms: float


def moments(row: Row) -> list[Moment]:
    """Return what is known of the times of a message, in order."""
    found = [Moment("request", 0.0)]
    named = {"answer's headers": "headers_ms", "first byte": "first_byte_ms", "first SSE event": "first_event_ms"}
    found += [Moment(what, row[column]) for what, column in named.items() if row[column] is not None]
    events = row["sse_events"]
    found += [Moment(f"SSE event {number}", us / 1000) for number, us in enumerate(events[:200], 1)]
    if row["last_byte_ms"] is not None:
        found.append(Moment("last byte", row["last_byte_ms"]))
    elif row["latency_ms"] is not None:
        found.append(Moment("answered", row["latency_ms"]))
    return sorted(found, key=lambda moment: moment.ms)
