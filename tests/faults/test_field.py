"""What servers and clients in the field do, with real ones: the client sees the same, and the record is right."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.faults.chain import SIDES, Chain
from tests.faults.conftest import Server
from tests.faults.injector import Faults, StopReading
from tests.faults.raw import RawClient, http
from tests.faults.server import BIG, CODINGS, HELD, PIECE, TOKEN
from tests.sdk.harness import CALLS, run_client
from tests.tap import PATIENCE


def calls_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["type"] == "tools/call"]


@pytest.mark.sdk
@pytest.mark.parametrize(
    "client",
    [
        pytest.param("py1", marks=pytest.mark.matrix),
        pytest.param("py2-legacy", marks=pytest.mark.matrix),
        "py2-auto",
        pytest.param("ts", marks=pytest.mark.matrix),
    ],
)
def test_a_client_that_closes_right_after_the_last_event_has_not_cancelled(
    client: str, sdk: Callable[[str], None], tapped: Chain
) -> None:
    # Case 2: the server keeps the stream open after the answer, so that it is always the client that ends it.
    sdk(client)
    tapped.record()
    url = tapped.tap.proxy.replace("/mcp", "/lingering/mcp")
    said = run_client(client, url, [CALLS["sample"][0], ("import_catalog", {"steps": 1})])
    assert [call["outcome"] for call in said["calls"]] == ["ok", "ok"]
    imported = calls_of(tapped.record())[-1]
    assert (imported["name"], imported["status"], imported["failure_reason"]) == ("import_catalog", "succeeded", None)


def test_a_client_that_resets_after_the_last_event_has_not_cancelled(tapped: Chain) -> None:
    # Case 2 again, from a client that leaves less politely.
    tapped.record()
    with http() as connections:
        client = RawClient(connections, tapped.front.url.replace("/mcp", "/lingering/mcp"), modern=True)
        client.open()
        with client.stream("tools/call", 2, name="import_catalog", arguments={"steps": 1}) as response:
            for line in response.iter_lines():
                if '"result"' in line:
                    tapped.front.end(reset=True)
                    break
    (call,) = calls_of(tapped.record())
    assert (call["status"], call["failure_reason"]) == ("succeeded", None)


def test_a_listening_stream_that_was_dropped_can_be_opened_again(tapped: Chain) -> None:
    # Case 3: a session has one such stream; while the server thinks that the old one is open, it answers 409.
    tapped.record()
    with http(PATIENCE) as connections:
        client = RawClient(connections, tapped.tap.proxy, modern=False)
        client.open()
        headers = client.headers | {"accept": "text/event-stream"}
        for _ in range(5):
            deadline = time.monotonic() + PATIENCE
            while True:
                with connections.stream("GET", client.url, headers=headers) as response:
                    if response.status_code != 409:
                        break
                assert time.monotonic() < deadline, "the server was never told that the stream is gone"
            assert response.status_code == 200
    rows = [row for row in tapped.record() if row["type"] == "http" and row["http_status"] == 200]
    assert len(rows) == 5
    assert {(row["status"], row["failure_reason"]) for row in rows} == {("succeeded", None)}


def test_an_answer_whose_head_is_held_back_is_waited_for(tapped: Chain) -> None:
    # Case 15: no limit on the head of an answer.
    tapped.record()
    with http(PATIENCE) as connections:
        client = RawClient(connections, tapped.tap.proxy.replace("/mcp", "/held/mcp"), modern=False)
        client.open()
        answered = client.call(2, "get_weather", city="Oslo")
    assert (answered["status"], answered["failed"]) == (200, None)
    (call,) = calls_of(tapped.record())
    assert call["status"] == "succeeded"
    assert call["first_byte_ms"] >= HELD * 1000


@pytest.mark.parametrize("side", SIDES)
def test_a_reader_that_stands_still_holds_its_server_up_and_loses_nothing(side: str, tapped: Chain) -> None:
    # Nothing on the way may hold a whole answer: what the server can send ahead is what the buffers hold.
    tapped.record()
    stopping = tapped.front if side == "client" else tapped.behind
    stopping.fail(Faults(down=(StopReading(100_000),)))
    origin = (tapped.front.url if side == "client" else tapped.tap.proxy).removesuffix("/mcp")
    with http(PATIENCE) as connections, connections.stream("GET", f"{origin}/big") as response:
        digest = hashlib.sha256()
        pieces = response.iter_raw()
        digest.update(next(pieces))
        assert stopping.stopped.wait(PATIENCE)
        ahead = -1
        link = tapped.behind.links[-1]
        while ahead != (ahead := link.returned):
            time.sleep(0.2)  # it is not over before nothing has moved for this long
        assert ahead < BIG / 2
        stopping.resume()
        for piece in pieces:
            digest.update(piece)
    whole = hashlib.sha256(b"".join(number.to_bytes(8, "big") + PIECE[8:] for number in range(BIG // len(PIECE))))
    assert digest.digest() == whole.digest()
    (row,) = [row for row in tapped.record() if row["name"] == "GET /big"]
    # what waits for the recorder is bounded: it has the whole of it, or says that it has not
    assert (row["dropped"] > 0) != ((row["status"], row["response_bytes"]) == ("succeeded", BIG))


@pytest.mark.parametrize(
    "coding", [pytest.param(each, marks=[] if each == "gzip" else [pytest.mark.matrix]) for each in CODINGS]
)
def test_a_compressed_answer_passes_as_it_is_and_is_recorded_as_text(
    coding: str, tapped: Chain, server: Server
) -> None:
    # Case 18: the copy is decoded, the traffic is not.
    with http(PATIENCE) as connections:  # the first import changes what the server lists from then on
        RawClient(connections, f"{server.origin}/compressed/mcp", modern=True).call(1, "import_catalog", steps=1)
    tapped.record()
    answers = []
    for url in (f"{server.origin}/compressed/mcp", tapped.tap.proxy.replace("/mcp", "/compressed/mcp")):
        with http(PATIENCE) as connections:
            client = RawClient(connections, url, modern=True, **{"accept-encoding": coding})
            with client.stream("tools/list", 1) as response:
                answers.append((response.headers["content-encoding"], b"".join(response.iter_raw())))
            assert client.call(2, "import_catalog", steps=1)["failed"] is None
    direct, through = answers
    assert direct[0] == coding
    assert b"search_products" not in direct[1]
    assert through == direct

    rows = tapped.record()
    (listed,) = [row for row in rows if row["type"] == "tools/list"]
    query = f"SELECT data FROM body WHERE timeline = {listed['pk']} AND side = 'response'"
    (body,) = tapped.tap.rows(query)
    assert "search_products" in [tool["name"] for tool in json.loads(body["data"])["result"]["tools"]]
    assert listed["response_bytes"] > 0
    (call,) = calls_of(rows)
    assert call["status"] == "succeeded"
    (progress,) = [row for row in rows if row["type"] == "notifications/progress"]
    assert progress["parent_id"] == call["message_id"]


def test_a_challenge_and_what_it_leads_to_pass_verbatim_and_come_before_the_session(
    tapped: Chain, server: Server
) -> None:
    # Case 23: 401 with two challenges, the documents they point at, a token, and then a session.
    tapped.record()

    def ask(origin: str) -> list[tuple[int, list[tuple[bytes, bytes]], bytes]]:
        with http(PATIENCE) as connections:
            client = RawClient(connections, f"{origin}/guarded/mcp", modern=False)
            answers = []
            params = {"protocolVersion": "2025-11-25", "capabilities": {}}
            with client.stream("initialize", 1, **params) as refused:
                answers.append(_verbatim(refused))
            for path in ("oauth-protected-resource/guarded/mcp", "oauth-authorization-server", "no-such-document"):
                with connections.stream("GET", f"{origin}/.well-known/{path}") as document:
                    answers.append(_verbatim(document))
            form = {"grant_type": "authorization_code", "code": "the-code", "code_verifier": "the-verifier"}
            with connections.stream("POST", f"{origin}/token", data=form) as granted:
                answers.append(_verbatim(granted))
            client.headers["authorization"] = f"Bearer {TOKEN}"
            assert client.open()[0]["status"] == 200
            assert client.call(2, "get_weather", city="Oslo")["status"] == 200
        return answers

    direct, through = ask(server.origin), ask(tapped.tap.proxy.removesuffix("/mcp"))
    assert [status for status, _, _ in direct] == [401, 200, 200, 404, 200]
    assert [name for name, _ in direct[0][1]].count(b"www-authenticate") == 2
    assert through == direct

    *before, initialize = [row for row in tapped.record() if row["kind"] != "lifecycle"][:6]
    assert [(row["type"], row["http_status"]) for row in before] == [
        ("initialize", 401),
        ("http", 200),
        ("http", 200),
        ("http", 404),
        ("http", 200),
    ]
    assert before[0]["outcome"] == "auth_challenge"
    assert {row["connection_id"] for row in before} == {None}
    assert (initialize["type"], initialize["status"]) == ("initialize", "succeeded")
    assert initialize["connection_id"] is not None
    for secret in (TOKEN, "the-code", "the-verifier"):
        assert not any(secret.encode() in path.read_bytes() for path in tapped.tap.file.parent.iterdir())


def _verbatim(response: httpx.Response) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return everything of an answer that is not the time."""
    head = [(name.lower(), value) for name, value in response.headers.raw if name.lower() != b"date"]
    return response.status_code, head, b"".join(response.iter_raw())
