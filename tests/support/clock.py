"""A wrong clock for one process and its children, as on a machine whose time nobody keeps."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SOURCE = """
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t which, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, which, now);
    const char *shift_s = getenv("WRONG_CLOCK_SHIFT_S");
    if (!failed && which == CLOCK_REALTIME && shift_s) now->tv_sec += atol(shift_s);
    return failed;
}
"""


def wrong_clock(folder: Path, shift_s: int) -> dict[str, str]:
    """Return the environment in which a process's wall clock is wrong; the others are right.

    Args:
        folder: where a library for that is built, with the C compiler that CPython's extensions
            need, too.
        shift_s: how many seconds it is fast; negative: slow.
    """
    library = folder / "wrong_clock.so"
    if not library.exists():
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-x", "c", "-o", str(library), "-"],
            input=_SOURCE.encode(),
            check=True,
        )
    return {"LD_PRELOAD": str(library), "WRONG_CLOCK_SHIFT_S": str(shift_s)}
