"""From bytes to facts: HTTP, SSE, JSON-RPC and the rules of MCP, without I/O and without a clock.

Times come in with the bytes, as microseconds since the epoch.
"""
