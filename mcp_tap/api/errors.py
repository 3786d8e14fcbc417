"""Errors as answers: every TapError becomes an HTTP status and an envelope, here and nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from mcp_tap.model import NotFoundError, StoreError, TapError, UpstreamError, UsageError

log = logging.getLogger(__name__)

#: The words of the envelope for what HTTP itself says no to.
_CODES: Final = {
    401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed", 414: "uri_too_long",
    421: "misdirected_request",
}  # fmt: skip

#: Which status an error is, and the code of its envelope; the first that fits.
_STATUS: Final[tuple[tuple[type[TapError], int, str], ...]] = (
    (NotFoundError, 404, "not_found"),
    (UsageError, 400, "invalid_data"),
    (StoreError, 503, "store_unavailable"),
    (UpstreamError, 502, "upstream"),
    (TapError, 500, "internal_server_error"),
)

#: What a path names, by the name of its parameter.
ENTITIES: Final = {
    "session": "session",
    "connection": "session.connection",
    "message": "session.message",
    "event": "session.event",
    "participant": "session.participant",
    "error": "session.error",
    "group": "session.error_group",
    "tool": "tool",
    "old": "tool.definition",
    "new": "tool.definition",
    "client": "client",
}


def status_of(error: TapError) -> int:
    """Return the HTTP status that an error is answered with, by pages and API alike."""
    return next(status for kind, status, _ in _STATUS if isinstance(error, kind))


def envelope(status: int, code: str, message: str, *, hint: str = "", **more: Any) -> dict[str, Any]:
    """Return the error envelope; ``more`` stands beside what every error has."""
    content: dict[str, Any] = {"object": "error", "status": status, "code": code, "message": message}
    return content | ({"hint": hint} if hint else {}) | more


def answer(content: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    """Return an envelope as a response with its status."""
    body = orjson.dumps(content) + b"\n"
    return Response(body, content["status"], media_type="application/json", headers=headers)


def missing(of: str, what: str) -> NotFoundError:
    """Return the error for an id that no such thing has."""
    return NotFoundError(f'there is no {what} "{of[:80]}"')


async def on_tap_error(request: Request, error: Exception) -> Response:
    """Answer what the tap says no to."""
    assert isinstance(error, TapError)
    status, code = next((status, code) for kind, status, code in _STATUS if isinstance(error, kind))
    more: dict[str, Any] = {}
    if status == 404 and request.path_params:
        name, of = [*request.path_params.items()][-1]  # the innermost that is named
        more = {"entity": ENTITIES.get(name, name), "id": str(of)}
    if status >= 500:
        log.warning("%s %s: %s", request.method, request.url.path, error)
    return answer(envelope(status, code, str(error), hint=error.hint, **more))


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer what the framework says no to: a path or a method that does not exist."""
    assert isinstance(error, HTTPException)
    status = error.status_code
    more = {"entity": "path", "id": request.url.path} if status == 404 else {}
    message = f"there is nothing at {request.url.path[:200]}" if status == 404 else error.detail
    content = envelope(status, _CODES.get(status, "error"), message, **more)
    return answer(content, dict(error.headers or {}))


async def on_crash(request: Request, error: Exception) -> Response:
    """Answer when the desk itself is wrong; the log gets the rest from whoever runs this."""
    return answer(envelope(500, "internal_server_error", "the desk could not answer this; its log says why"))


def handlers(page: Callable[[Request, TapError], Response]) -> dict[Any, Callable[[Request, Exception], Any]]:
    """Return what answers errors: envelopes below /api, else ``page`` of the error."""

    async def tap_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, TapError)
        return await on_tap_error(request, error) if _of_the_api(request) else page(request, error)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if _of_the_api(request) or error.status_code != 404:
            return await on_http_error(request, error)
        return page(request, NotFoundError(f"there is nothing at {request.url.path[:200]}"))

    return {TapError: tap_error, HTTPException: http_error, Exception: on_crash}


def _of_the_api(request: Request) -> bool:
    return request.url.path.startswith(("/api", "/static", "/healthz", "/readyz"))
