"""What a URL asks, and what it is told when nobody can understand it."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from mcp_tap.api import parameters
from mcp_tap.model import UsageError
from tests.api.asking import Asking

ROW = "scn_00000000000000000000000002"
OTHER = "scn_00000000000000000000000001"


def request(query: str, path: str = "/api/connections") -> Request:
    return Request({"type": "http", "path": path, "query_string": query.encode(), "headers": [], "method": "GET"})


def test_nothing_said_is_twenty_rows_in_order() -> None:
    question = parameters.read(request(""))
    assert (question.paging.limit, question.paging.order, question.paging.sort) == (20, "asc", "")
    assert not question.where
    assert question.paging.after is question.paging.before is None


def test_a_form_that_was_sent_empty_says_nothing() -> None:
    assert parameters.read(request("limit=&order=&q=&status=&after=")).paging.limit == 20


def test_filters_are_read_as_words_and_as_parameters_alike() -> None:
    for query in ("q=status:failed+tool:pay", "status=failed&tool=pay"):
        assert str(parameters.read(request(query)).where) == "status:failed tool:pay"


def test_the_words_of_the_resources_are_understood() -> None:
    asked = parameters.read(request(f"session_provider_id=spr_1&session_provider_id=spr_2&session_connection_id={ROW}"))
    assert str(asked.where) == f"session:ses_1,ses_2 conn:{ROW}"
    assert str(parameters.read(request("source=provider")).where) == "dir:server"


def test_after_beats_before_beats_cursor() -> None:
    def part(**given: str) -> tuple[str | None, str | None]:
        paging = parameters.read(request("&".join(f"{name}={value}" for name, value in given.items()))).paging
        return paging.after, paging.before

    cursor = parameters.cursor("before", OTHER)
    assert part(cursor=cursor) == (None, OTHER)
    assert part(cursor=cursor, before=ROW) == (None, ROW)
    assert part(cursor=cursor, before=ROW, after=OTHER) == (OTHER, None)


@given(st.sampled_from(["after", "before"]), st.from_regex(r"(ses|scn|smg|sev)_[0-9a-z]{1,40}", fullmatch=True))
def test_a_cursor_leads_back_to_its_row(side: parameters.Side, of: str) -> None:
    cursor = parameters.cursor(side, of)
    assert cursor.startswith("cur_")
    assert cursor[4:].isalnum()
    paging = parameters.read(request(f"cursor={cursor}")).paging
    assert (paging.after, paging.before) == ((of, None) if side == "after" else (None, of))


@given(st.text(max_size=80))
def test_no_text_is_taken_for_a_cursor_that_we_did_not_make(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parameters.read(request(urlencode({"cursor": f"cur_{text}"})))
    assert refused.value.code == "invalid_data"


WRONG = {
    "limit=0": ('"0"', "limit=100"),
    "limit=101": ('"101"', "limit=100"),
    "limit=x": ('"x"', "limit=100"),
    "limit=-1": ('"-1"', "limit=100"),
    "limit=%D9%A3": ("limit", "limit=100"),  # an Arabic three is a digit to Python
    "order=up": ('"up"', "asc"),
    "sort=latency": ('"latency"', "latency_ms"),
    "after=5": ('"5"', "row"),
    "before=*": ('"*"', "row"),
    "cursor=cur_": ("cur_", "next_cursor"),
    "cursor=abc": ("abc", "next_cursor"),
    "cursor=cur_zzzz": ("cur_zzzz", "next_cursor"),
    "clinet=x": ('"clinet"', '"client"'),
    "q=statsu:failed": ("statsu:failed", "status"),
    "status=broken": ("broken", "failed"),
    "latency=slow": ("slow", "latency:>500ms"),
    "since=soon": ("soon", "30m"),
}


@pytest.mark.parametrize("query", WRONG)
def test_what_cannot_be_read_is_named_with_what_was_meant(asking: Asking, query: str) -> None:
    error = asking.json(f"/api/events?{query}", 400)
    named, meant = WRONG[query]
    assert (error["object"], error["status"], error["code"]) == ("error", 400, "invalid_data")
    assert named in error["message"]
    assert meant in error["hint"]


def test_a_page_may_have_more_rows_and_words_of_its_own() -> None:
    assert parameters.read(request("limit=200&anything=1", path="/sessions")).paging.limit == 200
    with pytest.raises(UsageError):
        parameters.read(request("limit=201", path="/sessions"))
