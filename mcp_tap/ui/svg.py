"""SVG as text: elements that escape what they are given, and scales from quantities to places.

Places are attributes and looks are classes, because the pages' content security policy allows no `style`. A picture
that people can click is two layers: one `<g role="img">` with a title and a description for whoever cannot see it, and
above it, for pointers only, the links; the same links stand in the table behind every picture, for keyboards.
"""

from __future__ import annotations

import html
import math
from datetime import UTC, datetime
from typing import Final, NamedTuple

from markupsafe import Markup

from mcp_tap.ui.text import harmless


class Element(NamedTuple):
    """One element of an SVG picture. Text and values are escaped when it is written, names are ours."""

    name: str
    attributes: dict[str, str | float]
    children: tuple[Element | str, ...]

    def __str__(self) -> str:
        """Return the element as well-formed XML."""
        attributes = "".join(f' {name}="{_value(value)}"' for name, value in self.attributes.items())
        inside = "".join(str(c) if isinstance(c, Element) else _escaped(c) for c in self.children)
        return f"<{self.name}{attributes}>{inside}</{self.name}>" if inside else f"<{self.name}{attributes}/>"

    def markup(self) -> Markup:
        """Return the element for a template: written by us, so not escaped again."""
        return Markup(str(self))  # noqa: S704 - every text in it went through `_escaped`


#: SVG writes a few names in mixed case.
_MIXED: Final = {"viewbox": "viewBox", "preserve-aspect-ratio": "preserveAspectRatio", "pattern-units": "patternUnits"}


def element(name: str, *children: Element | str | None, **attributes: str | float | None) -> Element:
    """Return an element. In names of attributes `_` stands for `-`, at their end for nothing; None leaves one out."""
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    for lower, mixed in _MIXED.items():
        if lower in named:
            named[mixed] = named.pop(lower)
    return Element(name, named, tuple(child for child in children if child is not None))


def _value(value: str | float) -> str:
    return _escaped(value) if isinstance(value, str) else number(value)


def _escaped(text: str) -> str:
    # harmless first: it leaves no character that XML 1.0 §2.2 forbids
    return html.escape(harmless(text))


def number(value: float) -> str:
    """Return a place with at most two decimals and without needless zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else str(int(value))


# ------------------------------------------------------------------------------------------------------- scales


class Scale(NamedTuple):
    """A straight or logarithmic way from quantities to places; what lies beyond its ends is put on them."""

    low: float
    high: float
    start: float  # the place of `low`
    end: float  # the place of `high`
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        share = (value - low) / (high - low) if high > low else 0.0
        return self.start + share * (self.end - self.start)


def linear(top: float, start: float, end: float, *, whole: bool = False) -> tuple[Scale, list[float]]:
    """Return a scale from 0 to at least ``top`` and three to six round marks on it, whole ones for counts."""
    top = max(top, 1.0 if whole else 1e-3)
    rough = top / 4
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = magnitude * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * 0.999)
    if whole:
        step = float(max(math.ceil(step), 1))
    marks = [step * n for n in range(math.ceil(top / step - 1e-9) + 1)]
    return Scale(0, marks[-1], start, end), marks


def logarithmic(low: float, high: float, start: float, end: float) -> tuple[Scale, list[float]]:
    """Return a scale over powers of ten around the values, and its marks; 1-2-5 where these would be few."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    last = max(last, first + 1)
    decades = last - first
    factors = (1.0, 2.0, 5.0) if decades < 3 else (1.0,)
    every = max(1, math.ceil(decades / 6))
    marks = [f * 10.0**power for power in range(first, last + 1, every) for f in factors]
    bottom, top = 10.0**first, 10.0**last
    if decades < 3:  # end at the next mark, not at the next power
        bottom = max(mark for mark in marks if mark <= low * 1.001)
        top = next(mark for mark in marks if mark >= high * 0.999 and mark > bottom)
    return Scale(bottom, top, start, end, log=True), [mark for mark in marks if bottom <= mark <= top]


# --------------------------------------------------------------------------------------------------------- time

#: Seconds between two marks of a time axis.
_STEPS: Final = (1, 5, 15, 30, 60, 300, 900, 1800, 3600, 10800, 21600, 43200, 86400, 172800, 604800, 2592000)


def clock(at_us: float, step: float = 60) -> str:
    """Return microseconds since the epoch as local time, as exact as marks ``step`` seconds apart need it."""
    try:
        moment = datetime.fromtimestamp(at_us / 1_000_000, UTC).astimezone()
    except (ValueError, OverflowError, OSError):
        return ""
    if step >= 86400:
        return f"{moment.day} {moment:%b}"
    if step < 60:
        return f"{moment:%H:%M:%S}"
    midnight = step >= 3600 and not (moment.hour or moment.minute)
    return f"{moment.day} {moment:%b}" if midnight else f"{moment:%H:%M}"


def zone(at_us: float) -> str:
    """Return the name of the local zone at a moment, in microseconds since the epoch."""
    try:
        return f"{datetime.fromtimestamp(at_us / 1_000_000, UTC).astimezone():%Z}"
    except (ValueError, OverflowError, OSError):
        return "local time"


def times(start_us: int, end_us: int, most: int = 7) -> list[tuple[int, str]]:
    """Return round local moments inside a range of time, at most ``most``, each with its label."""
    seconds = (end_us - start_us) / 1_000_000
    step = next((each for each in _STEPS if seconds / each <= most), max(math.ceil(seconds / most), _STEPS[-1]))
    try:
        offset = datetime.fromtimestamp(start_us / 1_000_000, UTC).astimezone().utcoffset()
    except (ValueError, OverflowError, OSError):
        return []
    shift = 0 if offset is None else round(offset.total_seconds())
    first = -(-(start_us + shift * 1_000_000) // (step * 1_000_000)) * step - shift
    marks = range(first * 1_000_000, end_us + 1, step * 1_000_000)
    return [(at_us, clock(at_us, step)) for at_us in marks][:most]
