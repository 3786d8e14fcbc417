"""Which calls are one operation.

Another try of a failed call, the next round of one that asked for input, and the polls of one that became a task.
Calls are linked to the first of them (`Event.operation`) and counted (`Event.attempt`), and never when in doubt.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mcp_tap.model import Event, Outcome, Status
from mcp_tap.protocol.jsonrpc import Params, Result

if TYPE_CHECKING:
    from mcp_tap.protocol.connections import Live

#: The only requests that a server may answer by asking for input (2026-07-28), and the ones that are tried again.
METHODS: Final = frozenset({"tools/call", "prompts/get", "resources/read"})

#: Calls of one connection whose next try would be recognised.
MAX_TRIES: Final = 256

#: Bytes of arguments that are remembered as they are: copying so many costs less than hashing them.
MAX_ARGUMENTS: Final = 256

#: A call is another try of a failed one only this soon after it.
RETRY_US: Final = 600 * 1_000_000


_SUCCEEDED: Final = Status.SUCCEEDED  # looking it up on its class costs as much as a call


@dataclass(slots=True, eq=False)
class Try:
    """A call as far as it takes to recognise its next try or round."""

    event: Event
    arguments: bytes  # as they were; a hash of longer ones
    state: bytes = b""  # requestState of an input_required answer
    asked: frozenset[str] = frozenset()  # the keys of its inputRequests


def link(live: Live, event: Event, params: Params) -> None:
    """Link a new call to the one that it continues, if it does."""
    if event.type not in METHODS:
        link_task(live, event, params)
        return
    name = (event.type, event.name)
    before = live.tries.pop(name, None)
    arguments = bytes(params.arguments)
    if len(arguments) > MAX_ARGUMENTS:
        arguments = hashlib.blake2b(arguments, digest_size=8).digest()
    if before is not None and (before.event.status is not _SUCCEEDED or before.event.outcome is not None):
        earlier = before.event
        if earlier.outcome is Outcome.INPUT_REQUIRED:
            state, keys = bytes(params.request_state), frozenset(params.input_responses or ())
            linked = bool(state or keys) and state == before.state and keys == before.asked
        else:
            recent = event.at_us - earlier.at_us <= RETRY_US
            linked = earlier.status is Status.FAILED and arguments == before.arguments and recent
        if linked:
            event.operation = earlier.operation or earlier
            event.attempt = earlier.attempt + 1
    if len(live.tries) < MAX_TRIES:
        live.tries[name] = Try(event, arguments)


def link_task(live: Live, event: Event, params: Params) -> None:
    """Link a poll, an update, a cancellation or a notification of a task to the call that became it."""
    call = live.tasks.get(params.task_id) if params.task_id else None
    if call is not None and event.type.removeprefix("notifications/").startswith("tasks"):
        event.operation = call.operation or call


def became_task(live: Live, event: Event, result: Result) -> None:
    """Remember that a call was answered by a task (2025-11-25 nests it, 2026-07-28 has it flat)."""
    task_id = result.task_id or (result.task.task_id if result.task is not None else None)
    if task_id:
        live.remember_task(task_id, event)


def task_told(live: Live, event: Event, result: Result) -> Event | None:
    """Note on a call what a poll of its task says; return the call if that is news."""
    if event.type not in ("tasks/get", "tasks/result", "tasks/cancel") or event.operation is None:
        return None
    status = result.status or ("completed" if event.type == "tasks/result" else None)
    note = f"task {status}" if status else None
    call = live.tasks.get(event.name or "")
    if call is None or note is None or call.note == note:
        return None
    call.note = note
    return call


def wants_input(live: Live, event: Event, result: Result) -> None:
    """Remember what a call was asked for: the next round brings it under the same keys and with the same state."""
    known = live.tries.get((event.type, event.name))
    if known is not None and known.event is event:
        asked = frozenset(result.input_requests or ())
        live.tries[event.type, event.name] = Try(event, known.arguments, bytes(result.request_state), asked)
