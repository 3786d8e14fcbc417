"""`python -m mcp_tap.cli` is the command `mcp-tap`."""

from mcp_tap.cli import main

if __name__ == "__main__":
    main()
