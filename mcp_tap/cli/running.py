"""The verbs that run something: the tap, the desk on a recording, the demonstration."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import click

from mcp_tap.cli import flags

if TYPE_CHECKING:
    from mcp_tap.config import Address, Settings


@click.command()
@click.argument("url", required=False)
@flags.listen
@flags.admin_listen
@flags.store
@flags.config
@click.option("--bodies", type=click.Choice(["none", "redacted", "full"]), help="What is kept of bodies. [redacted]")
@click.option("--format", type=click.Choice(["text", "json", "none"]), help="The live view. [text; json in a pipe]")
@flags.debug
def run(*, url: str | None, listen: str | None, admin_listen: str | None, store: str | None, file: str | None,
        bodies: str | None, format: str | None, debug: bool) -> NoReturn:  # fmt: skip  # noqa: A002 - the flag's name
    """Stand in front of the server at URL and record.

    Clients connect to http://127.0.0.1:6278 with the path of URL. Ends at Ctrl-C or SIGTERM, after the calls in
    flight.
    """
    loaded = flags.load(
        file,
        {
            "proxy.upstream": url,
            "proxy.listen": listen,
            "admin.listen": admin_listen,
            "record.store": store,
            "record.bodies": bodies,
            "format": format,
            "debug": "true" if debug else None,
        },
    )
    settings = loaded.to_run()
    if loaded.origins["format"] == "default" and not sys.stdout.isatty():
        settings = replace(settings, format="json")  # a pipe is read by programs
    become_relay(settings)


def become_relay(settings: Settings) -> NoReturn:
    """Replace this process by the relay, which starts everything else.

    It is exec'ed, so that it holds nothing of the command line, and nothing that a recorder needs is imported on the
    way: clients may be waiting.
    """
    fd = settings.to_file()
    os.set_inheritable(fd, True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, "-m", "mcp_tap.relay", str(fd)], _environment())


def _environment() -> dict[str, str]:
    """Return the environment for a relay.

    Python's own allocator gives an arena of 1 MB back when nothing at all is left in it: after ten thousand streams a
    relay kept 55 % of what they had taken. glibc's malloc gives back by the page, which leaves 5 %, for 4 % more time.
    """
    name = "CS_GNU_LIBC_VERSION"
    if name not in os.confstr_names or not os.confstr(name):
        return dict(os.environ)
    return {"PYTHONMALLOC": "malloc"} | os.environ


@click.command("open")
@click.argument("recording", metavar="FILE")
@flags.admin_listen
@flags.config
@flags.debug
def open_(*, recording: str, admin_listen: str | None, file: str | None, debug: bool) -> int:
    """Show the recording in FILE on the desk, with no proxy, until Ctrl-C.

    FILE is a path or the URL of a store. A recording that is being written may be opened, too.
    """
    url = recording if "://" in recording else f"sqlite:///{recording}"
    loaded = flags.load(file, {"record.store": url, "admin.listen": admin_listen})
    settings = loaded.settings
    if loaded.origins["admin.listen"] == "default":  # where a tap is running it has that port, and its own desk
        settings = replace(settings, admin=replace(settings.admin, listen=_free(settings.admin.listen)))
    from mcp_tap import app
    from mcp_tap.store.sqlite.file import frozen, location

    if frozen(location(url)):
        click.echo("note: the directory cannot be written, so what is written meanwhile does not appear", err=True)
    return app.serve_file(settings)


def _free(address: Address) -> Address:
    """Return the address, with a port that the system chooses where its own is taken."""
    import socket

    try:
        socket.create_server((address.host, address.port)).close()
    except OSError:
        return address._replace(port=0)
    return address


@click.command()
@click.option("--once", is_flag=True, help="Play one round, print a summary and end.")
@flags.listen
@flags.admin_listen
@flags.store
@flags.debug
def demo(*, once: bool, listen: str | None, admin_listen: str | None, store: str | None, debug: bool) -> int:
    """Run a sample server, the tap and sample clients, to look around."""
    from mcp_tap import demo as demonstration

    return demonstration.main(once=once, store=store, listen=listen, admin_listen=admin_listen)
