"""Real clients over links that misbehave: with the tap between they see what they see without, and so does the server.

The record says which side the trouble came from: what breaks between the client and the tap looks to the tap like a
client that left, what breaks behind it like a server that was lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from mcp_tap.demo.client import Played, play
from tests.faults.chain import SIDES, Chain
from tests.faults.conversation import SERVER_OF, target_of
from tests.faults.injector import (
    Close,
    Delay,
    Faults,
    HalfClose,
    HalfCloseWhenAnswered,
    Reset,
    Slice,
    StopReading,
    Throttle,
)

#: How the call that is hit ends in the record: its type, status, failure reason and code.
Verdict = tuple[str, str, str | None, str | None]

SUCCEEDED: Verdict = ("tools/call", "succeeded", None, None)
LEFT: Verdict = ("tools/call", "failed", "cancelled", "client_disconnected")
LOST: Verdict = ("tools/call", "failed", "transport_error", "connection_lost")
#: The server had named a place to resume at before the client left: the call waited for that until the session ended.
GIVEN_UP: Verdict = ("tools/call", "failed", "abandoned", "client_delete")
#: A request that the tap saw a part of is no call: nothing says what it would have been.
CUT: Verdict = ("http", "failed", "cancelled", "client_disconnected")
REFUSED: Verdict = ("http", "failed", "http_error", "400")
#: The client left without a word, and may still come back for the rest.
WAITING: Verdict = ("tools/call", "waiting_for_response", None, None)

PROGRESS = b"notifications/progress"


@dataclass(frozen=True)
class Case:
    """Faults, and what the record says of the call they hit: with the fault before the tap, and behind it.

    ``resumable`` says the same of a server whose streams can be resumed, where that differs.
    """

    faults: Faults
    before: Verdict = LEFT
    behind: Verdict = LOST
    resumable: tuple[Verdict, Verdict] | None = None
    whole: bool = False  # the faults hold for all of the conversation, and do no harm

    def expected(self, client: str, side: str) -> Verdict:
        before, behind = self.resumable if self.resumable and client == "ts" else (self.before, self.behind)
        return before if side == "client" else behind


#: The client goes on with a GET stream, and gets its answer there.
RESUMED = (SUCCEEDED, SUCCEEDED)

CASES = {
    "single bytes": Case(Faults((Slice(),), (Slice(),)), SUCCEEDED, SUCCEEDED, whole=True),
    "delayed": Case(Faults((Delay(0.02),), (Delay(0.02),)), SUCCEEDED, SUCCEEDED, whole=True),
    "throttled and sliced": Case(
        Faults((Throttle(20_000), Slice(7)), (Throttle(20_000), Slice(3))), SUCCEEDED, SUCCEEDED, whole=True
    ),
    "reset before the answer": Case(Faults(down=(Reset(0),)), resumable=(GIVEN_UP, LOST)),
    "reset in the head": Case(Faults(down=(Reset(40),)), resumable=(GIVEN_UP, LOST)),
    "reset in the body": Case(Faults(down=(Reset(PROGRESS),)), resumable=RESUMED),
    "closed before the answer": Case(Faults(down=(Close(0),)), resumable=(GIVEN_UP, LOST)),
    "closed in the body": Case(Faults(down=(Close(PROGRESS),)), resumable=RESUMED),
    "answer ended early": Case(Faults(down=(HalfClose(PROGRESS),)), resumable=RESUMED),
    "client ends while it is answered": Case(Faults(up=(HalfCloseWhenAnswered(),)), resumable=RESUMED),
    "reset in the request": Case(Faults(up=(Reset(0),)), CUT),
    # node answers half a request that ends in order, so that there is an answer to record
    "closed in the request": Case(Faults(up=(Close(0),)), CUT, resumable=(REFUSED, LOST)),
    "nobody reads the answer": Case(Faults(down=(StopReading(PROGRESS),)), SUCCEEDED, LEFT, (SUCCEEDED, WAITING)),
}

#: The clients of `make test`; all others, and all other cases, belong to the matrix.
QUICK = {
    ("raw-modern", "single bytes"),
    ("raw-modern", "reset in the body"),
    ("raw-legacy", "closed in the body"),
    ("raw-legacy", "client ends while it is answered"),
    ("raw-legacy", "reset in the request"),
}

MATRIX = [
    pytest.param(
        client,
        name,
        id=f"{client}-{name}",
        marks=([] if (client, name) in QUICK else [pytest.mark.matrix])
        + ([] if client.startswith("raw") else [pytest.mark.sdk]),
    )
    for client in SERVER_OF
    for name in CASES
]


@pytest.mark.parametrize(("client", "name"), MATRIX)
def test_a_bad_link_is_as_bad_with_the_tap_as_without(
    client: str, name: str, sdk: Callable[[str], None], chain_to: Callable[[str], Chain]
) -> None:
    if not client.startswith("raw"):
        sdk(client)
    case, links = CASES[name], chain_to(SERVER_OF[client])
    target = target_of(client)
    faults = case.faults if case.whole else replace(case.faults, when=f'"{target}"'.encode())

    direct = links.play(client, faults)
    for side in SIDES:
        tapped = links.play(client, faults, side)
        assert tapped.client_saw == direct.client_saw, side
        assert tapped.server_saw == direct.server_saw, side
        recorded = [verdict(row) for row in links.record() if row["name"] in (target, "POST /mcp")]
        assert recorded == [case.expected(client, side)], side


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["single bytes", "delayed"])
def test_the_clients_of_the_demonstration_get_along_with_a_slow_link(
    name: str, chain_to: Callable[[str], Chain]
) -> None:
    links, faults = chain_to("sample"), CASES[name].faults
    direct = links.between(demonstrate, faults)
    assert (direct.sessions, direct.cancelled) == (3, 1)
    for side in SIDES:
        assert links.between(demonstrate, faults, side) == direct
        calls = [row for row in links.record() if row["kind"] == "request" and row["direction"] == "client_to_server"]
        assert len(calls) == direct.calls
        failed = [row["failure_reason"] for row in calls if row["status"] == "failed"]
        assert failed.count("cancelled") == direct.cancelled
        assert len(failed) == direct.errors + direct.cancelled


def demonstrate(url: str) -> Played:
    return asyncio.run(play(url, once=True))


def test_a_server_that_resets_after_its_client_has_left_was_not_lost(chain_to: Callable[[str], Chain]) -> None:
    links = chain_to("sample")
    # the client gives up on an answer that stands still; only then does the link to the server break
    seen = links.play("raw-modern", Faults(down=(StopReading(PROGRESS),), when=b'"import_catalog"'), "server")
    assert "ReadTimeout" in [step["failed"] for step in seen.client_saw]
    recorded = [verdict(row) for row in links.record(reset=True) if row["name"] == "import_catalog"]
    assert recorded == [LEFT]


def verdict(row: dict[str, Any]) -> Verdict:
    return row["type"], row["status"], row["failure_reason"], row["error_code"]
