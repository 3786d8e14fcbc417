"""The tree of errors, apart from the nouns: the relay process needs nothing else of them.

::

    TapError                 anything the tap says no to
    ├── UsageError           you can fix the command or the configuration   exit 2
    ├── UpstreamError        the server behind the tap                      exit 3
    ├── StoreError           the database                                   exit 4
    └── NotFoundError        the answer is no                               exit 1
"""

from __future__ import annotations


class TapError(Exception):
    """Something the tap says no to: what is wrong, and what to do next.

    ``code`` is for programs, the text for people, ``hint`` holds the lines that say what to do. Mapped to an exit
    status by the command line and to an HTTP status by the API, each in one place.
    """

    code = "error"
    exit_status = 1

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        if code:
            self.code = code


class UsageError(TapError):
    """The command or the configuration can be fixed by whoever wrote it."""

    code = "usage"
    exit_status = 2


class UpstreamError(TapError):
    """The server behind the tap cannot be reached or does not speak MCP."""

    code = "upstream"
    exit_status = 3


class StoreError(TapError):
    """The database cannot be opened, read or written."""

    code = "store"
    exit_status = 4


class NotFoundError(TapError):
    """Nothing has that id."""

    code = "not_found"
    exit_status = 1
