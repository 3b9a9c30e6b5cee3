"""`rl tasks cancel` and `rl tasks retry`."""

from __future__ import annotations

import time

import click

from relier.cli import common, task_logs, words
from relier.cli.common import Asked
from relier.ops import orders
from relier.ops.orders import Cancelled, Retried
from relier.ops.places import DEAD, ENDED, QUEUED, RUNNING, SCHEDULED

_STOPS_WITHIN_S = 10.0
_LOOK_EVERY_S = 0.1


@click.command()
@click.argument("task_id", metavar="ID")
@click.option("--terminate", is_flag=True, help="If it runs, have its worker stop it.")
@common.command
def cancel(asked: Asked, task_id: str, terminate: bool) -> int:
    """Have a task not run, wherever it waits: queued, scheduled, parked, or for a retry.

    The order is kept with the task, so that no restart forgets it. The task ends as REVOKED when a
    worker would have started it; whoever waits for its result, and a chord, hear of that. One that
    runs goes on, unless --terminate is given: then its pool process is killed. Threads cannot be:
    there the task's body goes on, and nothing that it does counts.

    Exits with 1 when there was nothing to cancel, or when it was not stopped: it ended by itself
    before, or its worker did not answer within 10 s.

    \b
    Example: rl tasks cancel 1f0c7a52-5d1c-4f7a-9d5e-0a5c3b8f6e21 --terminate
    """
    store = asked.broker.store
    found = orders.cancel(store, task_id, terminate=terminate)
    if found is None:
        raise task_logs.unknown(asked.broker.store, task_id)
    ended = found.ordered and _ended(asked, task_id)
    how = orders.end_of(store, found) if ended else ""
    stopped = how == orders.STOPPED
    done = found.noted and (stopped or not terminate or found.state != RUNNING)
    if not asked.answer({"cancelled": found, "stopped": stopped, "ended_by_itself": _itself(how)}):
        click.echo(words.safe(_said(found, terminate=terminate, ended=ended, how=how)))
    return 0 if done else common.FAILED


@click.command()
@click.argument("task_id", metavar="ID")
@common.command
def retry(asked: Asked, task_id: str) -> int:
    """Have a task run now that is dead or scheduled (for later, a retry, or after a death).

    A dead one gets a new life, as by `rl dlq release`, which has more to choose from.

    Exits with 1 when there was nothing to do: it waits for a worker, runs, or has ended.

    \b
    Example: rl tasks retry 1f0c7a52-5d1c-4f7a-9d5e-0a5c3b8f6e21
    """
    broker = asked.broker
    found = orders.retry(broker.store, task_id, broker.keyring)
    if found is None:
        raise task_logs.unknown(asked.broker.store, task_id)
    done = found.hastened or (found.release is not None and found.release.released)
    if not asked.answer(found):
        click.echo(words.safe(_said_of_retry(found)))
    return 0 if done else common.FAILED


def _itself(how: str) -> str | None:
    """Return the state in which a run ended before it could be stopped."""
    return how if how and how != orders.STOPPED else None


def _ended(asked: Asked, task_id: str) -> bool:
    until_s = time.monotonic() + _STOPS_WITHIN_S
    while orders.still_runs(asked.broker.store, task_id):
        if time.monotonic() > until_s:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True


def _said(found: Cancelled, *, terminate: bool, ended: bool, how: str) -> str:
    if not found.noted:
        return f"{found.task_id} had ended: there is nothing to cancel."
    if found.state != RUNNING:
        return f"{found.task_id} ({found.state}) will not run: a worker ends it as REVOKED."
    if how == orders.STOPPED:
        return f"{found.task_id} was stopped; its result is REVOKED."
    if how:
        return f"{found.task_id} ended by itself ({how}) before it could be stopped."
    if found.ordered and not ended:
        return (
            f"{found.task_id} was not stopped within {_STOPS_WITHIN_S:g} s: look at its worker "
            "with `rl worker status`."
        )
    if found.too_old:
        return (
            f"{found.task_id} runs on, and will not run again: the relier of its worker is too old "
            "to be told to stop it."
        )
    if terminate:
        return f"{found.task_id} has just left its worker; it will not run again."
    return f"{found.task_id} runs on, and will not run again; --terminate stops it."


def _said_of_retry(found: Retried) -> str:
    if found.release is not None:
        if found.release.alive:
            return f"{found.task_id} was dispatched anew and lives: there is nothing to do."
        if found.release.released:
            return f"{found.task_id} has a new life in {found.queue}."
        return f"{found.task_id}: somebody else was quicker."
    if found.hastened:
        return f"{found.task_id} is due now in {found.queue}."
    if found.state == SCHEDULED:
        return f"{found.task_id} has just become due by itself."
    if found.state in (ENDED, DEAD):
        return (
            f"{found.task_id} has ended, and its message is gone: dispatch it anew. Tasks with "
            "dead_letter=True keep their message when they fail."
        )
    where = f"waits for a worker in {found.queue}" if found.state == QUEUED else found.state
    return f"{found.task_id} {where}: there is nothing to do."
