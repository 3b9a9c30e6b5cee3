"""`rl bench`: the arguments go to the bench as they are."""

from __future__ import annotations

import sys
from importlib import import_module

import click


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Measure relier beside vanilla Celery, on this machine; --help says what there is.

    \b
    Example: rl bench --quick
    """
    try:
        status = import_module("relier.bench.main").run(list(arguments))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(status or 0)
