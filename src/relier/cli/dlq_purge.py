"""`rl dlq purge`."""

from __future__ import annotations

import click

from relier.cli import common, letterfilter, words
from relier.cli.common import Asked
from relier.ops import letterpurge
from relier.ops.letterpurge import Tally
from relier.ops.lettersearch import Filter
from relier.ops.preview import preview


@click.command()
@letterfilter.chosen
@click.option("--yes", is_flag=True, help="Do not ask.")
@common.command
def purge(asked: Asked, chosen: Filter, yes: bool) -> None:
    """Remove dead letters for good: all, or those that the filters choose.

    Their messages and what their tasks had saved are gone then; the tasks' results stay. Those
    that die meanwhile are left.

    \b
    Example: rl dlq purge --reason rejected --older 30d --yes
    """
    broker = asked.broker
    letterfilter.check(broker.store, chosen)
    if not yes:
        foreseen = preview(broker.store, chosen)
        at_least = "" if foreseen.exact else "at least "
        count = words.count(foreseen.letters, "dead letter")
        common.sure(asked, yes, f"Remove {at_least}{count}{letterfilter.said(chosen)} for good?")
    tally = Tally()
    files = broker.checkpoint_files
    with letterfilter.accounted(lambda: tally.total, lambda: _show(asked, tally, chosen)):
        letterpurge.purge(broker.store, chosen, tally, "rl dlq purge", files)


def _show(asked: Asked, tally: Tally, chosen: Filter) -> None:
    if asked.answer(tally):
        return
    said = f"Removed {words.count(tally.total, 'dead letter')}{letterfilter.said(chosen)}"
    where = ", ".join(f"{count:,} from {queue}" for queue, count in sorted(tally.removed.items()))
    said += f" ({where})." if len(tally.removed) > 1 else "."
    if tally.files:
        said += f" {words.count(tally.files, 'checkpoint file')} removed."
    if tally.files_left:
        said += f" The workers will remove {words.count(tally.files_left, 'checkpoint file')}."
    common.console().print(words.safe(said), markup=False, soft_wrap=True)
