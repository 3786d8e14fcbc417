"""The envelope of a JSON-RPC message: what the record needs to know, without decoding what it does not.

A typed decode skips the arguments and results that nobody asked for. It fails on the first value of an unexpected
type; then a full, tolerant decode finds what can be had. Ids keep their JSON text, because `1`, `"1"` and `1.0` are
different ids, and an integer may be longer than 64 bits.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

#: Ids, methods and names longer than this are cut in the record.
MAX_WORD: Final = 512


class Implementation(Struct, frozen=True, gc=False):
    """`clientInfo` and `serverInfo`."""

    name: str | None = None
    version: str | None = None


class Meta(Struct, frozen=True, gc=False):
    """What matters of `_meta`, in either direction."""

    version: str | None = msgspec.field(default=None, name="io.modelcontextprotocol/protocolVersion")
    client: Implementation | None = msgspec.field(default=None, name="io.modelcontextprotocol/clientInfo")
    capabilities: Raw = msgspec.field(default=Raw(), name="io.modelcontextprotocol/clientCapabilities")
    server: Implementation | None = msgspec.field(default=None, name="io.modelcontextprotocol/serverInfo")
    progress_token: Raw = msgspec.field(default=Raw(), name="progressToken")
    traceparent: str | None = None


class Reference(Struct, frozen=True, gc=False):
    """`params.ref` of `completion/complete`."""

    name: str | None = None
    uri: str | None = None


class Argument(Struct, frozen=True, gc=False):
    """`params.argument` of `completion/complete`: its name, never its value."""

    name: str | None = None


class Params(Struct, frozen=True, gc=False, rename="camel"):
    """What matters of `params`."""

    meta: Meta | None = msgspec.field(default=None, name="_meta")
    name: str | None = None
    uri: str | None = None
    task_id: str | None = None
    level: str | None = None
    logger: str | None = None
    mode: str | None = None
    elicitation_id: str | None = None
    cursor: str | None = None
    protocol_version: str | None = None
    client_info: Implementation | None = None
    capabilities: Raw = Raw()
    request_id: Raw = Raw()
    progress_token: Raw = Raw()
    progress: float | None = None
    total: float | None = None
    ref: Reference | None = None
    argument: Argument | None = None
    arguments: Raw = Raw()
    request_state: Raw = Raw()
    input_responses: dict[str, Raw] | None = None
    notifications: Raw = Raw()


class Task(Struct, frozen=True, gc=False, rename="camel"):
    """`result.task` of a call that was answered by a task (2025-11-25)."""

    task_id: str | None = None
    status: str | None = None


class TaskResult(Struct, frozen=True, gc=False, rename="camel"):
    """What a finished task came to: `result` inside the answer to `tasks/get`."""

    is_error: bool | None = None
    content: Raw = Raw()


class Error(Struct, frozen=True, gc=False):
    """`error`. ``code`` is JSON text: an integer by the book."""

    code: Raw = Raw()
    message: str | None = None


class Result(Struct, frozen=True, gc=False, rename="camel"):
    """What matters of `result`."""

    meta: Meta | None = msgspec.field(default=None, name="_meta")
    is_error: bool | None = None
    result_type: str | None = None
    protocol_version: str | None = None
    server_info: Implementation | None = None
    capabilities: Raw = Raw()
    instructions: str | None = None
    supported_versions: Raw = Raw()
    request_state: Raw = Raw()
    input_requests: dict[str, Raw] | None = None
    task_id: str | None = None
    task: Task | None = None
    status: str | None = None
    result: TaskResult | None = None
    error: Error | None = None
    tools: Raw = Raw()
    content: Raw = Raw()


class Envelope(Struct, frozen=True, gc=False):
    """One JSON-RPC message. ``id`` is JSON text, empty where there is none."""

    method: str | None = None
    id: Raw = Raw()
    params: Params | None = None
    result: Result | UnsetType | None = UNSET
    error: Error | UnsetType | None = UNSET

    @property
    def key(self) -> bytes:
        """The id as it was on the wire; of a longer one than any real id its beginning and a hash."""
        data = bytes(self.id)
        if len(data) <= MAX_WORD:
            return data
        return data[: MAX_WORD - 33] + b"#" + hashlib.blake2b(data, digest_size=16).hexdigest().encode()


class Unparsed(Struct, frozen=True, gc=False):
    """Something that is no JSON-RPC message, and why."""

    reason: str


_Shape = TypeVar("_Shape", bound=Struct)

#: One message with its own bytes.
Frame = tuple[Envelope | Unparsed, bytes]

_decode_envelope = msgspec.json.Decoder(Envelope).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_any = msgspec.json.Decoder(dict[str, Raw]).decode

#: A batch of more messages than this is not taken apart. Batches existed in 2025-03-26 only and are small.
MAX_BATCH: Final = 10_000


def read(body: bytes) -> list[Frame]:
    """Return the messages of a body: one, or those of a batch (2025-03-26)."""
    if body[:1] == b"{":  # the usual case, and without a step between
        try:
            envelope = _decode_envelope(body)
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            return [(_envelope(body), body)]
        if envelope.method is not None or envelope.result is not UNSET:
            return [(envelope, body)]
    text = body.strip(b" \t\r\n")
    if text[:1] != b"[":
        return [(_envelope(text), text)]
    try:
        items = _decode_list(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        return [(Unparsed(f"no JSON: {_short(error)}"), text)]
    if not items:
        return [(Unparsed("an empty batch"), text)]
    if len(items) > MAX_BATCH:
        return [(Unparsed(f"a batch of {len(items)} messages"), text)]
    return [(_envelope(bytes(item)), bytes(item)) for item in items]


def number(raw: Raw) -> str | None:
    """Return an error code or another short JSON value as text."""
    text = bytes(raw)
    return text[:64].decode("utf-8", "replace") if text else None


def text_of(content: Raw) -> str | None:
    """Return the first text of a tool result's `content`: where `isError` is set it says what went wrong."""
    try:
        blocks = msgspec.json.decode(content, type=list[_Block])
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    return next((block.text for block in blocks if block.text), None)


class _Block(Struct, frozen=True, gc=False):
    text: str | None = None


def _envelope(body: bytes) -> Envelope | Unparsed:
    envelope: Envelope | Unparsed
    try:
        envelope = _decode_envelope(body)
    except msgspec.ValidationError:
        envelope = _tolerant(body)
        if isinstance(envelope, Unparsed):
            return envelope
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        return Unparsed(f"no JSON: {_short(error)}")
    if envelope.method is None and envelope.result is UNSET and envelope.error is UNSET:
        return Unparsed("neither a method nor a result nor an error")
    return envelope


def _tolerant(body: bytes) -> Envelope | Unparsed:
    """Read what can be read of a message some of whose values have an unexpected type."""
    try:
        fields = _decode_any(body)
    except msgspec.ValidationError:
        return Unparsed("JSON, but no object")
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        return Unparsed(f"no JSON: {_short(error)}")
    result: Result | UnsetType | None = UNSET
    error_: Error | UnsetType | None = UNSET
    if "result" in fields:
        result = _partly(fields["result"], Result)
    if "error" in fields:
        error_ = _partly(fields["error"], Error)
    params = _partly(fields["params"], Params) if "params" in fields else None
    method = _one(fields.get("method"), str)
    return Envelope(method=method, id=fields.get("id", Raw()), params=params, result=result, error=error_)


def _partly(raw: Raw, shape: type[_Shape]) -> _Shape | None:
    try:
        return msgspec.json.decode(raw, type=shape)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        pass
    try:
        fields = _decode_any(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    known: dict[str, Any] = {}
    for field in msgspec.structs.fields(shape):
        if field.encode_name in fields:
            value = _one(fields[field.encode_name], field.type)
            if value is not None:
                known[field.name] = value
    return shape(**known)


def _one(raw: Raw | None, shape: Any) -> Any:
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=shape)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None


def _short(error: Exception) -> str:
    return str(error)[:120] or type(error).__name__
