"""The events of one session to take away, as JSON Lines or CSV: what `mcp-tap export` writes."""

from __future__ import annotations

from typing import cast

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from mcp_tap.api.desk import Desk
from mcp_tap.model import NotFoundError
from mcp_tap.store import ALL
from mcp_tap.ui.export import FORMATS, MEDIA_TYPES, Format, events


async def page(desk: Desk, request: Request) -> Response:
    """Answer with a file; `bodies=1` adds the bodies, `reveal=session_id` writes mcp-session-ids whole."""
    form = request.path_params["form"]
    if form not in FORMATS:
        raise NotFoundError(f"sessions are not exported as {form}", hint=f"there is:  {', '.join(FORMATS)}")
    form = cast("Format", form)
    row = await desk.reader.session(request.path_params["id"])
    whole = request.path_params["id"].startswith("ses_")
    key, value = ("session", row["session_id"]) if whole else ("conn", row["connection_id"])
    pieces = events(
        desk.reader,
        ALL.plus(key, value),
        form,
        bodies=request.query_params.get("bodies") == "1",
        reveal=request.query_params.get("reveal") == "session_id",
    )
    headers = {"content-disposition": f'attachment; filename="{value}.{form}"', "content-type": MEDIA_TYPES[form]}
    return StreamingResponse(pieces, headers=headers)
