"""`rl`: the group of all commands.

A command's module is imported when the command is run, so that `rl --help` waits for nothing but
click.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

import click

from relier import __version__
from relier.cli.lazy import LazyGroup
from relier.cli.pipe import Pipe, ReaderGoneError

_COMMANDS = {
    "admin": ("relier.cli.admin:admin", "Rare orders: purge-locks, reset-admission."),
    "admission": (
        "relier.cli.admission:admission",
        "What is let in per window: status, reset.",
    ),
    "bench": ("relier.cli.bench:bench", "Measure relier beside vanilla Celery."),
    "cluster": (
        "relier.cli.cluster:cluster",
        "A server and workers on this machine: up, status, scale, logs, down.",
    ),
    "completion": ("relier.cli.completion:completion", "Completion for bash, zsh and fish."),
    "config": ("relier.cli.config:config", "Settings: show, validate, set."),
    "demo": ("relier.cli.demo:demo", "Kill workers in front of you and count what was lost."),
    "dlq": ("relier.cli.dlq:dlq", "Dead letters: list, inspect, release, retry-all, purge."),
    "doctor": ("relier.cli.doctor:doctor", "Check that Redis and the fleet can keep the promises."),
    "man": ("relier.cli.man:man", "The manual of all commands."),
    "queue": ("relier.cli.queue:queue", "Queues: list, pause, resume, purge."),
    "run-resurrector": (
        "relier.cli.resurrector:run_resurrector",
        "Bring back the tasks of dead workers, until stopped.",
    ),
    "slo": ("relier.cli.slo:slo", "Objectives: status, report."),
    "tasks": ("relier.cli.tasks:tasks", "Tasks: list, inflight, inspect."),
    "verify": ("relier.cli.verify:verify", "Account for every task: each in exactly one place."),
    "worker": ("relier.cli.worker:worker", "Workers: start, status, drain, restart, reset."),
}


@click.group(
    cls=LazyGroup,
    commands_at=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="rl", message="%(prog)s %(version)s")
def rl() -> None:
    """A reliability layer for Celery on Redis: a worker dies, its tasks come back."""


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a payload in an old terminal's encoding
    if sys.stdout.isatty():
        rl()
        return
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout = Pipe(sys.stdout)
    try:
        try:
            rl()
        finally:
            sys.stdout.flush()
    except ReaderGoneError:
        # It had enough (`rl tasks list | head`): that is no failure, and there is nothing to say.
        os._exit(0)


if __name__ == "__main__":
    main()
