"""Transcripts as text: every byte can be written and read back, and what cannot be read says where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_tap.channel import Closing, Kind
from mcp_tap.protocol.transcript import Opening, Step, Transcript, TranscriptError, cell, read, write

talk = st.builds(
    Step,
    st.sampled_from([Kind.CLIENT, Kind.SERVER, Kind.OWN]),
    st.integers(1, 3),
    st.one_of(
        st.binary(min_size=1, max_size=80),
        st.text("ab \\#{}|\r\n\t\0é\u202e\u2028", min_size=1).map(str.encode),
        st.binary(max_size=20).map(lambda body: b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body),
    ),
    st.sampled_from([1000, 1, 2500, 60_000_000, 3_600_000_000, 0]),
)
others = st.sampled_from(
    [
        Step(Kind.OPEN, 1, b"10.0.0.1:5 http://a/b resumed"),
        Step(Kind.CLIENT_EOF, 2),
        Step(Kind.SERVER_EOF, 1, after_us=7),
        Step(Kind.CLOSED, 1, Closing.CLIENT_RESET),
        Step(Kind.CLOSED, 3, Closing.END),
        Step(Kind.LOST, 1, b"3"),
        Step(Kind.CONNECT_FAILED, 1, b"connection refused"),
        Step(Kind.STOP),
    ]
)


@given(st.lists(st.one_of(talk, others)))
def test_what_is_written_is_read_back(steps: list[Step]) -> None:
    assert read(write(Transcript(steps))).steps == steps


def test_a_line_ends_in_crlf_unless_it_says_otherwise() -> None:
    (step,) = read("1> a\\\\b\\t\\x00\\n\\\n1> é\n1>\n1> end\\\n").steps
    assert step == Step(Kind.CLIENT, 1, b"a\\b\t\0\n" + "é".encode() + b"\r\n\r\nend")


def test_an_empty_line_parts_two_pieces_and_a_time_stands_before_its_step() -> None:
    steps = read("1< a\\\n\n1< b\\\n+1.5s\n1< c\\\n2> d\\\n+2m").steps
    assert [(step.stream, step.payload, step.after_us) for step in steps] == [
        (1, b"a", 1000), (1, b"b", 1000), (1, b"c", 1_500_000), (2, b"d", 1000), (0, b"", 120_000_000),
    ]  # fmt: skip


def test_lengths_and_chunks_are_counted() -> None:
    (step,) = read("1> POST / HTTP/1.1\n1> content-length: \\#\n1>\n1> {1}é\\").steps
    assert step.payload == b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n{1}\xc3\xa9"
    (step,) = read("1< \\{data: x\n1<\n1< \\}\n1< 0\n1<").steps
    assert step.payload == b"b\r\ndata: x\r\n\r\n\r\n0\r\n\r\n"


def test_tables_and_comments() -> None:
    transcript = read("# Says this.\n# expected to fail: yet\n\n1 closed\n# not this\n\nevents:\n  a | b\n  1 | x y\n")
    assert transcript.events == [["a", "b"], ["1", "x y"]]
    assert transcript.comments == ["Says this.", "expected to fail: yet"]
    assert transcript.comment("expected to fail") == "yet"
    assert read(write(transcript)) == transcript


def test_a_cell_is_one_word_of_one_line() -> None:
    assert [cell(value) for value in (None, "-", "", " a", "a|b\n", 1.5, "\ud800")] == [
        "-", '"-"', '""', '" a"', r"a\x7cb\n", "1.5", r"\xed\xa0\x80",
    ]  # fmt: skip


def test_an_opening_has_defaults() -> None:
    assert Opening.of(Step(Kind.OPEN, 7)) == Opening("127.0.0.1:50007", "http://up/mcp")
    assert Opening.of(Step(Kind.OPEN, 7, b"resumed")) == Opening("127.0.0.1:50007", "http://up/mcp", resumed=True)


@pytest.mark.parametrize(
    "text", ["1> \\q", "1> \\{x", "1> \\#", "what", "1 closed somehow", "1 lost some", "1> \\}", "1> \\x4"]
)
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(TranscriptError, match=r"^line \d+: "):
        read(f"# fine\n{text}\n\n")
