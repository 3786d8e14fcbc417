"""Streaming truth: the record's times are the server's own, and an abort reaches it while the call still runs."""

from __future__ import annotations

import json
import statistics

import pytest

from tests.faults.chain import Chain
from tests.faults.conftest import Server
from tests.faults.raw import RawClient, http
from tests.faults.server import STEPS

#: Microseconds between the server's word for the time and the tap's. It is well below one millisecond on a machine
#: that has nothing else to do; a loaded one may let either of them wait for its turn.
SAME_US = 20_000

ERAS = pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])


@ERAS
def test_progress_is_recorded_when_the_server_sent_it(modern: bool, tapped: Chain) -> None:
    tapped.record()
    with http() as connections:
        client = RawClient(connections, tapped.tap.proxy, modern=modern)
        client.open()
        assert client.call(2, "import_catalog")["failed"] is None
    (call,) = [row for row in tapped.record() if row["type"] == "tools/call"]
    (parent,) = tapped.tap.rows(f"SELECT pk, at_us, sse_events, duration_us FROM timeline WHERE pk = {call['pk']}")
    children = tapped.tap.rows(
        "SELECT type, at_us, data FROM timeline JOIN body ON body.timeline = timeline.pk "
        f"WHERE parent = {parent['pk']} ORDER BY timeline.pk"
    )
    assert [row["type"] for row in children] == ["notifications/progress"] * STEPS

    stamps = [int(json.loads(row["data"])["params"]["message"]) for row in children]
    late = [row["at_us"] - stamp for row, stamp in zip(children, stamps, strict=True)]
    print(f"later than the server's own clock: median {statistics.median(late)} µs, at most {max(late)} µs")
    assert min(late) >= -1000, late  # the recorder's offset of the clocks is a ms old
    assert statistics.median(late) <= SAME_US, late  # one of them may have waited for a busy machine

    # the call's own list of events holds the same times, and after them that of the answer
    *progress, answer = (parent["at_us"] + each for each in json.loads(parent["sse_events"]))
    assert progress == [row["at_us"] for row in children]
    assert answer == parent["at_us"] + parent["duration_us"]


def test_a_modern_abort_reaches_the_server_and_is_a_cancellation(tapped: Chain, server: Server) -> None:
    tapped.record()
    with http() as connections:
        client = RawClient(connections, tapped.tap.proxy, modern=True)
        client.open()
        with client.stream("tools/call", 2, name="slow_report", arguments={}) as response:
            assert "started" in next(response.iter_text())
    assert [server.says(), server.says()] == ["started", "cancelled"]  # half a minute before its end
    (call,) = [row for row in tapped.record() if row["type"] == "tools/call"]
    assert (call["status"], call["failure_reason"]) == ("failed", "cancelled")


def test_a_modern_abort_before_the_head_of_the_answer_reaches_the_server_too(tapped: Chain, server: Server) -> None:
    tapped.record()
    with http(0.2) as connections:
        client = RawClient(connections, tapped.tap.proxy.replace("/mcp", "/silent/mcp"), modern=True)
        assert client.call(2, "slow_report")["failed"] == "ReadTimeout"
    assert [server.says(), server.says()] == ["started", "cancelled"]
    (call,) = [row for row in tapped.record() if row["type"] == "tools/call"]
    assert (call["status"], call["failure_reason"]) == ("failed", "cancelled")


def test_a_legacy_disconnect_is_no_cancellation_for_the_server_and_says_so(tapped: Chain, server: Server) -> None:
    # "Disconnection SHOULD NOT be interpreted as the client cancelling its request" (2025-11-25, "Sending Messages")
    tapped.record()
    with http() as connections:
        client = RawClient(connections, tapped.tap.proxy, modern=False)
        client.open()
        with client.stream("tools/call", 2, name="slow_report", arguments={}) as response:
            assert "started" in next(response.iter_text())
    assert [server.says(), server.says()] == ["started", "goes on"]
    (call,) = [row for row in tapped.record() if row["type"] == "tools/call"]
    assert (call["status"], call["error_code"]) == ("failed", "client_disconnected")
