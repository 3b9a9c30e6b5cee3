"""The last call: the main process tells its pool's processes to run their tasks' hooks, now.

It closes a pipe of which every process of the pool holds the other end; each of them that runs a
task with a hook has a thread that waits for that, and answers when its hooks have ended.
"""

from __future__ import annotations

import os
import struct
import threading
import weakref
from collections.abc import Callable

_ANSWER = struct.Struct("=i")

_open_summons: weakref.WeakSet[Summons] = weakref.WeakSet()


class Summons:
    """Made by the main process before it forks its pool.

    Args:
        answer: runs the hooks of its process, and returns when they have ended.
    """

    def __init__(self, answer: Callable[[], None]) -> None:
        self._answer = answer
        self._called, self._call = os.pipe()
        self._answers, self._reply = os.pipe()
        os.set_blocking(self._answers, False)
        self._listener = 0
        self._replied: set[int] = set()
        _open_summons.add(self)

    def listen(self) -> None:
        """Answer the call in this process; the main process answers to nobody."""
        if self._call < 0 and self._listener != os.getpid():
            self._listener = os.getpid()
            threading.Thread(target=self._listen, name="relier-last-call", daemon=True).start()

    def _listen(self) -> None:
        os.read(self._called, 1)
        self._answer()
        os.write(self._reply, _ANSWER.pack(os.getpid()))

    def call(self) -> None:
        """Call every process of the pool."""
        if self._call >= 0:
            os.close(self._call)
            self._call = -1

    def replied(self) -> set[int]:
        """Return the processes whose hooks have ended."""
        try:
            while found := os.read(self._answers, _ANSWER.size):
                self._replied.add(*_ANSWER.unpack(found))
        except BlockingIOError:
            pass  # no more of them yet
        return self._replied


def _close_inherited_calls() -> None:
    """Let go of the main process's end, or its closing it would say nothing."""
    for summons in list(_open_summons):
        summons.call()
    _open_summons.clear()


os.register_at_fork(after_in_child=_close_inherited_calls)
