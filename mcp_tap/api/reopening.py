"""A reader that outlives the file it reads: a recording that was replaced is opened anew at the next question."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable
from typing import Any, cast

from mcp_tap.model import StoreError
from mcp_tap.store import Reader, open_reader


async def open_reopening(url: str, path: str) -> Reader:
    """Open the store at ``url``, whose file is ``path``; what is returned follows the name, not the file."""
    return cast(Reader, _Reopening(url, path, _identity(path), await open_reader(url)))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


class _Reopening:
    """Passes every question on to the reader of the file that has the name now."""

    def __init__(self, url: str, path: str, identity: tuple[int, int] | None, reader: Reader) -> None:
        self._url = url
        self._path = path
        self._identity = identity
        self._reader = reader
        self._asked: dict[Reader, int] = {}  # questions under way, so that an old file is let go of after the last
        self._lock = asyncio.Lock()

    @property
    def replica(self) -> str:
        return self._reader.replica

    async def close(self) -> None:
        await self._reader.close()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_") or not inspect.iscoroutinefunction(getattr(self._reader, name)):
            raise AttributeError(name)

        async def ask(*args: Any, **options: Any) -> Any:
            reader = await self._current()
            self._asked[reader] = self._asked.get(reader, 0) + 1
            try:
                return await getattr(reader, name)(*args, **options)
            finally:
                self._asked[reader] -= 1
                if not self._asked[reader]:
                    del self._asked[reader]
                    if reader is not self._reader:
                        await reader.close()

        return ask

    async def _current(self) -> Reader:
        identity = _identity(self._path)
        if identity is None or identity == self._identity:
            return self._reader
        async with self._lock:
            if identity != self._identity:
                try:
                    opened = await open_reader(self._url)
                except StoreError:
                    return self._reader  # not a recording yet: it may be about to become one
                old, self._reader, self._identity = self._reader, opened, identity
                if old not in self._asked:
                    await old.close()
        return self._reader
