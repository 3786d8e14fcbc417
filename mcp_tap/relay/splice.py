"""One stream: a client's connection and the server's, spliced so that neither can tell that there are two.

Theory of operation. A `Half` is one end of a stream. What it receives goes into the record and through `forward`, and
`forward` is all the state the data path has: the peer's own ``write`` while nothing must be edited, `_framed` where a
head must be found, `_hold` while the server is not there yet, `_discard` when there is nowhere to go.

Ends are passed on, not interpreted. End of input goes on as end of output, behind the bytes before it, and the other
direction lives on; a reset goes on as a reset, so that a cut stream does not look complete; when both directions have
ended, both sockets close. Back-pressure is passed on likewise: who cannot be written to stops the other being read.

Nothing here waits for the record, and nothing that the record does can leave `data_received`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, Protocol, cast

from mcp_tap.channel import Closing, Kind
from mcp_tap.relay.head import Framing, Refusal

#: A stream of which one direction has ended, and on which the other stays silent for so long (seconds), is closed: its
#: last reader may be gone without a sign.
HALF_OPEN: Final = 60.0
#: How long (seconds) a client that got an answer of ours may go on sending before its connection is closed under it.
LINGER: Final = 10.0
#: Bytes that may wait for a slow reader before the other side is no longer read. uvloop's own low mark is 16 bytes,
#: which lets every large body run dry between two reads.
HIGH_WATER: Final = 64 * 1024
LOW_WATER: Final = 16 * 1024

#: A piece of so many bytes fills uvloop's buffer: there is more to be read.
FULL: Final = 250_000

_CLIENT: Final = int(Kind.CLIENT)
_SERVER: Final = int(Kind.SERVER)
_LINGER_ZERO: Final = struct.pack("ii", 1, 0)

# Why a half is not read at the moment: bits of `Half.holds`.
_CONNECTING: Final = 1
_BACK_PRESSURE: Final = 2
_SWITCHING: Final = 4
_TURN: Final = 8


class Feed(Protocol):
    """Where the relay puts what it saw."""

    def put(self, stream: int, kind: int, at_ns: int, payload: bytes = b"") -> None:
        """Take one record. Must return at once; what it raises is ignored."""


class Owner(Protocol):
    """Who accepted a stream, and is told of it."""

    def opened(self, stream: Stream) -> None:
        """The client is there."""

    def closed(self, stream: Stream) -> None:
        """Both ends are gone. Nothing is asked of the stream any more."""


def own_answer(refusal: Refusal, *, head_only: bool = False) -> bytes:
    """Return an answer of the tap's own, whole. Never JSON: clients read the era of a server from 4xx bodies."""
    body = f"mcp-tap: {refusal.what}\n{refusal.hint}\n".encode()
    head = (
        f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}\r\n"
        f"Date: {time.strftime('%a, %d %b %Y %H:%M:%S GMT', time.gmtime())}\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    ).encode()
    return head if head_only else head + body


def _discard(_data: bytes) -> None:
    """Forward nowhere: the other end is gone."""


class Half(asyncio.Protocol):
    """One end of a stream."""

    __slots__ = (
        "bytes_kind", "ended", "eof_kind", "forward", "holds", "last_ns", "lost", "number", "peer", "put",
        "reset_timer", "resetting", "stream", "tls", "transport",
    )  # fmt: skip

    peer: Half

    def __init__(self, stream: Stream, bytes_kind: int, eof_kind: int, *, tls: bool = False) -> None:
        self.stream = stream
        self.number = stream.number
        self.put = stream.put
        self.bytes_kind = bytes_kind
        self.eof_kind = eof_kind
        self.tls = tls
        self.transport: asyncio.Transport | None = None
        self.forward: Callable[[bytes], object] = _discard
        self.holds = 0
        self.last_ns = time.monotonic_ns()  # of the last bytes from this end
        self.ended = False  # no more bytes come from this end
        self.lost = False  # its socket is gone
        self.resetting = False
        self.reset_timer: asyncio.TimerHandle | None = None

    # -- what the event loop says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """This end is there."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        self.stream.half_made(self)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on, and put them into the record."""
        self.last_ns = at = time.monotonic_ns()
        try:
            self.put(self.number, self.bytes_kind, at, data)
        except Exception:  # noqa: BLE001, S110  the record may fail in any way; the traffic goes on
            pass
        self.forward(data)
        if len(data) >= FULL and not self.holds:
            self.hold(_TURN)  # or the loop would read on from this end, up to 8 MB, before any other
            asyncio.get_running_loop().call_soon(self.release, _TURN)

    def eof_received(self) -> bool:
        """This end will send no more; return whether its socket stays open."""
        self.ended = True
        self.stream.note(self.eof_kind)
        return self.stream.half_ended(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone: in order, or with an error."""
        self.lost = self.ended = True
        if self.reset_timer is not None:
            self.reset_timer.cancel()
        self.stream.half_lost(self, exc)

    def pause_writing(self) -> None:
        """This end reads too slowly."""
        if not self.resetting:
            self.peer.hold(_BACK_PRESSURE)

    def resume_writing(self) -> None:
        """What was written to this end is on its way."""
        if self.resetting:
            self.reset_now()
        else:
            self.peer.release(_BACK_PRESSURE)

    # -- what the stream asks for

    def hold(self, why: int) -> None:
        """Stop reading from this end."""
        self.holds |= why
        if self.transport is not None and not self.lost:
            self.transport.pause_reading()

    def release(self, why: int) -> None:
        """Read on, unless there is another reason not to."""
        self.holds &= ~why
        if not self.holds and not self.ended and self.transport is not None:
            self.transport.resume_reading()

    def close(self) -> None:
        """Close in order, behind the bytes that are still to be written."""
        if self.transport is not None and not self.lost and not self.resetting:
            self.transport.close()

    def reset(self) -> None:
        """Break the connection off, behind the bytes that are still to be written: they came before the break."""
        transport = self.transport
        if transport is None or self.lost or self.resetting:
            return
        self.resetting = True
        if self.tls or transport.get_write_buffer_size() == 0:
            self.reset_now()
        else:
            transport.set_write_buffer_limits(0)  # resume_writing comes when nothing is left
            self.reset_timer = asyncio.get_running_loop().call_later(HALF_OPEN, self.reset_now)

    def reset_now(self) -> None:
        """Break the connection off: closing a socket that does not linger sends RST instead of FIN."""
        transport = self.transport
        if transport is None or self.lost:
            return
        self.resetting = True
        try:
            if (sock := transport.get_extra_info("socket")) is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        except OSError:
            pass  # the connection is gone already
        transport.abort()


class Stream:
    """A client's connection and the one to the server that was opened for it, and nobody else's ever."""

    __slots__ = (
        "_framing", "_gone", "_held", "_owner", "_refusal", "_timer", "client", "closing", "connecting", "number",
        "peer", "put", "server",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        feed: Feed,
        owner: Owner,
        *,
        peer: str = "",
        framing: Framing | None,
        client_tls: bool = False,
        server_tls: bool = False,
    ) -> None:
        self.number = number
        self.peer = peer  # the client's address
        self.put = feed.put
        self.closing: bytes | None = None  # how the stream ends, once that is known
        self.connecting: asyncio.Task[Any] | None = None
        self.client = Half(self, _CLIENT, Kind.CLIENT_EOF, tls=client_tls)
        self.server = Half(self, _SERVER, Kind.SERVER_EOF, tls=server_tls)
        self.client.peer, self.server.peer = self.server, self.client
        self.client.forward = self._hold
        self._framing = framing
        self._held = b""  # what the client sent before the server was there
        self._refusal: Refusal | None = None  # what to say instead of the server
        self._timer: asyncio.TimerHandle | None = None
        self._owner = owner
        self._gone = False  # both ends are, and it has been said

    @property
    def last_ns(self) -> int:
        """When the last byte came, from either end (monotonic)."""
        return max(self.client.last_ns, self.server.last_ns)

    @property
    def answering(self) -> bool:
        """Whether an answer of ours takes the server's place."""
        return self._refusal is not None

    def note(self, kind: int, payload: bytes = b"") -> None:
        """Put a record that is not traffic."""
        try:
            self.put(self.number, kind, time.monotonic_ns(), payload)
        except Exception:  # noqa: BLE001, S110  as in data_received
            pass

    # -- beginning

    def half_made(self, half: Half) -> None:
        """One end is there. Everything else waits for the server's."""
        if half is self.client:
            self._owner.opened(self)
            return
        self.connecting = None
        client, server = self.client, self.server
        if client.lost or self.answering or self.closing is not None:
            # Connecting was given up in the same turn of the loop in which it succeeded. The loop may now close the
            # socket without a word, so this end is taken as one that was never there.
            half.reset_now()
            half.transport = None
            return
        self.note(Kind.CONNECTED)
        assert client.transport is not None
        assert server.transport is not None
        if self._framing is None:
            client.forward = server.transport.write
            server.forward = client.transport.write
        else:
            client.forward = self._framed
            server.forward = self._followed
        held, self._held = self._held, b""
        if held:
            client.forward(held)
        if client.ended:
            self.half_ended(client)
        client.release(_CONNECTING)

    def refuse(self, refusal: Refusal) -> None:
        """Answer instead of the server: when a request has begun to arrive, and only then."""
        if self._refusal is not None or self.closing is not None:
            return
        self._refusal = refusal
        client = self.client
        if self._held:
            self._answer(self._held)
        elif client.ended:
            self.close(Closing.REFUSED)
        else:
            client.forward = self._answer
        client.release(_CONNECTING)

    def _hold(self, data: bytes) -> None:
        self._held += data
        self.client.hold(_CONNECTING)

    # -- framed mode

    def _framed(self, data: bytes) -> None:
        framing, client, server = self._framing, self.client, self.server
        assert framing is not None
        out = framing.from_client(data)
        if out and server.transport is not None:
            server.transport.write(out)
        if framing.requests.refusal is not None:
            client.forward = _discard
            self._refuse_in_turn(framing)
        elif framing.full:
            client.hold(_SWITCHING)

    def _followed(self, data: bytes) -> None:
        framing, client, server = self._framing, self.client, self.server
        assert framing is not None
        assert client.transport is not None
        assert server.transport is not None
        if out := framing.from_server(data):
            client.transport.write(out)
        if framing.requests.refusal is not None:
            self._refuse_in_turn(framing)
        elif framing.responses.switched:
            server.forward = client.transport.write
            client.forward = server.transport.write
            if rest := framing.rest():
                server.transport.write(rest)
            client.release(_SWITCHING)
        elif framing.releasable:
            self._framed(b"")
        if client.holds & _SWITCHING and not framing.holding:
            client.release(_SWITCHING)

    def _refuse_in_turn(self, framing: Framing) -> None:
        """Send the refusal of a request once every request before it has its answer (RFC 9112 §9.3.2)."""
        refusal = framing.requests.refusal
        server = self.server
        if refusal is None or self._refusal is not None:
            return
        if framing.refusal_due:
            self._refusal = refusal
            server.forward = _discard
            if framing.requests.in_body:
                server.reset()  # the server must not take half a body for a whole one
            else:
                server.close()
            self._answer(b"")
        elif not framing.responses.following and not server.ended and server.transport is not None and not server.tls:
            server.transport.write_eof()  # no telling whose turn it is: let the server finish what it began

    # -- answers of our own

    def _answer(self, request: bytes) -> None:
        """Send the answer, then take in and drop what the client still sends.

        Closing at once would reset a connection on which a body is still coming, and the reset can overtake the answer
        (RFC 9112 §9.6).
        """
        client = self.client
        assert self._refusal is not None
        self._held = b""
        client.forward = _discard
        if self.closing is None:
            self.closing = Closing.REFUSED
        if client.transport is None or client.lost:
            return
        answer = own_answer(self._refusal, head_only=request.startswith(b"HEAD "))
        self.note(Kind.OWN, answer)
        client.transport.write(answer)
        if client.tls:
            client.close()  # there is no half-close: close_notify follows the answer, and what comes is dropped
        else:
            client.transport.write_eof()
        if client.ended:
            client.close()
        else:
            self._after(LINGER, client.reset_now)
            client.release(_CONNECTING | _SWITCHING | _BACK_PRESSURE)

    # -- ending

    def half_ended(self, half: Half) -> bool:
        """Pass the end of one direction on. Return whether the socket stays open, as `eof_received` does."""
        peer = half.peer
        if self.answering:
            return False
        if peer.transport is None:
            return not half.tls  # passed on when the server is there; after close_notify nobody would hear it
        if rest := self._rest(half):
            peer.transport.write(rest)
        if half.tls:
            return False  # close_notify has ended both directions
        if peer.lost or peer.resetting:
            return True
        if peer.tls:
            peer.close()
            return True
        peer.transport.write_eof()
        if peer.ended:
            self.close(Closing.END)
        else:
            self._after(HALF_OPEN, self._half_open)
        return True

    def half_lost(self, half: Half, exc: Exception | None) -> None:
        """One socket is gone: the other follows, in the same manner."""
        peer = half.peer
        if exc is not None and self.closing is None:
            self.closing = Closing.CLIENT_RESET if half is self.client else Closing.SERVER_RESET
        if not self.answering or half is self.client:
            half.forward = peer.forward = _discard
            if half is self.client and self.connecting is not None:
                self.connecting.cancel()
            if exc is None:
                peer.close()
            else:
                if peer.transport is not None and not peer.lost and (rest := self._rest(half)):
                    peer.transport.write(rest)
                peer.reset()
        if self.client.lost and (self.server.lost or self.server.transport is None) and not self._gone:
            self._gone = True
            if self._timer is not None:
                self._timer.cancel()
            self.note(Kind.CLOSED, self.closing or Closing.END)
            self._owner.closed(self)
            self._let_go()

    def _let_go(self) -> None:
        """Untie what refers to each other: ten thousand streams that end at once are gone then, without a collector."""
        for half in (self.client, self.server):
            del half.peer
            if half.lost:  # an end that was never there may still be made, and is told then that it is too late
                del half.stream

    def _rest(self, half: Half) -> bytes:
        """Return what framing has kept of what this end sent, now that no more comes."""
        if self._framing is None:
            return b""
        return self._framing.rest() if half is self.client else self._framing.responses.rest()

    def close(self, closing: bytes) -> None:
        """Close both ends in order."""
        if self.closing is None:
            self.closing = closing
        self._stop()
        self.client.close()
        self.server.close()

    def cut(self, closing: bytes) -> None:
        """Break both ends off."""
        if self.closing is None:
            self.closing = closing
        self._stop()
        self.client.reset_now()
        self.server.reset_now()

    def _stop(self) -> None:
        self.client.forward = self.server.forward = _discard
        if self.connecting is not None:
            self.connecting.cancel()

    def _after(self, seconds: float, then: Callable[[], object]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, then)

    def _half_open(self) -> None:
        quiet = (time.monotonic_ns() - self.last_ns) / 1e9
        if quiet >= HALF_OPEN:
            self.close(Closing.HALF_OPEN)
        else:
            self._after(HALF_OPEN - quiet, self._half_open)
