"""No bytes make an exception leave `protocol`, and none break what a record promises. The long run is `make fuzz`."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcp_tap.channel import Kind
from mcp_tap.model import Event
from mcp_tap.model import Kind as EventKind
from mcp_tap.protocol.transcript import Step, read
from tests.fuzz import promises
from tests.fuzz.mutate import BOMBS, HEADERS, NUMBERS, STRINGS, WORDS, Mutator, call, post
from tests.transcripts.play import FILES, load

CORPUS = [load(path).steps for path in FILES]
MUTATOR = Mutator(CORPUS)
OPENING = load(next(path for path in FILES if path.name == "delete.txt")).steps[:4]


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=False))
def test_mutated_conversations(chance: random.Random) -> None:
    promises.record(MUTATOR.make(chance))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([Kind.CLIENT, Kind.SERVER]), st.binary(max_size=200)), max_size=12))
def test_junk(junk: list[tuple[Kind, bytes]]) -> None:
    promises.record([*OPENING, *(Step(kind, 1, data) for kind, data in junk)])


@pytest.mark.parametrize("word", [*WORDS, *NUMBERS, *STRINGS], ids=lambda word: repr(word[:20]))
def test_every_odd_word_in_every_place(word: bytes) -> None:
    """As an id, a method, a name, a value of `_meta`, an SSE line, a chunk."""
    bodies = [
        b'{"jsonrpc":"2.0","id":%s,"method":"ping"}' % word,
        b'{"jsonrpc":"2.0","id":1,"method":%s}' % word,
        b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":%s,"arguments":%s}}' % (word, word),
        b'{"jsonrpc":"2.0","id":3,"method":"tools/call","params":%s}' % word,
        b'{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"_meta":{"progressToken":%s}}}' % word,
        b'{"jsonrpc":"2.0","id":5,"result":%s}' % word,
        b'{"jsonrpc":"2.0","id":6,"error":%s}' % word,
        word,
    ]
    steps = list(OPENING)
    for body in bodies:
        answer = b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (word, word)
        for kind in (b"application/json", b"text/event-stream"):
            text = b"data: " + answer + b"\n\n" if kind[:1] == b"t" else answer
            steps += [
                Step(Kind.CLIENT, 1, post(body)),
                Step(Kind.SERVER, 1, b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s"
                     % (kind, len(text), text)),
            ]  # fmt: skip
    promises.record(steps)


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: repr(header[:24]))
def test_every_odd_header(header: bytes) -> None:
    request = post(call(1)).replace(b"\r\n", b"\r\n" + header, 1)
    answer = b"HTTP/1.1 200 OK\r\n" + header + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    promises.record([*OPENING, Step(Kind.CLIENT, 1, request), Step(Kind.SERVER, 1, answer)])


@pytest.mark.parametrize("bomb", range(len(BOMBS)))
def test_bombs(bomb: int) -> None:
    answered = [*OPENING, Step(Kind.CLIENT, 1, post(call(1))), Step(Kind.SERVER, 1, BOMBS[bomb])]
    (event,) = [event for event in promises.record(answered).events if event.type == "ping"]
    assert event.http_status == 200


def test_a_broken_promise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = promises.record(OPENING)
    for broken in (
        Event(EventKind.HTTP, "x", 0, duration_us=-1),
        Event(EventKind.HTTP, "x", 0, name="\ud800"),
        Event(EventKind.HTTP, "x", 0, note="x" * 100_000),
    ):
        with pytest.raises((AssertionError, UnicodeError)):
            promises._event(broken)
    wire.connections[0].open_calls = 1
    with pytest.raises(AssertionError, match="1 calls are open"):
        promises.check(wire)


def test_the_long_run_repeats_itself_and_prints_what_escapes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--seed", "3", "--inputs", "300"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 escapes" in done.stdout
    script = (
        "import sys, tests.fuzz.__main__ as fuzz\n"
        "def record(steps):\n"
        "    if any(b'S1' in step.payload for step in steps): raise ValueError('planted')\n"
        f"fuzz.record = record; sys.argv += ['--seed', '3', '--inputs', '100', '--save', {str(tmp_path)!r}]\n"
        "sys.exit(fuzz.main())"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "escape: ValueError: planted" in done.stdout
    (file,) = tmp_path.iterdir()
    assert len(read(file.read_text()).steps) == 1  # the one step that does it
