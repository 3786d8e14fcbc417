"""The words of the pages of figures: rules, shares, addresses."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote

from markupsafe import Markup

from mcp_tap.store import Row
from mcp_tap.store.health import ENOUGH
from mcp_tap.ui import charts
from mcp_tap.ui.text import counted, harmless, spaced

__all__ = ["ENOUGH", "percent", "spaced"]

percent = charts.percent

#: How a tool does: a shape beside the word, and the rule.
HEALTH: Final = {
    "healthy": ("●", "it was called, and none of the other rules applies"),
    "degraded": ("◐", "of 20 calls or more, 5 % failed, or p95 is twice that of the time before"),
    "down": ("✕", "the last five calls all failed"),
    "unclear": ("◌", "some calls failed, but fewer than 20 are too few for a rate"),
    "inactive": ("○", "no call in this range"),
}

#: What the hints of a tool mean (MCP, ToolAnnotations). Clients must not trust those of servers they do not trust.
ANNOTATIONS: Final = {
    "title": "a name for people",
    "readOnlyHint": "whether it leaves its environment as it is",
    "destructiveHint": "whether it may destroy something, not only add",
    "idempotentHint": "whether calling it again with the same arguments changes nothing more",
    "openWorldHint": "whether it reaches beyond a closed set of things",
}

_KINDS: Final = {
    "tool_error": "tool error",
    "rpc_error": "JSON-RPC",
    "http_error": "HTTP",
    "transport_error": "connection failed",
    "no_response": "never answered",
    "timeout": "timeout",
    "cancelled": "cancelled",
    "abandoned": "abandoned",
}


def kind(row: Row) -> str:
    """Return the kind of an error in a word or two, with its code where the protocol has one."""
    reason, code = row["failure_reason"], row["error_code"]
    word = _KINDS.get(reason, str(reason or "failed"))
    return f"{word} {harmless(str(code), 12)}" if code and reason in ("rpc_error", "http_error") else word


def tool_path(name: str) -> str:
    """Return the path of a tool's page. Names are any text: a slash in one is no step of the path."""
    return "/tools/" + quote(name, safe="")


def client_path(client: str) -> str:
    """Return the path of a client's page."""
    return "/clients/" + quote(client, safe="@")


def several(revisions: Any) -> list[str]:
    """Return revisions as a list, whether they come as one or as text with commas."""
    if isinstance(revisions, str):
        revisions = revisions.split(",")
    return [str(each) for each in revisions or () if each]


def spark(counts: list[int], total: int, noun: str = "call") -> Markup:
    """Draw counts over the range; its title says how many there are."""
    return charts.spark(counts, f"{counted(total, noun)} over time")


def times_median(factor: float) -> str:
    """Return how a latency compares with the median: 12 times, 1.5 times, or as usual."""
    if 0.8 <= factor <= 1.25:
        return "as usual"
    return f"{factor:,.1f} times" if factor < 9.95 else f"{factor:,.0f} times"


def value(of: Any) -> str:
    """Return a JSON value in one short line."""
    if isinstance(of, str):
        return harmless(of, 60)
    try:
        return harmless(json.dumps(of, ensure_ascii=False), 60)
    except (ValueError, RecursionError):
        return "…"
