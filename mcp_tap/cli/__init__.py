"""The command line: verbs, their flags, and the one place where errors become exit statuses.

    0    done, also a graceful stop
    1    the answer is no: nothing has that id, a budget is broken, or something unexpected
    2    the command or the configuration can be fixed
    3    the server behind the tap cannot be reached or is no MCP server
    4    the store cannot be opened or read

Whatever a verb needs is imported when it runs: `run` hands its process over to the relay, which must stay small, and
`version` should not wait for a database driver.
"""

from typing import Final

from mcp_tap.cli import keep, look, running, set_up
from mcp_tap.cli.command import main, verbs

__all__ = ["VERBS", "main", "verbs"]

#: The verbs in the order of need, which is that of `help` and of the documentation. A new one is a function and a row.
VERBS: Final = (
    running.run, running.open_, running.demo,
    look.sessions, look.session, look.tail, look.show,
    look.tools, look.clients, look.errors, look.slow, look.connections, look.stats, look.transcript, look.sql,
    keep.export, keep.check, keep.prune,
    set_up.doctor, set_up.verify, set_up.config, set_up.health, set_up.version, set_up.help_,
)  # fmt: skip

for _verb in VERBS:
    verbs.add_command(_verb)
