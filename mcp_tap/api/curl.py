"""A recorded request as a command that sends it again.

The command holds no credential: the session and the token are taken from the shell's variables. Everything that came
over the wire is quoted as one word of a POSIX shell; comments consist of our own words only.
"""

from __future__ import annotations

import json
import re
import shlex
from base64 import b64encode
from typing import Any, Final
from urllib.parse import urlsplit

from mcp_tap.model import Codec, Direction, Era, Kind
from mcp_tap.store import Row

#: Which parameter `Mcp-Name` repeats (2026-07-28, "Standard MCP Request Headers").
_NAMED_BY: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}

#: A value that goes into a header as it is: visible ASCII with blanks inside, and not like the wrapping itself.
_PLAIN: Final = re.compile(r"(?!=\?base64\?)[!-~](?:[ -~\t]*[!-~])?")


def curl(event: Row, connection: Row | None, url: str) -> str:
    """Return the command for a request of a client, "" for anything else.

    ``event`` is a row as `Reader.event` returns it, ``connection`` a row of the view `sessions`, ``url`` where MCP is
    spoken: the proxy's URL, or that of the server behind it.
    """
    if event["direction"] != Direction.TO_SERVER or event["kind"] not in (Kind.REQUEST, Kind.NOTIFICATION):
        return ""
    connection = connection or {}
    comments: list[str] = []
    body = _body(event, comments)
    words = [f"curl -sS -N {shlex.quote(_target(event, url, comments))}"]
    words += [f"-H {shlex.quote(header)}" for header in _headers(event, connection, body)]
    if connection.get("mcp_session_id") and event["type"] != "initialize":
        words.append('-H "Mcp-Session-Id: $MCP_SESSION_ID"')
        comments.append("MCP_SESSION_ID is the id of a session that is open now")
    words.append('${MCP_TOKEN:+"-HAuthorization: Bearer $MCP_TOKEN"}')
    words.append(f"--data-raw {shlex.quote(body)}")
    return "".join(f"# {comment}\n" for comment in comments) + " \\\n  ".join(words) + "\n"


def _target(event: Row, url: str, comments: list[str]) -> str:
    """Return the URL: the recorded path at the given origin."""
    origin = urlsplit(url)
    path = (event.get("path") or "").replace("\0", "")
    if "••••" in path:
        comments.append("values in the query of the URL were not recorded: put them in where dots stand")
    return f"{origin.scheme}://{origin.netloc}{path}" if path.startswith("/") else url


def _headers(event: Row, connection: Row, body: str) -> list[str]:
    headers = ["Content-Type: application/json", "Accept: application/json, text/event-stream"]
    version = connection.get("protocol_version")
    if version and event["type"] != "initialize" and _PLAIN.fullmatch(version):
        headers.append(f"MCP-Protocol-Version: {version}")
    if connection.get("era") == Era.MODERN:
        headers.append(f"Mcp-Method: {_wrapped(event['type'])}")
        name = _params(body).get(_NAMED_BY.get(event["type"], ""), event["name"])
        if event["type"] in _NAMED_BY and isinstance(name, str):
            headers.append(f"Mcp-Name: {_wrapped(name)}")
    return headers


def _wrapped(value: str) -> str:
    """Return a value as `Mcp-Name` carries it: as it is, or in Base64 where a header cannot."""
    if _PLAIN.fullmatch(value):
        return value
    return f"=?base64?{b64encode(value.encode(errors='replace')).decode()}?="


def _params(body: str) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    params = message.get("params") if isinstance(message, dict) else None
    return params if isinstance(params, dict) else {}


def _body(event: Row, comments: list[str]) -> str:
    """Return the body as it was recorded, and say what is not in it."""
    stored = event.get("request_body")
    if stored is None:
        comments.append("the body was not recorded: this one has the method alone")
        skeleton: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": event["type"], "params": {}}
        if event["type"] in _NAMED_BY and event["name"]:
            skeleton["params"] = {_NAMED_BY[event["type"]]: event["name"]}
        if event["kind"] == Kind.NOTIFICATION:
            del skeleton["id"]
        return json.dumps(skeleton)
    data: str = stored["data"]
    if stored["codec"] == Codec.CUT:
        comments.append("the body was cut in the record: its end is missing")
    if stored["masked"]:
        comments.append("secrets in the body were masked: put them in where dots stand")
    if "\0" in data:  # no argument of a program can hold one
        comments.append("zero bytes of the body are left out")
        data = data.replace("\0", "")
    return data
