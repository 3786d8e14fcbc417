"""Pages: templates into answers.

Everything that a page shows was written by somebody else: Jinja escapes every value, and the filter `harmless` shows
what browsers would obey or hide (controls, bidirectional and invisible marks). No template marks foreign text as safe.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from mcp_tap.api.desk import Desk
from mcp_tap.api.errors import status_of
from mcp_tap.model import TapError
from mcp_tap.store import COUNTED
from mcp_tap.ui import cells, terms, text, words
from mcp_tap.ui.frame import NO_FACTS, Frame, within
from mcp_tap.ui.snippets import snippets
from mcp_tap.ui.upstreams import Upstreams

HERE: Final = Path(__file__).parent

#: Files that pages refer to as /static/NAME.
STATIC: Final = HERE / "static"

Handler = Callable[[Desk, Request], Awaitable[Response]]


class Page(NamedTuple):
    """One page: where it is, what script and style call it, and who answers."""

    path: str
    name: str
    handler: Handler
    since: str = ""  # the range of time that it shows where the URL names none


def harmless(value: object, limit: int | None = None) -> str:
    """Return a foreign text as one line that shows what is in it; "" for None."""
    return "" if value is None else text.harmless(str(value), limit)


def number(value: float | None) -> str:
    """Return a count with its thousands set apart; "" for None."""
    return "" if value is None else f"{value:,}"


def matched(count: int) -> str:
    """Return how many rows fit: 1,204, or 10,000+ where counting stopped."""
    return f"{COUNTED:,}+" if count >= COUNTED else f"{count:,}"


def percent(share: float | None) -> str:
    """Return a share of one in per cent: 0 %, 0.4 %, 12 %."""
    if share is None:
        return ""
    return f"{share * 100:.1f} %" if 0 < share < 0.0995 else f"{share * 100:.0f} %"


#: What templates call of a dict; a key of the same name, which strangers can write, never stands in its place.
_CALLED: Final = frozenset(dir(dict))


class _Environment(Environment):
    """Templates read rows, which are dicts, thousands of times a page: each would raise for an attribute first."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return `obj.attribute` of a template."""
        if type(obj) is dict and attribute in obj and attribute not in _CALLED:
            return obj[attribute]
        return super().getattr(obj, attribute)


def _environment() -> Environment:
    environment = _Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "harmless": harmless,
        "duration": text.duration,
        "size": text.size,
        "counted": text.counted,
        "clock": cells.clock,
        "full": cells.full,
        "relative": cells.relative,
        "number": number,
        "matched": matched,
        "percent": percent,
    }
    environment.globals |= {"cells": cells, "words": words, "terms": terms, "snippets": snippets}
    return environment


ENVIRONMENT: Final = _environment()


def render(desk: Desk, request: Request, template: str, *, title: str, status: int = 200, **values: Any) -> Response:
    """Return a page made of a template, which knows ``frame`` (`Frame`), ``words`` and ``values``.

    Among the values ``live`` is the URL of the page's live stream, ``twin`` that of its JSON where it is not the
    page's own below `/api`. Made for handlers that `endpoint` calls.
    """
    frame = Frame(desk, request, facts=getattr(request.state, "facts", NO_FACTS), title=title)
    frame.name = getattr(request.state, "page", "")
    frame.live = values.pop("live", "")
    frame.twin_path = values.pop("twin", frame.twin_path)
    frame.down = getattr(request.state, "down", [])
    frame.query_ms = (time.perf_counter() - getattr(request.state, "began", time.perf_counter())) * 1000
    page = ENVIRONMENT.get_template(template).render(frame=frame, **values)
    response = HTMLResponse(page, status_code=status)
    if request.query_params.get("theme") in {"light", "dark"}:
        # how it looks to this reader, nothing of the tap's: where scripts run they set the same cookie
        response.set_cookie("theme", frame.theme, max_age=365 * 86400, samesite="strict")
    return response


def endpoint(desk: Desk, page: Page, upstreams: Upstreams | None = None) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers requests for a page: its handler, with what the frame needs, and its refusals in words."""

    async def answer(request: Request) -> Response:
        request = within(request, page.since)
        request.state.began = time.perf_counter()
        request.state.page = page.name
        request.state.since = page.since
        if upstreams is not None:
            request.state.down = await upstreams.down()
        try:
            # before the page's own questions: what changes between the two comes again with the live stream
            request.state.facts = await desk.reader.facts()
            return await page.handler(desk, request)
        except TapError as error:
            return refuse(desk, request, error)

    return answer


def refuse(desk: Desk, request: Request, error: TapError) -> Response:
    """Return the page that says why there is none: what is wrong, and what to do about it."""
    status = status_of(error)
    return render(desk, request, "refused.html", title=_TITLES.get(status, "Error"), status=status, error=error)


_TITLES: Final = {400: "This cannot be asked", 404: "Not found", 503: "The recording cannot be read"}
