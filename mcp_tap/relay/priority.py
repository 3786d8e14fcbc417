"""Who goes first where both processes want the same core: the relay. A record may wait, a byte may not."""

from __future__ import annotations

import os
import struct
import sys
from typing import Final

#: The recorder's nice value, the lowest priority there is: of a core that both want for as long as they can get it, the
#: recorder has a sixtieth, and what it is too slow for is counted.
NICE: Final = 19

#: Nanoseconds that the recorder says it wants to go on for once it runs: the most there is. A process that wants less,
#: as all others do, takes the core from it when it wakes (Linux 6.12 and later; before that the number is ignored).
#: Without it an event that came while the recorder was at work waited until that was done, for some milliseconds.
SLICE_NS: Final = 100_000_000

#: The number of sched_setattr(2), for which there is no function in the C library.
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274, "riscv64": 274}

#: struct sched_attr: size, policy (SCHED_OTHER), flags, nice, priority, runtime, deadline, period.
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")


def let_go_first(pid: int) -> None:
    """Lower the priority of a recorder from its first instruction on: what it imports is more than a relay does."""
    try:
        os.setpriority(os.PRIO_PROCESS, pid, NICE)
    except OSError:
        return  # it may have ended already, and where it is not allowed it has to go without
    number = _SCHED_SETATTR.get(os.uname().machine) if sys.platform == "linux" else None
    if number is not None:
        import ctypes

        attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, 0, 0, NICE, 0, SLICE_NS, 0, 0)
        ctypes.CDLL(None).syscall(number, pid, attributes, 0)  # likewise
