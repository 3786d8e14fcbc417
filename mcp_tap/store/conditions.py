"""What filters are made of: values as people write them, and the conditions that they become.

A condition is SQL with a `?` for each value in turn, and the values: they are bound, never written into the text.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from mcp_tap.model import UsageError

Condition = tuple[str, tuple[Any, ...]]

#: Stars in one name: each makes comparing slower with every row.
MOST_STARS: Final = 8

# ------------------------------------------------------------------------------------------------- reading values


def moment(text: str, now_us: int) -> int:
    """Return a point in time as microseconds since the epoch.

    A span before now (30m, 1h, 7d), ISO 8601 (local where it names no zone), or the last time the clock showed 10:08.
    Raises UsageError.
    """
    text = text.strip()
    now = datetime.fromtimestamp(now_us / 1_000_000, UTC)
    if span := re.fullmatch(r"(\d{1,6})\s*([smhdw])", text):
        unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[span[2]]
        return max(now_us - int(timedelta(**{unit: int(span[1])}).total_seconds()) * 1_000_000, 0)
    try:
        if re.fullmatch(r"\d{1,2}:\d\d(:\d\d(\.\d+)?)?", text):
            local = now.astimezone()
            clock = datetime.fromisoformat(f"{local:%Y-%m-%d} {text.zfill(5) if len(text) < 5 else text}").astimezone()
            if clock > local:
                clock -= timedelta(days=1)
            return int(clock.timestamp() * 1_000_000)
        return max(round(datetime.fromisoformat(text).astimezone().timestamp() * 1_000_000), 0)
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f'"{text}" is no time', hint="write 30m, 1h, 7d, 10:08 or 2026-03-14T10:08", code="filter"
        ) from None


SPANS: Final = {"us": 1, "µs": 1, "ms": 1000, "s": 1_000_000, "m": 60_000_000, "min": 60_000_000, "h": 3_600_000_000}
SIZES: Final = {"": 1, "b": 1, "k": 1000, "kb": 1000, "m": 1_000_000, "mb": 1_000_000, "g": 10**9, "gb": 10**9}


def number(text: str, units: dict[str, int], example: str) -> int:
    """Read an amount with its unit; raise UsageError with an example."""
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,9})?)\s*([a-zµ]*)", text.strip().lower())
    if match is None or match[2] not in units:
        raise UsageError(f'"{text}" cannot be compared', hint=f"write {example}", code="filter")
    return min(round(float(match[1]) * units[match[2]]), 2**62)  # SQLite's integers have 64 bits


def compared(column: str, text: str, units: dict[str, int], example: str) -> Condition:
    """Read `>500ms`, `<=10kB`, `100ms..1s`, or a bare amount, which means at least so much."""
    if ".." in text:
        low, _, high = text.partition("..")
        return f"{column} BETWEEN ? AND ?", (number(low, units, example), number(high, units, example))
    match = re.match(r"(>=|<=|>|<|=)?(.*)", text, re.DOTALL)
    assert match is not None  # every part of it may be empty
    return f"{column} {match[1] or '>='} ?", (number(match[2], units, example),)


def one_of(text: str, words: dict[str, Any], what: str) -> Any:
    """Return what a word stands for; raise UsageError with the nearest one that exists."""
    found = words.get(text.lower())
    if found is None:
        close = difflib.get_close_matches(text.lower(), words, n=1)
        hint = (f"did you mean {close[0]}?\n" if close else "") + f"there are:  {' '.join(words)}"
        raise UsageError(f'"{text}" is no {what}', hint=hint, code="filter")
    return found


#: The last second of the year 9999, the last that ISO 8601 writes with four digits.
_LAST: Final = 253_402_300_799


def iso(at_us: int) -> str:
    """Return microseconds since the epoch as times of lines are stored, inside the years that four digits write."""
    return (
        datetime.fromtimestamp(min(max(at_us / 1_000_000, 0), _LAST), UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


# --------------------------------------------------------------------------------------------------- conditions


def _escaped(text: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", text)


def like(column: str, text: str) -> Condition:
    """Return the condition for a text inside of a column, upper or lower case."""
    return f"{column} LIKE ? ESCAPE '\\'", (f"%{_escaped(text)}%",)


def begins(column: str, text: str) -> Condition:
    """Return the condition for the beginning of a column."""
    # a range, so that an index serves it
    return f"({column} >= ? AND {column} < ?)", (text, text + "\U0010ffff")


def named(column: str, text: str) -> Condition:
    """Return the condition for a name, in which `*` stands for anything."""
    if text.count("*") > MOST_STARS:
        raise UsageError(f"{text.count('*')} stars are too many", hint=f"write at most {MOST_STARS}", code="filter")
    if "*" in text:
        return f"{column} LIKE ? ESCAPE '\\'", (_escaped(text).replace("*", "%"),)
    return f"{column} = ?", (text,)


def matches(name: str, pattern: str) -> bool:
    """Whether a name is what `named` looks for."""
    if "*" not in pattern:
        return name == pattern
    # part by part, each at its first place: a regular expression would try every combination of places
    name, (first, *between, last) = name.lower(), pattern.lower().split("*")
    at, end = len(first), len(name) - len(last)
    if at > end or not name.startswith(first) or not name.endswith(last):
        return False
    for part in between:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def any_of(*conditions: Condition) -> Condition:
    """Return the condition that one of them holds."""
    return f"({' OR '.join(sql for sql, _ in conditions)})", tuple(v for _, values in conditions for v in values)


def joined(conditions: Iterable[Condition]) -> Condition:
    """Return the condition that all of them hold."""
    both = [*conditions]
    return " AND ".join(sql for sql, _ in both) or "1", tuple(v for _, values in both for v in values)
