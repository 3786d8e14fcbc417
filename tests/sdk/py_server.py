"""An MCP server made with the Python SDK, 1.x or 2.x: prints its port, serves until SIGTERM.

Serves /mcp by streamable HTTP, or with the argument /sse that path by the 2024-11-05 transport.

Runs in an environment that has one major version of the SDK and nothing of ours.
"""
# mypy: ignore-errors
# The two SDKs have different names for the same things, and neither is installed where types are checked.

import asyncio
import socket
import sys

import uvicorn

try:
    from mcp.server.mcpserver import Context, MCPServer

    server = MCPServer("calculator", log_level="ERROR")
except ModuleNotFoundError:
    from mcp.server.fastmcp import Context
    from mcp.server.fastmcp import FastMCP as MCPServer

    server = MCPServer("calculator", log_level="ERROR")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def fail(reason: str) -> str:
    """Fail."""
    raise ValueError(reason)


@server.tool()
async def count(to: int, ctx: Context) -> str:
    """Count, telling the progress."""
    for number in range(to):
        await asyncio.sleep(0.02)
        await ctx.report_progress(number + 1, to)
    return "done"


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    # asyncio does that for sockets that name their protocol, which this one does not: an answer's second part would
    # wait 40 ms for the client's acknowledgement of its first
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print(listener.getsockname()[1], flush=True)
    old = sys.argv[1:] == ["/sse"]
    app = server.sse_app() if old else server.streamable_http_app()
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])
