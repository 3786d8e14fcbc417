"""A recorder of a few lines: ``scripted_recorder.py LOG WHAT CHANNEL_FD SETTINGS_FD DESK_FD``.

Appends every record to LOG as JSON lines, and says on standard output where the relay listens and who it is. WHAT is
how it behaves: ``well``, ``refuse``, ``die``, ``deaf`` (no answer to DRAIN), ``die-after-300`` (the first one to run),
``late`` (not ready before there is a file LOG.go).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

from mcp_tap.channel import COUNT, Decoder, Kind, Record, encode, encode_json
from mcp_tap.config import Settings


def main(log: Path, what: str, channel_fd: int, settings_fd: int, desk_fd: int) -> None:
    channel = socket.socket(fileno=channel_fd)
    settings = Settings.from_file(settings_fd)
    desk = socket.socket(fileno=desk_fd)
    if what == "die":
        os._exit(3)
    if what == "refuse":
        channel.sendall(encode_json(0, Kind.REFUSED, 0, {"error": "no room", "hint": "make some\nsoon", "exit": 4}))
        return
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert desk.getsockname()[1] == settings.admin.listen.port
    first = not log.exists()
    while what == "late" and not log.with_suffix(".go").exists():
        time.sleep(0.01)
    print("ready", settings.proxy.listen.port, os.getpid(), flush=True)
    channel.sendall(encode(0, Kind.READY, 0))
    decoder = Decoder()
    records = size = 0
    busy: set[int] = set()
    with log.open("a") as file:
        while data := channel.recv(1 << 18):
            found = decoder.feed(data)
            for record in found:
                records += 1
                size += len(record.payload)
                file.write(json.dumps(line(record)) + "\n")
                follow(record, busy)
            if what == "die-after-300" and first and records >= 300:
                os.kill(os.getpid(), signal.SIGKILL)
            file.write(json.dumps({"acked": records}) + "\n")
            file.flush()
            channel.sendall(encode(0, Kind.ACK, 0, COUNT.pack(records, size)))
            for record in found:
                if record.kind == Kind.DRAIN and what != "deaf":
                    channel.sendall(encode_json(0, Kind.BUSY, record.at_ns, sorted(busy)))
                elif answered(record) and what != "deaf":
                    channel.sendall(encode_json(0, Kind.IDLE, record.at_ns, [record.stream]))
                elif record.kind == Kind.STOP:
                    return


def answered(record: Record) -> bool:
    return record.kind == Kind.SERVER and record.payload.endswith(b"}")


def follow(record: Record, busy: set[int]) -> None:
    if record.kind == Kind.CLIENT:
        busy.add(record.stream)
    elif record.kind == Kind.CLOSED or answered(record):
        busy.discard(record.stream)


def line(record: Record) -> dict[str, object]:
    text = record.payload.decode("latin-1") if len(record.payload) < 500 else ""
    return {
        "stream": record.stream,
        "kind": record.kind,
        "at_ns": record.at_ns,
        "size": len(record.payload),
        "text": text,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
