"""Every recorded conversation gives the record that stands below it, however its bytes are cut."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcp_tap.channel import Kind
from mcp_tap.protocol.revisions import REVISIONS
from mcp_tap.protocol.transcript import Step, read
from tests.transcripts.play import FILES, HERE, Cut, differences, events_of, load, play, sessions_of

every_file = pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(HERE)) for path in FILES])

#: Those whose bytes may be cut anywhere. Where pieces are missing a stream is followed again from the next piece that
#: begins with a head, so there the cuts matter.
WHOLE = [path for path in FILES if not any(step.kind is Kind.LOST for step in load(path).steps)]
every_whole_file = pytest.mark.parametrize("path", WHOLE, ids=[str(path.relative_to(HERE)) for path in WHOLE])

#: Made anew in every play.
OURS = {"connection_id", "session_id", "replaces"}


def described(steps: list[Step], cut: Cut | None = None) -> list[dict[str, object]]:
    """Return everything that the record says."""
    wire = play(steps, cut=cut)
    rows = [*sessions_of(wire), *events_of(wire)]
    return [{key: value for key, value in row.items() if key not in OURS} for row in rows]


@every_file
def test_record(path: Path) -> None:
    transcript = load(path)
    assert transcript.events, "a transcript says what its record is"
    why = transcript.comment("expected to fail")
    difference = differences(transcript, play(transcript.steps))
    if why is None:
        assert not difference, f"\n{difference}"
    else:
        assert difference, f"it was expected to fail ({why}) and does not: delete that line"
        pytest.xfail(why)


@every_whole_file
def test_byte_by_byte(path: Path) -> None:
    def bytes_of(step: Step) -> Iterator[bytes]:
        return (step.payload[i : i + 1] for i in range(len(step.payload)))

    steps = load(path).steps
    assert described(steps, bytes_of) == described(steps)


@settings(max_examples=80, suppress_health_check=[HealthCheck.data_too_large])
@given(data=st.data(), path=st.sampled_from(WHOLE))
def test_any_cut(data: st.DataObject, path: Path) -> None:
    steps = load(path).steps
    places = data.draw(st.dictionaries(st.integers(0, len(steps) - 1), st.lists(st.integers(0, 5000), max_size=6)))
    numbers = {id(step): number for number, step in enumerate(steps)}

    def cut(step: Step) -> Iterator[bytes]:
        size = len(step.payload)
        ends = sorted({place % (size + 1) for place in places.get(numbers[id(step)], [])} | {0, size})
        return (step.payload[start:end] for start, end in itertools.pairwise(ends))

    assert described(steps, cut) == described(steps)


def test_the_example_of_the_documentation() -> None:
    document = (HERE.parents[1] / "docs" / "transcripts.md").read_text()
    transcript = read(document.partition("```text\n")[2].partition("```")[0])
    assert (len(transcript.sessions), len(transcript.events)) == (2, 2)
    assert not differences(transcript, play(transcript.steps))


def test_each_revision_has_a_folder() -> None:
    assert {path.parent.name for path in FILES} == set(REVISIONS)
