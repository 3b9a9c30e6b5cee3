"""Start a worker again in its own process: the same command, as a new member of the fleet.

Its supervisor sees the same process all along, so this works under whatever started it. Celery's
own `pool_restart` would kill pool processes at work; here the worker has drained before.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

logger = logging.getLogger(__name__)

YES = "yes"
"""What a worker says of itself that can start itself again; else it says why not."""

_OF_CHILDREN = "FORKED_BY_MULTIPROCESSING"
"""Celery sets it for what a worker starts: a worker that inherits it takes itself for a child."""


class Restart:
    """Whether this worker's process is to begin anew when the worker has drained.

    Args:
        owns_process: whether the worker is all that this process is.
    """

    def __init__(self, *, owns_process: bool) -> None:
        self.ability = ability(sys.orig_argv, sys.platform) if owns_process else _INSIDE
        self._wanted = False
        self._pid = 0

    def want(self, wanted: bool) -> None:
        """Begin anew at the end of this process; or, after a later order to stop, do not."""
        if wanted and not self._pid:
            self._pid = os.getpid()
            atexit.register(self._at_exit)
        self._wanted = wanted

    def begin_anew(self) -> None:
        """Put the same command in this process's place, if that is wanted; else return."""
        if not self._wanted or os.getpid() != self._pid:
            return
        self._wanted = False
        logger.info("starting again: %s", " ".join(sys.orig_argv))
        try:
            _replace_process()
        except OSError as error:
            logger.error("cannot start again (%s); its supervisor has to", error)

    def _at_exit(self) -> None:
        if self._wanted and os.getpid() == self._pid:
            wanted, self._wanted = self._wanted, False
            # What others want done at the end would not be, once the process is another program's.
            atexit._run_exitfuncs()
            self._wanted = wanted
            self.begin_anew()


def ability(command: Sequence[str], platform: str) -> str:
    """Return ``YES``, or why a process that was started by this command cannot begin anew."""
    if platform == "darwin":
        return "macOS does not let a process with threads become another program"
    if not command:
        return "it does not know the command by which it was started"
    for at, word in enumerate(command):
        option, _, value = word.partition("=")
        folder = value or "".join(command[at + 1 : at + 2])
        if option == "--workdir" and not os.path.isabs(folder):
            return "its --workdir is not absolute"
        if option in ("--uid", "--gid"):
            return f"it gave up the rights that its {option} needs at a start"
    return YES


_INSIDE = "it runs inside another program"


def _replace_process() -> NoReturn:
    logging.shutdown()
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()
    environment = {name: value for name, value in os.environ.items() if name != _OF_CHILDREN}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
