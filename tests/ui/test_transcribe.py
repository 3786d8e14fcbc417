"""A session goes into a store, comes out as a transcript, and played again it makes the same rows."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_tap.config import Redact
from mcp_tap.protocol.redact import Redactor
from mcp_tap.protocol.tracker import Tracker
from mcp_tap.protocol.transcript import read, write
from mcp_tap.store import open_reader, open_writer
from mcp_tap.ui.transcribe import SESSION_ID, transcribe
from tests.protocol.wire import Wire
from tests.transcripts.play import FILES, HERE, differences, load, play

every_file = pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(HERE)) for path in FILES])


#: Those which differ without bodies: these said who the server is, and what continues what.
NEED_BODIES = {f"2026-07-28/{name}.txt" for name in ("captured-python", "discover", "rounds")}


def stored_and_played(wire: Wire, folder: Path) -> list[str]:
    """Write what a tracker has made into a store, and return how each session differs after its second play."""

    async def work() -> list[str]:
        url = f"sqlite:///{folder}/tap.db"
        writer = await open_writer(url)
        await writer.write(wire.tracker.take())
        await writer.close()
        reader = await open_reader(url)
        try:
            texts = [write(await transcribe(reader, session, 1000)) for session in (await reader.list_sessions()).rows]
        finally:
            await reader.close()
        return [differences(read(text), play(read(text).steps)) for text in texts]

    return asyncio.run(work())


@every_file
def test_the_same_rows(path: Path, tmp_path: Path) -> None:
    assert set(stored_and_played(play(load(path).steps), tmp_path)) <= {""}


@every_file
def test_the_same_rows_without_bodies(path: Path, tmp_path: Path) -> None:
    wire = Wire()
    wire.tracker = Tracker(Redactor(Redact(), bodies="none", max_body=1000))
    same = set(stored_and_played(play(load(path).steps, wire=wire), tmp_path)) <= {""}
    assert same is (str(path.relative_to(HERE)) not in NEED_BODIES)


@pytest.mark.matrix
def test_a_recorded_demonstration(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/tap.db"
    tap = [sys.executable, "-m", "mcp_tap.cli"]
    listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    subprocess.run([*tap, "demo", "--once", "--store", store, *listen], check=True, capture_output=True)
    for number in ("1", "2", "3"):
        done = subprocess.run(
            [*tap, "transcript", number, "--store", store], check=True, capture_output=True, text=True
        )
        transcript = read(done.stdout)
        assert len(transcript.events) > 8
        assert transcript.comments[1].endswith("bodies are as they were stored: masked.")
        assert "tok_demo_4242" not in done.stdout
        assert not differences(transcript, play(transcript.steps))
    assert (
        SESSION_ID
        in subprocess.run(
            [*tap, "transcript", "1", "--store", store], check=True, capture_output=True, text=True
        ).stdout
    )
