"""Latencies counted in buckets: what is kept of them where a million calls are too many to read.

A bucket is 5 % wide and stands for its middle, so a percentile is within 2.5 % of the one that was measured. All
counts are one whole number, 32 bits for each bucket: histograms are added as numbers are, and that is quick.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

_WIDTH: Final = math.log(1.05)
_BITS: Final = 32

#: The bucket of the longest latency that is told apart: about two years.
_LAST: Final = 650


def bucket(duration_us: int) -> int:
    """Return the number of the bucket that a latency belongs to."""
    return min(_LAST, int(math.log(duration_us) / _WIDTH)) if duration_us > 1 else 0


def middle_us(number: int) -> float:
    """Return the latency that a bucket stands for."""
    return math.exp((number + 0.5) * _WIDTH)


def histogram(durations_us: Iterable[int]) -> int:
    """Return the histogram of latencies."""
    counted = Counter(map(bucket, durations_us))
    return sum(calls << (_BITS * number) for number, calls in counted.items())


def buckets(of: int) -> Iterator[tuple[int, int]]:
    """Give the number and the count of each bucket that holds something, shortest latencies first."""
    data = of.to_bytes((of.bit_length() + 31) // 32 * 4, "little")
    for number in range(len(data) // 4):
        calls = int.from_bytes(data[4 * number : 4 * number + 4], "little")
        if calls:
            yield number, calls


def percentiles(of: int, *asked: int) -> list[float | None]:
    """Return the latencies in ms that so many percent do not exceed; None where nothing was counted."""
    counted = list(buckets(of))
    total = sum(calls for _, calls in counted)
    found: list[float | None] = []
    for percent in asked:
        missing = math.ceil(total * percent / 100)
        for number, calls in counted:
            missing -= calls
            if missing <= 0:
                found.append(round(middle_us(number) / 1000, 3))
                break
        else:
            found.append(None)
    return found


def pack(of: int) -> bytes | None:
    """Return what is stored of a histogram: the number of its first bucket in two bytes, then four for each bucket."""
    if not of:
        return None
    first = ((of & -of).bit_length() - 1) // _BITS
    rest = of >> (_BITS * first)
    return first.to_bytes(2, "little") + rest.to_bytes((rest.bit_length() + 31) // 32 * 4, "little")


def unpack(data: bytes | None) -> int:
    """Return the histogram that was stored."""
    return int.from_bytes(data[2:], "little") << (_BITS * int.from_bytes(data[:2], "little")) if data else 0
