"""Run a program that does not outlive its supervisor, however that ends.

Started by path, in an interpreter of its own (`python -I -S this_file FD PROGRAM ...`), as the
leader of a process group. It leaves a watcher in the group and becomes the program, under the same
pid. FD is the reading end of a pipe whose other end only the supervisor has: when the supervisor
is gone the watcher reads the end of it, and kills the group, pool processes and itself included.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn


def main(argv: list[str]) -> NoReturn:
    """Leave a watcher behind and become the program.

    Args:
        argv: the descriptor, then the program's path and arguments.
    """
    lifeline, program = int(argv[0]), argv[1:]
    if os.fork() == 0:
        _watch(lifeline)
    os.close(lifeline)
    os.execv(program[0], program)


def _watch(lifeline: int) -> NoReturn:
    # What people send to the whole group is for the program.
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    os.read(lifeline, 1)
    os.killpg(0, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
