"""What the tap takes while it does nothing: time to start, memory at rest, memory of each open stream.

``python -m benchmarks.footprint`` prints one line for each figure. Memory is what only the process itself holds (USS),
from the kernel; of another process's start, the time counts from exec to the first proxied byte.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine import children, free_port

#: Seconds that a process may take to come up, and memory to come to rest.
PATIENCE = 30.0

REQUEST = b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}"


class Memory(NamedTuple):
    """Bytes of the two processes."""

    relay: int
    recorder: int

    @property
    def both(self) -> int:
        """Of both together."""
        return self.relay + self.recorder


class PerStream(NamedTuple):
    """What open streams take, in bytes each, and what is left of that after they are closed, in bytes in all."""

    open: Memory
    left: Memory


class Tap(NamedTuple):
    """A running tap."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def recorder(self) -> int:
        """Return the recorder's process id."""
        return children(self.process.pid)[0]

    def memory(self) -> Memory:
        """Return what each process holds for itself."""
        return Memory(uss(self.process.pid), uss(self.recorder))


def uss(pid: int) -> int:
    """Return the bytes of memory that only this process holds."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


@contextlib.contextmanager
def upstream() -> Iterator[int]:
    """Run a server that costs next to nothing; gives its port."""
    argv = [sys.executable, "-m", "benchmarks.upstream"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@contextlib.contextmanager
def tap(server: int, *, ready: bool = True) -> Iterator[Tap]:
    """Run the tap by its command in front of a server, and wait until its recorder is there, unless told not to."""
    with tempfile.TemporaryDirectory() as folder:
        port, desk = free_port(), free_port()
        argv = [
            str(Path(sys.executable).with_name("mcp-tap")), f"http://127.0.0.1:{server}/mcp", "--format", "none",
            "--listen", f"127.0.0.1:{port}", "--admin-listen", f"127.0.0.1:{desk}",
            "--store", f"sqlite:///{folder}/tap.db",
        ]  # fmt: skip
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            running = Tap(process, port)
            try:
                if ready:
                    connect(desk, b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").close()
                yield running
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(PATIENCE)


def connect(port: int, request: bytes = REQUEST) -> socket.socket:
    """Connect as soon as somebody listens, and wait for the first byte of an answer."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            sock = socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)
        else:
            break
    sock.settimeout(PATIENCE)
    sock.sendall(request)
    sock.recv(1)
    return sock


def startup_ms(rounds: int = 5) -> list[float]:
    """Return the times from exec of the command to the first byte of a proxied answer, in ms."""
    times = []
    with upstream() as server:
        for _ in range(rounds):
            began = time.perf_counter()
            with tap(server, ready=False) as running:
                sock = connect(running.port)
                times.append((time.perf_counter() - began) * 1000)
                sock.close()
    return times


def idle_memory() -> Memory:
    """Return what the two processes hold when the first call has been made and recorded."""
    with upstream() as server, tap(server) as running:
        connect(running.port).close()
        return settled(running)


def per_stream(streams: int = 1000, churn: int = 10_000) -> PerStream:
    """Return what a stream costs that is open and idle, having asked once, and what is left after ``churn`` more.

    The first ones are opened and closed before anything is measured, so that what is only made once does not count.
    """
    more_files(2 * streams)
    with upstream() as server, tap(server) as running:
        hold(running.port, streams)
        before = settled(running)
        socks = [connect(running.port) for _ in range(streams)]
        with_streams = settled(running)
        for sock in socks:
            sock.close()
        for _ in range(churn // streams):
            hold(running.port, streams)
        after = settled(running)
    each = Memory(*((of - base) // streams for of, base in zip(with_streams, before, strict=True)))
    return PerStream(each, Memory(*(of - base for of, base in zip(after, before, strict=True))))


def hold(port: int, streams: int) -> None:
    """Open so many streams, ask once on each, and close them."""
    for sock in [connect(port) for _ in range(streams)]:
        sock.close()


def settled(running: Tap) -> Memory:
    """Return the memory once it has not changed by more than a page or two for a second."""
    deadline = time.monotonic() + PATIENCE
    seen = running.memory()
    while time.monotonic() < deadline:
        time.sleep(1)
        before, seen = seen, running.memory()
        if abs(seen.relay - before.relay) + abs(seen.recorder - before.recorder) < 20_000:
            break
    return seen


def more_files(wanted: int) -> None:
    """Allow this process so many open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted + 100:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, wanted + 100), hard))


def main() -> None:
    """Measure everything and print it."""
    times = startup_ms()
    print(f"start-up to the first proxied byte: {min(times):.0f} ms at best, {statistics.median(times):.0f} ms median")
    idle = idle_memory()
    print(f"idle memory: relay {idle.relay / 1e6:.1f} MB, both {idle.both / 1e6:.1f} MB")
    each, left = per_stream()
    print(f"per open stream of 1,000: relay {each.relay / 1000:.1f} kB, both {each.both / 1000:.1f} kB")
    print(f"left after 10,000 more: relay {left.relay / 1000:.0f} kB, both {left.both / 1000:.0f} kB")


if __name__ == "__main__":
    main()
