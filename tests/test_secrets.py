"""A secret goes through the whole tap in every way that it can, and is looked for wherever something comes out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from httpx_sse import aconnect_sse

from tests.tap import HEADERS, PATIENCE, Tap, rpc, running

SECRET = "tk-9f8e7d6c5b4a-canary-3210"
SESSION = "0d9c7f2e-session-that-is-a-key"

#: What a tool answers: the secret under names, in texts, in JSON inside of JSON and inside of strings.
TOLD = {
    "content": [
        {"type": "text", "text": f"your token is {SECRET}"},
        {"type": "text", "text": json.dumps({"deep": json.dumps({"password": SECRET})})},
    ],
    "structuredContent": {"api_key": SECRET, "nested": [{"client_secret": SECRET}, SECRET]},
}

PAGES = (
    "/", "/sessions", "/tools", "/tools/leak", "/clients", "/errors", "/slow", "/connections", "/live", "/healthz",
    "/sessions?q=text:canary", "/export.csv?bodies=1", "/export.jsonl?bodies=1",
    "/api", "/api/sessions", "/api/connections", "/api/messages", "/api/events", "/api/tools", "/api/tools/leak",
    "/api/clients", "/api/errors", "/api/slow", "/api/session-errors", "/api/openapi.json",
)  # fmt: skip


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Be a server that tells what it knows: one request for each connection."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:  # somebody looked whether anybody is here
        writer.close()
        return
    length = next((int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-len")), 0)
    asked = json.loads(await reader.readexactly(length) or b"{}")
    method, params = asked.get("method"), asked.get("params", {})
    status, kind, more = "200 OK", "application/json", ""
    answer: dict[str, object] = {"jsonrpc": "2.0", "id": asked.get("id"), "result": TOLD}
    if method == "initialize":
        info = {"name": "leaky", "version": "1"}
        answer["result"] = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": info}
        more = f"mcp-session-id: {SESSION}\r\n"
    elif params.get("name") == "fails":
        del answer["result"]
        answer["error"] = {"code": -32000, "message": f"bad token {SECRET}", "data": {"authorization": SECRET}}
    elif params.get("name") == "refuses":
        status, kind = "500 Oh", "text/plain"
    text = f"no entry for Bearer {SECRET}" if kind == "text/plain" else json.dumps(answer)
    if params.get("name") == "streams":
        log = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": TOLD}}
        kind, text = "text/event-stream", f"data: {json.dumps(log)}\n\ndata: {json.dumps(answer)}\n\n"
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(text)}\r\nset-cookie: sid={SECRET}\r\n"
    writer.write(f"{head}{more}connection: close\r\n\r\n{text}".encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()


@asynccontextmanager
async def leaky() -> AsyncIterator[str]:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"


async def _converse(http: httpx.AsyncClient, url: str) -> None:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "tester", "version": "1"}}
    known = HEADERS | {"authorization": f"Bearer {SECRET}", "x-api-key": SECRET, "cookie": f"sid={SECRET}"}
    await http.post(url, json=rpc("initialize", 0, **params), headers=known)
    known |= {"mcp-session-id": SESSION, "mcp-protocol-version": "2025-11-25"}
    arguments = {"password": SECRET, "note": f"use {SECRET}", "inner": json.dumps({"token": SECRET, "of": [SECRET]})}
    for number, tool in enumerate(("leak", "streams", "fails", "refuses", "leak"), 1):
        body = rpc("tools/call", number, name=tool, arguments=arguments | {"number": number})
        await http.post(url, json=body, headers=known, params={"token": SECRET, "code": SECRET})


async def _everything(http: httpx.AsyncClient, desk: str) -> dict[str, str]:
    """Return what each address of the desk answers: those of lists, and of everything that these name."""
    texts: dict[str, str] = {}

    async def ask(path: str) -> httpx.Response:
        answer = await http.get(desk.rstrip("/") + path)
        texts[path] = f"{answer.headers} {answer.text}"
        return answer

    for page in PAGES:
        await ask(page)
    messages = (await ask("/api/messages?limit=100")).json()["items"]
    assert len(messages) >= 6
    for message in messages:
        for prefix in ("/messages/", "/api/messages/"):
            assert (await ask(prefix + message["id"])).status_code == 200
        assert (await ask(f"/api/messages/{message['id']}?panel=1")).status_code == 200
        for view in ("raw", "network", "timing", "related"):
            await ask(f"/messages/{message['id']}?view={view}")
    for event in (await ask("/api/events?limit=100")).json()["items"]:
        assert (await ask(f"/api/events/{event['id']}")).status_code == 200
    [session] = (await ask("/api/sessions")).json()["items"]
    for end in ("", "/export.csv?bodies=1", "/export.jsonl?bodies=1"):
        assert (await ask(f"/sessions/{session['id']}{end}")).status_code == 200
    for group in (await ask("/api/errors")).json()["items"]:
        await ask(f"/errors/{group['id']}")
        await ask(f"/api/errors/{group['id']}")
    async with aconnect_sse(http, "GET", f"{desk.rstrip('/')}/api/live?change=0") as stream:
        told = ""
        async for each in stream.aiter_sse():
            told += each.data
            if told.count('"session.event"') >= len(messages):
                break
    texts["/api/live"] = told
    return texts


def test_a_secret_comes_out_nowhere(tmp_path: Path) -> None:
    async def work() -> tuple[dict[str, str], Tap]:
        async with leaky() as server, httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as http:
            with running(server, tmp_path / "tap.db", "--debug") as tap:
                await _converse(http, tap.proxy)
                await asyncio.to_thread(
                    tap.until, lambda: sum(each["type"] == "tools/call" for each in tap.events) >= 5
                )
                texts = await _everything(http, tap.desk)
                assert await asyncio.to_thread(tap.stop) == 0
        return texts, tap

    texts, tap = asyncio.run(work())
    texts["what is printed"] = "\n".join([*tap.said, *map(str, tap.events)])
    texts |= {path.name: path.read_bytes().decode("latin-1") for path in tmp_path.iterdir()}
    assert any("redacted" in text for text in texts.values())
    assert "canary" not in "".join(texts[path] for path in texts if "q=text:" not in path)
    assert [where for where, text in texts.items() if SECRET in text] == []
    # of a session's id pages and answers tell the beginning alone
    assert [where for where, text in texts.items() if SESSION in text and where.startswith("/")] == []
