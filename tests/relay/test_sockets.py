"""Unix sockets: whose name is taken over, whose is removed, and who may connect."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mcp_tap.config import Address
from mcp_tap.relay.sockets import SocketFile, listening_sockets


def test_a_unix_socket_is_taken_over_only_from_the_dead(tmp_path: Path) -> None:
    address = Address("", 0, str(tmp_path / "s"))
    path = Path(address.socket)
    (first,) = listening_sockets(address)
    made = SocketFile.of(first)
    assert made is not None
    with pytest.raises(OSError, match="in use"):
        listening_sockets(address)
    first.close()
    assert path.exists()
    (second,) = listening_sockets(address)
    made.remove()  # of the one before: no longer ours
    assert path.exists()
    again = SocketFile.of(second)
    assert again is not None
    again.remove()
    again.remove()
    assert not path.exists()
    second.close()
    path.write_text("kept")
    with pytest.raises(OSError, match="in use"):
        listening_sockets(address)
    assert path.read_text() == "kept"
    (tcp,) = listening_sockets(Address("127.0.0.1", 0))
    assert SocketFile.of(tcp) is None
    tcp.close()


def test_the_umask_decides_who_may_connect(tmp_path: Path) -> None:
    for mask, mode in ((0o022, 0o755), (0o007, 0o770)):
        before = os.umask(mask)
        try:
            (sock,) = listening_sockets(Address("", 0, str(tmp_path / f"{mask}")))
        finally:
            os.umask(before)
        assert (tmp_path / f"{mask}").stat().st_mode & 0o777 == mode
        sock.close()
