"""A client that does what the official conformance suite asks a client to do: URL, the scenario in the environment.

It is made of the SDK's own client; what the suite looks at is what that sends. Runs in an environment that has the SDK
and nothing of ours.
"""
# mypy: ignore-errors
# The SDK is not installed where types are checked.

import asyncio
import json
import os
import sys

from mcp import Client, types

SCENARIO = os.environ["MCP_CONFORMANCE_SCENARIO"]
REVISION = os.environ["MCP_CONFORMANCE_PROTOCOL_VERSION"]
CONTEXT = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))

#: This scenario's server says that it is modern and speaks the legacy era.
LEGACY_ALL_THE_SAME = "json-schema-ref-no-deref"

#: What is called in each scenario; where there is nothing, every tool that the client lets us see.
CALLS = {
    "initialize": [],
    LEGACY_ALL_THE_SAME: [],
    "tools_call": [("add_numbers", {"a": 5, "b": 3})],
    "http-custom-headers": [(call["name"], call["arguments"]) for call in CONTEXT.get("toolCalls", [])],
    "sep-2322-client-request-state": [
        (f"test_mrtr_{name}", {}) for name in ("echo_state", "unrelated", "no_state", "no_result_type")
    ],
}
EXAMPLES = {"string": "x", "integer": 1, "number": 1, "boolean": True, "array": [], "object": {}}


async def fill_in(_context, params):
    """Accept with the defaults of the form, and say yes to whatever has none."""
    properties = params.requested_schema["properties"]
    content = {name: schema.get("default", True) for name, schema in properties.items()}
    return types.ElicitResult(action="accept", content=content)


async def sample(_context, _params):
    said = types.TextContent(type="text", text="Paris")
    return types.CreateMessageResult(role="assistant", content=said, model="none")


async def roots(_context):
    return types.ListRootsResult(roots=[])


def arguments(schema):
    properties = schema.get("properties", {})
    return {name: EXAMPLES.get(properties[name].get("type"), "x") for name in schema.get("required", [])}


async def main(url):
    legacy = REVISION < "2026" or SCENARIO == LEGACY_ALL_THE_SAME
    can = {"elicitation_callback": fill_in, "sampling_callback": sample, "list_roots_callback": roots}
    async with Client(url, mode="legacy" if legacy else "auto", **can) as client:
        tools = (await client.list_tools()).tools
        calls = CALLS.get(SCENARIO, [(tool.name, arguments(tool.input_schema)) for tool in tools])
        if SCENARIO == "json-schema-2020-12-preservation":
            seen = next(tool for tool in tools if tool.name == "json_schema_2020_12_tool")
            calls = [("json_schema_echo", {"schema": seen.input_schema})]
        for name, given in calls:
            try:
                await client.call_tool(name, given)
            except Exception as error:  # one that is refused must not keep the others from being seen
                print(f"{name}: {error}", file=sys.stderr)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[-1]))
