from __future__ import annotations

import os
import threading
import time
import weakref

from relier.worker.alarms import Alarms
from support.wait import wait_for


def test_alarms_ring_in_the_order_of_their_moments() -> None:
    alarms, rung = Alarms(), []
    now_s = time.monotonic()
    alarms.set("far", now_s + 3600, lambda: rung.append("far"))
    alarms.set("second", now_s + 0.06, lambda: rung.append("second"))
    alarms.set("first", now_s + 0.03, lambda: rung.append("first"))
    alarms.set("dropped", now_s + 0.03, lambda: rung.append("dropped"))
    alarms.drop("dropped")
    wait_for(lambda: len(rung) == 2, 10)
    assert rung == ["first", "second"]


def test_an_alarm_that_fails_silences_no_other() -> None:
    alarms, rung = Alarms(), threading.Event()
    alarms.set("bad", 0.0, lambda: 1 / 0)
    alarms.set("good", time.monotonic() + 0.02, rung.set)
    assert rung.wait(10)


def test_nothing_of_an_alarm_is_kept() -> None:
    class Request:
        def ring(self) -> None: ...

    alarms, request = Alarms(), Request()
    kept = weakref.ref(request)
    alarms.set("rings", time.monotonic() + 0.02, request.ring)
    alarms.set("far", time.monotonic() + 3600, lambda: None)
    del request
    wait_for(lambda: kept() is None, 10)


def test_a_forked_child_has_alarms_of_its_own() -> None:
    alarms = Alarms()
    alarms.set("parent's", time.monotonic() + 3600, lambda: None)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            rung = threading.Event()
            alarms.set("child's", time.monotonic() + 0.01, rung.set)
            os.write(write, b"rung" if rung.wait(10) else b"mute")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 4) == b"rung"
    os.close(read)
    os.close(write)
