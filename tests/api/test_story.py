"""The desk of a whole tap while traffic flows, and the desk of a file that is looked at."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse

from tests.api.asking import Asking, written
from tests.sdk.harness import sample_server
from tests.store.plausible import scene
from tests.store.recording import record
from tests.tap import PATIENCE, call, initialize, running

TOKEN = "token-of-the-test"


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with sample_server() as url:
        yield url


def test_a_failing_call_is_followed_live_and_found_again(upstream: str, tmp_path: Path) -> None:
    async def converse(url: str) -> str:
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as http:
            sent = await initialize(http, url, "storyteller")
            await call(http, url, sent, 1, "search_products", query="boots")
            await call(http, url, sent, 2, "get_weather", city="Atlantis")
            return sent["mcp-session-id"]

    environment = {"env": {**os.environ, "MCP_TAP_TOKEN": TOKEN}}
    with running(upstream, tmp_path / "tap.db", **environment) as tap:
        desk = httpx.URL(tap.desk).copy_with(path="/", query=None)
        bearer = {"authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=desk, trust_env=False, timeout=PATIENCE, headers=bearer) as http:
            assert httpx.get(desk.join("/api/sessions"), trust_env=False).status_code == 401
            assert httpx.get(desk.join("/healthz"), trust_env=False).status_code == 200
            with connect_sse(http, "GET", "/api/live?tool=get_weather&of=events") as live:
                told = live.iter_sse()
                assert next(told).event == "status"
                session = asyncio.run(converse(tap.proxy))
                outcome = next(each for each in (one.json() for one in told) if each["status"] == "failed")
                assert (outcome["name"], outcome["target"], outcome["failure"]) == (
                    "tools/call", "get_weather", "tool_error",
                )  # fmt: skip
            (found,) = http.get("/api/sessions", params={"q": f"session:{session}"}).json()["items"]
            assert (found["client"], found["calls"], found["errors"]) == ("storyteller 1", 3, 1)
            below = f"/api/sessions/{found['id']}"
            failed = http.get(f"{below}/messages?status=failed").json()["items"]
            assert [each["id"] for each in failed] == [outcome["message_id"]]
            detail = http.get(f"{below}/messages/{outcome['message_id']}").json()
            assert detail["input"]["params"]["arguments"] == {"city": "Atlantis"}
            around = [(each["name"], each["target"]) for each in detail["related"]["context"]]
            assert around[-2:] == [("tools/call", "search_products"), ("tools/call", "get_weather")]
            assert session not in json.dumps(detail)
            connection = http.get(f"{below}/connections").json()["items"][0]
            assert connection["mcp"]["server"]["name"] == "weather-shop"
            assert connection["mcp"]["client"]["capabilities"] == {}
            (tool,) = [each for each in http.get("/api/tools").json()["items"] if each["name"] == "get_weather"]
            assert (tool["calls"], tool["errors"]) == (1, 1)
        assert tap.stop() == 0


def test_open_streams_do_not_keep_a_tap_from_stopping(upstream: str, tmp_path: Path) -> None:
    with running(upstream, tmp_path / "tap.db") as tap:
        http = httpx.Client(base_url=tap.desk, trust_env=False, timeout=PATIENCE)
        with http, connect_sse(http, "GET", "/api/live") as live:
            told = live.iter_sse()
            assert next(told).event == "status"
            assert tap.stop() == 0
            assert [each for each in told if each.event != "status"] == []
        assert [line for line in tap.said if "ERROR" in line or "WARNING" in line] == []


# ------------------------------------------------------------------------------------------------------- a file


@contextmanager
def opened(path: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run ``mcp-tap open`` and yield its process and the desk's URL."""
    command = [sys.executable, "-m", "mcp_tap.cli", "open", str(path), "--admin-listen", "127.0.0.1:0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    timer = threading.Timer(PATIENCE, process.kill)
    timer.start()
    try:
        assert process.stderr is not None
        url = next((line.split()[1] for line in process.stderr if line.strip().startswith("desk")), "")
        assert url
        yield process, url
    finally:
        timer.cancel()
        process.kill()
        process.communicate()


@pytest.mark.parametrize("signum", [pytest.param(signal.SIGINT, marks=pytest.mark.matrix), signal.SIGTERM])
def test_a_file_is_looked_at_and_followed_while_another_process_writes(tmp_path: Path, signum: int) -> None:
    path = written(tmp_path)
    with opened(path) as (process, url), httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE) as http:
        assert http.get("/api/sessions").json()["matched"] == 4
        assert http.get("/healthz").json()["recording"].startswith("off")
        assert http.get("/readyz").json()["upstreams"] == []
        with connect_sse(http, "GET", "/api/live?of=sessions") as live:
            told = live.iter_sse()
            assert json.loads(next(told).data)["recording"] is False
            record(path, scene(9, "12:00:00", "late", "1").batch)
            assert any(each.json()["mcp"]["client"]["name"] == "late" for each in told)
            process.send_signal(signum)
            assert process.wait(PATIENCE) == 0


def test_a_file_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    path = written(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    record(other / "new.db", scene(9, "12:00:00", "late", "1").batch)
    with opened(path) as (process, url), httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE) as http:
        assert http.get("/api/sessions").json()["matched"] == 4
        path.unlink()
        assert http.get("/api/sessions").json()["matched"] == 4  # what was open stays so
        for rest in tmp_path.glob("morning.db-*"):
            rest.unlink()
        (other / "new.db").rename(path)
        (told,) = http.get("/api/sessions").json()["items"]
        assert told["client"] == "late 1"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


@pytest.mark.matrix
def test_a_taken_port_is_said_with_a_way_out(tmp_path: Path) -> None:
    path = written(tmp_path)
    with opened(path) as (_, url):
        port = httpx.URL(url).port
        command = [sys.executable, "-m", "mcp_tap.cli", "open", str(path), "--admin-listen", f"127.0.0.1:{port}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 2
    assert f"port {port} is already in use on 127.0.0.1" in done.stderr
    assert "--admin-listen" in done.stderr


def test_every_page_has_its_json(asking: Asking) -> None:
    from mcp_tap.ui.pages import PAGES

    (of,) = [each["id"] for each in asking.json("/api/messages?limit=1")["items"]]
    session = asking.json("/api/sessions?limit=1")["items"][0]
    (group,) = [each["id"] for each in asking.json("/api/errors?limit=1")["items"]]
    real: dict[str, Any] = {
        "/sessions/{id}": session["id"], "/messages/{id}": of, "/errors/{group}": group,
        "/connections/{connection}": session["connections"][0]["id"], "/clients/{client:path}": "cursor@0.50.1",
        "/tools/{tool:path}": "search_products",
    }  # fmt: skip
    for page in PAGES:
        if page.path in ("/_patterns", "/live") or "export" in page.path:
            continue
        path = page.path.replace("/versions/{old:int}..{new:int}", "/versions/1..1")
        for pattern, value in real.items():
            path = path.replace(pattern, f"{pattern.partition('{')[0]}{value}")
        assert "{" not in path, path
        assert asking.answer(f"{path}?since=9999d").status_code in (200, 303), path
        assert asking.json(f"/api{path}".rstrip("/") + "?since=9999d")["object"] != "error"
