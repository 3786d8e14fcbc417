"""The settings as a file: what `mcp-tap config --example` prints, and what config.example.toml is."""

from __future__ import annotations

from mcp_tap import config, values


def example() -> str:
    """Return a file with every setting and its default."""
    lines = [
        "# Every value here is the default, but for upstream, which has none. Delete what you do not change.",
        "# A flag beats a MCP_TAP_* variable, which beats this file. Times have a unit (ms, s, m, h, d), sizes too (B,",
        "# kB, MB, GB). $NAME in a string is the value of that environment variable, and $$ a dollar.",
    ]
    section = None
    for setting in config.SETTINGS:
        table, _, key = setting.name.rpartition(".")
        if table != section:
            section = table
            lines += [""] if not table else ["", f"[{table}]"]
        value = setting.default
        if value == config.NO_UPSTREAM:
            value = "http://localhost:9000/mcp"
        silent = "# " if value in (None, "") and setting.name != "record.keep" else ""
        lines += [f"# {setting.help}", f"{silent}{key} = {values.written(setting.sample or value)}"]
    lines += [
        "",
        "# Further servers, each with a listener of its own. Beside these three a table may have host, hosts and",
        "# tls_*; what it leaves out is as in [proxy].",
        "# [[upstream]]",
        '#   name = "shop"',
        '#   url = "http://localhost:9001/mcp"',
        '#   listen = "127.0.0.1:6281"',
    ]
    return "\n".join(lines) + "\n"
