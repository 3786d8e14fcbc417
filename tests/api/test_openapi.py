"""The OpenAPI document says what is true: every answer to every question that it allows is one that it describes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import checks
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks as openapi_checks

from mcp_tap.api import parameters, resources
from mcp_tap.api.routes import PATHS
from mcp_tap.store import filters
from tests.api.asking import CLAUDE, DESK, Asking


@pytest.fixture(scope="session")
def document(asking: Asking) -> Any:
    return asking.json("/api/openapi.json")


def test_every_route_is_described_and_no_other(asking: Asking, document: Any) -> None:
    listed = {path for path in asking.json("/api")["paths"] if path != "/api/openapi.json"}
    assert {*document["paths"]} == listed | {"/api"}
    assert len(document["paths"]) == len(PATHS) + 1  # the live stream


def test_lists_are_described_with_every_parameter_that_they_read(document: Any) -> None:
    assert asked(document, "/api/events") == {*filters.KEYS, *parameters.PAGING, "q", "type"}
    assert asked(document, "/api/tools") == {*filters.KEYS, "limit", "order", "q"}


def asked(document: Any, path: str) -> set[str]:
    """Return the names of all parameters that a path reads: an object's are those of its properties."""
    names = set()
    for ref in document["paths"][path]["get"]["parameters"]:
        each = document["components"]["parameters"][ref["$ref"].rpartition("/")[2]]
        names |= {*each["schema"]["properties"]} if each.get("explode") else {each["name"]}
    return names


def test_the_document_is_small_enough_to_be_read(asking: Asking) -> None:
    # most of it are the meanings of attributes; what paths have in common is said once
    assert len(asking.answer("/api/openapi.json").content) < 90_000


def test_what_is_long_is_packed(asking: Asking) -> None:
    for path, packed in (("/api/openapi.json", True), ("/api/events", True), ("/api/events?limit=1&id=none", False)):
        answer = asking.answer(path, headers={"accept-encoding": "gzip"})
        assert ("content-encoding" in answer.headers) is packed, path
        assert answer.headers.get("vary") == ("Accept-Encoding" if packed else None)
        assert "content-encoding" not in asking.answer(path, headers={"accept-encoding": "identity"}).headers


def test_operations_have_names_of_their_own(document: Any) -> None:
    names = [path["get"]["operationId"] for path in document["paths"].values()]
    assert len(names) == len(set(names))


def test_a_schema_is_what_is_told(document: Any) -> None:
    schema = document["components"]["schemas"]["SessionConnection"]
    told = [field.name for field in resources.CONNECTION.fields]
    assert [*schema["properties"]] == schema["required"] == ["object", *told]


def refs(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {value["$ref"]} if "$ref" in value else set().union(*map(refs, value.values()))
    return set().union(*map(refs, value)) if isinstance(value, list) else set()


def test_every_part_that_is_named_is_there_and_used(document: Any) -> None:
    kinds = ("schemas", "parameters", "responses")
    there = {f"#/components/{kind}/{name}" for kind in kinds for name in document["components"][kind]}
    assert refs(document) == there


#: One thing of each kind that is there, for the parameters of paths.
REAL = {
    "session": f"ses_{CLAUDE}", "connection": f"scn_{CLAUDE}", "tool": "create_payment", "old": 1, "new": 1,
    "client": "claude-desktop@1.2.3",
}  # fmt: skip


@pytest.fixture(scope="session")
def real(asking: Asking) -> dict[str, Any]:
    below = f"/api/sessions/ses_{CLAUDE}"
    listed = {"message": "messages", "event": "events", "error": "errors", "group": "error-groups",
              "participant": "participants"}  # fmt: skip
    return REAL | {name: asking.json(f"{below}/{path}")["items"][-1]["id"] for name, path in listed.items()}


CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
]

#: Words that filters take, so that not every question is a wrong one.
WORDS = st.sampled_from(
    ["status:failed", "tool:create_payment", "-method:ping", "latency:>1ms", "client:claude", "since:9999d", "payment",
     "error:504", "is:retry", "dir:client", 'text:"A-17"', "size:>1kB", "id:5"]
)  # fmt: skip


def ask_everything(
    asking: Asking, document: Any, real: dict[str, Any], examples: int, but: tuple[str, ...] = ()
) -> dict[int, int]:
    """Ask each operation ``but`` some so many questions; return how often each status was answered."""
    statuses: dict[int, int] = {}
    schema = schemathesis.openapi.from_dict(document)
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        if operation.path == "/api/live" or operation.path.startswith(but):  # the stream does not end
            continue

        @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy(), st.sets(st.sampled_from([*filters.KEYS]), max_size=1), WORDS, st.booleans())
        def ask(case: Any, kept: set[str], word: str, known: bool) -> None:
            if known:
                case.path_parameters = {name: real[name] for name in case.path_parameters or {}}
                # a question with all keys at once is a wrong one for sure
                query = {k: v for k, v in (case.query or {}).items() if k not in filters.KEYS or k in kept}
                case.query = query | {"q": word} | ({"type": "tools/call"} if "type" in query else {})
            sent = case.as_transport_kwargs(base_url=DESK)
            answer = asking.answer(sent["url"], params=sent["params"], headers=dict(sent["headers"]))
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            case.validate_response(answer, checks=CHECKS)

        ask()
    return statuses


def test_answers_are_as_described(asking: Asking, document: Any, real: dict[str, Any]) -> None:
    twins = ("/api/session-", "/api/connections/", "/api/messages", "/api/events", "/api/overview")
    statuses = ask_everything(asking, document, real, 3, but=twins)
    assert statuses.keys() <= {200, 400, 404}
    assert statuses[200] > 10


@pytest.mark.matrix
def test_many_answers_are_as_described(asking: Asking, document: Any, real: dict[str, Any]) -> None:
    statuses = ask_everything(asking, document, real, 60)
    assert statuses.keys() == {200, 400, 404}


def test_an_answer_that_is_not_as_described_would_be_found(asking: Asking, document: Any) -> None:
    wrong = copy.deepcopy(document)
    wrong["components"]["schemas"]["SessionConnection"]["properties"]["calls"] = {"type": "string"}
    case = schemathesis.openapi.from_dict(wrong)["/api/connections"]["GET"].Case()
    with pytest.raises(BaseException, match="calls"):
        case.validate_response(asking.answer("/api/connections"), checks=CHECKS)
