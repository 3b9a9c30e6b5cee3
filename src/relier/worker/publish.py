"""The one way by which task messages leave a process: token, outbox, enqueue.

``delay``, canvas, ``retry``, beat and ``send_task`` come through the channel's ``_put``; ``push``
takes a short cut to :func:`send`. Both end in the same script.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from relier.protocol import identity
from relier.store import publishing
from relier.store.broker import Broker
from relier.store.publishing import Outgoing

CONSEQUENCE_PREFIX = "c-"
"""Marks tokens that may be sent again while a parent's outcome waits (see lua/lib/life.lua)."""


@dataclass
class Outbox:
    """Publishes that a running task holds back until its commit."""

    messages: list[tuple[str, Outgoing]] = field(default_factory=list)


@dataclass(frozen=True)
class Consequence:
    """The parent on whose behalf consequences are being sent.

    Args:
        root: the root token of its life.
        task_id: its id.
        generation: its generation.
    """

    root: str
    task_id: str
    generation: int

    def token(self, task_id: str) -> str:
        """Return the token of one consequence: the same one each time it is sent."""
        derived = identity.derive(self.root, self.task_id, self.generation, f"token {task_id}")
        return f"{CONSEQUENCE_PREFIX}{derived}"


_outbox: ContextVar[Outbox | None] = ContextVar("relier_outbox", default=None)
_consequence: ContextVar[Consequence | None] = ContextVar("relier_consequence", default=None)


@contextmanager
def held_back(outbox: Outbox) -> Iterator[None]:
    """Catch publishes inside the block instead of sending them."""
    token = _outbox.set(outbox)
    try:
        yield
    finally:
        _outbox.reset(token)


@contextmanager
def on_behalf_of(parent: Consequence) -> Iterator[None]:
    """Derive the tokens of publishes inside the block from their parent."""
    token = _consequence.set(parent)
    try:
        yield
    finally:
        _consequence.reset(token)


def publish_token(task_id: str, minted: str = "") -> str:
    """Return the token for one logical publish; called once, before any retry loop.

    Args:
        task_id: the published task.
        minted: a fresh random token to use, when the caller has one.
    """
    parent = _consequence.get()
    return parent.token(task_id) if parent else minted or identity.mint_token()


def is_held_back() -> bool:
    """Return whether publishes go into a running task's outbox now."""
    return _outbox.get() is not None


def is_task(message: dict[str, Any]) -> bool:
    """Return whether a kombu message carries a task (protocol 2)."""
    headers = message.get("headers") or {}
    return "task" in headers and "id" in headers


def outgoing(message: dict[str, Any], suffix: str, delay_ms: int, raw: str | bytes) -> Outgoing:
    """Describe a task message for ``enqueue``."""
    who = identity.identify(message["headers"], message["properties"]["delivery_tag"])
    return Outgoing(who.task_id, who.token, who.generation, suffix, delay_ms, who.name, raw)


def send(broker: Broker, queue: str, message: Outgoing) -> None:
    """Enqueue a message, or put it into the running task's outbox."""
    outbox = _outbox.get()
    if outbox is not None:
        outbox.messages.append((queue, message))
    else:
        broker.store.run(publishing.enqueue(broker.keys, queue, [message]))
