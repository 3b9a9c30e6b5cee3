"""``rl bench``: run the scenarios one after the other and print one table."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from relier.bench import (
    bulk,
    delivery,
    dispatch,
    drain,
    footprint,
    lateness,
    memory,
    poison,
    process_killed,
    report,
    scale,
    timeouts,
    worker_killed,
)
from relier.bench.figures import Figure
from relier.bench.lab import QUICK, Effort, Lab
from relier.errors import RelierError

Scenario = Callable[[Lab, Effort], list[Figure]]

SCENARIOS: dict[str, Scenario] = {
    module.NAME: module.measure
    for module in (
        worker_killed,
        process_killed,
        poison,
        timeouts,
        delivery,
        dispatch,
        bulk,
        drain,
        memory,
        footprint,
        lateness,
        scale,
    )
}

ASKED_FOR = {scale.NAME}
"""Not part of a whole run: it says nothing of vanilla Celery, and fills gigabytes."""


def run(argv: Sequence[str]) -> int:
    """Measure, print, and return the exit status.

    Args:
        argv: the arguments behind ``rl bench``.

    Returns:
        0; with ``--strict`` 1 when a bar is not met.
    """
    options = _parser().parse_args(argv)
    json_path = Path(options.json).resolve() if options.json else None
    effort = QUICK if options.quick else Effort()
    if options.kills is not None:
        effort = dataclasses.replace(effort, kills=options.kills)
    note = f"{'quick run' if options.quick else 'full run'}, {effort.repeats} interleaved pairs."
    with _interruptible(), Lab() as lab:
        server = lab.store.check_server()
        figures: list[Figure] = []
        for name in options.only or [each for each in SCENARIOS if each not in ASKED_FOR]:
            figures += _carry_out(name, lab, effort)
    report.show(figures, server, note)
    if json_path is not None:
        report.write(figures, server, note, json_path)
    missed = any(figure.met is False for figure in figures)
    return 1 if options.strict and missed else 0


def _carry_out(name: str, lab: Lab, effort: Effort) -> list[Figure]:
    """Run one scenario; its failure is a figure that is not met, and the next one runs."""
    print(f"bench: {name} ...", end="", file=sys.stderr, flush=True)
    begun = time.monotonic()
    try:
        figures = SCENARIOS[name](lab, effort)
    except RelierError as error:
        print(f"\nbench: {name}: {error}", file=sys.stderr)
        said = str(error).partition("\n")[0]
        figures = [Figure(name, name, relier=f"failed: {said}", bar="runs", met=False)]
    finally:
        lab.fresh()
    print(f" {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return figures


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rl bench",
        description="Measure relier beside vanilla Celery on an embedded server, in one run.",
    )
    parser.add_argument("which", nargs="?", choices=["all"], default="all", help="the default")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, about 2 minutes")
    parser.add_argument(
        "--only",
        action="append",
        choices=SCENARIOS,
        metavar="NAME",
        help=f"run one scenario; may be repeated: {', '.join(SCENARIOS)}",
    )
    parser.add_argument("--kills", type=_at_least_one, help="workers and processes to kill, each")
    parser.add_argument("--json", metavar="FILE", help="write all values to a file too")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a bar is not met")
    return parser


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that workers and server are cleaned up."""

    def leave(signum: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
