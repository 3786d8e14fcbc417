"""The log: lines that no terminal obeys, and tracebacks that repeat none of the traffic.

What an exception says can be what came over the wire, unmasked: the text of a defect in a decoder quotes the bytes it
stumbled over. So a traceback has its places and the exceptions' names; their words it has only where they are ours.
"""

from __future__ import annotations

import logging
import traceback
from types import TracebackType
from typing import Final

from mcp_tap.model import TapError
from mcp_tap.ui.text import harmless

FORMAT: Final = "mcp-tap: %(levelname)s: %(message)s"

_Error = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def to_stderr(level: int) -> None:
    """Send the log of this process to standard error."""
    outlet = logging.StreamHandler()
    outlet.setFormatter(Lines(FORMAT))
    logging.basicConfig(level=level, handlers=[outlet])


class Lines(logging.Formatter):
    """Records as lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message and, where there is one, the traceback."""
        # another outlet may have written the whole traceback into the record already
        record.exc_text = None
        return "\n".join(map(harmless, super().format(record).split("\n")))

    def formatException(self, ei: _Error) -> str:  # noqa: N802  logging's own name
        """Return where the exceptions come from, the cause of each before it."""
        chain: list[BaseException] = []
        error = ei[1]
        while error is not None and error not in chain:
            chain.insert(0, error)
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "\n".join(line for each in chain for line in _told(each))


def _told(error: BaseException) -> list[str]:
    lines = [line for frame in traceback.format_tb(error.__traceback__) for line in frame.rstrip("\n").split("\n")]
    said = f": {error}" if isinstance(error, TapError) else ""
    return [*lines, f"{type(error).__module__}.{type(error).__qualname__}{said}"]
