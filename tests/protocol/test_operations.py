"""Which calls are one operation, and which are not."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_tap.model import Event, FailureReason, Outcome, Status
from tests.protocol.wire import MINUTE, Tcp, Wire, error, initialize, modern, result, rpc

LEGACY = {"mcp-session-id": "S1", "mcp-protocol-version": "2025-11-25"}
MODERN = {"mcp-protocol-version": "2026-07-28"}


def opened() -> tuple[Wire, Tcp]:
    wire = Wire()
    tcp = wire.tcp()
    initialize(tcp)
    return wire, tcp


def call(id: object = 1, name: str = "search", **arguments: Any) -> dict[str, Any]:  # noqa: A002
    return rpc("tools/call", id, name=name, arguments=arguments)


def calls(wire: Wire) -> list[Event]:
    return [event for event in wire.events if event.type == "tools/call"]


def test_another_try_of_a_failed_call() -> None:
    wire, tcp = opened()
    for number, outcome in ((1, error(1, -32000, "x")), (2, error(2, -32000, "x")), (3, result(3, content=[]))):
        tcp.post(call(number, "pay", amount=5), **LEGACY)
        tcp.answer(200, outcome)
    tcp.post(call(4, "pay", amount=5), **LEGACY)  # the third one succeeded: this is a call of its own
    first, second, third, fourth = calls(wire)
    assert [event.attempt for event in (first, second, third, fourth)] == [1, 2, 3, 1]
    assert (first.operation, second.operation, third.operation, fourth.operation) == (None, first, first, None)


def test_a_failed_call_with_other_arguments_is_no_other_try() -> None:
    wire, tcp = opened()
    tcp.post(call(1, "pay", amount=5), **LEGACY)
    tcp.answer(200, error(1, -32000, "x"))
    tcp.post(call(2, "pay", amount=6), **LEGACY)
    assert [event.attempt for event in wire.events if event.type == "tools/call"] == [1, 1]


@pytest.mark.parametrize("state", ["opaque", None])
def test_rounds_that_ask_for_input(state: str | None) -> None:
    wire = Wire()
    tcp = wire.tcp()
    tcp.post(modern("tools/call", 1, name="book", arguments={}), **MODERN)
    extra = {} if state is None else {"requestState": state}
    asked = {"who": {"method": "elicitation/create"}}
    tcp.answer(200, result(1, resultType="input_required", inputRequests=asked, **extra))
    answers = {"who": {"action": "accept"}}
    tcp.post(modern("tools/call", 2, name="book", arguments={}, inputResponses=answers, **extra), **MODERN)
    tcp.answer(200, result(2, resultType="complete", content=[]))
    first, second = calls(wire)
    assert (first.outcome, first.note, first.attempt) == (Outcome.INPUT_REQUIRED, "who", 1)
    assert (second.operation, second.attempt, second.status) == (first, 2, Status.SUCCEEDED)


def test_a_round_with_another_state_is_not_linked() -> None:
    wire = Wire()
    tcp = wire.tcp()
    tcp.post(modern("tools/call", 1, name="book", arguments={}), **MODERN)
    tcp.answer(200, result(1, resultType="input_required", inputRequests={}, requestState="a"))
    tcp.post(modern("tools/call", 2, name="book", arguments={}, requestState="b"), **MODERN)
    assert [event.attempt for event in wire.events if event.type == "tools/call"] == [1, 1]


def test_a_try_long_after_is_a_call_of_its_own() -> None:
    wire, tcp = opened()
    tcp.post(call(1, "pay"), **LEGACY)
    tcp.answer(200, error(1, -32000, "x"))
    wire.wait(11 * MINUTE)
    tcp.post(call(2, "pay"), **LEGACY)
    assert [event.attempt for event in calls(wire)] == [1, 1]


def test_an_input_required_answer_without_state_or_keys_links_nothing() -> None:
    wire = Wire()
    tcp = wire.tcp()
    tcp.post(modern("tools/call", 1, name="book", arguments={}), **MODERN)
    tcp.answer(200, result(1, resultType="input_required"))
    tcp.post(modern("tools/call", 2, name="book", arguments={}), **MODERN)
    assert [event.attempt for event in calls(wire)] == [1, 1]


def test_three_rounds_are_one_operation() -> None:
    wire = Wire()
    tcp = wire.tcp()
    for number, state in enumerate(("a", "b", None), 1):
        more = {"requestState": "ab"[number - 2]} if number > 1 else {}
        tcp.post(modern("tools/call", number, name="book", arguments={}, **more), **MODERN)
        done = {"resultType": "complete"} if state is None else {"resultType": "input_required", "requestState": state}
        tcp.answer(200, result(number, **done))
    first, second, third = calls(wire)
    assert (second.operation, third.operation) == (first, first)
    assert [event.attempt for event in calls(wire)] == [1, 2, 3]


@pytest.mark.parametrize("nested", [False, True], ids=["2026-07-28", "2025-11-25"])
def test_polls_of_a_task_belong_to_its_call(nested: bool) -> None:
    wire = Wire()
    tcp = wire.tcp()
    task: dict[str, Any]
    if nested:
        initialize(tcp)
        headers, task = LEGACY, {"task": {"taskId": "t-1", "status": "working"}}
    else:
        headers, task = MODERN, {"resultType": "task", "taskId": "t-1", "status": "working"}
    make: Any = rpc if nested else modern
    tcp.post(make("tools/call", 1, name="render", arguments={}), **headers)
    tcp.answer(200, result(1, **task))
    for number, status in ((2, "working"), (3, "completed")):
        tcp.post(make("tasks/get", number, taskId="t-1"), **headers)
        tcp.answer(200, result(number, taskId="t-1", status=status))
    first = calls(wire)[0]
    polls = [event for event in wire.events if event.type == "tasks/get"]
    assert (first.outcome, first.note) == (Outcome.TASK, "task completed")
    assert [(poll.operation, poll.attempt, poll.name) for poll in polls] == [(first, 1, "t-1")] * 2


def test_a_task_that_failed_shows_where_it_is_polled() -> None:
    wire = Wire()
    tcp = wire.tcp()
    tcp.post(modern("tools/call", 1, name="render", arguments={}), **MODERN)
    tcp.answer(200, result(1, resultType="task", taskId="t-1", status="working"))
    tcp.post(modern("tasks/get", 2, taskId="t-1"), **MODERN)
    failed = {"isError": True, "content": [{"type": "text", "text": "out of paper"}]}
    tcp.answer(200, result(2, taskId="t-1", status="completed", result=failed))
    tcp.post(modern("tasks/get", 3, taskId="t-1"), **MODERN)
    tcp.answer(200, result(3, taskId="t-1", status="failed", error={"code": -32603, "message": "gone"}))
    first, second = [event for event in wire.events if event.type == "tasks/get"]
    assert (first.status, first.failure_reason, first.message) == (
        Status.FAILED,
        FailureReason.TOOL_ERROR,
        "out of paper",
    )
    assert (second.failure_reason, second.code, second.message) == (FailureReason.RPC_ERROR, "-32603", "gone")


def test_a_poll_of_an_unknown_task_is_linked_to_nothing() -> None:
    wire = Wire()
    tcp = wire.tcp()
    tcp.post(modern("tasks/get", 1, taskId="other"), **MODERN)
    assert wire.one("tasks/get").operation is None
