"""Tasks that fail in every way in which tasks end as dead letters."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery
from celery.exceptions import Reject

from relier import Relier, TaskContext, rl_task
from support.journal import Journal

app = Celery("morgue", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
Relier(app, env="development", max_resurrections=0)


class CardError(Exception):
    pass


def note(*words: object) -> None:
    Journal.from_env().write(*words)


def _gateway(customer: str) -> None:
    raise CardError(f"no card of '{customer}' at 0x{id(customer):x}")


@rl_task(name="morgue.charge", app=app, queue="bills")
def charge(customer: str, *, cents: int = 0) -> str:
    """Fail until the customer has paid in: a file of that name."""
    note("charge", customer, cents)
    if not (Path(os.environ["MORGUE"]) / customer[:50]).exists():
        _gateway(customer)
    return f"{customer} paid {cents}"


@rl_task(name="morgue.lookup", app=app, queue="bills")
def lookup(number: int) -> None:
    note("lookup", number)
    raise KeyError(f"order {number}")


@rl_task(name="morgue.hoard", app=app)
def hoard(size: int, ctx: TaskContext) -> None:
    """Save much, and fail."""
    ctx.save_partial("x" * size)
    raise ValueError("hoarded")


@rl_task(name="morgue.reject", app=app)
def reject() -> None:
    raise Reject("not mine", requeue=False)


@rl_task(name="morgue.poison", app=app)
def poison(antidote: str, ctx: TaskContext) -> str:
    """Take the process down, for as long as there is no antidote."""
    note("poison", antidote)
    ctx.save_partial({"swallowed": 1, "note": "\x1b[2Jgone"})
    if not Path(antidote).exists():
        os.kill(os.getpid(), 9)
    return "survived"
