"""The verbs that help to set something up: checks of a server, the settings, whether a tap is well."""

from __future__ import annotations

import click

from mcp_tap.cli import flags
from mcp_tap.cli.command import verbs, version_line
from mcp_tap.errors import UsageError


@click.command()
@click.argument("url")
@flags.listen
@flags.config
@flags.as_json
@flags.debug
def doctor(*, url: str, listen: str | None, file: str | None, as_json: bool, debug: bool) -> int:
    """Check what works with the server at URL: reach, handshake, streaming, authorization.

    Ends with 3 when the server cannot be reached or does not speak MCP.
    """
    from mcp_tap import doctor as checks

    settings = flags.load(file, {"proxy.upstream": url, "proxy.listen": listen}).settings
    if settings.proxy.upstream.socket:
        raise UsageError("doctor does not reach unix sockets", hint=f"try:  mcp-tap verify {url}")
    return checks.main(settings, as_json=as_json, color=flags.color())


@click.command()
@click.argument("url")
@flags.config
@flags.as_json
@flags.debug
def verify(*, url: str, file: str | None, as_json: bool, debug: bool) -> int:
    """Compare, byte by byte, what the server at URL answers directly and through a temporary tap.

    Sends only methods that read: the handshake of both eras, ping, the lists. Ends with 1 when something differs, with
    3 when the server cannot be reached or does not speak MCP.
    """
    from mcp_tap import verify as verification

    settings = flags.load(file, {"proxy.upstream": url}).settings
    return verification.main(settings, as_json=as_json, color=flags.color())


@click.command()
@click.argument("url", required=False)
@flags.listen
@flags.admin_listen
@flags.store
@flags.config
@click.option("--check", is_flag=True, help="Say only whether the settings are right.")
@click.option("--example", is_flag=True, help="Print a file with every setting and its default.")
@flags.debug
def config(*, url: str | None, listen: str | None, admin_listen: str | None, store: str | None, file: str | None,
           check: bool, example: bool, debug: bool) -> None:  # fmt: skip
    """Print every setting, and where it comes from."""
    if example:
        from mcp_tap.cli.example import example as everything

        click.echo(everything(), nl=False)
        return
    given = {"proxy.upstream": url, "proxy.listen": listen, "admin.listen": admin_listen, "record.store": store}
    loaded = flags.load(file, given)
    if check:
        click.echo("the settings are right")
        return
    from mcp_tap.ui import printout

    click.echo("\n".join(printout.settings(loaded)))


@click.command()
@flags.admin_listen
@flags.config
@flags.debug
def health(*, admin_listen: str | None, file: str | None, debug: bool) -> int:
    """Ask a running tap whether it is well: what a container's HEALTHCHECK runs.

    Ends with 1 where its desk does not answer, or says that something is wrong.
    """
    import httpx

    address = flags.load(file, {"admin.listen": admin_listen}).settings.admin.listen
    # a listener on every interface is reached on this one; nothing listens on a wildcard address
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 - compared, not bound
    url = f"http://{address._replace(host=host)}/healthz"
    try:
        answer = httpx.get(url, trust_env=False, timeout=5, headers={"host": f"localhost:{address.port}"})
    except httpx.HTTPError as error:
        click.echo(f"{url} does not answer ({error})", err=True)
        return 1
    from mcp_tap.ui.text import harmless

    click.echo(harmless(answer.text.strip(), 2000), err=answer.is_error)
    return int(answer.is_error)


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(version_line())


@click.command("help")
@click.argument("verb", required=False)
@click.pass_context
def help_(ctx: click.Context, verb: str | None) -> None:
    """Explain a verb."""
    parent = ctx.parent
    assert parent is not None
    if verb is None:
        click.echo(parent.get_help())
        return
    command = verbs.get_command(parent, verb)
    if command is None:
        raise UsageError(f"there is no verb {verb!r}", hint=f"there are: {', '.join(verbs.commands)}")
    with click.Context(command, info_name=verb, parent=parent) as inner:
        click.echo(command.get_help(inner))
