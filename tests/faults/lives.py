"""The lives that are cut short: what each publishes, and what must have happened in the end.

What runs on the victim is what its queue is given; the calm worker does the rest.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from celery import chain, chord, group

VICTIM, CALM = "victim", "calm"


@dataclass(frozen=True)
class Life:
    """One canvas, and what must be in the journal when all is over."""

    name: str
    publish: Callable[[Any], str]
    once: Sequence[tuple[object, ...]]
    never: Sequence[tuple[object, ...]] = ()


def _link_and_chord(app: Any) -> str:
    part, first, second = app.tasks["part"], str(uuid.uuid4()), str(uuid.uuid4())
    link = app.tasks["effect"].s("link").set(queue=CALM)
    one = part.s(1, after=second).set(queue=VICTIM, task_id=first, link=[link])
    two = part.s(2).set(queue=CALM, task_id=second)
    chord([one, two], app.tasks["total"].s().set(queue=CALM)).apply_async()
    return first


def _failure_in_chord(app: Any) -> str:
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    failed = app.tasks["failed"]
    errback = failed.s("part").set(queue=CALM)
    one = app.tasks["failing"].s(after=second)
    one = one.set(queue=VICTIM, task_id=first, link_error=[errback])
    two = app.tasks["part"].s(2).set(queue=CALM, task_id=second)
    body = app.tasks["total"].s().set(queue=CALM)
    chord([one, two], body.on_error(failed.s("body").set(queue=CALM))).apply_async()
    return first


def _stopped_in_chord(app: Any) -> str:
    first, failed = str(uuid.uuid4()), app.tasks["failed"]
    one = app.tasks["stopped"].s().set(queue=VICTIM, task_id=first)
    one = one.set(link_error=[failed.s("part").set(queue=CALM)])
    two = app.tasks["part"].s(2).set(queue=CALM)
    body = app.tasks["total"].s().set(queue=CALM)
    chord([one, two], body.on_error(failed.s("body").set(queue=CALM))).apply_async()
    return first


def _failing_chain_in_chord(app: Any) -> str:
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    failed = app.tasks["failed"]
    one = app.tasks["failing"].s(after=second).set(queue=VICTIM, task_id=first)
    one = chain(one, app.tasks["effect"].s("rest").set(queue=CALM))
    two = app.tasks["part"].s(2).set(queue=CALM, task_id=second)
    # Where nobody but a poll knows that a part has failed, the poll runs where the body would.
    body = app.tasks["total"].s().set(queue=VICTIM)
    chord([one, two], body.on_error(failed.s("body").set(queue=CALM))).apply_async()
    return first


def _chain_into_chord(app: Any) -> str:
    first, effect = str(uuid.uuid4()), app.tasks["effect"]
    fan = group(effect.s("left").set(queue=CALM), effect.s("right").set(queue=CALM))
    head = app.tasks["part"].s(1).set(queue=VICTIM, task_id=first)
    chain(head, fan, app.tasks["effect"].si(0, "end").set(queue=CALM)).apply_async()
    return first


def _canvas_callbacks(app: Any) -> str:
    first, effect = str(uuid.uuid4()), app.tasks["effect"]
    fan = group(effect.s("left").set(queue=CALM), effect.s("right").set(queue=CALM))
    header = [effect.s("up").set(queue=CALM), effect.s("down").set(queue=CALM)]
    joined = chord(header, effect.si(0, "end").set(queue=CALM))
    part = app.tasks["part"].s(1).set(queue=VICTIM, task_id=first, link=[fan, joined])
    part.apply_async()
    return first


def _climb(app: Any) -> str:
    first = str(uuid.uuid4())
    link = app.tasks["effect"].s("link").set(queue=CALM)
    app.tasks["climb"].s().set(queue=VICTIM, task_id=first, link=[link]).apply_async()
    return first


def _retry(app: Any) -> str:
    first = str(uuid.uuid4())
    link = app.tasks["effect"].s("link").set(queue=CALM)
    app.tasks["again"].s().set(queue=VICTIM, task_id=first, link=[link]).apply_async()
    return first


def _replace(app: Any) -> str:
    first = str(uuid.uuid4())
    link = app.tasks["effect"].s("link").set(queue=CALM)
    app.tasks["swap"].s().set(queue=VICTIM, task_id=first, link=[link]).apply_async()
    return first


def _map(app: Any) -> str:
    first, effect = str(uuid.uuid4()), app.tasks["effect"].s("link").set(queue=CALM)
    app.tasks["part"].map([1, 2]).apply_async(queue=VICTIM, task_id=first, link=[effect])
    return first


def _accumulate(app: Any) -> str:
    """A chord whose body is Celery's own `accumulate`, on the victim."""
    first, part = str(uuid.uuid4()), app.tasks["part"]
    link = app.tasks["effect"].s("link").set(queue=CALM)
    body = app.tasks["celery.accumulate"].s(index=0)
    body = body.set(queue=VICTIM, task_id=first, link=[link])
    chord([part.s(1).set(queue=CALM), part.s(2).set(queue=CALM)], body).apply_async()
    return first


def _body_on_victim(app: Any) -> str:
    """A chord whose body, and what waits for its parts, runs on the victim."""
    part = app.tasks["part"]
    header = [part.s(number).set(queue=CALM) for number in (1, 2)]
    link = app.tasks["effect"].s("link").set(queue=CALM)
    body = app.tasks["total"].s().set(queue=VICTIM, link=[link])
    return str(chord(header, body).apply_async().id)


LINKED_PART = Life(
    "link and chord", _link_and_chord, [("total", "[10, 20]"), ("effect", "link", 10)]
)
FAILED_PART = Life(
    "failure in chord", _failure_in_chord, [("failed", "part"), ("failed", "body")], [("total",)]
)
STOPPED_PART = Life(
    "hard timeout in chord",
    _stopped_in_chord,
    [("failed", "part"), ("failed", "body")],
    [("total",), ("outlived",)],
)
FAILED_CHAIN = Life(
    "failing chain in chord",
    _failing_chain_in_chord,
    [("failed", "body")],
    [("total",), ("effect",)],
)
FAN = Life(
    "chain into chord",
    _chain_into_chord,
    [("effect", "left", 10), ("effect", "right", 10), ("effect", "end", 0)],
)
CANVAS_CALLBACKS = Life(
    "canvas callbacks",
    _canvas_callbacks,
    [("effect", word, 10) for word in ("left", "right", "up", "down")] + [("effect", "end", 0)],
)
CLIMB = Life("checkpoints", _climb, [("effect", "link", 3)])
RETRY = Life("retry", _retry, [("effect", "link", 1)])
REPLACE = Life("replace", _replace, [("total", "[10, 20]"), ("effect", "link", 30)])
MAP = Life("a built-in task", _map, [("effect", "link", "[10, 20]")])
ACCUMULATE = Life("accumulate", _accumulate, [("effect", "link", "[10, 20]")])
BODY = Life("chord's body", _body_on_victim, [("effect", "link", 30)])

LIVES = [
    LINKED_PART,
    FAILED_PART,
    STOPPED_PART,
    FAILED_CHAIN,
    FAN,
    CANVAS_CALLBACKS,
    CLIMB,
    RETRY,
    REPLACE,
]
"""The lives of any task, whatever keeps its result."""
