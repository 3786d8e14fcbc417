"""The sample server is a good example: the official SDKs get along with it, nothing between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .harness import CALLS, run_client

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.sdk


@pytest.mark.parametrize(
    ("client", "revision"),
    [
        ("py1", "2025-11-25"),
        pytest.param("py2-legacy", "2025-11-25", marks=pytest.mark.matrix),
        ("py2-auto", "2026-07-28"),
        ("ts", "2025-11-25"),
    ],
)
def test_an_official_client_talks_to_the_sample_server(
    client: str, revision: str, sdk: Callable[[str], None], server_url: Callable[[str], str]
) -> None:
    sdk(client)
    said = run_client(client, server_url("sample"), CALLS["sample"])
    assert said["server"] == "weather-shop"
    assert said["revision"] == revision
    assert [call["outcome"] for call in said["calls"]] == ["ok", "tool_error", "ok"]
    assert said["calls"][-1]["progress"] == [1, 2, 3, 4]
