"""The whole tap: two processes, a real server, a real file, and what happens when something goes wrong."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mcp_tap.demo.server import serve
from mcp_tap.relay.priority import NICE, SLICE_NS
from mcp_tap.store import open_writer
from tests.sdk.harness import sample_server
from tests.tap import PATIENCE, call, initialize, rpc, running

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's limits and /proc; run it there")


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with sample_server() as url:
        yield url


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(trust_env=False, timeout=PATIENCE)


def test_a_call_is_recorded_shown_and_served(upstream: str, tmp_path: Path) -> None:
    async def converse(url: str) -> None:
        async with client() as http:
            headers = await initialize(http, url)
            await call(http, url, headers, 1, "search_products", query="boots")
            await call(http, url, headers, 2, "get_weather", city="Atlantis")

    with running(upstream, tmp_path / "tap.db") as tap:
        asyncio.run(converse(tap.proxy))
        tap.until(
            lambda: len([event for event in tap.events if event["type"] == "tools/call" and event["latency_ms"]]) == 2
        )
        health = httpx.get(f"{tap.desk}/healthz", trust_env=False).json()
        assert (health["status"], health["dropped"], health["lost"]) == ("ok", 0, 0)
        assert httpx.get(f"{tap.desk}/readyz", trust_env=False).json()["status"] == "ready"
        assert tap.stop() == 0
    events = tap.rows("SELECT type, name, status, failure_reason, latency_ms FROM events ORDER BY time, seq")
    assert [event["type"] for event in events] == [
        "session_start", "initialize", "notifications/initialized", "tools/call", "tools/call", "session_end",
    ]  # fmt: skip
    assert [(event["name"], event["status"], event["failure_reason"]) for event in events[3:5]] == [
        ("search_products", "succeeded", None),
        ("get_weather", "failed", "tool_error"),
    ]
    assert all(event["latency_ms"] > 0 for event in events[1:5])
    (session,) = tap.rows("SELECT * FROM sessions")
    assert (session["client_name"], session["server_name"], session["origin"]) == ("tester", "weather-shop", "header")
    assert (session["calls"], session["errors"], session["end_reason"]) == (3, 1, "shutdown")


def test_the_recorder_waits_where_both_want_the_same_core(upstream: str, tmp_path: Path) -> None:
    with running(upstream, tmp_path / "tap.db") as tap:
        assert os.getpriority(os.PRIO_PROCESS, tap.recorder) == NICE
        # where the kernel shows slices, it has taken the number
        file = Path(f"/proc/{tap.recorder}/sched")
        slices = re.findall(r"^se\.slice +: +(\d+)$", file.read_text(), re.MULTILINE) if file.exists() else []
        assert set(slices) <= {str(SLICE_NS)}
        assert tap.stop() == 0


def test_sigterm_lets_the_calls_in_flight_end(upstream: str, tmp_path: Path) -> None:
    async def converse(url: str, pid: int) -> list[object]:
        async with client() as http:
            headers = await initialize(http, url)
            calls = [asyncio.create_task(call(http, url, headers, n, "slow_report")) for n in range(1, 11)]
            await asyncio.sleep(0.5)
            assert not any(task.done() for task in calls)
            os.kill(pid, signal.SIGTERM)
            answers: list[object] = await asyncio.gather(*calls)
            return answers

    with running(upstream, tmp_path / "tap.db") as tap:
        answers = asyncio.run(converse(tap.proxy, tap.process.pid))
        assert tap.process.wait(PATIENCE) == 0
    assert len(answers) == 10
    assert all("result" in answer for answer in answers)  # type: ignore[operator]
    statuses = tap.rows("SELECT status FROM events WHERE type = 'tools/call'")
    assert [row["status"] for row in statuses] == ["succeeded"] * 10


@LINUX
def test_a_killed_recorder_costs_no_exchange_and_its_gap_is_counted(upstream: str, tmp_path: Path) -> None:
    async def converse(url: str, kill: int, calls: int) -> int:
        right = 0
        async with client() as http:
            headers = await initialize(http, url)
            for number in range(1, calls + 1):
                if number == calls // 2:  # it has to have something that it did not write
                    os.kill(kill, signal.SIGSTOP)
                elif number == calls // 2 + 5:
                    os.kill(kill, signal.SIGKILL)
                answer = await call(http, url, headers, number, "get_weather", city="Oslo")
                right += "result" in answer and not answer["result"].get("isError")
        return right

    with running(upstream, tmp_path / "tap.db") as tap:
        first = tap.recorder
        assert asyncio.run(converse(tap.proxy, first, 60)) == 60
        tap.until(lambda: any("starting another" in line for line in tap.said))
        tap.until(lambda: tap.recorder != first)

        def alive() -> bool:
            try:
                return httpx.get(f"{tap.desk}/healthz", trust_env=False, timeout=1).status_code == 200
            except httpx.HTTPError:
                return False

        tap.until(alive)
        asyncio.run(_one_call(tap.proxy))
        assert tap.stop() == 0
    (gap,) = tap.rows("SELECT name, dropped, note FROM events WHERE type = 'records_dropped'")
    assert gap["dropped"] > 0
    assert gap["note"] == "the recorder died"
    recorded = tap.rows("SELECT count(*) AS n FROM events WHERE type = 'tools/call'")[0]["n"]
    assert 0 < recorded < 62
    assert tap.rows("SELECT status FROM events WHERE status = 'waiting_for_response'") == []
    marked = tap.rows("SELECT dropped FROM sessions ORDER BY started")
    assert marked[0]["dropped"] > 0
    assert tap.rows("SELECT status FROM events WHERE name = 'search_products'") == [{"status": "succeeded"}]


async def _one_call(url: str) -> None:
    async with client() as http:
        headers = await initialize(http, url, "after")
        answer = await call(http, url, headers, 1, "search_products", query="x")
        assert "result" in answer


@LINUX
def test_a_store_that_cannot_be_written_stops_no_traffic_and_loses_no_count(upstream: str, tmp_path: Path) -> None:
    async def converse(url: str, calls: int) -> None:
        async with client() as http:
            headers = await initialize(http, url)
            for number in range(1, calls + 1):
                assert "result" in await call(http, url, headers, number, "search_products", query="x" * 2000)

    with running(upstream, tmp_path / "tap.db") as tap:
        # a file that must not grow is a disk that is full, for this one process
        unlimited = resource.prlimit(tap.recorder, resource.RLIMIT_FSIZE)
        resource.prlimit(tap.recorder, resource.RLIMIT_FSIZE, (4096, unlimited[1]))
        asyncio.run(converse(tap.proxy, 30))
        tap.until(lambda: any("traffic flows, but records cannot be written" in line for line in tap.said))
        assert httpx.get(f"{tap.desk}/healthz", trust_env=False).json()["status"] == "degraded"
        resource.prlimit(tap.recorder, resource.RLIMIT_FSIZE, unlimited)
        tap.until(lambda: any("records are written again" in line for line in tap.said))
        assert tap.stop() == 0
    recorded = tap.rows("SELECT count(*) AS n FROM events WHERE type = 'tools/call'")[0]["n"]
    assert recorded == 30  # it waited in memory, and nothing had to be given up


def test_a_server_that_comes_later(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with running(f"http://127.0.0.1:{port}/mcp", tmp_path / "tap.db") as tap:
        tap.until(lambda: any("does not answer (connection refused); waiting for it" in line for line in tap.said))
        answer = httpx.post(tap.proxy, json=rpc("initialize", 1), trust_env=False)
        assert answer.status_code == 502
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.text.startswith("mcp-tap: ")

        async def later() -> None:
            server = await serve(port=port)
            try:
                await _one_call(tap.proxy)
            finally:
                await server.stop()

        asyncio.run(later())
        assert tap.stop() == 0
    query = "SELECT failure_reason, error_code, http_status FROM events WHERE type = 'initialize' AND status = 'failed'"
    (refused,) = tap.rows(query)
    assert refused == {"failure_reason": "transport_error", "error_code": "unreachable", "http_status": 502}


def test_a_restart_continues_a_known_session(upstream: str, tmp_path: Path) -> None:
    headers: dict[str, str] = {}

    async def first(url: str) -> None:
        async with client() as http:
            headers.update(await initialize(http, url))

    async def second(url: str) -> None:
        async with client() as http:
            await call(http, url, headers, 1, "search_products", query="x")

    for part in (first, second):
        with running(upstream, tmp_path / "tap.db") as tap:
            asyncio.run(part(tap.proxy))
            assert tap.stop() == 0
    (session,) = tap.rows("SELECT calls, end_reason, origin_note FROM sessions")
    assert session == {"calls": 2, "end_reason": "shutdown", "origin_note": None}
    types = [row["type"] for row in tap.rows("SELECT type FROM events ORDER BY seq")]
    assert types[-4:] == ["session_end", "session_reopened", "tools/call", "session_end"]


def test_secrets_never_reach_the_file(upstream: str, tmp_path: Path) -> None:
    secret = "tk-9f8e7d6c5b4a-very-secret"

    async def converse(url: str) -> None:
        async with client() as http:
            headers = await initialize(http, url) | {"authorization": f"Bearer {secret}", "cookie": f"sid={secret}"}
            await call(
                http,
                url,
                headers,
                1,
                "search_products",
                query=f"echo {secret}",
                password=secret,
                nested={"api_key": secret},
            )
            await http.get(
                httpx.URL(url).copy_with(
                    path=f"/token?code={secret}".partition("?")[0], query=f"code={secret}".encode()
                )
            )

    with running(upstream, tmp_path / "tap.db") as tap:
        asyncio.run(converse(tap.proxy))
        tap.stop()
    found = [path.name for path in tmp_path.iterdir() if secret.encode() in path.read_bytes()]
    assert found == []
    assert secret not in "\n".join([*tap.said, *map(str, tap.events)])
    assert "redacted" in tap.rows("SELECT group_concat(data) AS d FROM body")[0]["d"]


def test_session_ids_are_hashed_where_asked(upstream: str, tmp_path: Path) -> None:
    seen: dict[str, str] = {}

    async def converse(url: str) -> None:
        async with client() as http:
            seen.update(await initialize(http, url))
            await call(http, url, seen, 1, "search_products", query="x")

    environment = os.environ | {"MCP_TAP_REDACT_SESSION_ID": "hash"}
    with running(upstream, tmp_path / "tap.db", env=environment) as tap:
        asyncio.run(converse(tap.proxy))
        tap.stop()
    (session,) = tap.rows("SELECT mcp_session_id, calls FROM sessions")
    assert session["calls"] == 2
    assert session["mcp_session_id"].startswith("hash:")
    raw = seen["mcp-session-id"].encode()
    assert not any(raw in path.read_bytes() for path in tmp_path.iterdir())


def _newer(file: Path) -> None:
    async def make() -> None:
        await (await open_writer(f"sqlite:///{file}")).close()

    asyncio.run(make())
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA user_version = 9999")
    db.close()


@pytest.mark.parametrize(
    ("break_it", "status", "words"),
    [
        (lambda file: file.write_text("this is no database, whatever its name says\n" * 100), 4, ["database"]),
        (_newer, 4, ["newer", "upgrade"]),
        (lambda file: file.mkdir(), 4, ["director"]),
    ],
    ids=["no database", "newer", "a directory"],
)
def test_a_database_that_cannot_be_used(tmp_path: Path, break_it: object, status: int, words: list[str]) -> None:
    file = tmp_path / "tap.db"
    break_it(file)  # type: ignore[operator]
    command = [sys.executable, "-m", "mcp_tap.cli", "http://127.0.0.1:9/mcp", "--store", f"sqlite:///{file}",
               "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == status, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: "), done.stderr
    assert any(line.startswith("  ") for line in lines[1:]), done.stderr
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr.lower() for word in words), done.stderr


def test_a_port_that_is_taken(upstream: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "mcp_tap.cli", upstream, "--store", f"sqlite:///{tmp_path}/tap.db",
                   "--listen", f"127.0.0.1:{port}", "--admin-listen", "127.0.0.1:0"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: port {port} is already in use on 127.0.0.1")
    assert "try:" in done.stderr


def test_a_relay_that_is_killed_takes_its_recorder_along(upstream: str, tmp_path: Path) -> None:
    with running(upstream, tmp_path / "tap.db") as tap:
        asyncio.run(_one_call(tap.proxy))
        tap.until(lambda: tap.rows("SELECT 1 FROM events WHERE type = 'tools/call' AND status = 'succeeded'"))
        recorder = tap.recorder
        tap.process.kill()
        tap.process.wait()
        for _ in range(200):
            try:
                os.kill(recorder, 0)
            except ProcessLookupError:
                break
            subprocess.run(["sleep", "0.05"], check=True)
        else:
            os.kill(recorder, signal.SIGKILL)
            raise AssertionError("the recorder went on without its relay")
    assert tap.rows("SELECT status FROM events WHERE type = 'tools/call'") == [{"status": "succeeded"}]
