"""One thread per process that calls back when something is due.

Setting and dropping an alarm costs a lock and a dictionary: the thread is woken only for an alarm
that is earlier than all it knows, and looks past those that were dropped.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Hashable

logger = logging.getLogger(__name__)

_all: weakref.WeakSet[Alarms] = weakref.WeakSet()


class Alarms:
    """The alarms of one process; the thread starts with the first.

    A callback runs in that thread, so it must not block: all other alarms would be late.
    """

    def __init__(self) -> None:
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        self._due: dict[Hashable, tuple[float, Callable[[], None]]] = {}
        self._changed = threading.Condition(threading.Lock())
        self._sleeps_until_s = -math.inf
        self._thread: threading.Thread | None = None

    def set(self, key: Hashable, at_s: float, ring: Callable[[], None]) -> None:
        """Have ``ring`` called at a moment of the monotonic clock, in place of the key's last."""
        with self._changed:
            self._due[key] = (at_s, ring)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="relier-alarms", daemon=True)
                self._thread.start()
            elif at_s < self._sleeps_until_s:
                self._changed.notify()

    def drop(self, key: Hashable) -> None:
        """Forget an alarm; one that is ringing just now is not waited for."""
        with self._changed:
            self._due.pop(key, None)

    def _run(self) -> None:
        while True:
            # In a function of its own, so that nothing of an alarm is kept until the next.
            self._ring_due()

    def _ring_due(self) -> None:
        for ring in self._take_due():
            try:
                ring()
            except Exception:
                # One alarm's surprise must not silence the others.
                logger.exception("an alarm failed")

    def _take_due(self) -> list[Callable[[], None]]:
        """Sleep until something is due, and return it."""
        with self._changed:
            while True:
                now_s = time.monotonic()
                due = [(key, ring) for key, (at_s, ring) in self._due.items() if at_s <= now_s]
                if due:
                    for key, _ in due:
                        del self._due[key]
                    return [ring for _, ring in due]
                until_s = min((at_s for at_s, _ in self._due.values()), default=math.inf)
                self._sleeps_until_s = until_s
                wait_s = None if until_s == math.inf else min(until_s - now_s, _LONGEST_SLEEP_S)
                self._changed.wait(wait_s)
                self._sleeps_until_s = -math.inf


_LONGEST_SLEEP_S = 3600.0


def _start_anew() -> None:
    """Give a forked child alarms of its own: the parent's thread is not here, its lock may be."""
    for alarms in list(_all):
        alarms._reset()


os.register_at_fork(after_in_child=_start_anew)
