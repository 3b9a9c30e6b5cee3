"""`rl dlq release`, `retry` and `retry-all`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import click

from relier.cli import common, editing, letterfilter, letters, words
from relier.cli.common import Asked, NotFoundError
from relier.ops import revival
from relier.ops.lettersearch import Filter
from relier.ops.preview import Preview, preview
from relier.ops.retryall import Tally
from relier.ops.retryall import retry_all as run_all
from relier.ops.revival import Order

_RATE = re.compile(r"(\d+(?:\.\d+)?)(?:/(s|m|min|h))?", re.ASCII)
_SECONDS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600}


def _rate(_ctx: click.Context, param: click.Parameter, text: str | None) -> float | None:
    """Read releases per second."""
    if text is None:
        return None
    found = _RATE.fullmatch(text.strip())
    if not found or float(found[1]) <= 0:
        raise click.BadParameter(f"{text!r} is no rate: write it as 100/s or 30/m", param=param)
    return float(found[1]) / _SECONDS[found[2]]


def _order(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of how letters are to live again."""
    for option in (
        click.option(
            "--raw", is_flag=True, help="Put a message that cannot be read back as it came."
        ),
        click.option(
            "--trust", is_flag=True, help="Vouch for a message whose signature does not verify."
        ),
        click.option("--late", is_flag=True, help="Let one run that has expired since."),
        click.option(
            "--max-resurrections",
            type=click.IntRange(0, 1000),
            metavar="N",
            help="The new life's own limit, whatever its task says.",
        ),
    ):
        function = option(function)
    return function


def _release(
    asked: Asked,
    letter_id: str,
    raw: bool,
    trust: bool,
    late: bool,
    max_resurrections: int | None,
    args: str | None,
    kwargs: str | None,
    edit: bool,
) -> int:
    broker = asked.broker
    new_args, new_kwargs = editing.a_list(args), editing.an_object(kwargs)
    found = revival.find(broker.store, letter_id)
    if found is None:
        raise letters.unknown(broker.store, letter_id)
    if edit:
        new_args, new_kwargs = editing.edited(found, new_args, new_kwargs)
    order = Order(raw, trust, late, max_resurrections, new_args, new_kwargs)
    done = revival.release(broker.store, found, broker.keyring, order)
    if asked.answer(done):
        return 0 if done.released else common.FAILED
    if done.alive:
        raise NotFoundError(
            f"{letter_id} was dispatched anew and lives: wait until it has ended "
            f"(`rl tasks inspect {letter_id}`), then release the letter"
        )
    if not done.released:
        raise NotFoundError(f"{letter_id} has just been released or removed by somebody else")
    said = f"Released {done.name or 'a message'} {letter_id} to queue {done.queue}."
    common.console().print(words.safe(said), markup=False, soft_wrap=True)
    return 0


def _command(name: str, doc: str) -> click.Command:
    """Return the command of one name; retry is release by the name that people look for."""

    @click.command(name, help=doc)
    @click.argument("letter_id", metavar="ID")
    @_order
    @click.option("--args", metavar="JSON", help="Other positional arguments, as a list.")
    @click.option("--kwargs", metavar="JSON", help="Other keyword arguments, as an object.")
    @click.option("--edit", is_flag=True, help="Change the arguments in $EDITOR first.")
    @common.command
    def made(asked: Asked, letter_id: str, **options: Any) -> int:
        return _release(asked, letter_id, **options)

    return made


_DOC = """Put a dead letter back into its queue, as a new life of its task.

Its count of runs and deaths begins anew; what the task had saved is handed on. The message is
verified and signed anew. Other arguments must have the shape of the message's own schema version.
Of two who release one letter at once one does; the other is told.

\b
Example: rl dlq {name} 9b2f1c1e-0c1d-4b7e-9c0a-2f64b8d1a3c7 --args '["cus_1", 5000]'
"""

release = _command("release", _DOC.format(name="release"))
retry = _command("retry", _DOC.format(name="retry").replace("\n\n", " The same as release.\n\n", 1))


@click.command("retry-all")
@letterfilter.chosen
@_order
@click.option("--rate", callback=_rate, metavar="N/s", help="At most so many: 100/s, 30/m.")
@click.option("--dry-run", is_flag=True, help="Only say what would be released.")
@common.command
def retry_all(
    asked: Asked,
    chosen: Filter,
    raw: bool,
    trust: bool,
    late: bool,
    max_resurrections: int | None,
    rate: float | None,
    dry_run: bool,
) -> int:
    """Release all dead letters, or those that the filters choose, the oldest first.

    Those that die meanwhile are left. Exit status 1 when some could not be released.

    \b
    Example: rl dlq retry-all --task billing.charge --newer 2h --dry-run
    Example: rl dlq retry-all --fingerprint 3f9a0c41d2be --rate 100/s --max-resurrections 1
    """
    broker = asked.broker
    letterfilter.check(broker.store, chosen)
    if dry_run:
        foreseen = preview(broker.store, chosen)
        if not asked.answer(foreseen):
            _print_preview(foreseen, chosen)
        return 0
    tally = Tally()
    order = Order(raw, trust, late, max_resurrections)
    with letterfilter.accounted(lambda: tally.looked_at, lambda: _show(asked, tally, chosen)):
        run_all(broker.store, chosen, broker.keyring, order, tally, _pacer(rate))
    return common.FAILED if tally.refused or tally.alive else 0


def _pacer(rate: float | None) -> Callable[[int], None]:
    """Return what waits until one more release is within the rate."""
    begun_s = time.monotonic()

    def pace(done: int) -> None:
        if rate is not None:
            time.sleep(max(begun_s + done / rate - time.monotonic(), 0))

    return pace


def _print_preview(found: Preview, chosen: Filter) -> None:
    at_least = "" if found.exact else "at least "
    count = words.count(found.letters, "dead letter")
    said = f"Would release {at_least}{count}{letterfilter.said(chosen)}."
    common.console().print(words.safe(said), markup=False, soft_wrap=True)
    letterfilter.print_groups(found.groups, found.now_ms)


def _show(asked: Asked, tally: Tally, chosen: Filter) -> None:
    if asked.answer(tally):
        return
    console = common.console()
    said = f"Released {words.count(tally.released, 'dead letter')}{letterfilter.said(chosen)}."
    if tally.gone:
        said += f" {tally.gone:,} released or removed by somebody else."
    if tally.alive:
        said += f" {tally.alive:,} left: dispatched anew, they live."
    if tally.refused:
        said += f" {tally.refused:,} left, for example:"
    console.print(words.safe(said), markup=False, soft_wrap=True)
    for letter_id, why in tally.examples.items():
        console.print(words.safe(f"  {letter_id}: {why}"), markup=False, soft_wrap=True)
