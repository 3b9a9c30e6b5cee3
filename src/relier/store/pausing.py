"""Pause a queue, and let it go on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from relier.store.keys import Keys
from relier.store.operations import Operation, text
from relier.store.scripts import load

_PAUSE, _RESUME = load("pause"), load("resume")
_NOTE = re.compile(r"(\d+)\|[^|]*\|([^|]*)\|(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause, and who ordered it.

    Args:
        at_ms: since when, on the server's clock; 0 when it was not relier that paused.
        by: by whom, as they called themselves.
        reason: why, or "".
    """

    at_ms: int
    by: str
    reason: str


class Paused(NamedTuple):
    """The answer to an order to pause.

    Args:
        ours: False when the queue was paused before; that pause stands.
        pause: the one that stands.
    """

    ours: bool
    pause: Pause


def pause(keys: Keys, queue: str, order: str, by: str, reason: str) -> Operation[Paused]:
    """Have no worker start a task of a queue.

    Args:
        order: an id of this order.
        by: who gives it.
        reason: why, for people.
    """
    arguments = [order, by.replace("|", "/"), reason]
    return Operation(_PAUSE, [keys.paused(queue)], arguments, _paused)


def resume(keys: Keys, queue: str) -> Operation[bool]:
    """End a queue's pause; False when it was not paused."""
    return Operation(_RESUME, [keys.paused(queue), keys.bell(queue)], [], bool)


def read(note: bytes | str) -> Pause:
    """Read what stands in a queue's ``paused``; anything there pauses it."""
    said = note.decode(errors="replace") if isinstance(note, bytes) else note
    found = _NOTE.fullmatch(said)
    return Pause(int(found[1]), found[2], found[3]) if found else Pause(0, "", said)


def _paused(reply: list[Any]) -> Paused:
    return Paused(bool(reply[0]), read(text(reply[1])))
