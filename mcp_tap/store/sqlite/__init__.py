"""The store of every tap: one SQLite file, one writer, any number of readers."""

from __future__ import annotations

from mcp_tap.store.sqlite.file import location
from mcp_tap.store.sqlite.pruning import Pruner
from mcp_tap.store.sqlite.reader import Reader
from mcp_tap.store.sqlite.writer import Writer


async def open_writer(url: str) -> Writer:
    """Open a recording for writing, made or brought up to date where needed; raise UsageError or StoreError."""
    return await Writer.open(location(url))


async def open_reader(url: str) -> Reader:
    """Open a recording for reading; raise UsageError or StoreError."""
    return await Reader.open(location(url))


async def open_pruner(url: str) -> Pruner:
    """Open a recording for deleting from it, whoever writes it; raise UsageError or StoreError."""
    return await Pruner.open(location(url))
