"""How many streams there may be, who waits, and what is said of it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest

from mcp_tap.config import Proxy
from mcp_tap.relay import capacity as capacity_module
from mcp_tap.relay import listener as listener_module
from mcp_tap.relay.capacity import EACH, RESERVE, Capacity
from mcp_tap.relay.listener import what_to_do, why_not
from tests.relay.cases import CALL, OK
from tests.relay.process import answering, serving
from tests.relay.test_listener import Tapped, run, upstream


@contextlib.contextmanager
def open_files(soft: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_there_is_room_for_what_open_files_allow_and_no_more_than_is_wanted() -> None:
    with open_files(RESERVE + 10 * EACH + 1):
        capacity = Capacity()
        assert capacity.room() == 10
        capacity.take()
        assert capacity.room() == 9
        assert Capacity(4).room() == 4
        assert Capacity(11).room() == 10
    with open_files(RESERVE):
        assert Capacity().room() == 1  # less would be no tap at all
    assert Capacity(4).room() == 4


def test_who_waits_is_told_when_there_is_room_and_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity_module, "RETRY", 0.001)
    said: list[str] = []
    resumed: list[int] = []

    async def work() -> None:
        capacity = Capacity(20, say=said.append)
        for _ in range(20):
            capacity.take()
        capacity.wait(lambda: resumed.append(1))
        capacity.wait(lambda: resumed.append(2))
        for _ in range(5):  # one leaves, and another comes
            capacity.give()
            capacity.take()
            capacity.wait(lambda: resumed.append(3))
        assert resumed == [1, 2, 3, 3, 3, 3]
        assert len(said) == 1
        capacity.give()
        while len(said) < 2:
            await asyncio.sleep(0)
        capacity.take()
        capacity.wait(lambda: None)

    asyncio.run(work())
    full = "warning: further clients wait: {} connections are open, as many as proxy.max_connections allows"
    assert said == [full.format(20), "clients no longer wait", full.format(20)]


def test_a_limit_that_is_raised_meanwhile_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity_module, "RETRY", 0.01)

    async def work() -> None:
        resumed = asyncio.Event()
        capacity = Capacity()
        with open_files(RESERVE + 2 * EACH):
            capacity.take()
            capacity.take()
            assert capacity.room() == 0
            capacity.wait(resumed.set)
        await asyncio.wait_for(resumed.wait(), 5)
        assert capacity.room() > 0

    asyncio.run(work())


def test_clients_beyond_wait_and_all_are_answered() -> None:
    async def ask(tapped: Tapped) -> None:
        reader, writer = await tapped.connect()
        writer.write(CALL)
        assert await reader.readexactly(len(OK)) == OK
        writer.close()

    async def work(tapped: Tapped) -> None:
        tapped.streams.capacity = Capacity(3)
        most = 0
        asking = [asyncio.create_task(ask(tapped)) for _ in range(12)]
        while not all(one.done() for one in asking):
            most = max(most, len(tapped.streams.open), tapped.streams.capacity.streams)
            await asyncio.sleep(0)
        for one in asking:
            one.result()
        assert most == 3
        while tapped.streams.open:
            await asyncio.sleep(0)
        assert tapped.streams.capacity.streams == 0

    with serving(answering) as port:
        run(Proxy(upstream("127.0.0.1", port)), work)


@pytest.mark.parametrize(
    ("number", "pauses"), [(errno.EMFILE, True), (errno.ENOBUFS, True), (errno.ECONNABORTED, False)]
)
def test_what_accepting_fails_with(monkeypatch: pytest.MonkeyPatch, number: int, pauses: bool) -> None:
    """What concerns one client is passed over; anything else is waited for, and no client is lost."""
    monkeypatch.setattr(capacity_module, "RETRY", 0.01)
    said: list[str] = []

    async def work(tapped: Tapped) -> None:
        tapped.streams.capacity = Capacity(say=said.append)
        failing = iter([OSError(number, "x")] * 3)

        class Failing:
            def __init__(self, sock: socket.socket) -> None:
                self._sock = sock

            def accept(self) -> Any:
                for error in failing:
                    raise error
                return self._sock.accept()

        accepting = tapped.listener._acceptable
        monkeypatch.setattr(
            listener_module.Listener, "_acceptable", lambda self, sock: accepting(cast(socket.socket, Failing(sock)))
        )
        tapped.listener._pause()
        tapped.listener._resume()
        reader, writer = await tapped.connect()
        writer.write(CALL)
        assert await asyncio.wait_for(reader.readexactly(len(OK)), 5) == OK

    with serving(answering) as port:
        run(Proxy(upstream("127.0.0.1", port)), work)
    assert [line for line in said if line.startswith("warning")] == said[:pauses]


def test_what_cannot_be_had_is_named_with_what_helps() -> None:
    ports, files = OSError(errno.EADDRNOTAVAIL, "x"), OSError(errno.EMFILE, "x")
    assert why_not(ports) == "no local port or address is left for it"
    assert "ip_local_port_range" in what_to_do(ports)
    assert why_not(files) == "too many open files"
    assert "ulimit -n" in what_to_do(files)
    assert what_to_do(ConnectionRefusedError()) == "start the server, or correct the address"
