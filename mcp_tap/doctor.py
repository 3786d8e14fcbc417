"""What would work through the tap: reach, handshake in both eras, streaming, authorization, Host and Origin.

The checks speak to the server directly, as a client would, and leave nothing behind: every session that one of them
opened is deleted. They never ask for anything but the handshake.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import ssl
import time
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin, urlsplit

import click
import httpx
import httpx_sse

from mcp_tap import __version__
from mcp_tap.ui.terminal import paint
from mcp_tap.ui.text import duration, harmless, json_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from mcp_tap.config import Settings

LEGACY: Final = "2025-11-25"
MODERN: Final = "2026-07-28"

#: Seconds for one exchange. Clients give up on `server/discover` after ten.
PATIENCE: Final = 10.0

#: Milliseconds until a handshake counts as slow.
SLOW: Final = 2000.0

#: Bytes of an answer that are looked at.
ENOUGH: Final = 1_000_000

_INFO: Final = {"name": "mcp-tap-doctor", "version": __version__}
_STYLES: Final = {"ok": "green", "warning": "yellow", "problem": "red"}


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"  # it would work, with something to know
    PROBLEM = "problem"  # it would not


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and what to do about it."""

    check: str
    verdict: Verdict
    text: str
    advice: str = ""


@dataclass(slots=True)
class Answer:
    """What came back on one exchange."""

    status: int
    headers: httpx.Headers
    ms: float  # until the head of the answer
    message: dict[str, Any] | None = None  # the JSON-RPC response, if there was one
    event: str = ""  # the type of the first SSE event

    @property
    def streamed(self) -> bool:
        """Whether the answer is an event stream."""
        kind: str = self.headers.get("content-type", "")
        return kind.partition(";")[0].strip().lower() == "text/event-stream"

    @property
    def result(self) -> dict[str, Any] | None:
        """The result of a successful JSON-RPC response."""
        result = (self.message or {}).get("result")
        return result if self.status < 300 and isinstance(result, dict) else None

    @property
    def error(self) -> str:
        """What a refusal said, in words."""
        error = (self.message or {}).get("error")
        said = f": {error.get('code')} {error.get('message')}" if isinstance(error, dict) else ""
        return f"HTTP {self.status}{said}"


def main(settings: Settings, *, as_json: bool, color: bool) -> int:
    """Examine the server behind ``settings``, print what was found, and return the exit status."""
    examination = asyncio.run(examine(settings))
    if as_json:
        click.echo("\n".join(json_line(asdict(finding)) for finding in examination.findings))
    else:
        click.echo("\n".join(report(examination, color=color)), color=color)
    return 0 if examination.works else 3


def report(examination: Examination, *, color: bool) -> Iterable[str]:
    """Yield the checklist: a verdict, what was checked, what was found, and below it what to do."""
    for finding in examination.findings:
        verdict = paint(f"{finding.verdict:<8}", _STYLES[finding.verdict], color=color)
        yield f"{verdict} {finding.check:<10} {harmless(finding.text)}"
        for line in finding.advice.splitlines():
            yield f"{'':19} {harmless(line)}"
    url = examination.settings.proxy.upstream.url
    yield ""
    yield f"it would work:  mcp-tap {harmless(url)}" if examination.works else "it would not work yet"


async def examine(settings: Settings) -> Examination:
    """Run every check that makes sense after the ones before it."""
    examination = Examination(settings)
    if not await examination.reach():
        return examination
    proxy = settings.proxy
    # Neither proxies, nor .netrc, nor cookies of the environment: what is examined is the server.
    async with httpx.AsyncClient(
        trust_env=False, verify=_trust(settings), timeout=PATIENCE, headers={"user-agent": f"mcp-tap/{__version__}"}
    ) as client:
        examination.client = client
        await examination.handshake(proxy.upstream.url)
    return examination


def _trust(settings: Settings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.proxy.tls_ca)
    if not settings.proxy.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@dataclass
class Examination:
    """One run of the checks, and what they found so far."""

    settings: Settings
    findings: list[Finding] = field(default_factory=list)
    works: bool = False
    client: httpx.AsyncClient = field(init=False)

    def ok(self, check: str, text: str) -> None:
        """Note something that works."""
        self.findings.append(Finding(check, Verdict.OK, text))

    def warn(self, check: str, text: str, advice: str = "") -> None:
        """Note something to know."""
        self.findings.append(Finding(check, Verdict.WARNING, text, advice))

    def problem(self, check: str, text: str, advice: str = "") -> None:
        """Note something that does not work."""
        self.findings.append(Finding(check, Verdict.PROBLEM, text, advice))

    # Reach

    async def reach(self) -> bool:
        """Resolve, connect and shake hands as TLS does, each with its time."""
        upstream = self.settings.proxy.upstream
        clock, steps = time.perf_counter, []
        writer = None
        try:
            async with asyncio.timeout(PATIENCE):
                start = clock()
                found = await asyncio.get_running_loop().getaddrinfo(upstream.host, upstream.port, type=1)
                steps.append(f"{found[0][4][0]} resolved in {duration((clock() - start) * 1000)}")
                start = clock()
                _, writer = await asyncio.open_connection(upstream.host, upstream.port)
                steps.append(f"connected in {duration((clock() - start) * 1000)}")
                if upstream.scheme == "https":
                    start = clock()
                    await writer.start_tls(_trust(self.settings), server_hostname=upstream.host)
                    steps.append(f"TLS in {duration((clock() - start) * 1000)}")
        except ssl.SSLCertVerificationError as error:
            advice = 'a private authority:  proxy.tls_ca = "ca.pem" in the configuration'
            self.problem("reach", f"the certificate is not trusted: {error.verify_message}", advice)
            return False
        except (OSError, TimeoutError) as error:
            what = "no answer" if isinstance(error, TimeoutError) else _os_words(error)
            self.problem(
                "reach", f"{upstream.url} cannot be reached: {what}", "is the server running, and at this address?"
            )
            return False
        finally:
            if writer is not None:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        self.ok("reach", ", ".join(steps))
        return True

    # Handshake

    async def handshake(self, url: str, *, redirected: bool = False) -> None:
        """Open a session in the legacy era, ask who is there in the modern one, and go on from the answers."""
        async with self._session(url) as legacy:
            if legacy is None:
                self.problem("legacy", "no answer to initialize", "the server accepts connections and stays silent")
                return None
            if 300 <= legacy.status < 400 and not redirected:
                return await self._redirect(url, legacy)
            if legacy.status == 401:
                return await self._authorization(url, legacy)
            if legacy.status in (403, 421):
                self.problem(
                    "host", f"initialize refused: {legacy.error}", "the server does not accept its own address as Host"
                )
                return None
            self._legacy(legacy)
            if legacy.result is not None:
                await self._stream(url, legacy)
        modern = await self._modern(url, expected=legacy.result is None)
        if legacy.result is None and not modern:
            await self._old_transport(url, legacy)
        if self.works:
            await self._host_and_origin(url)
        return None

    @contextlib.asynccontextmanager
    async def _session(self, url: str, **headers: str) -> AsyncIterator[Answer | None]:
        """Open a session with `initialize` and delete it at the end, whatever happens in between."""
        params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": _INFO}
        answer = await self._post(url, "initialize", params, headers)
        try:
            yield answer
        finally:
            session = answer.headers.get("mcp-session-id") if answer is not None and answer.result is not None else None
            if session:
                with contextlib.suppress(httpx.HTTPError):
                    await self.client.delete(url, headers={"mcp-session-id": session, **_revision(answer), **headers})

    def _legacy(self, answer: Answer) -> None:
        result = answer.result
        if result is None or not isinstance(result.get("protocolVersion"), str):
            return
        self.works = True
        kind = "with a session id" if "mcp-session-id" in answer.headers else "without a session id (stateless)"
        body = "an event stream" if answer.streamed else "JSON"
        server = _name(result.get("serverInfo"))
        told = f"{server} speaks {result['protocolVersion']}, {kind}, answers with {body} in {duration(answer.ms)}"
        if answer.ms > SLOW:
            self.warn("legacy", told, "slow: some clients take a long handshake for a server of the other era")
        else:
            self.ok("legacy", told)

    async def _stream(self, url: str, legacy: Answer) -> None:
        """See whether the server offers a stream of its own; 405 is the way to say no."""
        headers = _revision(legacy)
        if "mcp-session-id" in legacy.headers:
            headers["mcp-session-id"] = legacy.headers["mcp-session-id"]
        await self._post(url, "notifications/initialized", None, headers)
        answer = await self._get(url, headers)
        if answer is None:
            self.warn(
                "stream", "GET has no answer", "streams of the server's own may not work, directly as through the tap"
            )
        elif answer.status == 200 and answer.streamed:
            self.ok("stream", "GET opens an event stream")
        elif answer.status == 405:
            self.ok("stream", "GET is refused with 405: the server offers no stream of its own")
        else:
            self.warn("stream", f"GET is answered with {answer.error}", "an event stream or 405 is expected")

    async def _modern(self, url: str, *, expected: bool) -> bool:
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": _INFO,
        }
        headers = {"mcp-protocol-version": MODERN, "mcp-method": "server/discover"}
        answer = await self._post(url, "server/discover", {"_meta": meta}, headers)
        result = answer.result if answer is not None else None
        if answer is not None and result is not None and isinstance(result.get("supportedVersions"), list):
            self.works = True
            about = result.get("_meta")
            info = about.get("io.modelcontextprotocol/serverInfo") if isinstance(about, dict) else None
            versions = ", ".join(map(str, result["supportedVersions"]))
            self.ok(
                "modern",
                f"{_name(info or result.get('serverInfo'))} speaks {versions}, answers in {duration(answer.ms)}",
            )
            return True
        said = answer.error if answer is not None else "no answer"
        if not expected:
            self.ok("modern", f"not offered ({said}): clients fall back to the legacy era")
        return False

    async def _old_transport(self, url: str, legacy: Answer) -> None:
        """Look for the 2024-11-05 transport: a GET stream whose first event names the URL to post to."""
        answer = await self._get(url, {}, first_event=True)
        if answer is not None and answer.event == "endpoint":
            self.works = True
            self.ok("legacy", "the HTTP+SSE transport of 2024-11-05")
            return
        self.problem(
            "legacy",
            f"this is no MCP endpoint: initialize is answered with {legacy.error}",
            "is the path right? most servers have theirs at /mcp, older ones at /sse",
        )

    # What stands in the way

    async def _redirect(self, url: str, answer: Answer) -> None:
        target = urljoin(url, answer.headers.get("location", ""))
        same = urlsplit(target)[:2] == urlsplit(url)[:2]
        advice = f"give the tap the final address:  mcp-tap {target}"
        if not same:
            advice += "\nthis one leads away from the server, so clients would go past the tap"
        self.warn("redirect", f"{answer.status} to {target}", advice)
        if same and answer.status in (307, 308):
            await self.handshake(target, redirected=True)

    async def _authorization(self, url: str, answer: Answer) -> None:
        """Find the protected resource metadata (RFC 9728) and see whether it names the tap's address."""
        self.works = True
        challenge = answer.headers.get("www-authenticate", "")
        path = urlsplit(url).path.rstrip("/")
        well_known = "/.well-known/oauth-protected-resource"
        named = re.search(r'resource_metadata\s*=\s*"([^"]*)"', challenge)
        places = [urljoin(url, named[1])] if named else [urljoin(url, well_known + path), urljoin(url, well_known)]
        resource = None
        for place in places:
            if resource is None and urlsplit(place).scheme in ("http", "https"):
                resource = await self._resource(place)
        told = f"the server wants a token ({challenge.split(' ')[0] or 'no WWW-Authenticate'})"
        tap = f"http://{self.settings.proxy.listen}{path}"
        if resource is None:
            self.warn("oauth", f"{told} and names no resource", "send a token in the client's own headers")
        elif _covers(resource, tap):
            self.ok("oauth", f"{told} for {resource}, which is the tap's address")
        else:
            # Clients compare the resource with the URL they dialled (RFC 9728 §3.3) and stop where it differs.
            self.warn(
                "oauth",
                f"{told} for {resource}; clients that log in through {tap} will refuse that",
                "give the tap the server's public address (put it behind the same name),\n"
                f"or make {tap} the server's public URL, or send a token in the client's own headers",
            )
        self.warn("legacy", "not checked without a token")

    async def _resource(self, place: str) -> str | None:
        with contextlib.suppress(httpx.HTTPError, ValueError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                answer = await self.client.get(place, headers={"accept": "application/json"})
            document = answer.json() if answer.status_code == 200 else None
            if isinstance(document, dict) and isinstance(document.get("resource"), str):
                return str(document["resource"])
        return None

    async def _host_and_origin(self, url: str) -> None:
        """See whether the server accepts the Host it would get from the tap, and refuses a foreign Origin."""
        proxy = self.settings.proxy
        kept = proxy.host == "keep" or (proxy.host == "auto" and _loopback(proxy.upstream.host))
        if kept:
            host = str(proxy.listen)
            async with self._session(url, host=host) as answer:
                if answer is not None and answer.status in (403, 421):
                    advice = 'let the tap send the server\'s own:  host = "upstream" in [proxy]'
                    self.problem("host", f"the server refuses Host {host}: {answer.error}", advice)
                    self.works = False
                else:
                    self.ok("host", f"the server accepts Host {host}, which clients of the tap send")
        else:
            self.ok("host", f"the tap sends Host {proxy.upstream.authority if proxy.host == 'auto' else proxy.host}")
        async with self._session(url, origin="http://attacker.invalid") as answer:
            if answer is not None and answer.status in (403, 421):
                self.ok("origin", "a foreign Origin is refused")
            else:
                # Streamable HTTP 2025-11-25, security: an invalid Origin must get 403.
                self.warn(
                    "origin",
                    "a foreign Origin is accepted",
                    "any web page may call this server; the tap changes nothing",
                )

    # Exchanges

    async def _post(self, url: str, method: str, params: Any, headers: dict[str, str]) -> Answer | None:
        body: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if not method.startswith("notifications/"):
            body["id"] = 1
        if params is not None:
            body["params"] = params
        accept = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
        return await self._exchange("POST", url, accept | headers, json.dumps(body).encode())

    async def _get(self, url: str, headers: dict[str, str], *, first_event: bool = False) -> Answer | None:
        accept = {"accept": "text/event-stream"}
        return await self._exchange("GET", url, accept | headers, None, first_event=first_event)

    async def _exchange(
        self, verb: str, url: str, headers: dict[str, str], body: bytes | None, *, first_event: bool = False
    ) -> Answer | None:
        """Return the answer, read as far as it matters: a stream only up to its first event or response."""
        start = time.perf_counter()
        answer = None
        with contextlib.suppress(httpx.HTTPError, httpx_sse.SSEError, TimeoutError):
            async with (
                asyncio.timeout(PATIENCE),
                self.client.stream(verb, url, headers=headers, content=body) as response,
            ):
                answer = Answer(response.status_code, response.headers, (time.perf_counter() - start) * 1000)
                if not answer.streamed:
                    answer.message = _json_object(await _some(response))
                elif body is not None or first_event:
                    await _first(response, answer)
        return answer


async def _some(response: httpx.Response) -> bytes:
    """Return the body, or its first part where it is long."""
    data = b""
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > ENOUGH:
            break
    return data


async def _first(response: httpx.Response, answer: Answer) -> None:
    """Read a stream up to its first event, or to the JSON-RPC response where events come before that."""
    async for event in httpx_sse.EventSource(response).aiter_sse():
        answer.event = answer.event or event.event
        answer.message = _json_object(event.data.encode())
        if event.event == "endpoint" or (answer.message and "id" in answer.message and "method" not in answer.message):
            break


def _json_object(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _revision(answer: Answer | None) -> dict[str, str]:
    """Return the header that later requests of a session carry."""
    revision = ((answer.result if answer is not None else None) or {}).get("protocolVersion")
    return {"mcp-protocol-version": revision} if isinstance(revision, str) and revision.isascii() else {}


def _name(info: Any) -> str:
    if not isinstance(info, dict):
        return "the server"
    return f"{info.get('name') or 'the server'} {info.get('version') or ''}".strip()


def _covers(resource: str, url: str) -> bool:
    """Whether a client that dialled ``url`` accepts ``resource``: same origin, and a path that it begins with."""
    named, dialled = urlsplit(resource), urlsplit(url)
    return named[:2] == dialled[:2] and f"{dialled.path.rstrip('/')}/".startswith(f"{named.path.rstrip('/')}/")


def _os_words(error: OSError) -> str:
    """Return what the system calls an error; asyncio adds words and addresses, and joins those of several attempts."""
    named = re.search(r"\[Errno (\d+)\]", str(error))
    return (os.strerror(int(named[1])) if named else error.strerror or str(error)).lower()


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
