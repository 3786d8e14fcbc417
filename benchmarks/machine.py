"""What the kernel says about processes, and what this machine is."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

from mcp_tap import __version__

#: The load, the server and the benchmark itself share one CPU, what is measured has another for itself.
LOAD_CPU: Final = 0
TESTED_CPU: Final = 1

#: Descriptors that 10,000 streams take in a process which has two for each, and some to spare.
FILES: Final = 32_768


def cpu_us(pids: Iterable[int]) -> float:
    """Return the CPU time that processes have used so far, user and system, in µs.

    The kernel has a clock for each process, which counts in ns where /proc counts in hundredths of a second. Its number
    is what clock_getcpuclockid(3) makes of a process id: its complement, shifted by three bits, and CPUCLOCK_SCHED.
    """
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids) * 1e6


class Memory(NamedTuple):
    """Memory of processes in bytes: resident, and of that what they share with nobody."""

    rss: int
    uss: int


def memory(pids: Iterable[int]) -> Memory:
    """Return the memory of processes, summed."""
    rss = uss = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "Rss":
                rss += int(rest.split()[0]) * 1024
            elif name.startswith("Private_"):
                uss += int(rest.split()[0]) * 1024
    return Memory(rss, uss)


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def family(pid: int) -> list[int]:
    """Return a process and all that it has started, directly or not."""
    return [pid, *(one for child in children(pid) for one in family(child))]


def on(cpu: int) -> Callable[[], None]:
    """Return what a child calls to stay on one CPU, where there are several, and to open many files."""
    several = hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1

    def settle() -> None:
        if several:
            os.sched_setaffinity(0, {cpu})
        allow_files()

    return settle


def allow_files() -> int:
    """Let this process and its children open as many files as the system permits; return how many."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # only root may raise the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), max(hard, FILES)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def about() -> dict[str, str]:
    """Return what figures of this machine depend on."""
    return {
        "cores": str(os.cpu_count()),
        "CPU": _processor(),
        "memory": f"{os.sysconf('SC_PAGESIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB",
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "Python": platform.python_version(),
        "uvloop": version("uvloop"),
        "mcp-tap": __version__,
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def busy() -> float:
    """Return how many processes have wanted to run lately: more than a few tenths, and latencies are worthless."""
    return os.getloadavg()[0]


def say(line: str) -> None:
    """Tell whoever waits what is being done."""
    print(line, file=sys.stderr, flush=True)
