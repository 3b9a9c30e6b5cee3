"""`rl admission`."""

from __future__ import annotations

import click

from relier.cli import common, words
from relier.cli.common import Asked, NotFoundError
from relier.ops import admission as gate
from relier.ops.admission import Status


@click.group()
def admission() -> None:
    """Admission: how much is let in per window, and how much of that is used."""


@admission.command()
@common.command
def status(asked: Asked) -> None:
    """Show the limits, and what is used of them now.

    \b
    Example: rl admission status
    """
    found = gate.status(asked.broker)
    if asked.answer(found):
        return
    console = common.console()
    console.print(words.facts(_set_here(found)))
    console.print()
    if not found.usages:
        console.print("Nothing counts now: no limit applies, or nobody dispatched in its window.")
        return
    rows = [
        (
            each.tenant or "(cluster)",
            f"{each.used:,} of {each.at_once:,}",
            f"{each.limit:,} in {each.window_s:g} s",
            each.mode,
            f"in {words.span(each.retry_after_s * 1000)}" if each.retry_after_s else "now",
        )
        for each in found.usages
    ]
    console.print(words.table(("tenant", "used", "limit", "mode", "next slot"), rows))


@admission.command()
@click.option("--tenant", metavar="TENANT", help="Only this tenant's, as status shows its name.")
@common.command
def reset(asked: Asked, tenant: str | None) -> None:
    """Forget what was admitted: every limit is whole again. No task is touched.

    \b
    Example: rl admission reset --tenant acme
    """
    if tenant == "":
        raise click.BadParameter("give the tenant's name", param_hint="--tenant")
    done = gate.reset(asked.broker.store, tenant)
    if tenant is not None and not done.counts:
        raise NotFoundError(
            f"nothing counts for the tenant {tenant}: `rl admission status` shows who there is"
        )
    if not asked.answer(done):
        whose = f"of {tenant}" if tenant is not None else "of the cluster and of every tenant"
        common.console().print(f"Reset the limits {whose}: {words.count(done.counts, 'count')}.")


def _set_here(found: Status) -> list[tuple[str, object]]:
    """Return the settings as this machine has them; what dispatchers apply stands in the table."""
    per_window = f"in {found.window_s:g} s"
    burst = f", {found.burst:,} at once" if found.mode == "smooth" else ""
    return [
        ("cluster", f"{found.limit:,} {per_window}{burst}" if found.limit else "no limit"),
        ("tenant", f"{found.tenant_limit:,} {per_window}" if found.tenant_limit else "no limit"),
        ("queue depth", f"{found.max_queue_depth:,}" if found.max_queue_depth else "no limit"),
        ("mode", found.mode),
    ]
