"""The command itself: from arguments to a verb, and from whatever goes wrong there to words and an exit status."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final, NoReturn

import click

from mcp_tap import __version__
from mcp_tap.errors import TapError, UsageError


class Verbs(click.Group):
    """The verbs; a first argument that looks like a URL means `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `run` in front where a URL comes before any verb: `mcp-tap --listen … URL` is `mcp-tap run …`."""
        for index, argument in enumerate(args):
            if argument in self.commands:
                break
            if _looks_like_url(argument):
                return super().parse_args(ctx, ["run", *args])
            if index == 0 and not argument.startswith("-"):
                break
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order in which they are written here, which is the order of need."""
        return list(self.commands)


def _looks_like_url(argument: str) -> bool:
    return bool(re.match(r"https?://|[\w.-]+:\d+(/|$)", argument, re.IGNORECASE))


def version_line() -> str:
    """Return what this is, and whether its core was compiled when it was installed."""
    return f"mcp-tap {__version__}" + (" (compiled)" if find_spec("mcp_tap__mypyc") is not None else "")


@click.group(cls=Verbs, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", message=version_line())
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
@click.pass_context
def verbs(ctx: click.Context, debug: bool) -> None:
    """Record what happens between MCP clients and a server, without changing a byte of it.

    mcp-tap URL is short for mcp-tap run URL.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit; the one place where an error becomes words and an exit status."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _status(args)
        if sys.stdout is not None:  # None: it was closed before we began
            sys.stdout.flush()
    except BrokenPipeError:  # `mcp-tap sessions | head`: nobody is left to be told anything
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 0
    sys.exit(status)


def _status(args: list[str]) -> int:
    debug = "--debug" in args
    try:
        _refuse_namesake()
        result = verbs.main(args, prog_name="mcp-tap", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        raise
    except click.ClickException as error:
        _complain(*_usage(error))
        return UsageError.exit_status
    except TapError as error:
        if debug:
            traceback.print_exc()
        _complain(str(error), error.hint)
        return error.exit_status
    except Exception as error:  # noqa: BLE001 - whatever it is, people get a sentence
        if debug:
            traceback.print_exc()
        _complain(
            f"{type(error).__name__}: {error}", "this should not happen; the same command with --debug says where"
        )
        return TapError.exit_status


def _complain(message: str, hint: str = "") -> None:
    from mcp_tap.ui.text import harmless

    lines = [f"error: {harmless(message)}", *(f"  {harmless(line.strip())}" for line in hint.splitlines())]
    click.echo("\n".join(lines), err=True)


def _usage(error: click.ClickException) -> tuple[str, str]:
    """Return click's own errors in our shape: lower case, what to do on a line of its own."""
    message = error.format_message().strip()
    message, _, rest = message.partition("\n")
    if "Did you mean" in message:
        message, _, rest = message.partition(" Did you mean")
        rest = f"did you mean{rest}"
    if "(Possible options:" in message:
        message, _, rest = message.partition(" (Possible options:")
        rest = f"did you mean one of{rest.rstrip(').')}?"
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    verb = f" {ctx.info_name}" if ctx is not None and ctx.parent is not None else ""
    hint = "\n".join(line for line in (rest.strip(), f"try:  mcp-tap help{verb}") if line)
    return message[:1].lower() + message[1:].rstrip("."), hint


#: What an installer leaves of a distribution named `mcp-tap`; the names are not always normalised.
_NAMESAKE: Final = re.compile(r"mcp[-_.]tap(-[^-]+)?\.(dist|egg)-info", re.IGNORECASE)


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder or ".")  # noqa: PTH208 - names are enough
    except OSError:
        return []  # a zip file, or nothing at all


def _refuse_namesake() -> None:
    """Stop when the other `mcp-tap`, an unrelated installer, is in the same environment.

    Both own the import package `mcp_tap`, so what runs would be a mixture of the two.
    """
    if not any(_NAMESAKE.fullmatch(name) for folder in sys.path for name in _listed(folder)):
        return  # without its 10 ms of imports
    from importlib import metadata

    try:
        metadata.distribution("mcp-tap")
    except metadata.PackageNotFoundError:
        return
    owners = metadata.packages_distributions().get("mcp_tap", [])
    if "mcp-tap" in owners:
        raise UsageError(
            "another package named mcp-tap is installed here and overwrites parts of this one",
            hint="try:  pip uninstall mcp-tap && pip install --force-reinstall mcp-tap-proxy",
        )
