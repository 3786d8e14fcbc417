"""mcp-tap: a flight recorder for MCP traffic."""

__version__ = "0.1.0"
