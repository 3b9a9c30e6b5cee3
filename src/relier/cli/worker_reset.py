"""`rl worker reset`."""

from __future__ import annotations

import click

from relier.cli import common, words
from relier.cli.common import Asked
from relier.cli.worker_status import chosen
from relier.errors import RelierError
from relier.ops import fleet, reset
from relier.ops.reset import Judged, Reset


@click.command("reset")
@click.argument("name", metavar="WORKER")
@click.option("--force", is_flag=True, help="Though it lives: what it runs starts again elsewhere.")
@click.option("--yes", is_flag=True, help="Do not ask, with --force.")
@click.option(
    "--timeout",
    "timeout_s",
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    type=common.FloatRange(0, 3600),
    help="How long to wait for its tasks to be brought back.",
)
@common.command
def reset_(asked: Asked, name: str, force: bool, yes: bool, timeout_s: float) -> int:
    """Forget a worker that is dead: have what it held brought back now.

    It is watched for two seconds, and refused if it lives. Workers and resurrectors notice the dead
    by themselves; this is for one whose lease is long, or when none of them could. They also do the
    moving, by their own limits: what it ran comes back as after any death, and what it had not
    begun goes back unblamed.

    With --force a worker that lives is given up all the same. It goes on under another id, and
    what it runs, and another worker now starts, commits nothing there.

    \b
    Example: rl worker reset printer-3
    """
    broker = asked.broker
    judged = reset.watch(broker.store, chosen(fleet.workers(broker.store), name))
    dead = [each for each in judged if force or each.state == reset.DEAD]
    if not dead:
        raise RelierError(_refusal(judged))
    if force and len(dead) > 1:
        ids = " or ".join(each.worker_id for each in dead)
        raise click.UsageError(f"{len(dead)} workers go by {name}: give the id of one, {ids}.")
    if force:
        common.sure(asked, yes, f"{dead[0].name}: {dead[0].why}. What it runs starts elsewhere.")
    done = [reset.forget(broker, each, force=force, timeout_s=timeout_s) for each in dead]
    found = [each for each in done if each is not None]
    if not found:
        raise RelierError(f"{name} lives after all, and was left alone.")
    if not asked.answer({"workers": found}):
        for each in found:
            _say(each)
    return 0 if all(each.gone for each in found) else common.FAILED


def _refusal(judged: list[Judged]) -> str:
    found = "; ".join(f"{each.name} ({each.worker_id}): {each.why}" for each in judged)
    return (
        f"not reset: {found}. `rl worker drain` stops a living worker without blame; "
        "--force --yes gives it up"
    )


def _say(done: Reset) -> None:
    held = (
        f"{words.count(done.running, 'task')} that it ran, {done.claimed:,} that it had not begun, "
        f"{done.committed:,} that had ended"
    )
    said = f"Forgot {done.name} ({done.worker_id}); brought back: {held}."
    if not done.gone:
        said = (
            f"Marked {done.name} ({done.worker_id}) as dead, but nobody has brought back what it "
            f"held yet: {held}. A worker does, or `rl run-resurrector`."
        )
    click.echo(words.safe(said))
