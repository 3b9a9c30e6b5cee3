"""The one way by which task messages leave a process: token, outbox, enqueue.

``delay``, canvas, ``retry``, beat and ``send_task`` come through the channel's ``_put``; ``push``
takes a short cut to :func:`send`. Both end in the same script.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from celery._state import get_current_worker_task
from kombu.utils.json import dumps

from relier.protocol import envelope, identity
from relier.protocol.admission import Tenant
from relier.protocol.envelope import Keyring
from relier.protocol.identity import TOKEN_HEADER
from relier.store import publishing
from relier.store.admission import Admission
from relier.store.broker import Broker
from relier.store.operations import Operation
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


REDELIVERED_HEADER = "redelivered"
"""What kombu's Redis transport writes into a message that its consumer put back."""

_requeueing: ContextVar[bool] = ContextVar("relier_requeueing", default=False)
_outbox: ContextVar[Outbox | None] = ContextVar("relier_outbox", default=None)
_consequence: ContextVar[Consequence | None] = ContextVar("relier_consequence", default=None)
_tenant: ContextVar[Tenant | None] = ContextVar("relier_tenant", default=None)
_beats: ContextVar[bool] = ContextVar("relier_beats", default=False)


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


@contextmanager
def requeueing() -> Iterator[None]:
    """Mark publishes inside the block as messages that were delivered before."""
    token = _requeueing.set(True)
    try:
        yield
    finally:
        _requeueing.reset(token)


def own_headers(task_id: str) -> dict[str, Any]:
    """Return the headers that no publish may take over from another, as Celery does on retry."""
    headers: dict[str, Any] = {TOKEN_HEADER: publish_token(task_id)}
    if _requeueing.get():
        headers[REDELIVERED_HEADER] = True
    return headers


def parent() -> Consequence | None:
    """Return on whose behalf consequences are being sent now, if they are."""
    return _consequence.get()


def publish_token(task_id: str) -> str:
    """Return the token for one logical publish; called once, before any retry loop."""
    parent = _consequence.get()
    return parent.token(task_id) if parent else identity.mint_token()


def is_held_back() -> bool:
    """Return whether publishes go into a running task's outbox now."""
    return _outbox.get() is not None


def is_task(message: dict[str, Any]) -> bool:
    """Return whether a kombu message carries a task (protocol 2)."""
    headers = message.get("headers") or {}
    return "task" in headers and "id" in headers


def signed(message: dict[str, Any], keyring: Keyring) -> str:
    """Return a task message as it goes into its queue, with an envelope of this very publish.

    Whatever envelope it has is of an earlier one: Celery copies headers when it retries.
    """
    headers = message["headers"]
    headers.pop(envelope.HEADER, None)
    if keyring.signs:
        headers[envelope.HEADER] = keyring.seal_raw(dumps(message))
    return str(dumps(message))


def outgoing(
    message: dict[str, Any],
    suffix: str,
    delay_ms: int,
    raw: str | bytes,
    expires_ms: int | str = "",
) -> Outgoing:
    """Describe a task message for ``enqueue``."""
    who = identity.identify(message["headers"], message["properties"]["delivery_tag"])
    task_id, token, generation, name = who
    return Outgoing(task_id, token, generation, suffix, delay_ms, name, raw, expires_ms)


def send(
    broker: Broker,
    queue: str,
    message: Outgoing,
    suffixes: str,
    tenant: Tenant | None = None,
) -> None:
    """Enqueue a message, or put it into the running task's outbox.

    Args:
        suffixes: of the lists of the queue, each behind a bar.
        tenant: whose slot it takes beside the cluster's.
    """
    outbox = _outbox.get()
    if outbox is not None:
        outbox.messages.append((queue, message))
    else:
        broker.store.run(accept(broker, queue, [message], suffixes, [tenant]))


def accept(
    broker: Broker,
    queue: str,
    messages: Sequence[Outgoing],
    suffixes: str,
    tenants: Sequence[Tenant | None],
) -> Operation[list[int]]:
    """Return the operation that enqueues messages of one dispatch, if they are admitted."""
    admission = None
    limited = broker.admission.limit_everyone or any(tenants)
    if limited and is_subject(messages[0].generation):
        admission = Admission(broker.admission, tenants, suffixes)
    return publishing.enqueue(broker.keys, queue, messages, admission)


@contextmanager
def on_account_of(tenant: Tenant | None) -> Iterator[None]:
    """Say whose slot the publish inside the block takes, on its way through Celery and kombu."""
    token = _tenant.set(tenant)
    try:
        yield
    finally:
        _tenant.reset(token)


def account() -> Tenant | None:
    """Return whose slot the publish under way takes."""
    return _tenant.get()


def is_subject(generation: int) -> bool:
    """Return whether what is published now, in this place, may be refused admission.

    What was accepted must be able to go on: retries and other later generations, consequences, and
    what Celery's own tasks send (a chord's body). Nor is anybody there to come back with what beat
    sends; its rate is its schedule's.
    """
    if generation > 0 or _consequence.get() or _outbox.get() is not None or _beats.get():
        return False
    running = get_current_worker_task()
    return running is None or not str(running.name).startswith("celery.")


def exempt_beat(**_: Any) -> None:
    """Take what this thread publishes out of admission, when beat's service starts in it."""
    _beats.set(True)
