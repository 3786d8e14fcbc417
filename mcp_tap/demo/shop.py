"""What the sample server offers: a small shop for outdoor gear that also knows the weather.

No wire in here. A tool gets its arguments and the `Caller` at the other end, and returns the result's content. Every
answer is the same each time, so that a recording of the demonstration can be read beside this file.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Json = dict[str, Any]

INVALID_PARAMS: Final = -32602
RATE_LIMITED: Final = -32000  # from the range JSON-RPC 2.0 leaves to servers


class RpcError(Exception):
    """A request that is answered with a JSON-RPC error object instead of a result."""

    def __init__(self, code: int, message: str, data: Json | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class ToolError(Exception):
    """A tool that ran and failed: a result with `isError`, which the model at the client's end gets to read."""


class Caller(Protocol):
    """The client at the other end of one call, whichever era it speaks."""

    async def progress(self, done: int, total: int, message: str) -> None:
        """Tell the client how far the call is, if it asked to be told."""

    async def ask(self, key: str, message: str, schema: Json) -> Json:
        """Have the person at the client fill in ``schema`` and return the answer. ToolError when it is declined."""


PRODUCTS: Final[list[Json]] = [
    {"sku": "UMB-01", "name": "Storm umbrella", "cents": 4999, "stock": 12},
    {"sku": "UMB-02", "name": "Pocket umbrella", "cents": 1999, "stock": 0},
    {"sku": "JKT-07", "name": "Rain jacket", "cents": 12900, "stock": 4},
    {"sku": "BTS-03", "name": "Rubber boots", "cents": 5900, "stock": 9},
]

WEATHER: Final = {
    "Hamburg": {"condition": "rain", "celsius": 11},
    "Lisbon": {"condition": "sun", "celsius": 24},
    "Oslo": {"condition": "snow", "celsius": -2},
}

OPENING_HOURS: Final = "Monday to Friday 9:00 to 18:00, Saturday 10:00 to 14:00. Closed when it is sunny."


class Shop:
    """The shop's state: which orders were refused how often. ``seconds`` scales every wait, for tests."""

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        self._refused: dict[str, int] = {}
        self._imported = False
        self.tools: dict[str, Callable[[Json, Caller], Awaitable[Json]]] = {
            "search_products": self._search_products,
            "get_weather": self._get_weather,
            "create_payment": self._create_payment,
            "import_catalog": self._import_catalog,
            "slow_report": self._slow_report,
            "book_delivery": self._book_delivery,
        }

    def listed(self) -> list[Json]:
        """Return the definitions of the tools: once the catalog is imported, search knows what is in stock."""
        if not self._imported:
            return TOOLS
        return [_with_stock(tool) if tool["name"] == "search_products" else tool for tool in TOOLS]

    def take_import(self) -> bool:
        """Take note that the catalog was imported, and return whether that changed the definitions of the tools."""
        changed, self._imported = not self._imported, True
        return changed

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self._seconds)

    async def _search_products(self, arguments: Json, _: Caller) -> Json:
        await self._pause(0.03)
        wanted = _string(arguments, "query").lower()
        least = 1 if self._imported and arguments.get("in_stock") is True else 0
        found = [p for p in PRODUCTS if wanted in p["name"].lower() and p["stock"] >= least]
        lines = [f"{p['sku']}  {p['name']}" for p in found]
        return {"content": _text("\n".join(lines) or "nothing found"), "structuredContent": {"products": found}}

    async def _get_weather(self, arguments: Json, _: Caller) -> Json:
        await self._pause(0.02)
        city = _string(arguments, "city")
        if city not in WEATHER:
            raise ToolError(f"no weather station in {city}; known are {', '.join(WEATHER)}")
        now = WEATHER[city]
        return {"content": _text(f"{city}: {now['condition']}, {now['celsius']} °C"), "structuredContent": now}

    async def _create_payment(self, arguments: Json, _: Caller) -> Json:
        """Refuse each order twice and take it at the third try: the story of a retry that ends well."""
        order = _string(arguments, "order")
        await self._pause(0.05)
        refused = self._refused.pop(order, 0)
        if refused < 2:
            if len(self._refused) < 1000:
                self._refused[order] = refused + 1
            raise RpcError(RATE_LIMITED, "rate limited: try again", {"retryAfterMs": 100})
        await self._pause(0.2)
        # as many servers do: JSON inside of the text; the receipt's token lets its holder ask for the money back
        receipt = {"order": order, "paid": True, "receipt": f"R-{order}", "refund_token": f"demo-refund-{order}"}
        return {"content": _text(json.dumps(receipt))}

    async def _import_catalog(self, _: Json, caller: Caller) -> Json:
        for done, product in enumerate(PRODUCTS, 1):
            await self._pause(0.1)
            await caller.progress(done, len(PRODUCTS), f"imported {product['sku']}")
        return {"content": _text(f"{len(PRODUCTS)} products imported")}

    async def _slow_report(self, _: Json, __: Caller) -> Json:
        await self._pause(1.5)
        return {"content": _text("42 umbrellas sold this month")}

    async def _book_delivery(self, arguments: Json, caller: Caller) -> Json:
        order = _string(arguments, "order")
        day = {"type": "string", "enum": ["Monday", "Tuesday"], "description": "delivery day"}
        schema = {"type": "object", "properties": {"day": day}, "required": ["day"]}
        answer = await caller.ask("day", f"Which day shall order {order} come?", schema)
        return {"content": _text(f"order {order} comes on {answer.get('day')}")}


def read_resource(uri: str, not_found: int) -> Json:
    """Return the contents of a resource, or raise RpcError with the code its era has for an unknown one."""
    if uri != "shop://opening-hours":
        raise RpcError(not_found, f"no resource {uri}", {"uri": uri})
    return {"contents": [{"uri": uri, "mimeType": "text/plain", "text": OPENING_HOURS}]}


def get_prompt(name: str, arguments: Json) -> Json:
    """Return the messages of a prompt."""
    if name != "recommend_gear":
        raise RpcError(INVALID_PARAMS, f"no prompt {name}")
    text = f"What do I need in {_string(arguments, 'city')} today? Look at the weather first, then search the shop."
    return {"messages": [{"role": "user", "content": {"type": "text", "text": text}}]}


def _text(text: str) -> list[Json]:
    return [{"type": "text", "text": text}]


def _string(arguments: Json, name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not value:
        raise RpcError(INVALID_PARAMS, f"argument {name} must be a string")
    return value


def _tool(name: str, description: str, arguments: Json | None = None, *, read_only: bool = True) -> Json:
    arguments = arguments or {}
    properties = {key: {"type": "string", "description": text} for key, text in arguments.items()}
    return {
        "name": name,
        "description": description,
        "inputSchema": {"type": "object", "properties": properties, "required": list(arguments)},
        "annotations": {"readOnlyHint": read_only},
    }


def _with_stock(tool: Json) -> Json:
    """Return the second version of a definition: one argument more, which nobody has to give."""
    schema = tool["inputSchema"]
    in_stock = {"type": "boolean", "description": "only what can be delivered at once", "default": False}
    return tool | {"inputSchema": schema | {"properties": schema["properties"] | {"in_stock": in_stock}}}


TOOLS: Final = [
    _tool("search_products", "Search the shop.", {"query": "part of a product's name"}),
    _tool("get_weather", "The weather in a city now.", {"city": "name of the city"}),
    _tool(
        "create_payment",
        "Pay for an order.",
        {"order": "order number", "card_token": "token of a stored card"},
        read_only=False,
    ),
    _tool("import_catalog", "Import all products; tells its progress.", read_only=False),
    _tool("slow_report", "Sales of the month. Takes a while."),
    _tool("book_delivery", "Choose the day of delivery; asks for it.", {"order": "order number"}, read_only=False),
]

RESOURCES: Final = [{"uri": "shop://opening-hours", "name": "opening-hours", "mimeType": "text/plain"}]

PROMPTS: Final = [
    {
        "name": "recommend_gear",
        "description": "What to wear in a city.",
        "arguments": [{"name": "city", "required": True}],
    }
]
