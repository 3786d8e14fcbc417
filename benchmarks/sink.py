"""A recorder that records nothing: what is left of the tap's cost is the relay's own.

``python -m benchmarks.sink PORT UPSTREAM_PORT`` is the relay with such a recorder, on one port of this machine and in
front of a server on another.
"""

from __future__ import annotations

import socket
import sys
import time

import uvloop

from mcp_tap.channel import Kind, encode
from mcp_tap.config import Address, Admin, Proxy, Settings, Upstream
from mcp_tap.relay.__main__ import run


def swallow(channel_fd: int) -> None:
    """Read the channel to its end."""
    channel = socket.socket(fileno=channel_fd)
    channel.sendall(encode(0, Kind.READY, time.monotonic_ns()))
    while channel.recv(1 << 20):
        pass


def main(port: int, upstream: int) -> int:
    """Relay until SIGTERM."""
    url = f"http://127.0.0.1:{upstream}/mcp"
    proxy = Proxy(Upstream(url, "http", "127.0.0.1", upstream, "/mcp"), Address("127.0.0.1", port))
    settings = Settings(proxy, Admin(Address("127.0.0.1", 0)), format="none")
    argv = [sys.executable, "-m", "benchmarks.sink", "--swallow"]
    return uvloop.run(run(settings, argv=lambda channel, _settings, _desk: [*argv, str(channel)]))


if __name__ == "__main__":
    if sys.argv[1] == "--swallow":
        swallow(int(sys.argv[2]))
    else:
        sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
