"""A transport session, statement by statement: the numbers are those of the contract that the class fulfils.

Its proxy's half, 17 and after, is tested in `tests/statements`. Where the class does on purpose what its model does
not, the test says so.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mcp_tap.model import TapError
from mcp_tap.transport_session import (
    CLOSED,
    TransportError,
    TransportSession,
    TransportSessionClosed,
    TransportSessionNotFound,
    TransportStream,
)


class Connection:
    """Something that can be closed, and writes into a common diary when it is. ``end`` is what closing does."""

    def __init__(
        self, name: str = "a", diary: list[str] | None = None, end: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        self.name = name
        self.closed = 0
        self._diary = [] if diary is None else diary
        self._end = end

    async def aclose(self) -> None:
        self.closed += 1
        if self._end is not None:
            await self._end()
        self._diary.append(f"{self.name} closed")


async def fail() -> None:
    raise OSError("no route")


async def hang() -> None:
    await asyncio.Event().wait()


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test in a loop in which nothing may be left running, and in which no exception may get lost."""
    lost: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
        await test()
        gc.collect()  # an exception that nobody asked for is told of when its task goes
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(watched())
    assert lost == []


def test_01_a_fresh_session_has_no_id_and_has_not_begun() -> None:
    session = TransportSession[Connection]()
    assert (session.session_id, session.initialized, session.closed, session.open_connections) == (
        None,
        False,
        False,
        0,
    )


def test_02_it_begins_once() -> None:
    session = TransportSession[Connection]()
    assert session.mark_initialized("a") is True
    assert [session.mark_initialized(other) for other in ("a", "b", None, "a", "")] == [False] * 5
    assert (session.session_id, session.initialized) == ("a", True)


def test_03_another_id_is_told_of_and_not_taken(caplog: pytest.LogCaptureFixture) -> None:
    changes: list[tuple[str | None, str]] = []
    session = TransportSession[Connection](on_session_id_changed=lambda *ids: changes.append(ids))
    session.mark_initialized("first")
    assert session.mark_initialized("first") is False
    assert session.mark_initialized(None) is False
    assert changes == []
    assert session.mark_initialized("other") is False
    assert session.session_id == "first"
    assert changes == [("first", "other")]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "other" not in caplog.text  # an id is as good as a credential


def test_04_a_server_without_ids_has_a_session_too() -> None:
    changes: list[tuple[str | None, str]] = []
    session = TransportSession[Connection](on_session_id_changed=lambda *ids: changes.append(ids))
    assert session.mark_initialized(None) is True
    assert session.initialized
    assert session.mark_initialized("late") is False
    assert session.session_id is None
    assert changes == [(None, "late")]


@pytest.mark.parametrize("status", [100, 199, 300, 307, 400, 401, 403, 404, 500, 503])
def test_05_only_2xx_begins_a_session(status: int) -> None:
    """Deviation: in the model the first answer of any kind marks, and the id of a later success is lost."""
    session = TransportSession[Connection]()
    assert session.mark_initialized(None, status=status) is False
    assert session.mark_initialized("on a refusal", status=status) is False
    assert (session.session_id, session.initialized) == (None, False)
    assert session.mark_initialized("later", status=200) is True
    assert session.session_id == "later"


def test_06_of_500_at_once_one_begins_it() -> None:
    session = TransportSession[Connection]()
    begun: list[str] = []

    async def answered(session_id: str, gate: asyncio.Event) -> bool:
        await gate.wait()
        if not session.mark_initialized(session_id):
            return False
        await asyncio.sleep(0)
        begun.append(session_id)
        return True

    async def test() -> None:
        gate = asyncio.Event()
        answers = [asyncio.create_task(answered("s", gate)) for _ in range(500)]
        gate.set()
        assert sum(await asyncio.gather(*answers)) == 1

    run(test)
    assert begun == ["s"]


def test_07_what_comes_after_the_end_is_closed_at_once() -> None:
    async def test() -> None:
        session = TransportSession[Connection]()
        await session.close_gracefully()
        late = Connection()
        session.add_connection(late)
        assert session.open_connections == 0
        await asyncio.sleep(0)
        assert late.closed == 1
        await asyncio.sleep(0)

    run(test)


def test_07_what_comes_while_it_ends_is_closed_before_the_end() -> None:
    async def test() -> None:
        diary: list[str] = []
        late = Connection("late", diary, lambda: asyncio.sleep(0))

        async def on_close(_: str | None) -> None:
            session.add_connection(late)
            assert session.open_connections == 1  # the early one: it is open while the server is told

        session = TransportSession[Connection](on_close=on_close)
        session.add_connection(Connection("early", diary))
        await session.close_gracefully()
        assert sorted(diary) == ["early closed", "late closed"]
        assert session.open_connections == 0

    run(test)


def test_07_what_comes_late_and_fails_disturbs_nobody() -> None:
    async def test() -> None:
        session = TransportSession[Connection]()
        await session.close_gracefully()
        session.add_connection(Connection(end=fail))
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)

    run(test)


def test_08_a_connection_that_ends_by_itself_is_not_closed() -> None:
    async def test() -> None:
        session = TransportSession[Connection]()
        kept, gone, unknown = Connection(), Connection(), Connection()
        session.add_connection(kept)
        session.add_connection(gone)
        session.remove_connection(gone)
        session.remove_connection(gone)
        session.remove_connection(unknown)
        assert session.open_connections == 1
        await session.close_gracefully()
        assert (kept.closed, gone.closed, unknown.closed) == (1, 0, 0)

    run(test)


def test_08_a_connection_that_ends_while_the_server_is_told_is_not_closed() -> None:
    async def test() -> None:
        async def on_close(_: str | None) -> None:
            session.remove_connection(gone)  # a DELETE makes a server end its streams

        gone = Connection()
        session = TransportSession[Connection](on_close=on_close)
        session.add_connection(gone)
        await session.close_gracefully()
        assert gone.closed == 0

    run(test)


@pytest.mark.parametrize("session_id", ["s", None])
def test_09_the_server_is_told_first_and_the_end_is_awaited(session_id: str | None) -> None:
    async def test() -> None:
        diary: list[str] = []

        async def on_close(told: str | None) -> None:
            await asyncio.sleep(0)
            diary.append(f"told {told}")

        session = TransportSession[Connection](on_close=on_close)
        session.mark_initialized(session_id)
        for name in ("a", "b"):
            session.add_connection(Connection(name, diary, lambda: asyncio.sleep(0.01)))
        await session.close_gracefully()
        assert diary == [f"told {session_id}", "a closed", "b closed"]
        assert session.open_connections == 0

    run(test)


@pytest.mark.parametrize(("on_close", "error"), [(fail, OSError), (hang, TimeoutError)])
def test_10_a_server_that_cannot_be_told_keeps_nothing_open(
    on_close: Callable[[], Awaitable[None]], error: type[Exception]
) -> None:
    """Deviation: in the model nothing is closed then, and all of it leaks."""

    async def test() -> None:
        session = TransportSession[Connection](on_close=lambda _: on_close(), timeout=0.02)
        connections = [Connection(), Connection()]
        for connection in connections:
            session.add_connection(connection)
        with pytest.raises(ExceptionGroup) as caught:
            await session.close_gracefully()
        assert [type(each) for each in caught.value.exceptions] == [error]
        assert [connection.closed for connection in connections] == [1, 1]
        assert session.open_connections == 0

    run(test)


def test_11_one_that_cannot_be_closed_keeps_no_other_open() -> None:
    async def test() -> None:
        session = TransportSession[Connection](timeout=0.02)
        good = [Connection(), Connection()]
        for connection in (Connection(end=fail), good[0], Connection(end=hang), good[1]):
            session.add_connection(connection)
        with pytest.raises(ExceptionGroup) as caught:
            await session.close_gracefully()
        assert {type(each) for each in caught.value.exceptions} == {OSError, TimeoutError}
        assert [connection.closed for connection in good] == [1, 1]
        assert session.open_connections == 0
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)  # the one that hung is cancelled

    run(test)


def test_11_one_that_ends_by_cancelling_itself_is_closed() -> None:
    async def test() -> None:
        async def cancel() -> None:
            raise asyncio.CancelledError

        session = TransportSession[Connection]()
        session.add_connection(Connection(end=cancel))
        await session.close_gracefully()
        assert session.open_connections == 0

    run(test)


def test_12_it_ends_once_and_everybody_waits_for_the_same_end() -> None:
    """Deviation: in the model every call tells the server again."""

    async def test() -> None:
        told = 0

        async def on_close(_: str | None) -> None:
            nonlocal told
            told += 1
            await asyncio.sleep(0.01)
            raise OSError("refused")

        session = TransportSession[Connection](on_close=on_close)
        connection = Connection()
        session.add_connection(connection)
        ends = [asyncio.create_task(session.close_gracefully()) for _ in range(3)]
        await asyncio.sleep(0)
        ends[0].cancel()  # one who waits no longer takes the end from nobody else
        results = await asyncio.gather(*ends, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError, ExceptionGroup, ExceptionGroup]
        with pytest.raises(ExceptionGroup):
            await session.close_gracefully()
        assert (told, connection.closed) == (1, 1)

    run(test)


def test_13_added_twice_is_closed_once() -> None:
    """Deviation: the model keeps a list."""

    async def test() -> None:
        session = TransportSession[Connection]()
        connection = Connection()
        session.add_connection(connection)
        session.add_connection(connection)
        assert session.open_connections == 1
        await session.close_gracefully()
        assert connection.closed == 1

    run(test)


def test_14_close_returns_at_once_and_goes_on_in_the_background(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        closed = asyncio.Event()

        async def end() -> None:
            await asyncio.sleep(0)
            closed.set()

        session = TransportSession[Connection](on_close=lambda _: fail())
        connection = Connection(end=end)
        session.add_connection(connection)
        session.close()
        session.close()
        assert session.closed
        assert connection.closed == 0
        assert session.mark_initialized("late") is False
        del session  # nobody holds it any more
        gc.collect()
        await closed.wait()
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    run(test)
    assert "no route" in caplog.text


def test_15_where_a_session_was_nothing_begins() -> None:
    async def test() -> None:
        for use in (
            lambda: CLOSED.mark_initialized("a"),
            lambda: CLOSED.add_connection(Connection()),
            lambda: CLOSED.remove_connection(Connection()),
        ):
            with pytest.raises(TransportSessionClosed):
                use()
        CLOSED.close()
        await CLOSED.close_gracefully()
        assert (CLOSED.session_id, CLOSED.closed, CLOSED.open_connections) == (None, True, 0)

    run(test)


def test_15_the_errors_say_what_to_do_and_keep_the_id_to_themselves() -> None:
    missing = TransportSessionNotFound("0123456789abcdef")
    assert isinstance(missing, TransportError)
    assert issubclass(TransportError, TapError)
    assert missing.session_id == "0123456789abcdef"
    assert "89abcdef" not in str(missing) + missing.hint
    assert {error.code for error in (missing, TransportSessionClosed())} == {"session_not_found", "session_closed"}


def test_16_a_stream_keeps_the_last_id_and_streams_are_counted() -> None:
    first, second, third = TransportStream(), TransportStream(), TransportStream()
    assert first.stream_id < second.stream_id < third.stream_id
    assert second.last_event_id is None
    for event_id in ("1", "2", None, ""):
        first.observe(event_id)
    assert first.last_event_id == "2"
    assert second.last_event_id is None
