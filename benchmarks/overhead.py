"""CPU per call of the tap, beside a direct connection and nginx, interleaved in one run.

``python -m benchmarks.overhead [--rounds 3] [--seconds 3]`` prints a table. CPU is what the kernel charged to the
process, user and system, divided by the calls of the round; ratios within one run can be trusted, single figures of
a shared machine cannot. The server and the load share CPU 0, what is measured runs on CPU 1, where that can be set.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.upstream import SIZE
from mcp_tap.config import Address, Admin, Proxy, Record, Settings, Upstream

#: Processes whose CPU is charged to the calls.
PARTS = ("server", "relay", "recorder", "nginx")

TICK = os.sysconf("SC_CLK_TCK")


class Way(NamedTuple):
    """One way from the load to the server."""

    port: int
    processes: dict[str, int]  # name -> pid
    stop: Callable[[], None]
    store: Path | None = None
    extra: int = 0  # bytes it adds to each answer


def cpu_us(pid: int) -> float:
    """Return the CPU time of a process so far, in µs."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / TICK


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def pin(cpu: int) -> Callable[[], None] | None:
    """Return what a child calls to stay on one CPU."""
    if not hasattr(os, "sched_setaffinity") or (os.cpu_count() or 1) < 2:
        return None
    return lambda: os.sched_setaffinity(0, {cpu})


def wait_for(port: int) -> None:
    """Wait until something accepts on a port."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit(f"nothing listens on {port}")


def stopper(process: subprocess.Popen[Any]) -> Callable[[], None]:
    """Return what ends a process and waits for it."""

    def stop() -> None:
        process.terminate()
        process.wait(15)

    return stop


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def tap(upstream: int, folder: Path, *, bodies: str = "redacted", sink: bool = False, desk: int = 0) -> Way:
    """Start the tap; with ``sink`` its recorder records nothing. ``desk`` is the port of its pages."""
    store = folder / f"{time.monotonic_ns()}.db"
    port = free_port()
    settings = Settings(
        Proxy(
            Upstream(f"http://127.0.0.1:{upstream}/mcp", "http", "127.0.0.1", upstream, "/mcp"),
            Address("127.0.0.1", port),
        ),
        Admin(Address("127.0.0.1", desk)),
        Record(store=f"sqlite:///{store}", bodies=bodies),  # type: ignore[arg-type]
        format="none",
    )
    if sink:
        argv = [sys.executable, "-m", "benchmarks.sink", str(port), str(upstream)]
        process = subprocess.Popen(argv, preexec_fn=pin(1))
    else:
        with tempfile.TemporaryFile() as file:
            file.write(settings.to_json())
            file.flush()
            argv = [sys.executable, "-m", "mcp_tap.relay", str(file.fileno())]
            process = subprocess.Popen(argv, pass_fds=[file.fileno()], preexec_fn=pin(1))
    wait_for(port)
    while not (born := children(process.pid)):
        time.sleep(0.02)
    recorder = born[0]
    processes = {"relay": process.pid} if sink else {"relay": process.pid, "recorder": recorder}
    return Way(port, processes, stopper(process), None if sink else store)


def nginx(upstream: int, folder: Path) -> Way:
    """Start nginx as the reference: one worker, upstream connections kept, nothing recorded."""
    port = free_port()
    config = folder / f"nginx-{port}.conf"
    config.write_text(
        f"""
        worker_processes 1; daemon off; pid {folder}/nginx-{port}.pid; error_log /dev/null;
        events {{ worker_connections 4096; }}
        http {{
          access_log off; keepalive_requests 100000000; server_tokens off;
          client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
          uwsgi_temp_path {folder}; scgi_temp_path {folder};
          upstream up {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 100000000; }}
          server {{ listen 127.0.0.1:{port};
            location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
                          proxy_buffering off; }} }}
        }}"""
    )
    process = subprocess.Popen(
        [shutil.which("nginx") or "/usr/sbin/nginx", "-p", str(folder), "-c", str(config)],
        stderr=subprocess.DEVNULL,
        preexec_fn=pin(1),
    )
    wait_for(port)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
        time.sleep(0.2)
        extra = len(sock.recv(1 << 16)) - SIZE
    return Way(port, {"nginx": children(process.pid)[0]}, stopper(process), None, extra)


def measure(path: Way, connections: int, seconds: float) -> dict[str, float]:
    """Run the load once; return µs of CPU per call for each process, and what the load saw."""
    before = {name: cpu_us(pid) for name, pid in path.processes.items()}
    # a load is so many calls: about as many as nginx passes in that time
    arguments = [str(path.port), "--connections", str(connections)]
    arguments += ["--calls", str(int(seconds * (5_000 if connections == 1 else 25_000)))]
    output = subprocess.run(
        [sys.executable, "-m", "benchmarks.load", *arguments],
        check=True,
        capture_output=True,
        preexec_fn=pin(0),
    ).stdout
    seen = json.loads(output)
    if seen["errors"]:
        raise SystemExit(f"{seen['errors']} calls were not answered as they should be")
    if path.store is not None:
        settle(path.store, path.processes["recorder"])
    figures = {name: (cpu_us(pid) - before[name]) / seen["calls"] for name, pid in path.processes.items()}
    return figures | {
        "calls": seen["calls"],
        "rate": seen["calls"] / seen["seconds"],
        "p50": seen["p50"],
        "p99": seen["p99"],
        "max": seen["max"],
    }


def settle(store: Path, recorder: int) -> None:
    """Wait until the recorder has written what it was given: its CPU belongs to the calls before."""
    last, quiet, deadline = -1.0, 0, time.monotonic() + 60
    while quiet < 3 and time.monotonic() < deadline:
        time.sleep(0.4)
        now = cpu_us(recorder)
        quiet = quiet + 1 if now - last < 25_000 else 0
        last = now


def recorded(store: Path) -> int:
    """Return how many calls are in a recording."""
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as db:
        count: int = db.execute("SELECT count(*) FROM timeline WHERE type = 'tools/call'").fetchone()[0]
        return count


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, nargs="*", default=[1, 64])
    options = parser.parse_args()
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.upstream"],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=pin(0),
    )
    assert server.stdout is not None
    upstream = int(server.stdout.readline())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths: dict[str, Callable[[], Way]] = {
            "direct": lambda: Way(upstream, {"server": server.pid}, lambda: None),
            "tap, not recording": lambda: tap(upstream, folder, sink=True),
            "tap, without bodies": lambda: tap(upstream, folder, bodies="none"),
            "tap": lambda: tap(upstream, folder),
        }
        if shutil.which("nginx") or Path("/usr/sbin/nginx").exists():
            paths["nginx"] = lambda: nginx(upstream, folder)
        else:
            print("nginx is not installed: no reference beside the direct connection")
        try:
            for connections in options.connections:
                table(paths, connections, options.rounds, options.seconds)
        finally:
            server.terminate()
            server.wait()


def table(paths: dict[str, Callable[[], Way]], connections: int, rounds: int, seconds: float) -> None:
    """Measure every path in turn, so many rounds, and print the medians."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in paths}
    for _ in range(rounds):
        for name, start in paths.items():
            path = start()
            try:
                warm = measure(path, connections, 0.5)
                figures = measure(path, connections, seconds)
                figures["rss"] = sum(rss_mb(pid) for pid in path.processes.values())
            finally:
                path.stop()
            if path.store is not None:
                figures["missing"] = warm["calls"] + figures["calls"] - recorded(path.store)
            runs[name].append(figures)
    print(f"\n{connections} connection{'s' if connections > 1 else ''}, median of {rounds} rounds of {seconds:g} s")
    print(f"{'path':22}{'relay µs':>10}{'recorder µs':>13}{'CPU µs/call':>13}{'x nginx':>9}"
          f"{'calls/s':>10}{'p50 µs':>9}{'p99 µs':>9}{'RSS MB':>8}")  # fmt: skip
    middle = {name: {key: statistics.median(run[key] for run in of) for key in of[0]} for name, of in runs.items()}
    total = {name: sum(of.get(part, 0) for part in PARTS) for name, of in middle.items()}
    for name, of in middle.items():
        relay, recorder = (f"{of[part]:.1f}" if part in of else "" for part in ("relay", "recorder"))
        ratio = f"{total[name] / total['nginx']:.2f}" if "nginx" in total and name != "direct" else ""
        print(f"{name:22}{relay:>10}{recorder:>13}{total[name]:13.1f}{ratio:>9}"
              f"{of['rate']:10.0f}{of['p50']:9.0f}{of['p99']:9.0f}{of['rss']:8.1f}"
              + (f"  {of['missing']:.0f} calls missing from the record" if of.get("missing") else ""))  # fmt: skip


if __name__ == "__main__":
    main()
