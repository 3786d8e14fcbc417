"""What stands before every route of the desk: who may ask, under which name, in which way.

A recording holds what tools were asked and what they said. A web page that somebody visits can make a browser ask the
desk as well, under a name of its own that it lets point to this machine (DNS rebinding): so the desk answers only to
its own names (RFC 9110 §7.4: 421 for others), and only questions: nothing here changes by being asked.
"""

from __future__ import annotations

import hashlib
import hmac
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_tap.api import errors
from mcp_tap.api.desk import Desk
from mcp_tap.values import is_loopback

#: On every answer: nothing of a page comes from elsewhere, nothing in it runs but our own files.
HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

#: A browser that reads on another page must not find these in its cache; files of ours may be asked for again.
_CACHED: Final = "no-cache"
_NEVER: Final = "no-store"

METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_ALLOW: Final = {"allow": "GET, HEAD, OPTIONS"}

#: Asked by machines that have no token.
_PROBES: Final = frozenset({"/healthz", "/readyz"})

#: Characters of a path and of a query: names of tools stand in both, and servers may call them what they like.
MOST_OF_A_PATH: Final = 32_768
MOST_OF_A_QUERY: Final = 32_768

COOKIE: Final = "mcp_tap_token"


class Guard:
    """ASGI middleware: names, methods and the token before the application, security headers on what it answers."""

    def __init__(self, application: ASGIApp, desk: Desk) -> None:
        self._application = application
        self._token = desk.token.encode()
        self._hosts = frozenset(host.lower() for host in desk.hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] != "http":
            return
        static = scope["path"].startswith("/static/")

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers["cache-control"] = _CACHED if static and message["status"] < 400 else _NEVER
            await send(message)

        refusal = self._refusal(Request(scope))
        await (refusal or self._application)(scope, receive, guarded)

    def _refusal(self, request: Request) -> Response | None:
        if not self._is_ours(request):
            host = request.headers.get("host", "")
            return _refused(
                request, 421, "misdirected_request", f'the desk does not answer to the name "{host[:100]}"',
                "name it in the settings:  [admin] hosts",
            )  # fmt: skip
        if request.method not in METHODS:
            return _refused(request, 405, "method_not_allowed", f"the desk has no {request.method[:20]}", "", _ALLOW)
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=_ALLOW)
        if len(request.scope["path"]) > MOST_OF_A_PATH or len(request.scope["query_string"]) > MOST_OF_A_QUERY:
            return _refused(request, 414, "uri_too_long", "the address is too long to be one of the desk's")
        if _is_foreign(request.headers):
            return _refused(request, 403, "forbidden", "another site's page may not ask the desk")
        return self._unless_known(request)

    def _unless_known(self, request: Request) -> Response | None:
        """Refuse who does not have the token; let who brings it in a URL keep it in a cookie."""
        if not self._token or request.url.path in _PROBES:
            return None
        given = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        tokens = [value for name, value in given if name == "token"]
        if tokens and self._is_token(tokens[-1]):
            rest = urlencode([(name, value) for name, value in given if name != "token"])
            # one slash in front: //elsewhere would lead to another server
            path = "/" + quote(request.scope["path"].lstrip("/\\"), safe="/@:,*")
            answer = RedirectResponse(path + (f"?{rest}" if rest else ""), 303)
            answer.set_cookie(COOKIE, tokens[-1], httponly=True, samesite="strict", max_age=30 * 86400)
            return answer
        kind, _, bearer = request.headers.get("authorization", "").partition(" ")
        if (kind.lower() == "bearer" and self._is_token(bearer.strip())) or self._is_token(_cookie(request.headers)):
            return None
        return _refused(
            request, 401, "unauthorized", "the desk wants its token",
            "open the address that mcp-tap printed, or add ?token=… to this one; programs send Authorization: Bearer …",
            {"www-authenticate": 'Bearer realm="mcp-tap"'},
        )  # fmt: skip

    def _is_token(self, given: str) -> bool:
        # digests have one length, so that the time it takes says nothing about the token's
        sent, wanted = (hashlib.sha256(text).digest() for text in (given.encode("utf-8", "replace"), self._token))
        return hmac.compare_digest(sent, wanted)

    def _is_ours(self, request: Request) -> bool:
        """Whether the request names this desk: loopback, the address it came to, or a configured name."""
        written = request.headers.getlist("host")
        if len(written) != 1:
            return False
        whole = written[0].strip().lower()
        host = whole[1:].partition("]")[0] if whole.startswith("[") else whole.rpartition(":")[0] or whole
        if is_loopback(host) or host in self._hosts or whole in self._hosts:
            return True
        server = request.scope.get("server") or ("", 0)
        try:
            return ip_address(host) == ip_address(server[0])
        except ValueError:
            return False


def _is_foreign(headers: Headers) -> bool:
    """Whether a browser says that another site's page asks, and not by a link that somebody followed."""
    if headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document":
        return False
    if headers.get("sec-fetch-site") in {"cross-site", "same-site"}:
        return True
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower()


def _cookie(headers: Headers) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel is not None else ""


def _refused(
    request: Request, status: int, code: str, message: str, hint: str = "", headers: dict[str, str] | None = None
) -> Response:
    if request.url.path.startswith("/api") or request.url.path in _PROBES:
        return errors.answer(errors.envelope(status, code, message, hint=hint), headers)
    return PlainTextResponse(f"mcp-tap: {message}\n{hint}\n", status, headers)
