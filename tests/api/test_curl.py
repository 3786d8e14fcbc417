"""A recorded request as a command: pasted into a shell, it does what it did."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_tap.api.curl import curl
from tests.sdk.harness import sample_server
from tests.tap import PATIENCE, call, initialize, running

CONNECTION = {"mcp_session_id": "85caee5d-1111", "protocol_version": "2025-11-25", "era": "legacy"}
URL = "http://127.0.0.1:6278/mcp"

needs_curl = pytest.mark.skipif(
    not shutil.which("curl") or not shutil.which("bash"), reason="needs curl and bash: install them to run this"
)


def row(body: str | None = "{}", **values: Any) -> dict[str, Any]:
    stored = None if body is None else {"codec": "json", "data": body, "masked": 0}
    given_ = {"direction": "client_to_server", "kind": "request", "type": "tools/call", "name": "search",
              "path": "/mcp", "request_body": stored}  # fmt: skip
    return given_ | values


def words(command: str, *, session: str = "the-session", token: str = "") -> list[str]:
    """Return the words that a shell makes of a command, with curl itself as the last thing that is run."""
    script = f"curl() {{ printf '%s\\0' \"$@\"; }}\n{command}"
    environment = {"PATH": os.environ["PATH"], "MCP_SESSION_ID": session, "MCP_TOKEN": token, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["bash", "-u"], input=script.encode(), env=environment, capture_output=True, check=True)
    assert done.stderr == b""
    return done.stdout.decode().split("\0")[:-1]


def headers(command: str, **options: str) -> dict[str, str]:
    given_ = words(command, **options)
    named = [given_[at + 1] for at, word in enumerate(given_) if word == "-H"]
    named += [word[2:] for word in given_ if word.startswith("-H") and word != "-H"]
    return {name: value for name, _, value in (header.partition(": ") for header in named)}


@needs_curl
def test_a_call_of_a_session() -> None:
    command = curl(row('{"jsonrpc":"2.0"}'), CONNECTION, URL)
    assert headers(command, token="t0ken") == {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2025-11-25",
        "Mcp-Session-Id": "the-session",
        "Authorization": "Bearer t0ken",
    }
    assert "Authorization" not in headers(command)
    assert words(command)[-2:] == ["--data-raw", '{"jsonrpc":"2.0"}']
    assert URL in words(command)
    assert "85caee5d" not in command


@needs_curl
def test_a_call_of_the_modern_era_names_itself_in_headers() -> None:
    connection = CONNECTION | {"era": "modern", "protocol_version": "2026-07-28", "mcp_session_id": None}
    body = json.dumps({"method": "tools/call", "params": {"name": "größe"}}, ensure_ascii=False)
    sent = headers(curl(row(body, name="größe"), connection, URL))
    assert (sent["Mcp-Method"], sent["Mcp-Name"]) == ("tools/call", "=?base64?Z3LDtsOfZQ==?=")
    assert "Mcp-Session-Id" not in sent
    assert headers(curl(row(body), connection, URL))["Mcp-Name"] == "=?base64?Z3LDtsOfZQ==?="
    assert headers(curl(row("cut", name="search"), connection, URL))["Mcp-Name"] == "search"


@needs_curl
@settings(max_examples=30)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_no_text_leaves_its_quotes(text: str) -> None:
    connection = CONNECTION | {"era": "modern"}
    command = curl(row(text, name=text, path=f"/mcp?x={text}", type=text), connection, URL)
    given_ = words(command)
    assert given_[-1] == text.replace("\0", "")
    assert given_[2].startswith(f"{URL}?x=")
    assert len(given_) == 15  # -sS -N URL, five headers, --data-raw and the body


def test_what_the_record_lacks_is_said() -> None:
    lines = curl(row(None, name="search"), CONNECTION, URL)
    assert lines.startswith("# the body was not recorded")
    assert '"params": {"name": "search"}' in lines
    cut = {"codec": "text-cut", "data": '{"a', "masked": 2}
    told = curl(row(request_body=cut), CONNECTION, URL)
    assert "# the body was cut in the record" in told
    assert "# secrets in the body were masked" in told
    assert "# values in the query" in curl(row(path="/messages?session_id=••••"), CONNECTION, URL)
    assert "#" not in curl(row(), CONNECTION | {"mcp_session_id": None}, URL)


@pytest.mark.parametrize("other", [{"direction": "server_to_client"}, {"kind": "http"}, {"kind": "lifecycle"}])
def test_what_no_client_sent_cannot_be_sent_again(other: dict[str, str]) -> None:
    assert curl(row(**other), CONNECTION, URL) == ""


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with sample_server() as url:
        yield url


@needs_curl
def test_pasted_it_fails_and_succeeds_as_recorded(upstream: str, tmp_path: Path) -> None:
    async def converse(url: str) -> str:
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as http:
            sent = await initialize(http, url)
            await call(http, url, sent, 1, "search_products", query='it\'s 5 > 4 "boots" $HOME `x` \\ ünïcode')
            await call(http, url, sent, 2, "get_weather", city="Atlantis")
            return sent["mcp-session-id"]

    def paste(command: str) -> Any:
        environment = {"PATH": os.environ["PATH"], "MCP_SESSION_ID": session}
        done = subprocess.run(
            ["bash"], input=command, env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE
        )
        data = [line.removeprefix("data:") for line in done.stdout.splitlines() if line.startswith(("data:", "{"))]
        return json.loads(next(line for line in data if line.strip()))

    with running(upstream, tmp_path / "tap.db") as tap, httpx.Client(base_url=tap.desk, trust_env=False) as http:
        session = asyncio.run(converse(tap.proxy))
        found = "/api/messages?tool=search_products,get_weather&-status=pending&order=asc"
        tap.until(lambda: http.get(found).json()["matched"] == 2)
        right, wrong = (http.get(f"/api/messages/{each['id']}").json() for each in http.get(found).json()["items"])
        assert right["network"]["url"] == tap.proxy
        assert paste(right["copy"]["curl"])["result"] == right["output"]["result"]
        assert paste(wrong["copy"]["curl"])["result"] == wrong["output"]["result"]
        assert wrong["output"]["result"]["isError"] is True
        tap.until(lambda: http.get(found).json()["matched"] == 4)  # they went through the tap
        again = http.get(found).json()["items"]
        assert [each["status"] for each in again] == ["succeeded", "failed"] * 2
        assert len(http.get(f"/api/messages/{wrong['id']}").json()["related"]["same_arguments"]) == 1
        assert tap.stop() == 0
