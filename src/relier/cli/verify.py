"""`rl verify`."""

from __future__ import annotations

import click

from relier.cli import common, words
from relier.cli.common import Asked
from relier.ops import verify as questions
from relier.ops.verify import Account, Finding


@click.command()
@click.option("--repair", is_flag=True, help="Put right what the fleet's own scripts can.")
@click.option(
    "--within",
    "within_s",
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    type=common.FloatRange(min=0.1),
    help="Stop looking after so long.",
)
@common.command
def verify(asked: Asked, repair: bool, within_s: float) -> int:
    """Account for every task: is each in exactly one place?

    Walks through the whole keyspace in small steps, while the fleet works. What seems wrong is
    looked at again before it is reported. Needs memory for the ids of all unfinished tasks.

    Exits with 1 when something is wrong, or when there was not enough time to see everything.

    \b
    Example: rl verify --repair
    """
    found = questions.verify(asked.broker, repair=repair, within_s=within_s)
    fine = found.clean and found.whole
    if not asked.answer({"clean": fine, "account": found}):
        _show(found)
    return 0 if fine else common.FAILED


def _show(found: Account) -> None:
    console = common.console()
    pairs: list[tuple[str, object]] = [
        (place, f"{count:,}") for place, count in found.places.items()
    ]
    pairs += [("dead", f"{found.dead:,}"), ("records", f"{found.records:,}")]
    console.print(words.facts(pairs))
    for each in found.findings:
        console.print()
        console.print(_heading(each), style="" if each.harmless else "bold red", markup=False)
        console.print(words.safe(each.meaning), soft_wrap=True, markup=False)
        for example in each.examples:
            console.print(f"  {words.safe(example)}", soft_wrap=True, markup=False)
    console.print()
    console.print(_verdict(found), soft_wrap=True, markup=False)


def _heading(finding: Finding) -> str:
    repaired = f", {finding.repaired:,} repaired" if finding.repaired else ""
    return f"{finding.name}: {finding.count:,}{repaired}"


def _verdict(found: Account) -> str:
    took = words.span(found.took_ms)
    if not found.whole:
        return f"Not everything was seen in {took}: give it more with --within."
    if found.clean:
        return f"Every task is where it should be (looked for {took})."
    return f"Something is not where it should be (looked for {took})."
