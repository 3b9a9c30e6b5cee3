"""Accept messages: the one script behind every dispatch, single or bulk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from relier.store.admission import Admission
from relier.store.keys import Keys
from relier.store.operations import Argument, Operation
from relier.store.scripts import load
from relier.store.ttl import LIVE_RECORD_TTL_MS

_ENQUEUE, _BIND, _HASTEN = load("enqueue"), load("bind"), load("hasten")

QUEUED, SCHEDULED, KNOWN = 1, 2, 0


class Outgoing(NamedTuple):
    """One message on its way to a queue.

    Args:
        task_id: the task's id.
        token: the token of this publish.
        generation: see :func:`relier.protocol.identity.generation`.
        suffix: kombu's priority-step suffix of the list, "" for the first.
        delay_ms: how long from the server's now until it is due; 0 for at once.
        name: the task's name.
        raw: the message as kombu would put it into the list.
        expires_ms: how long from the server's now until it is not to begin any more; "" for no word
            of that: it never does, or the record of its life has it.
    """

    task_id: str
    token: str
    generation: int
    suffix: str
    delay_ms: int
    name: str
    raw: str | bytes
    expires_ms: int | str = ""


def enqueue(
    keys: Keys, queue: str, messages: Sequence[Outgoing], admission: Admission | None = None
) -> Operation[list[int]]:
    """Accept messages of one queue, all or none.

    Args:
        admission: the limits to ask first; None when these messages are not subject to any.

    Returns:
        For each message ``QUEUED``, ``SCHEDULED`` or ``KNOWN`` (a repeat of an accepted publish).

    Raises:
        AdmissionRejectedError: when it is run: a limit has no room for them now.
        AdmissionTooLargeError: when it is run: it never has, for so many at once.
    """
    names = [
        keys.queues,
        keys.events(queue),
        keys.list(queue),
        keys.scheduled(queue),
        keys.bell(queue),
    ]
    names += [keys.task(message.task_id) for message in messages]
    arguments: list[Argument] = [queue, LIVE_RECORD_TTL_MS, len(messages)]
    for message in messages:
        arguments += message
    if admission is None:
        return Operation(_ENQUEUE, names, arguments, _verdicts)
    more_names, more_arguments = admission.words(keys)

    def verdicts(reply: Any) -> list[int]:
        admission.raise_refusal(reply)
        return _verdicts(reply)

    return Operation(_ENQUEUE, names + more_names, arguments + more_arguments, verdicts)


def bind(
    keys: Keys, table: str, beside: str, member: str, exchange: str, ttl_ms: int | None
) -> Operation[bool]:
    """Write a queue's binding as kombu does, on a server that has no room for more.

    Args:
        table: kombu's name of the exchange's bindings, without a prefix.
        beside: that of the bindings that stay or, for one that does not, of the tables' deadlines.
        member: the binding, as kombu writes it.
        exchange: the exchange.
        ttl_ms: how long a binding that does not stay is good for; None for one that does.
    """
    arguments: list[Argument] = [member, exchange, "" if ttl_ms is None else ttl_ms]
    return Operation(_BIND, [keys.list(table), keys.list(beside)], arguments, bool)


def hasten(keys: Keys, queue: str, task_id: str, parcel: bytes) -> Operation[bool]:
    """Make a scheduled message due now; False when it is not in the schedule any more."""
    names = [keys.scheduled(queue), keys.bell(queue), keys.events(queue)]
    return Operation(_HASTEN, names, [parcel, task_id], bool)


def _verdicts(reply: Any) -> list[int]:
    return [int(verdict) for verdict in reply]
