"""Run one server process and end it when the process that asked for it is gone.

Started by path, in an interpreter of its own (`python -I -S this_file ...`), so it imports
nothing but the standard library. The server cannot watch over its parent by itself, and
the two shorter ways are not sound: PR_SET_PDEATHSIG follows the *thread* that forked and
exists on Linux only; the end of a pipe is held open by every child that the parent forks
without exec (Celery's pool processes). A changed parent pid is true exactly when the parent
process is gone, however it went.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from types import FrameType
from typing import NoReturn

PARENT_CHECK_S = 0.2
CLEAN_EXIT_S = 3.0


def main(argv: list[str]) -> int:
    """Start the server, report its pid on stdout, and wait for whichever end comes first.

    Args:
        argv: the parent's pid, the folder to remove should the parent vanish, the log file
            of the server, a comma-separated list of file descriptors that the server inherits
            (may be empty), then the server's own command line.

    Returns:
        The server's exit status; 128 + n when signal n ended it.
    """
    parent_pid, run_dir, log_path = int(argv[0]), argv[1], argv[2]
    inherited = [int(fd) for fd in argv[3].split(",") if fd]
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, _exit_on_signal)
    ended, held_by_server = os.pipe()
    with open(log_path, "ab") as log:
        server = subprocess.Popen(
            argv[4:],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[held_by_server, *inherited],
        )
    for fd in (held_by_server, *inherited):
        os.close(fd)
    try:
        sys.stdout.write(f"{server.pid}\n")
        sys.stdout.flush()
        while server.poll() is None:
            if os.getppid() != parent_pid:
                _end(server)
                shutil.rmtree(run_dir, ignore_errors=True)
                break
            _wait(server, ended)
    except BrokenPipeError:
        pass  # the parent vanished before it heard of the server
    finally:
        _end(server)
    status = server.wait()
    return 128 - status if status < 0 else status


def _wait(server: subprocess.Popen[bytes], ended: int) -> None:
    """Wait for the server's end, for at most about `PARENT_CHECK_S`."""
    # The server's copy of the pipe closes with it, which wakes us without polling.
    if select.select([ended], [], [], PARENT_CHECK_S)[0]:
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(PARENT_CHECK_S)


def _end(server: subprocess.Popen[bytes]) -> None:
    """Ask the server to save and exit; insist after `CLEAN_EXIT_S`."""
    if server.poll() is not None:
        return
    server.terminate()
    try:
        server.wait(CLEAN_EXIT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _exit_on_signal(signum: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
