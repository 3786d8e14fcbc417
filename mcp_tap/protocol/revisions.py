"""What differs between the revisions of MCP, as tables: adding a revision is adding a row."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from mcp_tap.model import Era
from mcp_tap.protocol.http1 import Headers
from mcp_tap.protocol.jsonrpc import MAX_WORD, Params


class Revision(NamedTuple):
    """One published revision of the specification."""

    version: str
    era: Era
    transport: str  # what its HTTP transport is called in the record
    batches: bool = False  # JSON-RPC arrays are allowed
    polling: bool = False  # a POST stream may end early and go on by GET (SEP-1699)


#: Version strings are dates but not to be compared as such: an unknown one is a later one.
REVISIONS: Final = {
    revision.version: revision
    for revision in (
        Revision("2024-11-05", Era.LEGACY, "sse"),
        Revision("2025-03-26", Era.LEGACY, "streamable_http", batches=True),
        Revision("2025-06-18", Era.LEGACY, "streamable_http"),
        Revision("2025-11-25", Era.LEGACY, "streamable_http", polling=True),
        Revision("2026-07-28", Era.MODERN, "streamable_http"),
    )
}

#: Requests that end only when somebody ends them: their time is a lifetime, no latency.
LASTING: Final = frozenset({"subscriptions/listen"})


def era_of_version(version: str) -> Era:
    """Return the era of a version that a header names: an unknown one is a later one."""
    revision = REVISIONS.get(version)
    return revision.era if revision else Era.MODERN


def header_value(headers: Headers, name: bytes) -> str | None:
    """Return a routing header's value as text, its Base64 wrapper undone (2026-07-28, "Header encoding").

    A malformed wrapper gives None: its text is no name.
    """
    raw = headers.get(name)
    if raw is None:
        return None
    if raw.startswith(b"=?base64?") and raw.endswith(b"?="):
        try:
            return base64.b64decode(raw[9:-2], validate=True).decode("utf-8")[:MAX_WORD]
        except (binascii.Error, UnicodeDecodeError):
            return None
    return raw.decode("utf-8", "replace")[:MAX_WORD]


def _uri(params: Params) -> str | None:
    """A resource's URI without userinfo and query: both may hold secrets."""
    if params.uri is None:
        return None
    scheme, slashes, rest = params.uri.partition("://")
    if not slashes:
        return params.uri.partition("?")[0]
    authority, slash, path = rest.partition("/")
    return scheme + "://" + authority.rpartition("@")[2].partition("?")[0] + slash + path.partition("?")[0]


def _completion(params: Params) -> str | None:
    ref = (params.ref.name or params.ref.uri) if params.ref else None
    argument = params.argument.name if params.argument else None
    return " ".join(word for word in (ref, argument) if word) or None


def _client(params: Params) -> str | None:
    client = params.client_info
    return "/".join(word for word in (client.name, client.version) if word) or None if client else None


def _json(raw: msgspec.Raw) -> str | None:
    return bytes(raw)[:64].decode("utf-8", "replace") or None


def _progress(params: Params) -> str | None:
    if params.progress is None:
        return None
    return f"{params.progress:g}/{params.total:g}" if params.total is not None else f"{params.progress:g}"


def _log(params: Params) -> str | None:
    return " ".join(word for word in (params.level, params.logger) if word) or None


#: What stands in the record's `name` for each method; a method without a row has none.
NAMES: Final[dict[str, Callable[[Params], str | None]]] = {
    "initialize": _client,
    "tools/call": lambda params: params.name,
    "prompts/get": lambda params: params.name,
    "resources/read": _uri,
    "resources/subscribe": _uri,
    "resources/unsubscribe": _uri,
    "completion/complete": _completion,
    "logging/setLevel": lambda params: params.level,
    "tasks/get": lambda params: params.task_id,
    "tasks/cancel": lambda params: params.task_id,
    "tasks/result": lambda params: params.task_id,
    "tasks/update": lambda params: params.task_id,
    "elicitation/create": lambda params: params.mode,
    "notifications/cancelled": lambda params: _json(params.request_id),
    "notifications/progress": _progress,
    "notifications/message": _log,
    "notifications/resources/updated": _uri,
    "notifications/elicitation/complete": lambda params: params.elicitation_id,
    "notifications/tasks": lambda params: params.task_id,
    "notifications/tasks/status": lambda params: params.task_id,
}


def name_of(method: str, params: Params | None) -> str | None:
    """Return what stands in the record's `name` column for a message, cut to a length fit for a line."""
    rule = NAMES.get(method)
    if rule is None or params is None:
        return None
    name = rule(params)
    return name[:MAX_WORD] if name else None
