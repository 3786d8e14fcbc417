"""Budgets: what a recording may cost in errors, time and loss, so that a program can say no.

Pure: figures in, verdicts out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from mcp_tap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from mcp_tap.store import Row


class Budget(NamedTuple):
    """One kind of budget: its flag, how an amount of it is read and written, and the figure that it bounds."""

    flag: str  # --max-errors
    unit: str  # what stands for an amount in its help
    help: str
    read: Callable[[str], float]
    shown: Callable[[float], str]
    figure: Callable[[Row], float | None]  # None: there is none to compare, which breaks nothing but `least`
    least: bool = False  # the figure must be at least so much, not at most


class Verdict(NamedTuple):
    """How one budget was kept. ``figure`` is None where nothing was measured."""

    budget: str
    allowed: float
    figure: float | None
    ok: bool

    @property
    def kind(self) -> Budget:
        """The budget that this is about."""
        return BY_NAME[self.budget]


def _count(text: str) -> float:
    if not re.fullmatch(r"\d{1,12}", text):
        raise UsageError(f'"{text}" is no whole number', hint="try:  0")
    return int(text)


def _rate(text: str) -> float:
    match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,9})?)\s*%", text)
    if match is None or float(match[1]) > 100:
        raise UsageError(f'"{text}" is no share', hint="try:  5%")
    return float(match[1])


def _milliseconds(text: str) -> float:
    from mcp_tap import values

    return values.duration(text) * 1000


def _time(amount: float) -> str:
    from mcp_tap.ui.text import duration

    return duration(amount)


def _whole(amount: float) -> str:
    return f"{amount:,.0f}"


def _percent(amount: float) -> str:
    return f"{amount:.3g} %"


def _share_of_errors(figures: Row) -> float | None:
    return 100 * figures["errors"] / figures["calls"] if figures["calls"] else None


BUDGETS: Final = (
    Budget("--max-errors", "N", "How many calls may fail.", _count, _whole, lambda row: row["errors"]),
    Budget("--max-error-rate", "SHARE", "Which share of the calls may fail: 5%.", _rate, _percent, _share_of_errors),
    Budget("--p95", "TIME", "What 95 of 100 calls may take: 500ms.", _milliseconds, _time, lambda row: row["p95_ms"]),
    Budget("--p99", "TIME", "What 99 of 100 calls may take: 2s.", _milliseconds, _time, lambda row: row["p99_ms"]),
    Budget("--max-latency", "TIME", "What any call may take: 5s.", _milliseconds, _time, lambda row: row["max_ms"]),
    Budget("--max-dropped", "N", "How many pieces may be missing in the record.", _count, _whole,
           lambda row: row["dropped"]),
    Budget("--min-calls", "N", "How many calls there must be.", _count, _whole, lambda row: row["calls"], least=True),
)  # fmt: skip

BY_NAME: Final = {budget.flag.removeprefix("--").replace("-", "_"): budget for budget in BUDGETS}


def read(given: Mapping[str, str | None]) -> dict[str, float]:
    """Read the budgets of a command line, by name; raise UsageError for what is no amount, or where there is none."""
    allowed: dict[str, float] = {}
    for name, text in given.items():
        if text is None:
            continue
        budget = BY_NAME[name]
        try:
            allowed[name] = budget.read(text)
        except UsageError as error:
            raise UsageError(f"{budget.flag}: {error}", hint=error.hint) from None
    if not allowed:
        raise UsageError("a check needs a budget", hint="try:  mcp-tap check since:1h --max-error-rate 1% --p95 500ms")
    return allowed


def judge(allowed: Mapping[str, float], figures: Row) -> list[Verdict]:
    """Compare figures (those of `Reader.totals`, and ``max_ms``) with budgets.

    A check that checked nothing must not pass: without calls `min_calls` is 1 unless it is said.
    """
    verdicts = list(_verdicts(allowed, figures))
    if "min_calls" not in allowed and not figures["calls"]:
        verdicts += _verdicts({"min_calls": 1}, figures)
    return verdicts


def _verdicts(allowed: Mapping[str, float], figures: Row) -> Iterator[Verdict]:
    for name, amount in allowed.items():
        budget = BY_NAME[name]
        figure = budget.figure(figures)
        kept = figure is None or (figure >= amount if budget.least else figure <= amount)
        yield Verdict(name, amount, figure, kept)


def rows(verdicts: Iterable[Verdict]) -> list[Row]:
    """Return verdicts as rows for programs: the budget's name, what is allowed, what there is, and `ok` or `broken`."""
    return [
        {"budget": v.budget, "allowed": v.allowed, "figure": v.figure, "verdict": "ok" if v.ok else "broken"}
        for v in verdicts
    ]


def cells(verdicts: Iterable[Verdict]) -> list[tuple[str, str, str, str]]:
    """Return verdicts as lines of a table for people."""
    return [
        (
            f"{'at least' if v.kind.least else 'at most'} {v.kind.shown(v.allowed)}",
            "" if v.figure is None else v.kind.shown(v.figure),
            v.budget.replace("_", " "),
            "ok" if v.ok else "broken",
        )
        for v in verdicts
    ]
