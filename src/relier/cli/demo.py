"""`rl demo`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import click

from relier.cli import common
from relier.cli.common import Asked
from relier.demo import play, screen
from relier.demo.account import Account


@click.command()
@click.option("--plain", is_flag=True, help="Lines in place of the live view.")
@click.option(
    "--folder",
    default="demo-output",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the invoices, the books and the workers' logs go.",
)
@click.option(
    "--orders", default=48, show_default=True, type=click.IntRange(12, 1000), help="How many."
)
@click.option("--seed", default=1, show_default=True, help="Of the orders.")
@common.command
def demo(asked: Asked, plain: bool, folder: Path, orders: int, seed: int) -> int:
    """Kill workers in front of you and count what was lost.

    A small web shop renders its invoices to PDF files on two workers, on a server of its own (or on
    that of --url, under a key prefix that is removed afterwards). A whole worker and a pool process
    are killed while they print. The closing account asks Redis, the results, the files and the
    tasks' own journal; the command exits 1 if it is not clean.

    \b
    Example: rl demo --orders 100
    """
    console = common.console()
    shown: screen.Screen = screen.Lines(console)
    if asked.as_json:
        shown = screen.Silent()
    elif console.is_terminal and not plain:
        shown = screen.Stagecraft(console)
    with common.terminable():
        found = play.run(shown, folder, url=asked.url, order_count=orders, seed=seed)
    if not asked.answer({**_fields(found), "clean": found.clean}):
        screen.show_account(console, found)
    return 0 if found.clean else common.FAILED


def _fields(found: Account) -> dict[str, object]:
    return {field.name: getattr(found, field.name) for field in fields(found)}
