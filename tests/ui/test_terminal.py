"""The live view on real pipes and pseudo-terminals."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_tap.config import Address, Admin, Proxy, Record, Settings, Upstream, parse_upstream
from mcp_tap.store import Row, Summary
from mcp_tap.ui import terminal
from mcp_tap.ui.terminal import Lines, Live, Outlet, banner_lines, failure_text, status_word, wants_color
from mcp_tap.ui.text import columns, harmless

SESSION: Row = {
    "connection_id": "scn_1",
    "client_name": "claude-desktop",
    "client_version": "1.2.3",
    "server_name": "weather",
    "server_version": "0.4",
    "protocol_version": "2025-11-25",
    "duration_ms": 46_000,
    "calls": 6,
    "errors": 2,
    "end_reason": "idle_timeout",
    "dropped": 0,
}


def event(number: int, **values: Any) -> Row:
    row: Row = {
        "event_id": f"sev_{number}",
        "time": "2026-11-12T10:08:44.998Z",
        "connection_id": "scn_1",
        "kind": "request",
        "type": "tools/call",
        "name": "search_products",
        "direction": "client_to_server",
        "status": "succeeded",
        "attempt": 1,
        "latency_ms": 42.0,
        "failure_reason": None,
        "error_code": None,
        "error_message": None,
        "request_bytes": 120,
        "response_bytes": 1200,
    }
    return row | values


START = event(1, type="session_start", kind="lifecycle", name=None, direction=None, status=None, response_bytes=0)
END = event(9, type="session_end", kind="lifecycle", name=None, direction=None, status=None, response_bytes=0)
FAILED = event(3, status="failed", failure_reason="timeout", error_message="upstream timeout", latency_ms=2340)
WAITING = event(4, status="waiting_for_response", latency_ms=None, response_bytes=0)


def lines(width: int = 100) -> Lines:
    return Lines(width=width, color=False)


def after_time(line: str | None) -> str:
    assert line is not None
    return re.sub(r"^\d\d:\d\d:\d\d\.\d{3} ", "", line)


# ---------------------------------------------------------------------------------------------------------- lines


def test_a_session_reads_like_a_log() -> None:
    view = lines()
    shown = [after_time(view.line(row, SESSION)) for row in (START, event(2), FAILED, END)]
    assert shown == [
        "#1  ● session claude-desktop 1.2.3 → weather 0.4  2025-11-25",
        "#1  → tools/call search_products          42 ms  ok          1.2 kB",
        "#1  → tools/call search_products         2.34 s  ERROR       1.2 kB  timeout upstream …",
        "#1  ○ ended 46 s, 6 calls, 2 errors, idle",
    ]


def test_connections_are_numbered_as_they_appear() -> None:
    view = lines()
    shown = [view.line(event(n, connection_id=conn), None) or "" for n, conn in enumerate(["a", "b", "a", None])]
    assert [after_time(line)[:2] for line in shown] == ["#1", "#2", "#1", "  "]


def test_lines_can_carry_the_number_that_show_takes() -> None:
    view = Lines(width=100, color=False, numbers="event")
    assert after_time(view.line(event(1, pk=117), None)).startswith("  117 → tools/call")


def test_an_event_is_shown_once_and_only_when_final() -> None:
    view = lines()
    assert view.line(WAITING, None) is None
    assert "…" in (view.waiting(WAITING) or "")
    assert view.waiting(WAITING) is None
    assert view.line(WAITING | {"status": "succeeded"}, None) is not None
    assert view.line(WAITING | {"status": "succeeded"}, None) is None


def test_directions() -> None:
    view = lines()
    assert "← sampling/createMessage" in (
        view.line(event(1, type="sampling/createMessage", name=None, direction="server_to_client"), None) or ""
    )
    http = event(2, kind="http", type="http", name="GET /mcp")
    assert after_time(view.line(http, None)).startswith("#1  · GET /mcp   ")
    nested = event(4, type="notifications/progress", name="1/4", direction="server_to_client", parent_id="smg_1")
    assert after_time(view.line(nested, None)) == "#1    ← notifications/progress 1/4        42 ms  ok          1.2 kB"
    cancelled = event(5, status="failed", failure_reason="cancelled", error_message="the client left")
    assert after_time(view.line(cancelled, None)).endswith("cancelled   1.2 kB  the client left")
    dropped = event(
        3, type="records_dropped", kind="lifecycle", name=None, direction=None, status=None, error_message="12 pieces"
    )
    assert after_time(view.line(dropped, None)) == "#1  · records_dropped 12 pieces"


@pytest.mark.parametrize(
    ("values", "word", "text"),
    [
        (["failed", "rpc_error", "-32000", "no"], "ERROR", "-32000 no"),
        (["failed", "tool_error", None, "no such city"], "ERROR", "no such city"),
        (["failed", "tool_error"], "ERROR", "tool error"),
        (["failed", "http_error", "502"], "ERROR", "HTTP 502"),
        (["failed", "cancelled"], "cancelled", "cancelled"),
        (["succeeded", None, None, None, "input_required"], "input", ""),
        (["failed", "http_error", "400", None, "probe"], "probe", "HTTP 400"),
        (["waiting_for_response"], "…", ""),
        ([None], "", ""),
    ],
)
def test_words(values: list[str | None], word: str, text: str) -> None:
    row = dict(zip(("status", "failure_reason", "error_code", "error_message", "outcome"), values, strict=False))
    assert (status_word(row)[0], failure_text(row)) == (word, text)


@given(st.text(max_size=80), st.text(max_size=80), st.integers(0, 10**9), st.sampled_from([60, 80, 100, 300]))
def test_no_line_is_wider_than_the_terminal_or_obeyed_by_it(name: str, said: str, ms: int, width: int) -> None:
    session = SESSION | {"client_name": name, "server_name": said, "protocol_version": said}
    rows = [
        event(1, name=name, error_message=said, failure_reason="rpc_error", error_code=name, latency_ms=ms),
        event(2, type=said, response_bytes=ms),
        event(3, type="session_start", name=None),
        event(4, kind="lifecycle", type="records_dropped", direction=None, status=None, error_message=said),
        event(6, kind="http", name=said, parent_id="smg_1"),
        event(5, attempt=ms, connection_id=name),
    ]
    view = lines(width)
    for row in rows:
        line = view.line(row, session)
        assert line is not None
        assert columns(line) <= min(width, 100)
        assert harmless(line) == line


# ----------------------------------------------------------------------------------------------------------- live


@contextmanager
def pipe() -> Iterator[tuple[IO[str], Callable[[], str]]]:
    """Yield the writing end of a pipe and a function that closes it and returns what was written."""
    read, write = os.pipe()
    out = os.fdopen(write, "w")
    reader = os.fdopen(read, "rb")

    def finish() -> str:
        out.close()
        return reader.read().decode()

    try:
        yield out, finish
    finally:
        out.close()
        reader.close()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_json_goes_to_stdout_and_words_to_stderr() -> None:
    with pipe() as (out, written), pipe() as (err, said):
        live = Live(out, err, format="json", color=False)
        live.show([(START, SESSION), (WAITING, None), (event(2, name="\x1b\u202e"), None)])
        live.notice("warning: \x1b[2J\nsecond line")
        live.status(sessions=1, active=1, calls=1, errors=0)
        live.close()
        text = written()
        assert [json.loads(line)["event_id"] for line in text.splitlines()] == ["sev_1", "sev_4", "sev_2"]
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert said() == "warning: \\x1b[2J\nsecond line\n"


def test_text_into_a_pipe_has_no_status_line_and_no_escapes() -> None:
    with pipe() as (out, written), pipe() as (err, said):
        live = Live(out, err, format="text", color=False)
        live.status(sessions=1, active=1, calls=1, errors=0)
        live.show([(event(1), None), (event(1), None)])
        live.close()
        assert written().count("search_products") == 1
        assert said() == ""


def test_format_none_says_only_what_must_be_said() -> None:
    with pipe() as (out, written), pipe() as (err, said):
        live = Live(out, err, format="none", color=False)
        live.banner(settings(), version="0.1", upstream_notes=[""], summary=None)
        live.show([(event(1), None)])
        live.notice("warning: store fails")
        live.close()
        assert (written(), said()) == ("", "warning: store fails\n")


def test_a_request_without_an_answer_is_shown_once_after_a_second() -> None:
    clock = Clock()
    with pipe() as (out, written), pipe() as (err, _):
        live = Live(out, err, format="text", color=False, clock=clock)
        live.show([(WAITING, None)])
        clock.now += 0.5
        live.status(sessions=1, active=1, calls=1, errors=0)
        clock.now += 0.6
        live.status(sessions=1, active=1, calls=1, errors=0)
        live.status(sessions=1, active=1, calls=1, errors=0)
        live.show([(WAITING | {"status": "succeeded", "latency_ms": 1234}, None)])
        live.close()
        shown = [line.split()[5] for line in written().splitlines()]
        assert shown == ["…", "1.23"]


def test_a_flood_is_counted_instead_of_shown() -> None:
    clock = Clock()
    with pipe() as (out, written), pipe() as (err, _):
        live = Live(out, err, format="text", color=False, clock=clock)
        live.show([(event(n), None) for n in range(1000)])
        clock.now += 1
        live.show([(event(1001), None)])
        live.close()
        shown = written().splitlines()
        assert len(shown) == terminal.LINES_PER_SECOND + 2
        assert shown[-2].startswith("… 800 events more")


def test_a_reader_that_is_gone_is_no_trouble() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as out, pipe() as (err, said):
        live = Live(out, err, format="json", color=False)
        live.show([(event(1), None)])
        live._events.close()
        live.show([(event(2), None)])
        live.close()
        assert "2 lines dropped" in said() or live._events.dropped == 2


def test_descriptors_that_were_closed_are_no_trouble() -> None:
    live = Live(None, None, format="text", color=wants_color(None, {}))
    live.show([(event(1), None)])
    live.notice("said to nobody")
    live.close()
    assert live._events.dropped == 0
    for fd in (live._out, live._err):
        os.close(fd)


def test_a_reader_that_stalls_costs_lines_and_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads the pipe until everything was shown: more than it and the backlog hold is dropped and said."""
    monkeypatch.setattr(terminal, "BACKLOG", 100_000)
    read, write = os.pipe()
    with os.fdopen(write, "w") as out, pipe() as (err, said):
        live = Live(out, err, format="json", color=False)
        for number in range(2000):
            live.show([(event(number), None)])
        received: list[bytes] = []
        thread = threading.Thread(target=lambda: received.extend(iter(lambda: os.read(read, 65536), b"")))
        thread.start()
        live.close()
        out.close()
        thread.join()
        os.close(read)
        got = [json.loads(line)["event_id"] for line in b"".join(received).splitlines()]
        assert 0 < len(got) < 2000
        assert live._events.dropped == 2000 - len(got)
        assert "dropped" in said()


def shown(controller: int) -> str:
    """Return all that came to a terminal whose other end is closed: it arrives in pieces, and not at once."""
    text = b""
    with os.fdopen(controller, "rb", buffering=0) as terminal, contextlib.suppress(OSError):  # EIO: that is the end
        while piece := terminal.read(65536):
            text += piece
    return text.decode()


def test_on_a_terminal_the_status_stays_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    controller, follower = pty.openpty()
    with os.fdopen(follower, "w") as tty:
        live = Live(tty, tty, format="text", color=True, width=80)
        live.banner(
            settings(), version="0.1.0", upstream_notes=["connected in 1 ms"], summary=Summary(12, 1, 99, 3_100_000)
        )
        live.status(sessions=2, active=1, calls=8, errors=2, p95_ms=2100, overhead_ms=0.4)
        live.show([(event(1), None)])
        live.notice("warning: the recorder was started again")
        live.close()
    text = shown(controller)
    status = "  2 sessions, 1 active · 8 calls · 2 errors · p95 2.10 s · 0 dropped"  # no room for the overhead
    screen = re.sub(r"\x1b\[\d*m", "", text).replace("\r\n", "\n")
    kept = [line.rsplit("\r\x1b[2K", 1)[-1] for line in screen.split("\n")]
    assert status in kept
    assert [line for line in kept if "tools/call" in line]
    assert kept.index("warning: the recorder was started again") > next(
        i for i, line in enumerate(kept) if "tools/call" in line
    )
    assert "  proxy      http://127.0.0.1:6278/mcp      ← give this URL to your MCP client" in kept
    assert any("12 sessions, 3.1 MB, secrets redacted, kept 30 days" in line for line in kept)


def test_a_dumb_terminal_gets_no_cursor_movement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    controller, follower = pty.openpty()
    with os.fdopen(follower, "w") as tty:
        live = Live(tty, tty, format="text", color=wants_color(tty, {"TERM": "dumb"}), width=80)
        live.status(sessions=2, active=1, calls=8, errors=2)
        live.show([(event(1), None)])
        live.close()
    text = shown(controller)
    assert "\x1b" not in text
    assert "tools/call" in text


@pytest.mark.parametrize(
    ("env", "color"),
    [
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({}, False),
        ({"FORCE_COLOR": "0"}, False),
    ],
)
def test_colour_is_a_matter_of_the_environment(env: dict[str, str], color: bool) -> None:
    assert wants_color(io.StringIO(), env) is color


def test_an_outlet_keeps_the_order() -> None:
    with pipe() as (out, written):
        outlet = Outlet("test")
        for number in range(100):
            assert outlet.put(out.fileno(), f"{number}\n".encode())
        outlet.close()
        assert written().split() == [str(number) for number in range(100)]
        assert not outlet.put(0, b"late\n")
        assert outlet.dropped == 1


def test_each_server_is_shown_with_its_listener() -> None:
    further = Proxy(parse_upstream("http://unix:/run/b.sock:/b"), Address("", 0, "/run/tap.sock"), name="b")
    lines = banner_lines(
        replace(settings(), others=(further,)), version="1", upstream_notes=["connected", "timed out"], summary=None
    )
    assert [line.split(maxsplit=2) for line in lines[1:5]] == [
        ["upstream", "http://localhost:9000/mcp", "connected"],
        ["proxy", "http://127.0.0.1:6278/mcp", "← give this URL to your MCP client"],
        ["upstream", "http://unix:/run/b.sock:/b", "b: timed out"],
        ["proxy", "http://unix:/run/tap.sock:/b", "← clients connect to this socket"],
    ]


def test_the_desk_is_an_address_to_open_and_the_record_has_its_bounds() -> None:
    given = replace(settings(), admin=Admin(token="a&b"), record=Record(max_size=2_000_000_000))
    *_, desk, record = banner_lines(given, version="1", upstream_notes=["connected"], summary=None)
    address = "http://127.0.0.1:6279/?token=a%26b"
    assert desk.split(maxsplit=2) == ["desk", address, "sessions, tools, live view"]
    assert record.endswith("secrets redacted, kept 30 days, at most 2.0 GB")


def settings() -> Settings:
    upstream = Upstream("http://localhost:9000/mcp", "http", "localhost", 9000, "/mcp")
    return Settings(proxy=Proxy(upstream=upstream), admin=Admin(), record=Record())
