"""The records between the relay process and the recorder process.

One socketpair carries both directions. From the relay: what it saw, in the order in which it saw it, so that an
answer on one stream never overtakes its request on another. From the recorder: small control records.

A record is a header of 17 bytes and a payload: stream number, kind, monotonic time in nanoseconds, length of the
payload. Stream 0 is the process itself. Both processes live on one machine, so they share the monotonic clock.
"""

from __future__ import annotations

import json
import signal
import struct
from enum import IntEnum
from typing import Any, Final, NamedTuple

HEADER: Final = struct.Struct("<IBQI")

#: More than any piece the relay reads at once (256 kB): a longer length means that the two ends disagree.
MAX_PAYLOAD: Final = 16 * 1024 * 1024


class Kind(IntEnum):
    """What a record says. Payloads are raw bytes where nothing else is said."""

    # relay → recorder, about one stream
    OPEN = 1  # JSON: {"peer": "127.0.0.1:5000", "upstream": "http://…", "resumed": false}
    CLIENT = 2  # bytes from the client
    SERVER = 3  # bytes from the server
    OWN = 4  # bytes that the tap itself answered to the client (502, 503, …)
    CONNECTED = 5  # the upstream connection is there
    CONNECT_FAILED = 6  # text: why not
    CLIENT_EOF = 7  # the client ended its direction
    SERVER_EOF = 8  # the server ended its direction
    CLOSED = 9  # both ends are gone; text: a Closing
    LOST = 10  # COUNT: pieces and bytes of this stream that were dropped before this record

    # relay → recorder, stream 0
    GAP = 20  # JSON: {"records": n, "bytes": n, "from_ns": t, "to_ns": t, "why": text}: lost with a dead recorder
    DRAIN = 21  # which streams have a call in flight? answered by BUSY, later by IDLE
    STOP = 22  # the last record: flush and exit. MOMENT: by when
    PACE = 23  # COUNT: how many pieces were looked at, and the median of how long they took through the relay, in ns

    # recorder → relay, stream 0
    READY = 40  # the store is open, the desk listens
    REFUSED = 41  # JSON: {"error": "…", "hint": "…", "exit": 4}: cannot work at all
    ACK = 42  # COUNT: of all it was given, records and payload bytes that are safe in the store (or lost and counted)
    BUSY = 43  # JSON: [stream, …] with a call in flight, as of the header's time
    IDLE = 44  # JSON: [stream, …] whose last call has ended, as of the header's time


#: ACK is cumulative: it counts records of every kind, stream 0 too, since this recorder got the channel. What was given
#: to a recorder and not acknowledged when it died is what the GAP for its successor counts.

#: Every recorder but the first of a relay gets a GAP before anything else, be it of nothing.

#: After a GAP every stream that the dead recorder knew is announced again, by an OPEN with ``"resumed": true``; the
#: next bytes of such a stream may begin anywhere in a message.


class Closing:
    """How a stream ended, in the payload of CLOSED."""

    END = b"end"  # both directions were ended in order
    CLIENT_RESET = b"client_reset"  # the client's side broke off
    SERVER_RESET = b"server_reset"  # the server's side broke off
    DRAIN = b"drain"  # cut by the tap's own stop
    REFUSED = b"refused"  # answered and closed by the tap itself
    HALF_OPEN = b"half_open"  # one side had ended and the other stayed silent


#: Signal to a recorder that has no time left: what waits for its store it has to give up.
HURRY: Final = signal.SIGUSR1

#: Exit status of a recorder that asks for another in its place: its store is not where it was.
MOVED: Final = 75

#: Pieces (or records) and bytes.
COUNT: Final = struct.Struct("<QQ")

#: Monotonic time in nanoseconds.
MOMENT: Final = struct.Struct("<Q")


class Record(NamedTuple):
    """One record of the channel. ``at_ns`` is monotonic."""

    stream: int
    kind: int
    at_ns: int
    payload: bytes

    def json(self) -> Any:
        """Return the payload of a record whose payload is JSON."""
        return json.loads(self.payload)


def encode(stream: int, kind: int, at_ns: int, payload: bytes = b"") -> bytes:
    """Return the bytes of one record."""
    return HEADER.pack(stream, kind, at_ns, len(payload)) + payload


def encode_json(stream: int, kind: int, at_ns: int, payload: Any) -> bytes:
    """Return the bytes of one record whose payload is JSON."""
    return encode(stream, kind, at_ns, json.dumps(payload, separators=(",", ":")).encode())


class Decoder:
    """Turns the bytes of the channel into records, however they were cut on the way."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Record]:
        """Return every record that is complete with ``data``.

        Raises ValueError when a length is impossible: the two ends disagree and nothing after it can be trusted.
        """
        rest = self._rest + data if self._rest else data
        offset, size = 0, len(rest)
        unpack, header, new = HEADER.unpack_from, HEADER.size, tuple.__new__  # Record's own takes twice as long
        records = []
        while size - offset >= header:
            stream, kind, at_ns, length = unpack(rest, offset)
            if length > MAX_PAYLOAD:
                raise ValueError(f"channel record of {length} bytes")
            end = offset + header + length
            if end > size:
                break
            records.append(new(Record, (stream, kind, at_ns, rest[offset + header : end])))
            offset = end
        self._rest = rest[offset:] if offset else rest
        return records
