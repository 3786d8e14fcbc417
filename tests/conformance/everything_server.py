"""A server with one of everything, as the official conformance suite asks for it. Prints its port, ends at SIGTERM.

The names and texts are those that the scenarios look for. It is made on the low-level server of the SDK, so that what a
scenario needs stands here as the very JSON that goes over the wire. Runs in an environment that has the SDK and nothing
of ours.
"""
# mypy: ignore-errors
# The SDK is not installed where types are checked.

import asyncio
import itertools
import json
import re
import socket

import uvicorn
from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.streamable_http import EventMessage, EventStore
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
SILENCE = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA="

MISSING_CAPABILITY = -32021


def text(value):
    return {"type": "text", "text": value}


def resource(uri, mime_type, content):
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime_type, "text": content}}


IMAGE = {"type": "image", "data": PIXEL, "mimeType": "image/png"}
AUDIO = {"type": "audio", "data": SILENCE, "mimeType": "audio/wav"}


def form(message, schema):
    return {"method": "elicitation/create", "params": {"mode": "form", "message": message, "requestedSchema": schema}}


def sampling(prompt, tokens=100):
    messages = [{"role": "user", "content": text(prompt)}]
    return {"method": "sampling/createMessage", "params": {"messages": messages, "maxTokens": tokens}}


def fields(required=True, **properties):
    return {"type": "object", "properties": properties} | ({"required": list(properties)} if required else {})


STRING = {"type": "string"}
ROOTS = {"method": "roots/list"}

# ------------------------------------------------------------------------------------------- tools that only answer

ANSWERS = {
    "test_simple_text": [text("This is a simple text response for testing.")],
    "test_image_content": [IMAGE],
    "test_audio_content": [AUDIO],
    "test_embedded_resource": [
        resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    ],
    "test_multiple_content_types": [
        text("Multiple content types test:"),
        IMAGE,
        resource("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    ],
}

# ----------------------------------------------------------- tools that do something while they run (legacy transport)


async def log(ctx, _):
    for number, what in enumerate(("started", "processing data", "completed")):
        await asyncio.sleep(0.05 if number else 0)
        verb = "execution " if number != 1 else ""
        await ctx.session.send_log_message("info", f"Tool {verb}{what}", related_request_id=ctx.request_id)
    return [text("logged three times")]


async def progress(ctx, _):
    for done in (0, 50, 100):
        await asyncio.sleep(0.05 if done else 0)
        await ctx.session.report_progress(done, 100, f"{done} of 100")
    return [text("went from 0 to 100")]


async def fail(_ctx, _):
    raise RuntimeError("This tool intentionally returns an error for testing")


async def sample(ctx, arguments):
    asked = types.SamplingMessage.model_validate({"role": "user", "content": text(arguments["prompt"])})
    answer = await ctx.session.create_message([asked], max_tokens=100, related_request_id=ctx.request_id)
    return [text(f"LLM response: {answer.content.text}")]


async def elicit(ctx, message, schema, said):
    answer = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
    return [text(f"{said}: action={answer.action}, content={json.dumps(answer.content or {})}")]


async def ask(ctx, arguments):
    schema = fields(
        username=STRING | {"description": "User's response"}, email=STRING | {"description": "User's email address"}
    )
    return await elicit(ctx, arguments["message"], schema, "User response")


async def ask_with_defaults(ctx, _):
    schema = fields(
        required=False,
        name=STRING | {"default": "John Doe"},
        age={"type": "integer", "default": 30},
        score={"type": "number", "default": 95.5},
        status=STRING | {"enum": ["active", "inactive", "pending"], "default": "active"},
        verified={"type": "boolean", "default": True},
    )
    return await elicit(ctx, "Correct what is wrong", schema, "Elicitation completed")


async def ask_with_choices(ctx, _):
    plain = ["option1", "option2", "option3"]
    titled = [
        {"const": f"value{n}", "title": f"{word} Option"} for n, word in enumerate(("First", "Second", "Third"), 1)
    ]
    old = {"enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"]}
    schema = fields(
        required=False,
        untitledSingle=STRING | {"enum": plain},
        titledSingle=STRING | {"oneOf": titled},
        legacyEnum=STRING | old,
        untitledMulti={"type": "array", "items": STRING | {"enum": plain}},
        titledMulti={"type": "array", "items": {"anyOf": titled}},
    )
    return await elicit(ctx, "Choose", schema, "Elicitation completed")


async def leave_and_come_back(ctx, _):
    """End the stream in the middle of the call: the client has to come back with `Last-Event-ID`."""
    await ctx.session.send_log_message("info", "leaving", related_request_id=ctx.request_id)
    if ctx.close_sse_stream is not None:
        await ctx.close_sse_stream()
    await asyncio.sleep(0.2)
    return [text("the client came back")]


async def require_sampling(ctx, _):
    capabilities = ctx.session.client_capabilities
    if capabilities is None or capabilities.sampling is None:
        needed = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(code=MISSING_CAPABILITY, message="the client has to declare sampling", data=needed)
    return [text("the client declares sampling")]


async def change_tools(_ctx, _):
    await BUS.publish(ToolsListChanged())
    return [text("said that the list of tools changed")]


async def change_prompts(_ctx, _):
    await BUS.publish(PromptsListChanged())
    return [text("said that the list of prompts changed")]


async def region(_ctx, arguments):
    return [text(f"region {arguments.get('region')}")]


RUNNING = {
    "test_tool_with_logging": log,
    "test_logging_tool": log,
    "test_tool_with_progress": progress,
    "test_error_handling": fail,
    "test_sampling": sample,
    "test_elicitation": ask,
    "test_elicitation_sep1034_defaults": ask_with_defaults,
    "test_elicitation_sep1330_enums": ask_with_choices,
    "test_reconnection": leave_and_come_back,
    "test_missing_capability": require_sampling,
    "test_trigger_tool_change": change_tools,
    "test_trigger_prompt_change": change_prompts,
    "test_x_mcp_header": region,
}

# ------------------------------------------------------------------- what asks back by its result (modern transport)

NAME = form("What is your name?", fields(name=STRING))
CONFIRM = form("Is that right?", fields(ok={"type": "boolean"}))

#: Of each tool the rounds that come before its answer: what is asked, and the state that is kept by the client.
ROUNDS = {
    "test_input_required_result_elicitation": [({"user_name": NAME}, None)],
    "test_streaming_elicitation": [({"user_name": NAME}, None)],
    "test_input_required_result_sampling": [({"capital_question": sampling("What is the capital of France?")}, None)],
    "test_input_required_result_list_roots": [({"client_roots": ROOTS}, None)],
    "test_input_required_result_request_state": [({"confirm": CONFIRM}, "confirming")],
    "test_input_required_result_tampered_state": [({"confirm": CONFIRM}, "confirming")],
    "test_input_required_result_multiple_inputs": [
        ({"user_name": NAME, "greeting": sampling("Greet", 50), "client_roots": ROOTS}, "three at once")
    ],
    "test_input_required_result_multi_round": [
        ({"step1": form("Step 1: What is your name?", fields(name=STRING))}, "first"),
        ({"step2": form("Step 2: What is your favorite color?", fields(color=STRING))}, "second"),
    ],
    "test_input_required_result_prompt": [
        ({"user_context": form("What context should the prompt use?", fields(context=STRING))}, None)
    ],
}


def next_round(name, params):
    """Return what has to be asked before the answer can be given, or None."""
    answered = (params.input_responses or {}).keys()
    for asked, state in reversed(ROUNDS[name]):
        if params.request_state == state and asked.keys() <= answered:
            break  # this round is answered: the one after it comes next
    else:
        return asking(*ROUNDS[name][0])
    after = ROUNDS[name].index((asked, state)) + 1
    return asking(*ROUNDS[name][after]) if after < len(ROUNDS[name]) else None


def asking(asked, state):
    return types.InputRequiredResult.model_validate(
        {"resultType": "input_required", "inputRequests": asked, "requestState": state}
    )


def ask_what_the_client_can(ctx):
    capabilities = ctx.session.client_capabilities
    asked = {}
    if capabilities is not None and capabilities.sampling is not None:
        asked["sample"] = sampling("Say hello", 50)
    if capabilities is not None and capabilities.elicitation is not None:
        asked["ask"] = NAME
    return asking(asked, "asked")


# ------------------------------------------------------------------------------------------------------------ tools

ARGUMENTS = {
    "test_sampling": fields(prompt=STRING),
    "test_elicitation": fields(message=STRING),
    "test_x_mcp_header": fields(required=False, region=STRING | {"x-mcp-header": "Region"}),
    "json_schema_2020_12_tool": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"address": {"$anchor": "addressDef"} | fields(required=False, street=STRING, city=STRING)},
        "properties": {
            "name": STRING,
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": STRING | {"enum": ["phone", "email"]},
            "phone": STRING,
            "email": STRING,
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    },
}
CAPABLE = "test_input_required_result_capabilities"
TOOLS = [
    *ANSWERS,
    *RUNNING,
    *(name for name in ROUNDS if not name.endswith("_prompt")),
    CAPABLE,
    "json_schema_2020_12_tool",
]


async def list_tools(_ctx, _params):
    tools = [
        {"name": name, "description": name.replace("_", " "), "inputSchema": ARGUMENTS.get(name, {"type": "object"})}
        for name in TOOLS
    ]
    return types.ListToolsResult.model_validate({"tools": tools})


async def call_tool(ctx, params):
    if params.name == CAPABLE:
        return ask_what_the_client_can(ctx)
    if params.name in ROUNDS and (asked := next_round(params.name, params)) is not None:
        return asked
    result = {"content": ANSWERS.get(params.name) or [text("state-ok: all was answered")]}
    if params.name not in TOOLS:
        raise MCPError(code=types.INVALID_PARAMS, message=f"no tool {params.name}")
    if params.name in RUNNING:
        try:
            result = {"content": await RUNNING[params.name](ctx, params.arguments or {})}
        except MCPError:
            raise
        except Exception as error:
            result = {"content": [text(str(error))], "isError": True}
    return types.CallToolResult.model_validate(result)


# ------------------------------------------------------------------------------------------- resources and prompts

RESOURCES = {
    "test://static-text": {"mimeType": "text/plain", "text": "This is the content of the static text resource."},
    "test://static-binary": {"mimeType": "image/png", "blob": PIXEL},
    "test://watched-resource": {"mimeType": "text/plain", "text": "watched"},
}


async def list_resources(_ctx, _params):
    listed = [
        {"uri": uri, "name": uri.partition("://")[2], "description": f"the {uri.partition('://')[2]}"}
        | {"mimeType": content["mimeType"]}
        for uri, content in RESOURCES.items()
    ]
    return types.ListResourcesResult.model_validate({"resources": listed})


async def list_templates(_ctx, _params):
    template = {"uriTemplate": "test://template/{id}/data", "name": "template", "mimeType": "application/json"}
    return types.ListResourceTemplatesResult.model_validate({"resourceTemplates": [template]})


async def read_resource(_ctx, params):
    uri = str(params.uri)
    content = RESOURCES.get(uri)
    if found := re.fullmatch(r"test://template/([^/]+)/data", uri):
        data = {"id": found[1], "templateTest": True, "data": f"Data for ID: {found[1]}"}
        content = {"mimeType": "application/json", "text": json.dumps(data)}
    if content is None:
        raise MCPError(code=types.INVALID_PARAMS, message="Resource not found", data={"uri": uri})
    return types.ReadResourceResult.model_validate({"contents": [{"uri": uri} | content]})


async def nothing(_ctx, _params):
    return types.EmptyResult()


PROMPTS = {
    "test_simple_prompt": ([], lambda _: [text("This is a simple prompt for testing.")]),
    "test_prompt_with_arguments": (
        ["arg1", "arg2"],
        lambda given: [text(f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'")],
    ),
    "test_prompt_with_embedded_resource": (
        ["resourceUri"],
        lambda given: [
            resource(given["resourceUri"], "text/plain", "Embedded resource content for testing."),
            text("Please process the embedded resource above."),
        ],
    ),
    "test_prompt_with_image": ([], lambda _: [IMAGE, text("Please analyze the image above.")]),
    "test_input_required_result_prompt": ([], lambda _: [text("all was answered")]),
}


async def list_prompts(_ctx, _params):
    listed = [
        {"name": name, "description": name.replace("_", " ")}
        | {"arguments": [{"name": argument, "required": True} for argument in arguments]}
        for name, (arguments, _) in PROMPTS.items()
    ]
    return types.ListPromptsResult.model_validate({"prompts": listed})


async def get_prompt(_ctx, params):
    if params.name in ROUNDS and (asked := next_round(params.name, params)) is not None:
        return asked
    if params.name not in PROMPTS:
        raise MCPError(code=types.INVALID_PARAMS, message=f"no prompt {params.name}")
    contents = PROMPTS[params.name][1](params.arguments or {})
    return types.GetPromptResult.model_validate(
        {"messages": [{"role": "user", "content": content} for content in contents]}
    )


async def complete(_ctx, _params):
    return types.CompleteResult.model_validate({"completion": {"values": ["paris", "park"], "total": 2}})


# ------------------------------------------------------------------------------------------------------- the server


class Events(EventStore):
    """What was sent on each stream, so that a client that comes back gets what it missed."""

    def __init__(self):
        self._numbers = itertools.count(1)
        self._sent = {}  # event id -> (stream, message), in order

    async def store_event(self, stream_id, message):
        number = str(next(self._numbers))
        self._sent[number] = (stream_id, message)
        return number

    async def replay_events_after(self, last_event_id, send_callback):
        if last_event_id not in self._sent:
            return None
        wanted = self._sent[last_event_id][0]
        for number, (stream, message) in list(self._sent.items()):
            if stream == wanted and int(number) > int(last_event_id) and message is not None:
                await send_callback(EventMessage(message, number))
        return wanted


BUS = InMemorySubscriptionBus()

server = Server(
    "everything",
    version="1",
    get_tool_input_schema=lambda name: ARGUMENTS.get(name, {"type": "object"}),
    on_list_tools=list_tools,
    on_call_tool=call_tool,
    on_list_resources=list_resources,
    on_list_resource_templates=list_templates,
    on_read_resource=read_resource,
    on_subscribe_resource=nothing,
    on_unsubscribe_resource=nothing,
    on_subscriptions_listen=ListenHandler(BUS),
    on_list_prompts=list_prompts,
    on_get_prompt=get_prompt,
    on_completion=complete,
    on_set_logging_level=nothing,
)
server.middleware.append(RequestStateBoundary(RequestStateSecurity(keys=[b"k" * 32]), default_audience="everything"))


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    app = server.streamable_http_app(event_store=Events(), retry_interval=100)
    uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)).run(sockets=[listener])
