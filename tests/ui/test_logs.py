"""What a log line may hold."""

from __future__ import annotations

import logging

import pytest

from mcp_tap.model import StoreError
from mcp_tap.ui.logs import FORMAT, Lines

SECRET = "tk-canary-0123"


def logged(message: str, *arguments: object, error: BaseException | None = None) -> str:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord("mcp_tap", logging.ERROR, __file__, 1, message, arguments, exc_info)
    record.exc_text = SECRET
    return Lines(FORMAT).format(record)


def raised(text: str) -> Exception:
    try:
        try:
            raise ValueError(text)
        except ValueError as error:
            raise KeyError(text) from error
    except KeyError as error:
        return error


def test_no_line_is_obeyed() -> None:
    assert logged("%s: %s", "/x\x1b[31m\u202e", "a\r\nb") == "mcp-tap: ERROR: /x\\x1b[31m\\u202e: a\\r\nb"


def test_a_traceback_says_where_and_not_what() -> None:
    lines = logged("stream 7 cannot be followed", error=raised(f"unexpected {SECRET}")).split("\n")
    assert SECRET not in "".join(lines)
    assert lines[0] == "mcp-tap: ERROR: stream 7 cannot be followed"
    assert [line for line in lines if line.startswith("builtins.")] == ["builtins.ValueError", "builtins.KeyError"]
    assert sum("in raised" in line for line in lines) == 2


def test_our_own_errors_are_told_in_words() -> None:
    with pytest.raises(StoreError) as caught:
        raise StoreError("the disk is full")
    assert logged("not written", error=caught.value).endswith("StoreError: the disk is full")
