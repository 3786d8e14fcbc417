"""What holds for every test, wherever it runs."""

from __future__ import annotations

import signal
import threading

import pytest

from mcp_tap.protocol import tracker

# A shell starts what it puts into the background with SIGINT ignored (POSIX, Shell Command Language §2.11), and
# children inherit that: commands that tests interrupt would go on for ever.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out, against a compiled core, the tests that change what was compiled."""
    if tracker.__file__.endswith(".py"):
        return
    for item in items:
        if item.get_closest_marker("interpreted"):
            item.add_marker(pytest.mark.skip(reason="changes a constant of the core, which is compiled here"))
