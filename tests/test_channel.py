"""Records survive any cut of the bytes between the two processes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_tap.channel import HEADER, MAX_PAYLOAD, Decoder, Kind, Record, encode, encode_json

RECORDS = st.lists(
    st.builds(
        Record,
        stream=st.integers(0, 2**32 - 1),
        kind=st.sampled_from([int(kind) for kind in Kind]),
        at_ns=st.integers(0, 2**64 - 1),
        payload=st.binary(max_size=60),
    ),
    max_size=12,
)


@given(RECORDS, st.integers(1, 50))
@settings(deadline=None)
def test_what_was_encoded_is_decoded_however_it_was_cut(records: list[Record], step: int) -> None:
    data = b"".join(encode(*record) for record in records)
    decoder = Decoder()
    found = [record for at in range(0, len(data), step) for record in decoder.feed(data[at : at + step])]
    assert found == records


def test_a_record_that_is_not_complete_waits() -> None:
    data = encode(7, Kind.CLIENT, 9, b"abc")
    decoder = Decoder()
    assert decoder.feed(data[:-1]) == []
    assert decoder.feed(data[-1:]) == [Record(7, Kind.CLIENT, 9, b"abc")]


def test_an_impossible_length_is_refused() -> None:
    with pytest.raises(ValueError, match="channel record of"):
        Decoder().feed(HEADER.pack(1, Kind.CLIENT, 1, MAX_PAYLOAD + 1))


def test_json_payloads() -> None:
    (record,) = Decoder().feed(encode_json(0, Kind.BUSY, 1, [1, 2]))
    assert record.payload == b"[1,2]"
    assert record.json() == [1, 2]
