"""`rl doctor`."""

from __future__ import annotations

import click

from relier.cli import common, words
from relier.cli.common import Asked
from relier.ops import doctor as examination


@click.command()
@common.command
def doctor(asked: Asked) -> int:
    """Check that Redis and the fleet can keep the promises; exit 1 if they cannot."""
    found = examination.examine(asked.broker)
    if not asked.answer({"healthy": found.healthy, "server": found.server, "checks": found.checks}):
        console = common.console()
        console.print(f"Redis at {found.server}", soft_wrap=True)
        rows = [(words.styled(check.status), check.name, check.found) for check in found.checks]
        console.print(words.table(("", "check", "found"), rows))
        for check in found.checks:
            if check.fix:
                console.print(f"{check.name}: {check.fix}", soft_wrap=True, markup=False)
    return 0 if found.healthy else common.FAILED
