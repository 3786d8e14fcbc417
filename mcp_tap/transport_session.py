"""A transport session: the id that a server may have given, and whatever is open in its name.

Below it are HTTP exchanges, above it JSON-RPC; it knows nothing of either. It says once that the session has begun,
keeps account of what is open, and ends all of that together. A session's owner starts it with what has to happen
before its end (a DELETE to the server, where the session is the owner's own), and puts `CLOSED` in its place after it.

Everything belongs to one event loop. There is no `await` between a check and what follows from it, so no lock is
needed: of any number of callers exactly one begins the session, and exactly one ends it.

The errors::

    TapError
    └── TransportError                  the transport of a session is at fault
        ├── TransportSessionNotFound    the server knows no session by this id
        └── TransportSessionClosed      it was used after its end
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, Protocol, TypeVar

from mcp_tap.model import TapError

log = logging.getLogger(__name__)

#: Seconds for each of the two steps of an end: a server that does not answer a DELETE must not keep streams open, and
#: the whole has to fit into the 10 s that Docker gives.
CLOSE_TIMEOUT: Final = 3.0


class TransportError(TapError):
    """The transport of a session is at fault."""

    code = "transport"


class TransportSessionNotFound(TransportError):  # noqa: N818 - named by what was looked for, like the answer 404
    """The server knows no session by this id. A client begins anew with `initialize` (2025-11-25)."""

    code = "session_not_found"

    def __init__(self, session_id: str) -> None:
        # the whole id is as good as a credential
        super().__init__(f"the server knows no session {session_id[:8]}…", hint="begin a new one with initialize")
        self.session_id = session_id


class TransportSessionClosed(TransportError):  # noqa: N818 - likewise
    """The session was used after its end."""

    code = "session_closed"

    def __init__(self) -> None:
        super().__init__("this session has been closed", hint="begin a new one with initialize")


class Closable(Protocol):
    """What a session can have open: one HTTP exchange, or anything else that can be ended."""

    async def aclose(self) -> None:
        """End it. Called once at most."""


C = TypeVar("C", bound=Closable)


class TransportSession(Generic[C]):
    """One session with one server. ``C`` is what is open in its name.

    ``on_close`` is awaited at the end, before anything is closed, with the id or None. ``on_session_id_changed`` hears
    of an id that differs from the one that is kept: first the one kept, then the other. ``timeout`` is what the end
    gives ``on_close``, and then the open connections, in seconds.
    """

    def __init__(
        self,
        *,
        on_close: Callable[[str | None], Awaitable[None]] | None = None,
        on_session_id_changed: Callable[[str | None, str], None] | None = None,
        timeout: float = CLOSE_TIMEOUT,
    ) -> None:
        self._on_close = on_close
        self._on_session_id_changed = on_session_id_changed
        self._timeout = timeout
        self._session_id: str | None = None
        self._initialized = False
        self._open: dict[int, C] = {}  # by id(): the same object is open once, however often it is added
        self._closing: set[asyncio.Task[None]] = set()  # the loop itself holds tasks weakly
        self._end: asyncio.Task[list[Exception]] | None = None

    @property
    def session_id(self) -> str | None:
        """The id that the server gave. None before that, and for ever where it gives none."""
        return self._session_id

    @property
    def initialized(self) -> bool:
        """Whether the session has begun."""
        return self._initialized

    @property
    def closed(self) -> bool:
        """Whether its end has begun. There is no way back."""
        return self._end is not None

    @property
    def open_connections(self) -> int:
        """How many connections are open in its name."""
        return len(self._open)

    def mark_initialized(self, session_id: str | None, *, status: int = 200) -> bool:
        """Take the `Mcp-Session-Id` of an answer, None where it has none, and the HTTP status of that answer.

        Return whether the session begins with it, so that what follows a beginning is done once. Only 2xx begins one:
        servers put ids on refusals too, and a refusal without an id must not hide the id that comes later.
        """
        if self.closed or not 200 <= status < 300:
            return False
        if not self._initialized:
            self._initialized, self._session_id = True, session_id or None
            return True
        if session_id and session_id != self._session_id:
            log.warning("a server changed the id of a session; the first one is kept")
            if self._on_session_id_changed is not None:
                self._on_session_id_changed(self._session_id, session_id)
        return False

    def add_connection(self, connection: C) -> None:
        """Close ``connection`` when the session ends; when it has ended already, at once."""
        if self.closed:
            self._begin_closing(connection)
        else:
            self._open[id(connection)] = connection

    def remove_connection(self, connection: C) -> None:
        """Forget a connection that comes to its end by itself. One that was never added is no error."""
        self._open.pop(id(connection), None)

    def close(self) -> None:
        """Begin the end and return. What goes wrong with it is logged."""
        self._begin_end().add_done_callback(_log_errors)

    async def close_gracefully(self) -> None:
        """End the session: `on_close`, then every connection. Return when all is closed.

        Whoever calls it again waits for the same end. Raises ExceptionGroup with whatever went wrong, but nothing that
        goes wrong keeps a connection open, and neither does the caller's own cancellation.
        """
        errors = await asyncio.shield(self._begin_end())
        if errors:
            raise ExceptionGroup("a session did not end in order", errors)

    # Private

    def _begin_end(self) -> asyncio.Task[list[Exception]]:
        if self._end is None:
            self._end = asyncio.get_running_loop().create_task(self._close())
            _ENDS.add(self._end)
            self._end.add_done_callback(_ENDS.discard)
        return self._end

    async def _close(self) -> list[Exception]:
        """Do all of an end, and return what went wrong."""
        errors: list[Exception] = []
        if self._on_close is not None:
            try:
                async with asyncio.timeout(self._timeout):
                    await self._on_close(self._session_id)
            except Exception as error:  # noqa: BLE001 - a server that fails must not keep its streams open
                errors.append(error)
        for connection in list(self._open.values()):
            self._begin_closing(connection)
        closing = set(self._closing)  # also what was added too late
        if closing:
            _, late = await asyncio.wait(closing, timeout=self._timeout)
            for task in late:
                task.cancel()
                errors.append(TimeoutError(f"a connection was not closed within {self._timeout} s"))
            # a connection may end by cancelling what it consists of, which is no error
            ends = [task.exception() for task in closing - late if not task.cancelled()]
            errors += [end for end in ends if isinstance(end, Exception)]
        self._open.clear()
        return errors

    def _begin_closing(self, connection: C) -> None:
        task = asyncio.get_running_loop().create_task(self._dismiss(connection))
        self._closing.add(task)
        task.add_done_callback(self._dismissed)

    async def _dismiss(self, connection: C) -> None:
        try:
            await connection.aclose()
        finally:
            self.remove_connection(connection)

    def _dismissed(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.info("a connection was not closed in order", exc_info=error)


class ClosedTransportSession(TransportSession[Any]):
    """Stands where a session was, so that nothing new can begin there. `CLOSED` is the only one."""

    @property
    def closed(self) -> bool:
        """It always is."""
        return True

    def mark_initialized(self, session_id: str | None, *, status: int = 200) -> bool:
        """Raise TransportSessionClosed."""
        raise TransportSessionClosed

    def add_connection(self, connection: Any) -> None:
        """Raise TransportSessionClosed: the connection stays the caller's to close."""
        raise TransportSessionClosed

    def remove_connection(self, connection: Any) -> None:
        """Raise TransportSessionClosed."""
        raise TransportSessionClosed

    def close(self) -> None:
        """Do nothing."""

    async def close_gracefully(self) -> None:
        """Do nothing."""


#: The one session that has ended before anything began.
CLOSED: Final[TransportSession[Any]] = ClosedTransportSession()


class TransportStream:
    """One event stream of a session: what a client needs to take it up again.

    ``stream_id`` counts the streams of this process. ``last_event_id`` is what goes into `Last-Event-ID` (2025-11-25,
    "Resumability and Redelivery"); None while no event had an id: such a stream cannot be resumed.
    """

    __slots__ = ("last_event_id", "stream_id")

    def __init__(self) -> None:
        self.stream_id = next(_STREAM_IDS)
        self.last_event_id: str | None = None

    def observe(self, event_id: str | None) -> None:
        """Take the id of an event. An event without one leaves the position where it was."""
        if event_id:
            self.last_event_id = event_id


_STREAM_IDS: Final = itertools.count(1)

#: Ends that are under way: an end goes on although nobody holds its session any more.
_ENDS: Final[set[asyncio.Task[list[Exception]]]] = set()


def _log_errors(end: asyncio.Task[list[Exception]]) -> None:
    for error in [] if end.cancelled() else end.result():
        log.warning("a session did not end in order", exc_info=error)
