"""What to paste into a client so that it talks to the tap."""

from __future__ import annotations

import json
import shlex

from mcp_tap.config import Proxy


def snippets(proxy: Proxy) -> list[tuple[str, str]]:
    """Return how to point each kind of client at a proxy: a title and what to paste."""
    name, url = proxy.name or "my-server", proxy.url
    entry = {"mcpServers": {name: {"url": url}}}
    code = {"servers": {name: {"type": "http", "url": url}}}
    generic = {"mcpServers": {name: {"type": "streamable-http", "url": url}}}
    initialize = (
        '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",'
        '"capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}'
    )
    curl = (
        f"curl -s {shlex.quote(url)} -H 'Content-Type: application/json' \\\n"
        f"  -H 'Accept: application/json, text/event-stream' \\\n  -d '{initialize}'"
    )
    return [
        ("Claude Code", f"claude mcp add --transport http {shlex.quote(name)} {shlex.quote(url)}"),
        ("Cursor: .cursor/mcp.json", json.dumps(entry, indent=2)),
        ("VS Code: .vscode/mcp.json", json.dumps(code, indent=2)),
        ("Others", json.dumps(generic, indent=2)),
        ("curl", curl),
    ]
