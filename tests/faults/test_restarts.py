"""Servers that are started again under load, and pages that are open while the recorder is: each goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
from httpx_sse import SSEError, connect_sse

from tests.faults.test_kills import LONG, another, answered_once, recorded, whole
from tests.faults.traffic import Traffic
from tests.tap import Tap, running

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc; run it there")


IN_CI = True


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=LONG)])
def test_a_server_that_is_started_again_and_again(times: int, tmp_path: Path) -> None:
    with Traffic() as traffic, running(traffic.url, tmp_path / "tap.db") as tap:
        traffic.begin(tap.proxy, pause=0.01)
        traffic.begin(tap.proxy, clients=3, wait=0.3)
        for _ in range(times):
            time.sleep(random.uniform(0.1, 0.5))
            traffic.stop_server()
            time.sleep(random.uniform(0.0, 0.3))
            traffic.start_server()
        traffic.until(traffic.counts.made + 100)
        counts = traffic.end()
        assert tap.stop() == 0
    whole(tap)
    assert set(traffic.seen.values()) == {1}  # no call was sent twice
    assert set(counts.answered) <= set(traffic.seen)
    # a connection that broke under a call, as the server's end did; and the tap's own answer while nobody listens
    assert set(counts.failed.values()) <= {"502", "IncompleteReadError", "ConnectionResetError", "BrokenPipeError"}
    calls = recorded(tap)
    assert {number for number, status in calls.items() if status == "succeeded"} == set(counts.answered)
    failed = {number for number, status in calls.items() if status == "transport_error"}
    assert set(calls) - set(counts.answered) == failed
    # every call that failed is on record, but for those written into a connection that had just ended
    assert failed <= set(counts.failed)
    assert {number for number, how in counts.failed.items() if how == "502"} <= failed
    assert set(traffic.seen) - set(counts.answered) <= failed
    assert tap.rows("SELECT * FROM timeline WHERE type = 'records_dropped'") == []


class Page:
    """An open page: it follows the live stream, and comes back where it was cut off, as a browser does."""

    def __init__(self, tap: Tap) -> None:
        self.told: Counter[str] = Counter()
        self.opened = 0
        self._url = f"{tap.desk}/api/live?of=events&change=0"
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        last = ""
        with httpx.Client(trust_env=False, timeout=httpx.Timeout(5, read=1)) as http:
            while not self._ending.is_set():
                headers = {"last-event-id": last} if last else {}
                try:
                    with connect_sse(http, "GET", self._url, headers=headers) as source:
                        self.opened += 1
                        for event in source.iter_sse():
                            last = event.id or last
                            if event.event == "event":
                                self._take(json.loads(event.data))
                            elif event.event == "skipped":
                                self.told["skipped"] += json.loads(event.data)["count"]
                            if self._ending.is_set():
                                return
                except (httpx.TransportError, SSEError):
                    time.sleep(0.05)

    def _take(self, event: dict[str, str]) -> None:
        self.told[event["id"]] += 1

    def close(self) -> None:
        self._ending.set()
        self._thread.join()


@pytest.mark.matrix
def test_pages_that_are_open_when_the_recorder_is_killed(tmp_path: Path) -> None:
    with Traffic() as traffic, running(traffic.url, tmp_path / "tap.db") as tap:
        traffic.begin(tap.proxy, clients=2, pause=0.05)
        pages = [Page(tap) for _ in range(3)]
        tap.until(lambda: all(len(page.told) > 5 for page in pages))
        killed = tap.recorder
        os.kill(killed, signal.SIGKILL)
        tap.until(lambda: another(tap, killed) and all(page.opened > 1 for page in pages))
        answer = httpx.get(f"{tap.desk}/sessions", trust_env=False, timeout=10)
        assert answer.status_code == 200
        counts = traffic.end()
        last = max(counts.answered)
        tap.until(lambda: recorded(tap).get(last) == "succeeded")
        ids = {row["event_id"] for row in tap.rows("SELECT event_id FROM events")}
        tap.until(lambda: all(ids <= page.told.keys() for page in pages))
        for page in pages:
            page.close()
            assert page.told["skipped"] == 0
        assert tap.stop() == 0
    answered_once(traffic, counts)
    whole(tap)
