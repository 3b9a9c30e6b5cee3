"""A worker says that it is there, that it lives, drains, and leaves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from relier.store.keys import Keys
from relier.store.operations import Argument, Operation, pairs, text
from relier.store.scripts import load

_HELLO, _BEAT, _GOODBYE = load("hello"), load("beat"), load("goodbye")
_DRAIN, _DRAINED = load("drain"), load("drained")


class Seen(NamedTuple):
    """The server's answer to a beat.

    Args:
        alive: False when the worker must go on under a new id.
        drain: the order to drain, or "".
        stop: tags of the claims whose tasks are to be stopped; said with each beat until the
            worker says that it was done.
    """

    alive: bool
    drain: str
    stop: tuple[str, ...] = ()


def hello(keys: Keys, worker: str, fields: Mapping[str, Argument]) -> Operation[bool]:
    """Create a worker's entry; the worker id must be new."""
    arguments: list[Argument] = [worker, *pairs(fields)]
    return Operation(_HELLO, [keys.worker(worker), keys.workers], arguments, bool)


def beat(
    keys: Keys, worker: str, fields: Mapping[str, Argument], stopped: Iterable[str] = ()
) -> Operation[Seen]:
    """Say that the worker lives, and hear what it is to do.

    Args:
        stopped: tags of the claims whose orders to stop are not to be said again.
    """
    arguments: list[Argument] = ["\n".join(stopped), *pairs(fields)]
    return Operation(_BEAT, [keys.worker(worker)], arguments, _seen)


RESTART = "restart"
"""The third part of an order: the worker's process is to begin anew when it has drained."""


def drain(keys: Keys, worker: str, order: str, *, restart: bool = False) -> Operation[bool]:
    """Order a worker to drain; False when there is no such worker, or it cannot restart itself.

    Args:
        order: an id of the order, "|", and the ms that running tasks may take or "".
        restart: its process is to begin anew then.
    """
    arguments: list[Argument] = [f"{order}|{RESTART}", 1] if restart else [order, 0]
    return Operation(_DRAIN, [keys.worker(worker)], arguments, bool)


def drained(keys: Keys, worker: str, queue: str, account: Sequence[int]) -> Operation[bool]:
    """Say what became of all that a worker held.

    Args:
        queue: any of its queues; the event goes to that one's.
        account: how many were completed, handed over, given back, and neither.
    """
    text = "|".join(map(str, account))
    names = [keys.worker(worker), keys.events(queue)]
    return Operation(_DRAINED, names, [worker, text], bool)


def goodbye(keys: Keys, worker: str, queues: Sequence[str]) -> Operation[bool]:
    """Remove the worker's entry if it holds nothing."""
    claims = (keys.claims(queue, worker) for queue in queues)
    names = [keys.worker(worker), keys.workers, keys.past_workers, *claims]
    return Operation(_GOODBYE, names, [worker], bool)


def _seen(reply: list[Any]) -> Seen:
    return Seen(bool(reply[0]), text(reply[1]), tuple(text(reply[2]).splitlines()))
