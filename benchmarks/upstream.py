"""A server that costs next to nothing: every POST gets a JSON-RPC answer of about 600 bytes.

``python -m benchmarks.upstream`` prints its port.
"""

from __future__ import annotations

import asyncio
from typing import cast

import uvloop

#: Ids have seven digits, so that every answer has the same length.
FIRST_ID = 1_000_000

_TEXT = b"All work and no play. " * 24
_BODY = b'{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":"' + _TEXT + b'"}]}}'
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_BODY % FIRST_ID)


def answer(number: int) -> bytes:
    """Return the answer to a call."""
    return _HEAD + _BODY % number


SIZE = len(answer(FIRST_ID))


class Server(asyncio.Protocol):
    """Counts whole requests without reading them: the load sends each in one piece of known length."""

    def __init__(self) -> None:
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        rest = self._rest + data
        answers = []
        while (end := rest.find(b"\r\n\r\n")) >= 0:
            head = rest[:end].lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(rest) < end + 4 + size:
                break
            id_at = rest.find(b'"id":', end) + 5
            answers.append(answer(int(rest[id_at : id_at + 7]) if id_at > 4 else FIRST_ID))
            rest = rest[end + 4 + size :]
        self._rest = rest
        if answers:
            self._transport.write(b"".join(answers))


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
