"""A client made with the Python SDK, 1.x or 2.x: URL MODE CALLS, where CALLS is JSON: [[tool, arguments], …].

Connects, lists the tools, makes the calls one after another, closes, and prints what happened as JSON. MODE is legacy
or auto (2.x only: probe with `server/discover`, else `initialize`). A URL that ends in /sse is spoken to by the
2024-11-05 transport. Runs in an environment that has nothing of ours.
"""
# mypy: ignore-errors
# The two SDKs have different names for the same things, and neither is installed where types are checked.

import asyncio
import contextlib
import json
import sys
from importlib.metadata import version

from mcp.types import Implementation

INFO = Implementation(name="python-sdk", version=version("mcp"))


@contextlib.asynccontextmanager
async def connected(url, mode):
    """Yield the session, the server's name and the revision."""
    if url.endswith("/sse"):
        from mcp import ClientSession
        from mcp.client.sse import sse_client

        async with sse_client(url) as (read, write), ClientSession(read, write, client_info=INFO) as it:
            opened = await it.initialize()
            # snake case in 2.x
            server = getattr(opened, "server_info", None) or opened.serverInfo
            yield it, server.name, getattr(opened, "protocol_version", None) or opened.protocolVersion
        return
    try:
        from mcp import Client
    except ImportError:
        from mcp import ClientSession
        from mcp.client.streamable_http import streamable_http_client

        async with streamable_http_client(url) as (read, write, _), ClientSession(read, write, client_info=INFO) as it:
            opened = await it.initialize()
            yield it, opened.serverInfo.name, opened.protocolVersion
    else:
        async with Client(url, mode=mode, client_info=INFO) as it:
            yield it, it.server_info.name, it.protocol_version


async def main(url, mode, calls):
    made = []
    async with connected(url, mode) as (session, server, revision):
        tools = [tool.name for tool in (await session.list_tools()).tools]
        for name, arguments in calls:
            if name == "sleep":  # no tool: the client itself pauses
                await asyncio.sleep(arguments["seconds"])
                continue
            progress = []

            async def told(done, total, message, progress=progress):
                progress.append(done)

            try:
                result = await session.call_tool(name, arguments, progress_callback=told)
                # isError in 1.x, is_error in 2.x
                failed = getattr(result, "is_error", None) or getattr(result, "isError", False)
                outcome = "tool_error" if failed else "ok"
            except Exception as error:  # McpError in 1.x, MCPError in 2.x
                outcome = f"{type(error).__name__}: {error}"
            made.append({"name": name, "outcome": outcome, "progress": progress})
    print(json.dumps({"server": server, "revision": revision, "tools": tools, "calls": made}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
