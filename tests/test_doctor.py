"""The checks against real servers: the sample server, and small ones that are wrong in one way each."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from mcp_tap import doctor
from mcp_tap.config import Proxy, Settings, Upstream
from mcp_tap.demo.server import serve
from mcp_tap.doctor import Examination, Verdict, examine


def settings(url: str, *, host: str = "auto") -> Settings:
    authority, _, path = url.removeprefix("http://").partition("/")
    name, _, port = authority.partition(":")
    return Settings(proxy=Proxy(upstream=Upstream(url, "http", name, int(port), f"/{path}"), host=host))


@asynccontextmanager
async def serving(app: Starlette) -> AsyncIterator[str]:
    """Serve an application on a free port of the loopback and yield its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1, lifespan="off"))
    task = asyncio.ensure_future(server.serve([listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


def examined(app: Starlette, path: str = "/mcp", **values: object) -> Examination:
    async def run() -> Examination:
        async with serving(app) as address:
            return await examine(settings(address + path, **values))  # type: ignore[arg-type]

    return asyncio.run(run())


def found(examination: Examination, check: str) -> list[tuple[str, str]]:
    return [(finding.verdict.value, finding.text) for finding in examination.findings if finding.check == check]


class Server:
    """A legacy server that keeps a list of what is open."""

    def __init__(
        self, *, session: bool = True, sse: bool = False, refuse: Callable[[Request], bool] | None = None
    ) -> None:
        self.session, self.sse, self.refuse = session, sse, refuse
        self.open: set[str] = set()
        self.opened = 0
        self.app = Starlette(routes=[Route("/mcp", self.answer, methods=["GET", "POST", "DELETE"])])

    async def answer(self, request: Request) -> Response:
        if self.refuse is not None and self.refuse(request):
            return PlainTextResponse("Invalid Host header", 421)
        if request.method == "DELETE":
            self.open.remove(request.headers["mcp-session-id"])
            return Response(status_code=200)
        if request.method == "GET":
            return Response(status_code=405)
        message = await request.json()
        if message["method"] == "notifications/initialized":
            return Response(status_code=202)
        if message["method"] != "initialize":
            error = {"code": -32600, "message": "\x1b[2Jmissing session"}
            return JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, 400, {"mcp-session-id": "phantom"})
        result = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "serverInfo": {"name": "weather", "version": "0.4"},
        }
        body = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        headers = {}
        if self.session:
            self.opened += 1
            headers["mcp-session-id"] = f"session-{self.opened}"
            self.open.add(f"session-{self.opened}")
        if self.sse:
            return StreamingResponse(self.stream(body), media_type="text/event-stream", headers=headers)
        return JSONResponse(body, headers=headers)

    async def stream(self, body: object) -> AsyncIterator[str]:
        yield ": a comment\n\n"
        yield 'data: {"jsonrpc":"2.0","method":"notifications/message","params":{}}\n\n'
        yield f"data: {json.dumps(body)}\n\n"


def test_the_sample_server_speaks_both_eras() -> None:
    async def run() -> Examination:
        server = await serve()
        try:
            return await examine(settings(server.url))
        finally:
            await server.stop()

    examination = asyncio.run(run())
    assert examination.works
    assert [finding.check for finding in examination.findings] == [
        "reach", "legacy", "stream", "modern", "host", "origin",
    ]  # fmt: skip
    assert Verdict.PROBLEM not in {finding.verdict for finding in examination.findings}
    assert "weather-shop 1.0.0 speaks 2025-11-25, with a session id" in found(examination, "legacy")[0][1]
    assert "2026-07-28" in found(examination, "modern")[0][1]


@pytest.mark.parametrize("sse", [False, True])
@pytest.mark.parametrize("session", [False, True])
def test_a_legacy_server_keeps_no_session_of_ours(sse: bool, session: bool) -> None:
    server = Server(session=session, sse=sse)
    examination = examined(server.app)
    assert examination.works
    told = found(examination, "legacy")[0][1]
    assert told.startswith("weather 0.4 speaks 2025-06-18, with")
    assert ("stateless" in told, "an event stream" in told) == (not session, sse)
    assert found(examination, "stream") == [("ok", "GET is refused with 405: the server offers no stream of its own")]
    assert found(examination, "modern")[0][0] == "ok"
    assert "missing session" in found(examination, "modern")[0][1]
    assert found(examination, "origin")[0][0] == "warning"
    assert server.opened == (3 if session else 0)
    assert server.open == set()


def test_a_server_that_refuses_the_host_of_the_tap() -> None:
    server = Server(refuse=lambda request: request.headers["host"].endswith(":6278"))
    examination = examined(server.app)
    assert not examination.works
    [finding] = [each for each in examination.findings if each.check == "host"]
    assert finding.verdict == Verdict.PROBLEM
    assert "421" in finding.text
    assert 'host = "upstream"' in finding.advice
    assert examined(server.app, host="upstream").works


def test_a_server_that_refuses_foreign_origins() -> None:
    server = Server(refuse=lambda request: "origin" in request.headers)
    assert found(examined(server.app), "origin") == [("ok", "a foreign Origin is refused")]


def test_a_server_that_is_no_mcp_server() -> None:
    examination = examined(Starlette(), "/nothing")
    assert not examination.works
    [finding] = [each for each in examination.findings if each.verdict == Verdict.PROBLEM]
    assert "HTTP 404" in finding.text
    assert "/mcp" in finding.advice


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_nobody_there(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    examination = asyncio.run(examine(settings(f"http://{host}:{port}/mcp")))
    assert not examination.works
    assert [finding.check for finding in examination.findings] == ["reach"]
    assert examination.findings[0].text.endswith("cannot be reached: connection refused")


def test_the_transport_of_2024_11_05() -> None:
    async def stream() -> AsyncIterator[str]:
        yield "event: endpoint\ndata: /messages?session=1\n\n"
        await asyncio.Event().wait()

    async def sse(_: Request) -> Response:
        return StreamingResponse(stream(), media_type="text/event-stream")

    examination = examined(Starlette(routes=[Route("/sse", sse)]), "/sse")
    assert examination.works
    assert found(examination, "legacy") == [("ok", "the HTTP+SSE transport of 2024-11-05")]


def test_a_redirect_is_followed_once_and_told() -> None:
    server = Server()

    async def redirect(_: Request) -> Response:
        return RedirectResponse("/mcp", 307)

    server.app.router.routes.append(Route("/mcp/", redirect, methods=["GET", "POST"]))
    examination = examined(server.app, "/mcp/")
    assert examination.works
    [finding] = [each for each in examination.findings if each.check == "redirect"]
    assert finding.verdict == Verdict.WARNING
    assert finding.advice.endswith("/mcp")
    assert server.open == set()


def test_a_redirect_without_end_ends() -> None:
    async def redirect(_: Request) -> Response:
        return RedirectResponse("/mcp", 307)

    assert not examined(Starlette(routes=[Route("/mcp", redirect, methods=["GET", "POST"])])).works


PROTECTED = "/.well-known/oauth-protected-resource"


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("resource", "verdict"),
    [
        ("http://127.0.0.1:6278/mcp", "ok"),
        ("http://127.0.0.1:6278", "ok"),
        ("http://127.0.0.1:6278/mc", "warning"),
        ("https://api.example.com/mcp", "warning"),
        (None, "warning"),
    ],
)
def test_a_token_and_whom_it_is_for(resource: str | None, verdict: str, named: bool) -> None:
    async def refuse(_: Request) -> Response:
        return Response(status_code=401, headers={"www-authenticate": f"Bearer {challenge}"})

    async def metadata(_: Request) -> Response:
        return JSONResponse({"resource": resource})

    challenge = f'resource_metadata="{PROTECTED}/elsewhere"' if named else 'realm="x"'
    place = f"{PROTECTED}/elsewhere" if named else f"{PROTECTED}/mcp"
    app = Starlette(routes=[Route("/mcp", refuse, methods=["POST"]), Route(place, metadata)])
    examination = examined(app)
    assert examination.works
    [(came_out, text)] = found(examination, "oauth")
    assert came_out == verdict
    assert "Bearer" in text
    assert resource is None or resource in text


def test_a_server_that_closes_without_a_word() -> None:
    async def run() -> Examination:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await examine(settings(f"http://127.0.0.1:{port}/mcp"))

    examination = asyncio.run(run())
    assert not examination.works
    assert found(examination, "legacy") == [("problem", "no answer to initialize")]


def test_what_a_server_says_reaches_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server()

    async def run(as_json: bool) -> int:
        async with serving(server.app) as address:
            return await asyncio.to_thread(doctor.main, settings(f"{address}/mcp"), as_json=as_json, color=False)

    assert asyncio.run(run(as_json=False)) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "\\x1b[2Jmissing session" in text
    assert "it would work:  mcp-tap http://127.0.0.1:" in text
    assert asyncio.run(run(as_json=True)) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {tuple(line) for line in lines} == {("check", "verdict", "text", "advice")}
