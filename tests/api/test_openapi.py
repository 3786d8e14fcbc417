"""The OpenAPI document says what is true: every answer to every question that it allows is one that it describes."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_tap.api import parameters, resources
from mcp_tap.api.routes import PATHS
from mcp_tap.store import filters
from tests.api.asking import Asking


@pytest.fixture(scope="session")
def document(asking: Asking) -> Any:
    return asking.json("/api/openapi.json")


def test_every_route_is_described_and_no_other(asking: Asking, document: Any) -> None:
    listed = {path for path in asking.json("/api")["paths"] if path != "/api/openapi.json"}
    assert {*document["paths"]} == listed | {"/api"}
    assert len(document["paths"]) == len(PATHS) + 1  # the live stream


def test_lists_are_described_with_every_parameter_that_they_read(document: Any) -> None:
    (events,) = (document["paths"]["/api/events"]["get"]["parameters"],)
    names = {each["name"] for each in events}
    assert names == {*filters.KEYS, *parameters.PAGING, "q", "type"}


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


def test_every_schema_that_is_named_is_there_and_used(document: Any) -> None:
    there = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert refs(document) == there
