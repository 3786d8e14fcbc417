"""Does the tap change anything? The same read-only conversation with a server directly and through a temporary tap.

Runs alternate, the first and the last of them direct: what a clock changes between two runs, as a `Date` does, is then
seen to change without the tap. Whatever differs between direct runs "varies by itself" and is left out of the
comparison, by name; all the rest has to be the same to the byte: status line, names, order and values of headers, the
body with its chunk framing, whether the connection is kept, and how and when it ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import urlsplit

import click

from mcp_tap.model import Era, TapError, UpstreamError
from mcp_tap.relay.listener import why_not
from mcp_tap.relay.sockets import upstream_tls
from mcp_tap.ui.terminal import paint
from mcp_tap.ui.text import counted, harmless, json_line
from mcp_tap.values import written
from mcp_tap.verify.comparison import Compared, compare
from mcp_tap.verify.conversation import CONVERSATIONS, ENDS, LEGACY, MODERN, Answer, Conversation, Place, play

if TYPE_CHECKING:
    from mcp_tap.config import Proxy, Settings, Upstream

#: How often the tap is asked everything; the server alone once more than that.
ROUNDS: Final = 5

#: Seconds until the temporary tap has to be ready, and until it has to have ended: it drains for 7 and flushes for 2.
START_LIMIT: Final = 20.0
STOP_LIMIT: Final = 12.0

# -------------------------------------------------------------------------------------------------------- the tap


@contextlib.contextmanager
def temporary_tap(proxy: Proxy) -> Iterator[tuple[str, int]]:
    """Run a tap of its own in front of a server, on free ports and with a store that goes with it; yield its address.

    It gets what ``proxy`` says about the way to the server, and nothing else of the settings that are around: those of
    the listener are for another one. Raises TapError when it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="mcp-tap-verify-") as folder:
        file = Path(folder, "mcp-tap.toml")
        file.write_text(_way_to_server(proxy))
        command = [sys.executable, "-m", "mcp_tap.cli", "run", proxy.upstream.url, "--config", str(file)]
        command += ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        command += ["--store", f"sqlite:///{folder}/tap.db", "--format", "json"]
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("MCP_TAP_")},
            start_new_session=True,  # so that Ctrl-C ends it through us
        )
        try:
            yield _started(process)
        finally:
            process.terminate()
            try:
                process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _way_to_server(proxy: Proxy) -> str:
    """Return the settings that matter for what reaches the server, as a file."""
    given = {"host": proxy.host, "tls_verify": proxy.tls_verify, "connect_timeout": proxy.connect_timeout}
    if proxy.tls_ca is not None:
        given["tls_ca"] = str(Path(proxy.tls_ca).absolute()).replace("$", "$$")
    return "\n".join(["[proxy]", *(f"{name} = {written(value)}" for name, value in given.items()), ""])


def _started(process: subprocess.Popen[str]) -> tuple[str, int]:
    """Read where the tap listens from what it says when it is ready."""
    assert process.stderr is not None
    said, proxy = [], ""
    overdue = threading.Timer(START_LIMIT, process.kill)
    overdue.start()
    try:
        for line in process.stderr:
            word, _, rest = line.strip().partition(" ")
            said.append(line.strip())
            if word == "proxy":
                proxy = rest.split()[0]
            if word == "record":  # the last line: it is ready
                break
    finally:
        overdue.cancel()
    if not proxy:
        raise TapError(f"the temporary tap did not start: {' '.join(said) or 'no word from it'}")
    # What it says from now on has to be read, or it would wait for a reader.
    threading.Thread(target=_drain, args=(process.stderr,), daemon=True).start()
    parts = urlsplit(proxy)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def _drain(stream: Any) -> None:
    with stream:
        for _ in stream:
            pass


# ---------------------------------------------------------------------------------------------------------- the verb


@dataclass(slots=True)
class Report:
    """What was compared, and the paired differences of latency in seconds."""

    url: str
    rounds: int
    exchanges: list[Compared] = field(default_factory=list)
    eras: dict[Era, str] = field(default_factory=dict)  # what the server said to each
    added: list[float] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not any(found.differences for found in self.exchanges)

    @property
    def added_ms(self) -> float:
        """The median of the latency added, in milliseconds."""
        return statistics.median(self.added) * 1000 if self.added else 0.0


def main(settings: Settings, *, as_json: bool, color: bool) -> int:
    """Verify the server behind ``settings``, print what came of it, and return the exit status: 0 same, 1 different.

    Raises UpstreamError when the server cannot be reached or does not speak MCP.
    """
    signal.signal(signal.SIGTERM, _terminated)  # so that the tap ends with us
    upstream = settings.proxy.upstream
    try:
        tls = upstream_tls(settings.proxy)
    except OSError as error:
        raise UpstreamError(f"cannot read the certificates of {settings.proxy.tls_ca}") from error
    direct = Place(upstream.host, upstream.port, upstream.authority, _target(upstream), tls, upstream.socket)
    reach(direct, upstream.url)
    with temporary_tap(settings.proxy) as (host, port):
        report = verify(upstream.url, direct, Place(host, port, f"{host}:{port}", direct.target))
    if as_json:
        for found in report.exchanges:
            click.echo(json_line(asdict(found)))
        summary = {"same": report.same, "rounds": report.rounds, "added_ms": round(report.added_ms, 3)}
        click.echo(json_line(summary | {"eras": report.eras}))
    else:
        click.echo("\n".join(in_words(report, color=color)), color=color)
    return 0 if report.same else 1


def _terminated(_signum: int, _frame: object) -> NoReturn:
    sys.exit(143)


def _target(upstream: Upstream) -> str:
    """Return what stands in the request line: path and query."""
    parts = urlsplit(upstream.url)
    return upstream.path if upstream.socket else (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def reach(place: Place, url: str) -> None:
    """See whether there is an MCP server, before a tap is started. Raises UpstreamError."""
    try:
        opened = [play(hold(), place) for hold in CONVERSATIONS.values()]
    except OSError as error:
        raise UpstreamError(f"{url} cannot be reached: {why_not(error)}", hint="is the server running?") from error
    firsts = [said[0][1] for said in opened]
    if any(first.result is not None for first in firsts):
        return
    if firsts[0].status == 401:
        raise UpstreamError(f"{url} wants a token, and verify has none", hint=f"try:  mcp-tap doctor {url}")
    what = f"HTTP {firsts[0].status}" if firsts[0].status else ENDS[firsts[0].end]
    raise UpstreamError(f"{url} is no MCP server of today: {what}", hint=f"try:  mcp-tap doctor {url}")


def verify(url: str, direct: Place, tapped: Place, rounds: int = ROUNDS) -> Report:
    """Hold every conversation at both places in turn, and compare. Raises UpstreamError when the server goes away."""
    report = Report(url, rounds)
    for era, hold in CONVERSATIONS.items():
        alone, through = [_directly(hold, direct, url)], []
        for _ in range(rounds):
            try:
                through.append(play(hold(), tapped))
            except OSError as error:
                broken = Compared(era, "connect", differences=[f"cannot connect through the tap: {why_not(error)}"])
                report.exchanges.append(broken)
                break
            alone.append(_directly(hold, direct, url))
        if not through:
            continue
        first = alone[0][0][1]
        report.eras[era] = "spoken" if first.result is not None else f"refused with {first.status}"
        _compare_conversations(report, era, alone, through)
    return report


def _directly(hold: Callable[[], Conversation], place: Place, url: str) -> list[tuple[str, Answer]]:
    try:
        return play(hold(), place)
    except OSError as error:
        raise UpstreamError(f"{url} went away: {why_not(error)}") from error


def _compare_conversations(
    report: Report, era: Era, alone: list[list[tuple[str, Answer]]], through: list[list[tuple[str, Answer]]]
) -> None:
    names = [name for name, _ in alone[0]]
    if any([name for name, _ in said] != names for said in alone):
        raise UpstreamError("the server does not answer the same conversation in the same way twice")
    for said in through:
        if (course := [name for name, _ in said]) != names:
            last = course[-1]
            report.exchanges.append(
                Compared(era, last, differences=[f"the conversation ends after {last} through the tap"])
            )
            names = names[: min(len(names), len(course))]
    for index, name in enumerate(names):
        direct, tapped = [said[index][1] for said in alone], [said[index][1] for said in through]
        report.exchanges.append(compare(era, name, direct, tapped))
        if direct[0].end == "kept":
            # Against the mean of the direct ones before and after it: a server that warms up or slows down on the way
            # does not count as the tap's work.
            pairs = zip(direct, tapped, direct[1:], strict=False)
            report.added += [own.seconds - (one.seconds + two.seconds) / 2 for one, own, two in pairs]


def in_words(report: Report, *, color: bool) -> Iterator[str]:
    """Yield what was compared, what came of it, and the latency added."""
    yield f"{harmless(report.url)}, directly and through a temporary tap, {report.rounds} rounds in turn"
    yield "only methods that read were sent; the tap and its recording are gone again"
    for era in Era:
        exchanges = [found for found in report.exchanges if found.era is era]
        if not exchanges:
            continue
        yield ""
        revision = LEGACY if era is Era.LEGACY else MODERN
        yield f"{era} era ({revision}), {report.eras.get(era, 'not compared')}"
        for found in exchanges:
            verdict = (
                paint("different", "red", color=color) if found.differences else paint("same", "green", color=color)
            )
            size = counted(found.bytes, "byte")
            yield f"  {found.exchange:<26} {found.status or '':<4} {size:>13}  {verdict}"
            for difference in found.differences:
                yield f"      {harmless(difference)}"
    varies = sorted({name for found in report.exchanges for name in found.varies if "body" not in name})
    bodies = sorted({found.exchange for found in report.exchanges if any("body" in name for name in found.varies)})
    yield ""
    yield "compared: status line; names, order and values of headers; body and chunk framing; how the connection ends"
    if varies or bodies:
        inside = f"; ids or times in the body of {', '.join(bodies)}" if bodies else ""
        yield harmless(f"varies by itself, so not compared: {', '.join(varies) or 'no header'}{inside}")
    if report.added:
        number = counted(len(report.added), "request")
        yield f"added latency: {report.added_ms:.2f} ms, the median over {number} of the difference to the same request"
        yield "  made directly before and after it, from the request's last byte to the answer's last"
    count = sum(bool(found.differences) for found in report.exchanges)
    yield ""
    yield "the same" if not count else f"{counted(count, 'exchange')} of {len(report.exchanges)} differ through the tap"
