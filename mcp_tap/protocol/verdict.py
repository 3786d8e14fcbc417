"""What a message came to, told from its answer or from the lack of one.

Pure functions over the words of `model`: an error of JSON-RPC, of a tool, of HTTP and of the transport are told
apart, and what is neither success nor failure alone gets an outcome of its own. Texts are raw here; whoever stores
them masks them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from mcp_tap.model import FailureReason, Outcome, Status
from mcp_tap.protocol import jsonrpc
from mcp_tap.protocol.exchange import Ended
from mcp_tap.protocol.jsonrpc import Error, Result


class Verdict(NamedTuple):
    """How a message went: the columns of its row."""

    status: Status = Status.SUCCEEDED
    failure_reason: FailureReason | None = None
    code: str | None = None
    message: str | None = None
    outcome: Outcome | None = None
    note: str | None = None


SUCCESS: Final = Verdict()

#: JSON-RPC codes that say something of their own.
NEEDS_USER: Final = "-32042"  # URL elicitation required (2025-11-25): a demand for the user, no failure
WAS_CANCELLED: Final = "-32800"  # how a legacy Python server answers a cancelled request

_UNANSWERED: Final = {
    Ended.COMPLETE: (FailureReason.NO_RESPONSE, "no_response", "the answer ended without answering this request"),
    Ended.SERVER_GONE: (FailureReason.TRANSPORT_ERROR, "connection_lost", "the server broke off the connection"),
    Ended.UNREACHABLE: (FailureReason.TRANSPORT_ERROR, "unreachable", "the server could not be reached"),
    Ended.STOPPED: (FailureReason.ABANDONED, "stopped", "the tap was stopped before the answer"),
    Ended.LOST: (FailureReason.ABANDONED, "lost", "part of this exchange never reached the recorder"),
    Ended.BROKEN: (FailureReason.ABANDONED, "unparsed", "the answer cannot be read"),
    Ended.CLIENT_GONE: (FailureReason.CANCELLED, "client_disconnected", "the client left before the answer"),
}


def of_error(error: Error | None, http_status: int) -> Verdict:
    """Judge a JSON-RPC error."""
    code = jsonrpc.number(error.code) if error is not None else None
    text = error.message if error is not None else None
    if code == NEEDS_USER:
        return Verdict(Status.SUCCEEDED, None, code, text, Outcome.INPUT_REQUIRED)
    if http_status == 401:
        return Verdict(Status.SUCCEEDED, None, code, text, Outcome.AUTH_CHALLENGE)
    reason = FailureReason.CANCELLED if code == WAS_CANCELLED else FailureReason.RPC_ERROR
    return Verdict(Status.FAILED, reason, code, text)


def of_result(method: str, result: Result) -> Verdict:
    """Judge a JSON-RPC result."""
    if result.is_error and method in ("tools/call", "tasks/result"):
        text = jsonrpc.text_of(result.content)
        return Verdict(Status.FAILED, FailureReason.TOOL_ERROR, "tool_error", text)
    if method == "tasks/get" and result.result is not None and result.result.is_error:
        text = jsonrpc.text_of(result.result.content)
        return Verdict(Status.FAILED, FailureReason.TOOL_ERROR, "tool_error", text)
    if method == "tasks/get" and result.status == "failed":
        error = result.error or Error()
        return Verdict(Status.FAILED, FailureReason.RPC_ERROR, jsonrpc.number(error.code), error.message)
    if result.result_type == "input_required" or (method == "tasks/get" and result.status == "input_required"):
        asked = ", ".join(sorted(result.input_requests or ()))
        return Verdict(outcome=Outcome.INPUT_REQUIRED, note=asked or None)
    if method == "tools/call" and (result.result_type == "task" or result.task is not None):
        return Verdict(outcome=Outcome.TASK)
    return SUCCESS


def of_http(status: int, text: str) -> Verdict:
    """Judge an HTTP answer of 400 or above without a JSON-RPC error in it."""
    if status == 401:
        return Verdict(Status.SUCCEEDED, None, "401", text, Outcome.AUTH_CHALLENGE)
    reason = FailureReason.TIMEOUT if status in (408, 504) else FailureReason.HTTP_ERROR
    return Verdict(Status.FAILED, reason, str(status), text)


def of_refusal(status: int, method: str, target: str) -> Verdict | None:
    """Judge an answer of 400 or above to what carried no message, where it is no failure; None where it is one."""
    # 405 says that the server offers no stream, or no ending of sessions; 404 to a DELETE that it is done already
    if (status, method) in ((405, "GET"), (405, "DELETE"), (404, "DELETE")):
        return SUCCESS
    # clients look for the documents of OAuth in several places in turn (RFC 8414 §3, RFC 9728 §3)
    if status == 404 and method == "GET" and target.startswith("/.well-known/"):
        return Verdict(outcome=Outcome.PROBE, note="the client looked for a document that is not there")
    return None


def of_silence(how: Ended, *, connect_error: str | None = None, unparsed: str | None = None) -> Verdict:
    """Judge a request whose exchange ended without an answer to it."""
    if unparsed is not None and how is Ended.COMPLETE:
        return Verdict(outcome=Outcome.UNPARSED, note=unparsed)
    reason, code, text = _UNANSWERED[how]
    if how is Ended.UNREACHABLE and connect_error is not None:
        text = f"{text}: {connect_error}"
        if "timed out" in connect_error:
            reason = FailureReason.TIMEOUT
    if how is Ended.BROKEN:
        return Verdict(Status.FAILED, reason, code, text, Outcome.UNPARSED, unparsed)
    return Verdict(Status.FAILED, reason, code, text)
