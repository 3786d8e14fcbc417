"""What holds for every test, wherever it runs."""

from __future__ import annotations

import signal
import threading

# A shell starts what it puts into the background with SIGINT ignored (POSIX, Shell Command Language §2.11), and
# children inherit that: commands that tests interrupt would go on for ever.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
