"""What every route of the desk knows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from mcp_tap.config import Proxy
from mcp_tap.store import Reader


class Recording(NamedTuple):
    """How recording goes at the moment, for the line on top of every page and for `/healthz`."""

    on: bool  # False: a file is looked at, nothing is recorded
    failing: str | None = None  # why records cannot be written at the moment
    dropped: int = 0  # pieces of traffic that never reached the recorder, in this run
    lost: int = 0  # lines that could not be written and are not recorded as lost yet
    streams: int = 0  # TCP connections open
    overhead_us: float | None = None  # median time that the tap itself took of a message, where it is known


@dataclass(frozen=True)
class Desk:
    """The desk of one process: what it reads, and what it can say about the tap."""

    reader: Reader
    recording: Callable[[], Recording]
    proxies: tuple[Proxy, ...] = ()  # none while a file is looked at
    reach: Callable[[Proxy], Awaitable[str]] | None = None  # says in words how connecting to a server goes
    token: str = ""  # "" asks for none
    hosts: tuple[str, ...] = ()  # further names under which the desk may be addressed
    keep: str = ""  # how long records are kept, in words
    began: float = field(default_factory=time.monotonic)
    ending: asyncio.Event = field(default_factory=asyncio.Event)  # set when the desk stops: live streams end
