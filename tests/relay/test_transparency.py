"""Promise 1: what passes through the relay is what would have passed without it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mcp_tap.channel import Closing, Kind
from tests.relay.cases import CASES
from tests.relay.compare import MODES, WIRES, Bench, bench
from tests.relay.script import Case, Outcome, run


@pytest.fixture(scope="module")
def relays() -> Iterator[Bench]:
    with bench() as made:
        yield made


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_neither_side_can_tell(relays: Bench, case: Case, mode: str) -> None:
    assert relays.compare(case, mode) == []


#: A unix socket fails a writer at once when its reader is gone. With the tap between, as over TCP, only the next time.
AT_ONCE = ("client gone after the event, before the last chunk",)


@pytest.mark.parametrize("case", [case for case in CASES if case.name not in AT_ONCE], ids=lambda case: case.name)
def test_neither_side_can_tell_over_unix_sockets(relays: Bench, case: Case) -> None:
    assert relays.compare_wire(case, "unix") == []


@pytest.mark.parametrize("wire", [wire for wire in WIRES if wire != "unix"])
@pytest.mark.parametrize("case", [case for case in CASES if case.in_turn], ids=lambda case: case.name)
def test_tls_carries_the_same_bytes(relays: Bench, case: Case, wire: str) -> None:
    assert relays.compare_wire(case, wire) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", [case for case in CASES if case.framed is None], ids=lambda case: case.name)
def test_the_record_has_every_byte_and_both_ends(relays: Bench, case: Case, mode: str) -> None:
    feed = relays.feeds[mode]
    direct = run(case, relays.listening, relays.addresses["direct"])
    feed.forget()
    tapped = run(case, relays.listening, relays.addresses[mode], direct)
    feed.wait()
    kinds = feed.kinds()
    assert kinds[0] == Kind.OPEN
    assert kinds[-1] == Kind.CLOSED
    assert feed.bytes_of(Kind.SERVER).startswith(direct.client_got if case.edited else tapped.client_got)
    assert feed.bytes_of(Kind.CLIENT).startswith(direct.server_got)
    times = [at_ns for _, _, at_ns, _ in feed.records]
    assert times == sorted(times)


def test_case_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 60


def test_a_reset_is_recorded_as_one(relays: Bench) -> None:
    closings = {
        "server resets in the middle of a body": Closing.SERVER_RESET,
        "client resets before the answer's head": Closing.CLIENT_RESET,
        "half-closed client is still answered": Closing.END,
    }
    feed = relays.feeds["blind"]
    for name, closing in closings.items():
        case = next(case for case in CASES if case.name == name)
        feed.forget()
        run(case, relays.listening, relays.addresses["blind"])
        feed.wait()
        assert feed.bytes_of(Kind.CLOSED) == closing


@pytest.mark.parametrize(
    "wrong",
    [
        Outcome(b"other", "fin", b"", "fin"),
        Outcome(b"", "rst", b"", "fin"),
        Outcome(b"", "fin", b"other", "fin"),
        Outcome(b"", "fin", b"", "open"),
    ],
)
def test_the_comparison_notices(wrong: Outcome) -> None:
    from tests.relay.compare import differences

    right = Outcome(b"", "fin", b"", "fin")
    assert list(differences(Case("any", [], []), "blind", right, right, right)) == []
    assert list(differences(Case("any", [], []), "blind", right, right, wrong)) != []


def test_a_feed_that_always_raises_harms_nothing(relays: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(*_: object) -> None:
        raise RuntimeError("the record is broken")

    for mode in MODES:
        relays.feeds[mode].forget()
        monkeypatch.setattr(relays.feeds[mode], "put", put)
    for case in CASES:
        for mode in MODES:
            assert relays.compare(case, mode) == [], case.name
