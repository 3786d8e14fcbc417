"""A proxy as proxies are: it alters what passes. Whoever claims to notice has to notice it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

#: Seconds that anything here may take.
PATIENCE = 60

Change = Callable[[bytes], bytes]


class Altering:
    """A proxy that does something to what the server sends, and may close late."""

    def __init__(self, upstream: int, change: Change = bytes, late: float = 0.0) -> None:
        self.upstream, self.change, self.late = upstream, change, late
        self.listening = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._sockets = [self.listening]
        self._run(self._accept)

    @property
    def port(self) -> int:
        return int(self.listening.getsockname()[1])

    def _run(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listening.accept()
                server = socket.create_connection(("127.0.0.1", self.upstream))
                self._sockets += [client, server]
                self._run(self._copy, client, server, bytes, 0.0)
                self._run(self._copy, server, client, self.change, self.late)

    def _copy(self, source: socket.socket, target: socket.socket, change: Change, late: float) -> None:
        source.settimeout(None)
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                target.sendall(change(data))
            threading.Event().wait(late)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def stop(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        for sock in self._sockets:
            sock.close()
