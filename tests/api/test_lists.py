"""Lists: pages that follow each other, whatever comes or goes meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.asking import CLAUDE, Asking
from tests.store.plausible import Scene, scene
from tests.store.recording import record

LISTS = ("sessions", "connections", "messages", "events", "session-errors")


async def every(http: httpx.AsyncClient, path: str, side: str = "after", **more: Any) -> list[list[str]]:
    """Walk a list to its end by cursors; return the ids of each page."""
    pages, cursor = [], None
    while True:
        told = (await http.get(path, params={**more, "cursor": cursor or ""})).json()
        pages.append([each["id"] for each in told["items"]])
        name = "next_cursor" if side == "after" else "previous_cursor"
        cursor = told["pagination"][name]
        assert (cursor is not None) == told["pagination"][f"has_more_{side}"]
        if cursor is None:
            return pages


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_follow_each_other_and_lead_back(asking: Asking, path: str, order: str) -> None:
    async def walk(http: httpx.AsyncClient) -> None:
        whole = (await http.get(f"/api/{path}", params={"order": order, "limit": "100"})).json()
        ids = [each["id"] for each in whole["items"]]
        assert whole["matched"] == len(ids)
        pages = await every(http, f"/api/{path}", order=order, limit="2")
        assert [of for page in pages for of in page] == ids
        assert {len(page) for page in pages[:-1]} <= {2}
        last = (await http.get(f"/api/{path}", params={"order": order, "limit": "2", "before": ids[-1]})).json()
        assert [each["id"] for each in last["items"]] == ids[-3:-1]
        assert last["pagination"]["has_more_after"] is True

    asking.within(walk)


@pytest.mark.parametrize(
    ("path", "sort"),
    [("connections", "calls"), ("connections", "client_name"), ("sessions", "duration_ms"), ("events", "latency_ms"),
     ("messages", "size")],
)  # fmt: skip
def test_a_sorted_list_has_pages_too(asking: Asking, path: str, sort: str) -> None:
    async def walk(http: httpx.AsyncClient) -> None:
        whole = (await http.get(f"/api/{path}", params={"sort": sort, "limit": "100"})).json()["items"]
        pages = await every(http, f"/api/{path}", sort=sort, limit="3")
        assert [of for page in pages for of in page] == [each["id"] for each in whole]
        if sort in ("calls", "duration_ms", "latency_ms"):
            values = [each[sort] if each[sort] is not None else -1 for each in whole]
            assert values == sorted(values, reverse=True)

    asking.within(walk)


def test_a_page_beyond_the_end_is_empty(asking: Asking) -> None:
    newest = asking.json("/api/events?limit=1")["items"][0]["id"]
    told = asking.json(f"/api/events?order=asc&after={newest}")
    assert (told["items"], told["pagination"]["has_more_after"]) == ([], False)
    assert told["pagination"]["next_cursor"] is told["pagination"]["previous_cursor"] is None


def test_an_id_that_is_gone_is_still_a_place(asking: Asking) -> None:
    told = asking.json("/api/connections?order=asc&after=scn_00000000000000000000000000")
    assert len(told["items"]) == 4


@pytest.mark.parametrize("path", ["connections", "events", "sessions"])
def test_a_place_in_another_list_is_refused(asking: Asking, path: str) -> None:
    wrong = f"scn_{CLAUDE}" if path == "events" else "smg_00000000000000001"
    assert asking.json(f"/api/{path}?after={wrong}", 400)["code"] == "invalid_data"


def test_what_is_new_shifts_nothing(tmp_path: Path) -> None:
    def told(number: int) -> Scene:
        return scene(number, f"09:{number:02d}:00", "robot", "1")

    path = tmp_path / "tap.db"
    record(path, *(told(number).batch for number in range(1, 6)))
    asking = Asking(path)
    first = asking.json("/api/connections?limit=2")
    record(path, told(6).batch)
    second = asking.json(f"/api/connections?limit=2&cursor={first['pagination']['next_cursor']}")
    assert [each["id"][-1] for each in first["items"] + second["items"]] == ["5", "4", "3", "2"]
    back = asking.json(f"/api/connections?limit=9&cursor={second['pagination']['previous_cursor']}")
    assert [each["id"][-1] for each in back["items"]] == ["6", "5", "4"]


def test_several_connections_of_one_session_are_told_once_newest_first(tmp_path: Path) -> None:
    batches = [
        scene(number, f"09:{number:02d}:00", f"robot-{number}", "1", session_id="ses_00000000000000000000000009").batch
        for number in (1, 2, 3)
    ]
    record(tmp_path / "tap.db", *batches)
    asking = Asking(tmp_path / "tap.db")
    for url in ("/api/sessions", "/api/sessions?sort=client_name"):
        (told,) = asking.json(url)["items"]
        assert told["client"] == "robot-3 1"
        assert [each["mcp"]["client"]["name"] for each in told["connections"]] == ["robot-3", "robot-2", "robot-1"]
    nested = asking.json("/api/sessions/ses_00000000000000000000000009/connections")["items"]
    assert [each["mcp"]["client"]["name"] for each in nested] == ["robot-1", "robot-2", "robot-3"]
