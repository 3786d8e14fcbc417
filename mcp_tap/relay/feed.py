"""The relay's end of the channel: takes every record at once, sends them in the background, and bounds what waits.

Theory of operation. `put` appends to one queue, so that the order of records is the order of sight, and `_flush` hands
the queue to the socket a slice at a time. What the socket does not take stays queued up to a bound; beyond it pieces
of traffic are dropped and counted, per stream, and a LOST record goes ahead of that stream's next record. Records that
are not traffic are kept: there are at most half a dozen of them for each stream. A stream that begins while the queue
is full is not announced; it is `unseen`, and announced late, with what was lost, as soon as there is room.

Now and then a piece is timed: from its sight until the loop has come round, by when the kernel had what it takes of it.
The median goes along as a PACE record, once a second at most.

What was sent may still die with the recorder, so each slice is remembered until it is acknowledged; for the successor
the sum of what was not becomes a GAP, and the streams that the dead recorder knew are announced again.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import deque
from typing import Final

from mcp_tap.channel import COUNT, HEADER, Kind
from mcp_tap.relay.memory import Ebb

#: Bytes of one stream that may wait. One large answer must not use up what all others need.
STREAM_BOUND: Final = 8 * 1000 * 1000
#: How long (seconds) a record may wait for company, and how many bytes are company enough.
FLUSH_AFTER: Final = 0.020
FLUSH_BYTES: Final = 64 * 1024
#: Bytes handed to the socket at once: about what its buffer takes.
SLICE: Final = 256 * 1024

#: Why something is lost that a recorder was given.
DIED: Final = "the recorder died"

#: Payloads from so many bytes on are handed to the socket as they are; joining smaller ones costs less than a buffer of
#: its own for each does.
LARGE: Final = 16 * 1024
#: What is asked of the kernel for the socket: room for a slice. It gives half of what it calls its most, or less.
SOCKET_BUFFER: Final = 512 * 1024

#: So many bytes waiting at once leave more memory behind than should be kept.
FLOOD: Final = 4 * 1000 * 1000

#: Pieces whose time through the relay is remembered, and nanoseconds between two reports of their median.
PACED: Final = 255
PACE_EVERY: Final = 1_000_000_000

_TRAFFIC: Final = (int(Kind.CLIENT), int(Kind.SERVER), int(Kind.OWN))
_OPEN: Final = int(Kind.OPEN)
_CLOSED: Final = int(Kind.CLOSED)
_LOST: Final = int(Kind.LOST)
_GAP: Final = int(Kind.GAP)
_PACE: Final = int(Kind.PACE)
_HEADER: Final = HEADER.size


class Channel:
    """A `Feed` that goes to the recorder process. ``bound`` is how many bytes may wait in all.

    Without a recorder (before `attach`, after `detach`) records wait, up to the bounds, for the next one.
    """

    def __init__(self, bound: int, ebb: Ebb | None = None) -> None:
        self.bound = bound
        self._followed = False  # the next recorder is not the first
        self.dropped = 0  # pieces of traffic, since the start
        self.died = DIED  # why the next recorder is told what the last one lost
        self._ample = min(bound, STREAM_BOUND)  # below this nothing can be over a bound
        self._short = False  # something was dropped and not all of it has been said yet
        self._queue: deque[tuple[int, int, int, bytes]] = deque()
        self._waiting = 0  # bytes in the queue, with headers
        self._flood = False  # many have waited since the last ebb
        self._ebb = ebb or Ebb()
        self._per_stream: dict[int, int] | None = None  # the same per stream; counted only while one could be over
        self._lost: dict[int, tuple[int, int]] = {}  # stream -> pieces and bytes to be said in a LOST
        self._opens: dict[int, bytes] = {}  # payload of the OPEN of every stream whose CLOSED has not been sent
        self._unseen: set[int] = set()  # streams whose OPEN did not fit
        self._missed = _Missed()  # whole streams that did not fit, to be said in a GAP
        self._sock: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sending: deque[memoryview] = deque()  # handed over, but the socket has not taken it yet
        self._writing = False  # waiting for the socket
        self._timer: asyncio.Handle | None = None
        self._hurried = False
        self._slices: deque[tuple[int, int]] = deque()  # not acknowledged: last record's number, first record's time
        self._told: deque[tuple[int, int, int, int]] = deque()  # number of a LOST or GAP under way, what it says, since
        self._sent_records = 0
        self._sent_bytes = 0
        self._acked = (0, 0)
        self._last_ns = 0  # time of the last record sent
        self._drained: asyncio.Event | None = None
        self._passed: deque[int] = deque(maxlen=PACED)  # ns that pieces took through the relay
        self._paced_ns = time.monotonic_ns()  # of the last report

    # -- taking records

    def put(self, stream: int, kind: int, at_ns: int, payload: bytes = b"") -> None:
        """Take one record."""
        if kind in _TRAFFIC and not self._short and self._waiting + len(payload) <= self._ample:
            self._append(stream, kind, at_ns, payload)
        elif self._admit(stream, kind, at_ns, payload):
            self._append(stream, kind, at_ns, payload)
            self._short = bool(self._lost or self._unseen or self._missed.records)
        else:
            self._short = True

    def _append(self, stream: int, kind: int, at_ns: int, payload: bytes) -> None:
        self._queue.append((stream, kind, at_ns, payload))
        size = len(payload) + _HEADER
        self._waiting += size
        if self._per_stream is not None:
            self._per_stream[stream] = self._per_stream.get(stream, 0) + size
        if self._sock is None or self._writing:
            return
        if self._timer is None:
            assert self._loop is not None
            self._timer = self._loop.call_later(FLUSH_AFTER, self._flush)
            if kind in _TRAFFIC:  # one piece in 20 ms at most: timing each would cost more than passing it
                self._loop.call_soon(self._pace, at_ns)
        elif self._waiting > FLUSH_BYTES and not self._hurried:
            assert self._loop is not None
            self._hurried = True
            self._timer.cancel()
            self._timer = self._loop.call_soon(self._flush)

    def _pace(self, at_ns: int) -> None:
        """Note how long a piece took that was seen at a moment: the loop has written it meanwhile."""
        now = time.monotonic_ns()
        self._passed.append(now - at_ns)
        if now - self._paced_ns >= PACE_EVERY:
            self._paced_ns = now
            self._append(0, _PACE, now, COUNT.pack(len(self._passed), sorted(self._passed)[len(self._passed) // 2]))

    def _admit(self, stream: int, kind: int, at_ns: int, payload: bytes) -> bool:
        """Decide whether a record is kept, and put what must go ahead of it."""
        full = self._waiting + len(payload) > self.bound
        if kind == _OPEN:
            self._opens[stream] = payload
            if full:
                self._unseen.add(stream)
                return False
        if kind in _TRAFFIC and (full or self._stream_full(stream, len(payload))):
            pieces, size = self._lost.get(stream, (0, 0))
            self._lost[stream] = (pieces + 1, size + len(payload))
            self.dropped += 1
            return False
        if stream in self._unseen:
            if full:
                if kind == _CLOSED:
                    pieces, size = self._lost.pop(stream, (0, 0))
                    self._missed.add(pieces + 2, size, at_ns)  # with its OPEN and CLOSED
                    self._unseen.discard(stream)
                    del self._opens[stream]
                else:
                    self._missed.add(1, 0, at_ns)
                return False
            self._unseen.discard(stream)
            self._append(stream, _OPEN, at_ns, _resumed(self._opens[stream]))
        if self._missed.records and (not full or stream == 0):
            missed, self._missed = self._missed, _Missed()
            self._append(0, _GAP, at_ns, missed.payload("the queue was full"))
        if self._lost and (count := self._lost.pop(stream, None)) is not None:
            self._append(stream, _LOST, at_ns, COUNT.pack(*count))
        return True

    def _stream_full(self, stream: int, size: int) -> bool:
        if self._waiting + size <= STREAM_BOUND:
            self._per_stream = None
            return False
        if self._per_stream is None:
            self._per_stream = {}
            for number, _, _, payload in self._queue:
                self._per_stream[number] = self._per_stream.get(number, 0) + len(payload) + _HEADER
        return self._per_stream.get(stream, 0) + size > STREAM_BOUND

    # -- sending them

    def attach(self, sock: socket.socket) -> None:
        """Send to this recorder from now on: first what its predecessor lost, then what has waited. Needs a loop."""
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        ahead = list(self._ahead())
        self._queue.extendleft(reversed(ahead))
        self._waiting += sum(_HEADER + len(payload) for *_, payload in ahead)
        self._per_stream = None
        self._slices.clear()
        self._sent_records = self._sent_bytes = 0
        self._acked = (0, 0)
        self._followed = True
        self._flush()

    def _ahead(self) -> list[tuple[int, int, int, bytes]]:
        """Return the records that bring a new recorder up to date."""
        ahead: list[tuple[int, int, int, bytes]] = []
        missed, at_ns = _Missed(), self._last_ns
        if self._slices:
            missed.add(self._sent_records - self._acked[0], self._sent_bytes - self._acked[1], self._slices[0][1])
        for _, records, size, from_ns in self._told:  # counts that died with the record that said them
            missed.add(records, size, from_ns)
        self._told.clear()
        if missed.records or self._followed:  # of nothing, too: that tells it from the first one
            missed.to_ns = at_ns
            ahead.append((0, _GAP, at_ns, missed.payload(self.died)))
        waiting = {stream for stream, kind, _, _ in self._queue if kind == _OPEN}
        for stream, payload in self._opens.items():
            if stream not in waiting and stream not in self._unseen:
                ahead.append((stream, _OPEN, at_ns, _resumed(payload)))
        return ahead

    def detach(self) -> None:
        """Stop sending: this recorder is gone. What it was given and did not acknowledge is lost with it."""
        if self._sock is not None and self._writing:
            assert self._loop is not None
            self._loop.remove_writer(self._sock)
        if self._timer is not None:
            self._timer.cancel()
        self._sock, self._timer = None, None
        self._writing = self._hurried = False
        self._sending.clear()
        if self._drained is not None:
            self._drained.set()

    def acknowledge(self, records: int, size: int) -> None:
        """Take an ACK: of what this recorder was given, so much is safe."""
        self._acked = (records, size)
        slices = self._slices
        while slices and slices[0][0] <= records:
            slices.popleft()
        while self._told and self._told[0][0] <= records:
            self._told.popleft()

    @property
    def unrecorded(self) -> int:
        """How many records are not known to be safe in the store: they wait, or were given to a recorder."""
        told = sum(records for _, records, _, _ in self._told)  # by records that are not safe themselves
        waiting = sum(_said(kind, payload, at_ns)[0] for _, kind, at_ns, payload in self._queue)
        return len(self._queue) + waiting + self._sent_records - self._acked[0] + told

    def give_up(self, at_ns: int, why: str) -> None:
        """Lose what waits, and put in its place how much that is: there is no time left for more."""
        missed = _Missed()
        for _, kind, seen_ns, payload in self._queue:
            missed.add(1, len(payload), seen_ns)
            missed.add(*_said(kind, payload, seen_ns))
        self._queue.clear()
        self._waiting, self._per_stream = 0, None
        if missed.records:
            self._append(0, _GAP, at_ns, missed.payload(why))

    async def drained(self) -> None:
        """Wait until the socket has taken everything, or there is no recorder."""
        while self._sock is not None and (self._queue or self._sending):
            self._drained = asyncio.Event()
            self._flush()
            if self._queue or self._sending:
                await self._drained.wait()

    def _flush(self) -> None:
        """Send until the socket takes no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._hurried = False
        sock = self._sock
        if sock is None or self._writing:
            return
        try:
            self._send(sock)
        except (BlockingIOError, InterruptedError):
            assert self._loop is not None
            self._writing = True
            self._loop.add_writer(sock, self._writable)
        except OSError:
            # the recorder is gone; whoever watches it will say so. Nothing more is sent in between
            self.detach()

    def _writable(self) -> None:
        assert self._loop is not None
        assert self._sock is not None
        self._loop.remove_writer(self._sock)
        self._writing = False
        self._flush()

    def _send(self, sock: socket.socket) -> None:
        while True:
            while self._sending:
                self._sent(sock.sendmsg(self._sending))
            if not self._queue:
                break
            self._flood |= self._waiting > FLOOD
            self._sending.extend(map(memoryview, self._take()))
        if self._flood:
            self._flood = False
            self._ebb.begin()
        if self._drained is not None:
            self._drained.set()

    def _sent(self, size: int) -> None:
        """Forget so many bytes of what is being sent: the socket has taken them."""
        sending = self._sending
        while size:
            first = sending.popleft()
            if size < len(first):
                sending.appendleft(first[size:])
            size -= min(size, len(first))

    def _take(self) -> list[bytes]:
        """Return the next records as bytes, and remember that they are under way."""
        queue, pack = self._queue, HEADER.pack
        whole: list[bytes] = []
        parts: list[bytes] = []
        size = records = 0
        from_ns = queue[0][2]
        at_ns = from_ns
        while queue and size < SLICE:
            stream, kind, at_ns, payload = queue.popleft()
            parts.append(pack(stream, kind, at_ns, len(payload)))
            if len(payload) < LARGE:
                parts.append(payload)
            else:
                whole += (b"".join(parts), payload)
                parts.clear()
            step = len(payload) + _HEADER
            size += step
            records += 1
            if self._per_stream is not None:
                self._per_stream[stream] -= step
            if kind == _CLOSED:
                self._opens.pop(stream, None)
            elif kind in (_LOST, _GAP):
                self._told.append((self._sent_records + records, *_said(kind, payload, at_ns)))
        self._waiting -= size
        self._last_ns = at_ns
        self._sent_records += records
        self._sent_bytes += size - records * _HEADER
        self._slices.append((self._sent_records, from_ns))
        if parts:
            whole.append(b"".join(parts))
        return whole


class _Missed:
    """What a GAP record says."""

    def __init__(self) -> None:
        self.records = 0
        self.bytes = 0
        self.from_ns = 0
        self.to_ns = 0

    def add(self, records: int, size: int, at_ns: int) -> None:
        self.from_ns = min(self.from_ns or at_ns, at_ns)
        self.to_ns = max(self.to_ns, at_ns)
        self.records += records
        self.bytes += size

    def payload(self, why: str) -> bytes:
        return json.dumps(
            {"records": self.records, "bytes": self.bytes, "from_ns": self.from_ns, "to_ns": self.to_ns, "why": why},
            separators=(",", ":"),
        ).encode()


def _said(kind: int, payload: bytes, at_ns: int) -> tuple[int, int, int]:
    """Return what a LOST or GAP says, nothing for any other kind: records, bytes, since when."""
    if kind == _LOST:
        return (*COUNT.unpack(payload), at_ns)
    if kind == _GAP:
        gap = json.loads(payload)
        return gap["records"], gap["bytes"], gap["from_ns"]
    return 0, 0, at_ns


def _resumed(opening: bytes) -> bytes:
    """Return an OPEN's payload for a stream that is announced late or again."""
    return json.dumps({**json.loads(opening), "resumed": True}, separators=(",", ":")).encode()
