"""Reading event streams (WHATWG HTML, "Server-sent events")."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_tap.protocol import sse
from mcp_tap.protocol.sse import SseEvent, SseReader

CASES: dict[str, tuple[bytes, list[SseEvent]]] = {
    "line feeds": (b"event: message\ndata: {}\n\n", [SseEvent("message", b"{}", None)]),
    "CRLF, as Python servers send": (b"event: message\r\ndata: {}\r\n\r\n", [SseEvent("message", b"{}", None)]),
    "carriage returns": (b"data: {}\r\r", [SseEvent("message", b"{}", None)]),
    "mixed line ends": (b"id: 1\rdata: a\ndata: b\r\n\n", [SseEvent("message", b"a\nb", "1")]),
    "a BOM before the first line": (b"\xef\xbb\xbfdata: x\n\n", [SseEvent("message", b"x", None)]),
    "several data lines": (b'data: {\ndata: "a": 1\ndata: }\n\n', [SseEvent("message", b'{\n"a": 1\n}', None)]),
    "no space after the colon": (b"data:x\n\n", [SseEvent("message", b"x", None)]),
    "only the first space goes": (b"data:  x\n\n", [SseEvent("message", b" x", None)]),
    "a comment": (b": ping - 2026-11-21\n\ndata: x\n\n", [SseEvent("message", b"x", None)]),
    "a field without a colon": (b"data\n\n", [SseEvent("message", b"", None)]),
    "priming: an id and empty data": (b"id: 7\ndata:\nretry: 500\n\n", [SseEvent("message", b"", "7")]),
    "an id without data is not dispatched": (b"id: 7\n\ndata: x\n\n", [SseEvent("message", b"x", None)]),
    "an id with NUL is ignored": (b"id: a\0b\ndata: x\n\n", [SseEvent("message", b"x", None)]),
    "unknown fields": (b"foo: bar\ndata: x\n\n", [SseEvent("message", b"x", None)]),
    "an endpoint": (b"event: endpoint\ndata: /m?s=1\n\n", [SseEvent("endpoint", b"/m?s=1", None)]),
    "the type does not outlive its event": (
        b"event: a\ndata: 1\n\ndata: 2\n\n",
        [SseEvent("a", b"1", None), SseEvent("message", b"2", None)],
    ),
    "an unfinished event is discarded": (b"data: x\n\ndata: y\n", [SseEvent("message", b"x", None)]),
    "characters of several bytes": ("data: ⏺\u2028é\n\n".encode(), [SseEvent("message", "⏺\u2028é".encode(), None)]),
}


@pytest.mark.parametrize("name", CASES)
def test_whole(name: str) -> None:
    stream, expected = CASES[name]
    assert SseReader().feed(stream) == expected


@pytest.mark.parametrize("name", CASES)
def test_byte_by_byte(name: str) -> None:
    stream, expected = CASES[name]
    reader = SseReader()
    assert [event for i in range(len(stream)) for event in reader.feed(stream[i : i + 1])] == expected


@given(data=st.data(), names=st.lists(st.sampled_from(sorted(CASES)), min_size=1, max_size=4))
def test_any_cut_reads_the_same(data: st.DataObject, names: list[str]) -> None:
    stream = b"".join(CASES[name][0] for name in names)
    whole = SseReader().feed(stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    reader = SseReader()
    events: list[SseEvent] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        events += reader.feed(stream[start:end])
    assert events == whole


FIELDS = st.sampled_from([
    "data: {}", "data: {}", "data:a", "data", "data:  ", "event: message", "event: message ", "event: x", "event:",
    "id: 1", "id:", "id: \0", "retry: 5", ": ping", "x: y", "", "", "\ufeff", "\ufeffdata: b", "data: é",
])  # fmt: skip


@given(st.lists(st.tuples(FIELDS, st.sampled_from(["\n", "\n", "\n\n", "\r\n", "\r\n\r\n", "\r", ""]))), st.data())
def test_whole_events_are_read_like_those_that_come_byte_by_byte(
    lines: list[tuple[str, str]], data: st.DataObject
) -> None:
    stream = "".join(map("".join, lines)).encode()
    slow, quick = SseReader(), SseReader()
    expected = [event for at in range(len(stream)) for event in slow.feed(stream[at : at + 1])]
    cut = data.draw(st.integers(0, len(stream)))
    assert quick.feed(stream[:cut]) + quick.feed(stream[cut:]) == expected
    assert (quick.last_id, quick.retry_ms, quick.inside) == (slow.last_id, slow.retry_ms, slow.inside)


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_no_bytes_make_it_fail(pieces: list[bytes]) -> None:
    reader = SseReader()
    for piece in pieces:
        reader.feed(piece)


def test_the_cursor_and_the_interval() -> None:
    reader = SseReader()
    reader.feed(b"id: 41\nretry: 1500\n\nid: 42\ndata: x\n\nretry: 1x\n\n")
    assert reader.last_id == "42"
    assert reader.retry_ms == 1500


def test_inside_an_event() -> None:
    reader = SseReader()
    inside = [reader.inside]
    for line in (b"data: x\n", b"\n"):
        reader.feed(line)
        inside.append(reader.inside)
    assert inside == [False, True, False]


@pytest.mark.interpreted
@pytest.mark.parametrize("step", [1000, 100_000])
def test_an_event_beyond_the_limit_is_reported_without_its_data(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 50_000)
    reader = SseReader()
    line = b"data: " + b"x" * 60_000 + b"\n"
    stream = b"data: before\n\n" + line + b"\n" + line[:40_000] + b"\n" + line[:40_000] + b"\n\ndata: after\n\n"
    events = [event for i in range(0, len(stream), step) for event in reader.feed(stream[i : i + step])]
    assert [event.data for event in events] == [b"before", None, None, b"after"]
