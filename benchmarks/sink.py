"""A recorder that records nothing: what is left of the tap's cost is the relay's own.

``python -m benchmarks.sink SETTINGS_FD`` is the relay with such a recorder.
"""

from __future__ import annotations

import socket
import sys
import time

from mcp_tap.channel import Kind, encode
from mcp_tap.relay.__main__ import main


def swallow(channel_fd: int) -> None:
    """Read the channel to its end."""
    channel = socket.socket(fileno=channel_fd)
    channel.sendall(encode(0, Kind.READY, time.monotonic_ns()))
    while channel.recv(1 << 20):
        pass


if __name__ == "__main__":
    if sys.argv[1] == "--swallow":
        swallow(int(sys.argv[2]))
    else:
        argv = [sys.executable, "-m", "benchmarks.sink", "--swallow"]
        sys.exit(main(sys.argv[1:], argv=lambda channel, _settings, _desk: [*argv, str(channel)]))
