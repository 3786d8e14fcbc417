"""A recording for the verbs, and nothing of whoever runs them."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from mcp_tap.model import Batch, Body, Codec, FailureReason, Side
from mcp_tap.store import open_writer
from tests.cli.ran import EVIL
from tests.store.plausible import morning, scene


async def write(url: str, *batches: Batch) -> None:
    writer = await open_writer(url)
    try:
        for batch in batches:
            await writer.write(batch)
    finally:
        await writer.close()


@pytest.fixture(scope="package")
def recording(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A plausible morning, and one call whose every word is meant to disturb a terminal."""
    url = f"sqlite:///{tmp_path_factory.mktemp('recording')}/tap.db"
    evil = scene(5, "12:00:00.000", EVIL, "1")
    event = evil.call(
        "tools/call", "12:00:01.000", 5.0, EVIL, failure_reason=FailureReason.TOOL_ERROR, message=EVIL, path=EVIL
    )
    evil.batch.bodies.append(Body(event, Side.REQUEST, Codec.MASKED, json.dumps({"to": EVIL, "big": 2**70}), masked=2))
    evil.batch.bodies.append(Body(event, Side.RESPONSE, Codec.CUT, f'{{"text": "{EVIL}\nsecond line'))
    event.headers_us, event.first_event_us, event.sse_events = 1000, 2000, [2000, 4500]
    asyncio.run(write(url, *morning(), evil.batch))
    return url


@pytest.fixture(autouse=True)
def nothing_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep configuration files and variables of whoever runs the tests out of them."""
    for name in [name for name in os.environ if name.startswith("MCP_TAP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
