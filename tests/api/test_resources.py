"""The resources: the keys, types and nesting that they are known for, told of a real recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcp_tap.api.shape import Field, Resource
from mcp_tap.model import Body, Codec, Side
from tests.api.asking import AGENT, CLAUDE, CODE, CURSOR, Asking
from tests.store.plausible import scene
from tests.store.recording import record

#: Attributes of a session connection with their types; "?" may be null. Further ones may stand beside them.
CONNECTION: dict[str, Any] = {
    "object": "session.connection",
    "id": str,
    "status": str,
    "connection_state": str,
    "mcp": {
        "object": "session.connection.mcp",
        "version": str,
        "connection_type": str,
        "client": {"object": "session.connection.client", "name": str, "version": str, "capabilities": dict},
        "server": {"object": "session.connection.server", "name": str, "version": str, "capabilities": dict},
    },
    "metadata": dict | None,
    "session_id": str,
    "session_provider_id": str,
    "started_at": str,
    "ended_at": str,
    "created_at": str,
    "updated_at": str,
}


def fits(told: dict[str, Any], shape: dict[str, Any]) -> None:
    """Every attribute is there, in the order in which the shape has them, with its type."""
    assert [key for key in told if key in shape] == [*shape]
    for key, kind in shape.items():
        if isinstance(kind, dict):
            fits(told[key], kind)
            assert told[key].keys() == kind.keys()
        elif isinstance(kind, str):
            assert told[key] == kind
        else:
            assert isinstance(told[key], kind), key


def is_date(text: str) -> bool:
    return len(text) == 24 and text[10] == "T" and text[19] == "." and text.endswith("Z")


def test_a_connection_has_the_attributes_of_the_resource(asking: Asking) -> None:
    told = asking.json(f"/api/sessions/ses_{CLAUDE}/connections/scn_{CLAUDE}")
    fits(told, CONNECTION)
    assert (told["status"], told["connection_state"]) == ("ended", "disconnected")
    assert told["mcp"]["connection_type"] == "streamable_http"
    assert told["session_provider_id"] == f"spr_{CLAUDE}"
    for name in ("started_at", "ended_at", "created_at", "updated_at"):
        assert is_date(told[name]), name
    assert (told["created_at"], told["started_at"]) == ("2026-03-14T10:08:44.998Z", "2026-03-14T10:08:45.002Z")
    assert asking.json(f"/api/sessions/ses_{CLAUDE}/connections")["items"] == [told]
    for flat in ("connections", "session-connections"):
        assert asking.json(f"/api/{flat}/scn_{CLAUDE}") == told


def test_one_that_is_open_has_no_end(asking: Asking) -> None:
    told = asking.json(f"/api/connections/scn_{CODE}")
    assert (told["status"], told["connection_state"], told["ended_at"]) == ("active", "connected", None)
    assert (told["end_reason"], told["open_calls"]) == (None, 1)


def test_a_session_has_the_columns_of_the_list_and_all_its_connections(asking: Asking) -> None:
    told = asking.json(f"/api/sessions/ses_{CLAUDE}")
    assert told["object"] == "session"
    columns = ("client", "started", "duration_ms", "calls", "errors", "status", "tools")
    assert {name: told[name] for name in columns} == {
        "client": "claude-desktop 1.2.3",
        "started": "2026-03-14T10:08:45.002Z",
        "duration_ms": 46875,
        "calls": 6,
        "errors": 2,
        "status": "ended",
        "tools": ["search_products", "create_payment"],
    }
    assert [each["id"] for each in told["connections"]] == [f"scn_{CLAUDE}"]
    (deployment,) = told["provider_deployments"]
    assert deployment["object"] == "session.provider_deployment#preview"
    assert (deployment["id"], deployment["name"]) == (f"spr_{CLAUDE}", "shop")
    (listed,) = [each for each in asking.json("/api/sessions")["items"] if each["id"] == told["id"]]
    assert listed == told


def test_a_message_tells_what_was_asked_answered_and_when(asking: Asking) -> None:
    items = asking.json(f"/api/sessions/ses_{CLAUDE}/messages?tool=create_payment")["items"]
    first, second, third = items
    assert [each["status"] for each in items] == ["failed", "failed", "succeeded"]
    assert (second["object"], second["type"], second["source"]) == ("session.message", "tool_call", "client")
    assert second["input"]["params"] == {"name": "create_payment", "arguments": {"order": "A-17"}}
    assert second["output"]["error"] == {"code": -32000, "message": "busy"}
    assert second["created_at"] == "2026-03-14T10:08:52.100Z"
    assert second["completed_at"] == "2026-03-14T10:08:52.990Z"
    assert second["latency_ms"] == 890
    assert second["transport"] == {
        "object": "session.message.transport",
        "type": "mcp",
        "mcp": {"object": "session.message.transport.mcp", "id": 5, "protocol_version": "2025-11-25",
                "transport": "streamable_http"},
        "tool_call": None,
    }  # fmt: skip
    assert (second["attempt"], second["operation_id"]) == (2, first["id"])
    assert third["output"] is None  # its body is not stored


def test_reasons_of_failures_are_told_in_both_languages(asking: Asking) -> None:
    items = asking.json("/api/messages?status=failed&order=asc")["items"]
    assert [(each["failure_reason"], each["failure"]) for each in items] == [
        ("provider_error", "tool_error"), ("provider_error", "http_error"), ("provider_error", "rpc_error"),
    ]  # fmt: skip
    assert [each["error"]["code"] for each in items] == [None, "504", "-32000"]
    done = asking.json("/api/messages?status=ok&limit=1")["items"][0]
    assert (done["failure_reason"], done["failure"], done["error"]) == ("none", None, None)


def test_a_call_that_waits_is_not_complete(asking: Asking) -> None:
    (told,) = asking.json("/api/messages?status=pending")["items"]
    assert (told["completed_at"], told["latency_ms"], told["status"]) == (None, None, "waiting_for_response")
    (line,) = asking.json("/api/events?type=message_created")["items"]
    assert line["message_id"] == told["id"]


def test_every_line_of_a_timeline_is_an_event_in_order(asking: Asking) -> None:
    items = asking.json(f"/api/sessions/ses_{CLAUDE}/events")["items"]
    assert [(each["name"], each["target"], each["type"]) for each in items] == [
        ("session_start", None, "connection_connected"),
        ("initialize", None, "message_processed"),
        ("tools/list", None, "message_processed"),
        ("tools/call", "search_products", "message_processed"),
        ("tools/call", "create_payment", "error_occurred"),
        ("tools/call", "create_payment", "error_occurred"),
        ("tools/call", "create_payment", "message_processed"),
        ("session_end", None, "connection_disconnected"),
    ]
    assert items == asking.json(f"/api/connections/scn_{CLAUDE}/events?limit=50")["items"]
    assert asking.json(f"/api/events/{items[4]['id']}") == items[4]


@pytest.mark.parametrize(
    ("type_", "many"),
    [("message_created", 1), ("message_processed", 14), ("error_occurred", 3), ("connection_connected", 4),
     ("connection_disconnected", 3), ("connection_disabled", 0), ("warning_occurred", 0), ("session_created", 0),
     ("tools/call", 10)],
)  # fmt: skip
def test_events_of_a_type_are_those_that_say_so(asking: Asking, type_: str, many: int) -> None:
    told = asking.json(f"/api/events?limit=100&type={type_}")
    assert {each["name" if "/" in type_ else "type"] for each in told["items"]} <= {type_}
    assert (len(told["items"]), told["matched"]) == (many, many)


def test_types_divide_what_there_is(asking: Asking) -> None:
    for path, types in (
        ("events", ("message_created", "message_processed", "error_occurred", "connection_connected",
                    "connection_disconnected", "connection_disabled", "warning_occurred")),
        ("messages", ("tool_call", "mcp_control", "mcp_message", "unknown")),
    ):  # fmt: skip
        every = {each["id"]: each["type"] for each in asking.json(f"/api/{path}?limit=100")["items"]}
        found: dict[str, str] = {}
        for type_ in types:
            for each in asking.json(f"/api/{path}?limit=100&type={type_}")["items"]:
                assert each["id"] not in found
                found[each["id"]] = type_
        assert found == every


def test_participants_are_the_client_and_the_server(asking: Asking) -> None:
    items = asking.json(f"/api/sessions/ses_{CLAUDE}/participants")["items"]
    assert [(each["type"], each["name"], each["session_id"]) for each in items] == [
        ("mcp_client", "claude-desktop", f"ses_{CLAUDE}"),
        ("provider", "shop", f"ses_{CLAUDE}"),
    ]
    assert asking.json(f"/api/sessions/ses_{CLAUDE}/participants/{items[0]['id']}") == items[0]
    assert asking.json(f"/api/sessions/ses_{CLAUDE}/participants?type=provider")["items"] == items[1:]
    assert asking.json(f"/api/connections/scn_{CLAUDE}")["participant_id"] == items[0]["id"]


def test_errors_and_their_groups(asking: Asking) -> None:
    items = asking.json(f"/api/sessions/ses_{CLAUDE}/errors")["items"]
    assert [(each["code"], each["message"], each["target"]) for each in items] == [
        ("504", "upstream timeout", "create_payment"),
        ("-32000", "card processor busy", "create_payment"),
    ]
    assert items[0]["id"].startswith("ser_")
    assert asking.json(f"/api/session-errors/{items[0]['id']}") == items[0]
    assert asking.json(f"/api/session-errors?after={items[1]['id']}&order=asc")["items"] == []
    groups = asking.json(f"/api/sessions/ses_{CLAUDE}/error-groups")["items"]
    assert {each["message"] for each in groups} == {"upstream timeout", "card processor busy"}
    group = asking.json(f"/api/errors/{groups[0]['id']}")
    assert group["occurrence_count"] == 1
    assert group["occurrences"]["items"][0]["message"] == groups[0]["message"]


def test_a_raw_session_id_is_told_when_asked_for(asking: Asking) -> None:
    path = f"/api/connections/scn_{CLAUDE}"
    assert asking.json(path)["mcp_session_id"] == "2f3a9c52…"
    assert asking.json(f"{path}?reveal=session_id")["mcp_session_id"] == "2f3a9c52-7d41-4c3e-9b7a-2f1f6f4f9a10"
    for path in ("sessions", "connections", "messages", "events", "overview", "tools/search_products", "errors"):
        assert "7d41-4c3e" not in asking.answer(f"/api/{path}").text


@pytest.mark.parametrize(
    ("path", "entity"),
    [
        ("sessions/ses_nothing", "session"),
        (f"sessions/scn_{CLAUDE}", "session"),
        ("connections/scn_nothing", "session.connection"),
        (f"connections/ses_{CLAUDE}", "session.connection"),
        (f"sessions/ses_{CURSOR}/connections/scn_{CLAUDE}", "session.connection"),
        ("sessions/ses_nothing/connections", "session"),
        ("sessions/ses_nothing/messages", "session"),
        ("sessions/ses_nothing/events", "session"),
        ("sessions/ses_nothing/errors", "session"),
        ("sessions/ses_nothing/participants", "session"),
        ("connections/scn_nothing/events", "session.connection"),
        ("messages/smg_nothing", "session.message"),
        ("messages/scn_1", "session.message"),
        ("events/sev_00000000000000001", "session.event"),
        ("session-errors/ser_00000000000000001", "session.error"),
        (f"sessions/ses_{CLAUDE}/participants/spt_nothing", "session.participant"),
        ("errors/seg_nothing", "session.error_group"),
        ("tools/serach_products", "tool"),
        ("tools/search_products/versions/1..9", "tool.definition"),
        ("clients/nobody@1", "client"),
    ],
)
def test_what_is_not_there_is_said_to_be_missing(asking: Asking, path: str, entity: str) -> None:
    error = asking.json(f"/api/{path}", 404)
    assert (error["object"], error["status"], error["code"]) == ("error", 404, "not_found")
    assert (error["entity"], bool(error["id"])) == (entity, True)


@pytest.mark.parametrize("path", ["nothing", "sessions/x/nothing", "connections/x/y/z"])
def test_a_path_that_is_none_is_said_to_be_missing(asking: Asking, path: str) -> None:
    error = asking.json(f"/api/{path}", 404)
    assert (error["entity"], error["id"], error["code"]) == ("path", f"/api/{path}", "not_found")


def test_a_message_below_another_session_is_missing(asking: Asking) -> None:
    of = asking.json(f"/api/sessions/ses_{CLAUDE}/messages?limit=1")["items"][0]["id"]
    assert asking.json(f"/api/sessions/ses_{CLAUDE}/messages/{of}")["id"] == of
    assert asking.json(f"/api/sessions/ses_{CURSOR}/messages/{of}", 404)["id"] == of


def test_a_message_in_detail(asking: Asking) -> None:
    of = asking.json("/api/messages?q=error:-32000")["items"][0]["id"]
    told = asking.json(f"/api/messages/{of}?panel=1")
    assert told["bodies"]["request"]["codec"] == "json"
    assert told["bodies"]["response"]["data"] == '{"jsonrpc":"2.0","id":6,"error":{"code":-32000,"message":"busy"}}'
    assert told["network"]["url"] == "http://127.0.0.1:6278/mcp"
    assert told["timing"]["latency_ms"] == 890
    assert [each["attempt"] for each in told["related"]["operation"]] == [1, 2, 3]
    assert len(told["related"]["same_arguments"]) == 2
    assert [round(each["offset_ms"]) for each in told["related"]["context"]][3] == 0
    assert told["copy"]["link"] == f"http://127.0.0.1:6279/messages/{of}"
    assert told["copy"]["json"] == told["bodies"]["request"]["data"]
    assert told["copy"]["curl"].splitlines()[1].startswith("curl -sS -N http://127.0.0.1:6278/mcp")


def test_figures_are_those_of_the_recording(asking: Asking) -> None:
    overview = asking.json("/api")
    assert overview == asking.json("/api/overview")
    assert (overview["totals"]["calls"], overview["totals"]["errors"], overview["totals"]["sessions"]) == (16, 3, 4)
    assert overview["previous"] is None
    assert "/api/sessions/{session}/connections/{connection}" in overview["paths"]
    tools = asking.json("/api/tools?sort=calls")["items"]
    assert (tools[0]["name"], tools[0]["calls"]) == ("search_products", 5)
    assert [each["name"] for each in asking.json("/api/tools?sort=name&order=asc")["items"]] == sorted(
        each["name"] for each in tools
    )
    tool = asking.json("/api/tools/search_products")
    assert tool["definitions"][0]["definition"] == {"name": "search_products"}
    compared = asking.json("/api/tools/search_products/versions/1..1")
    assert compared["old"] == compared["new"] == tool["definitions"][0]
    assert asking.json("/api/clients/claude-desktop@1.2.3")["sessions"] == 1
    slow = asking.json("/api/slow?over=500ms")["items"]
    assert [each["latency_ms"] for each in slow] == [2340, 1840, 890]
    assert asking.json("/api/slow?over=soon", 400)["code"] == "invalid_data"


def test_a_filter_means_the_same_on_every_list(asking: Asking) -> None:
    assert [each["id"] for each in asking.json("/api/sessions?client=claude")["items"]] == [f"ses_{CLAUDE}"]
    assert [each["id"] for each in asking.json("/api/connections?client=claude")["items"]] == [f"scn_{CLAUDE}"]
    assert asking.json("/api/messages?client=claude")["matched"] == 6
    ids = [each["id"] for each in asking.json(f"/api/connections?session_provider_id=spr_{CODE}")["items"]]
    assert ids == [f"scn_{CODE}"]
    two = asking.json(f"/api/connections?session_provider_id=spr_{CODE}&session_provider_id=spr_{AGENT}")
    assert two["matched"] == 2
    assert asking.json("/api/connections?status=active")["matched"] == 1
    for state, many in (("connected", 1), ("disconnected", 3)):
        told = asking.json(f"/api/connections?connection_state={state}")
        assert (len(told["items"]), {each["connection_state"] for each in told["items"]}) == (many, {state})
    assert asking.json("/api/connections?connection_state=conected", 400)["hint"].startswith("did you mean connected")


BODIES = {
    '{"a":123456789012345678901234567890}': {"a": 123456789012345678901234567890},
    '{"a":"\\ud800"}': {"a": "\ud800"},
    "[" * 150 + "]" * 150: ...,
    "[" * 400 + "]" * 400: None,
    "[" * 30_000: None,
    '{"a":NaN}': None,
    "": None,
    "no JSON": None,
    "<script>alert(1)</script>\x1b[31m\u202e": None,
    '"\u2028 \u202e </script>"': "\u2028 \u202e </script>",
}


def test_bodies_of_every_kind_are_told(tmp_path: Path) -> None:
    told = scene(1, "09:00:00", "robot", "1")
    for number, body in enumerate(BODIES):
        call = told.call("tools/call", f"09:01:{number:02d}", 1, "odd")
        told.batch.bodies.append(Body(call, Side.REQUEST, Codec.TEXT, body))
    record(tmp_path / "tap.db", told.batch)
    asking = Asking(tmp_path / "tap.db")
    items = asking.json("/api/messages?order=asc")["items"]
    for item, (body, value) in zip(items, BODIES.items(), strict=True):
        assert value is ... or item["input"] == value, body[:40]
        assert (item["input"] is None) == (value is None)
        assert asking.json(f"/api/messages/{item['id']}")["bodies"]["request"]["data"] == body


def test_a_shape_tells_what_its_schema_says() -> None:
    part = Resource("part.of_it", "A part.", (Field("x", "integer", "a number"),))
    told = Resource("thing", "A thing.", (Field("parts", "array", "its parts", part=part, many=True),))
    assert told.of({"parts": [{"x": 1}]}) == {"object": "thing", "parts": [{"object": "part.of_it", "x": 1}]}
    assert [each.title for each in told.parts()] == ["Thing", "PartOfIt"]
    assert told.schema()["properties"]["parts"]["items"] == {"$ref": "#/components/schemas/PartOfIt"}
