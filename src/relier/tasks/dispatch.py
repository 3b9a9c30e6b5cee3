"""Send a task's messages in one round trip, single or in bulk, from sync and async code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

from celery import signals
from celery._state import get_current_worker_task

from relier.errors import AdmissionRejectedError, AdmissionTooLargeError
from relier.protocol.admission import Tenant
from relier.store.broker import Broker
from relier.store.operations import Operation
from relier.store.publishing import Outgoing
from relier.tasks.message import MessageTemplate
from relier.tasks.receipt import Receipt, Receipts
from relier.worker import publish

CHUNK = 125
"""Messages per bulk script: Redis is blocked for less than 5 ms."""


class Dispatcher:
    """Build and send one task's messages.

    Args:
        task: the bound task.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        self._app = task.app
        self._broker: Broker = task.app.relier.broker
        self._options = task._get_exec_options()
        self._queue, self._plain = self._route(self._options)
        self._template = MessageTemplate(task, self._queue, self._options)

    def push(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Receipt:
        """Send one call."""
        if not self._short_cut():
            return _receipt(self._task.apply_async(args, kwargs))
        message, tenant = self._build(args, kwargs)
        publish.send(self._broker, self._queue, message, self._template.suffixes, tenant)
        return self._sent(message.task_id)

    async def apush(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Receipt:
        """Send one call from asyncio code."""
        if not self._short_cut() or publish.is_held_back():
            return self.push(args, kwargs)
        message, tenant = self._build(args, kwargs)
        await self._broker.async_store().run(self._accept([message], [tenant]))
        return self._sent(message.task_id)

    def push_many(self, calls: Iterable[Any]) -> Receipts:
        """Send many calls, a chunk per script; the next is built while Redis works."""
        if not self._short_cut() or publish.is_held_back():
            return self._one_by_one(calls)
        ids: list[str] = []
        with _telling(ids):
            self._broker.store.run_all(self._chunks(calls, ids))
        return self._receipts(ids)

    async def apush_many(self, calls: Iterable[Any]) -> Receipts:
        """Send many calls from asyncio code."""
        if not self._short_cut() or publish.is_held_back():
            return self._one_by_one(calls)
        store, ids = self._broker.async_store(), list[str]()
        with _telling(ids):
            for operation in self._chunks(calls, ids):
                await store.run(operation)
        return self._receipts(ids)

    def _one_by_one(self, calls: Iterable[Any]) -> Receipts:
        ids: list[str] = []
        with _telling(ids):
            for each in calls:
                ids.append(self.push(*_call(each)).id)
        return self._receipts(ids)

    def _chunks(self, calls: Iterable[Any], ids: list[str]) -> Iterator[Operation[list[int]]]:
        """Yield an operation per chunk; what is accepted is noted in ``ids``."""
        waiting, build = iter(calls), self._build
        while chunk := [build(*_call(each)) for each in islice(waiting, CHUNK)]:
            messages = [message for message, _ in chunk]
            accept = self._accept(messages, [tenant for _, tenant in chunk])
            yield accept._replace(parse=partial(_note, accept.parse, messages, ids))

    def _build(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Outgoing, Tenant | None]:
        message = self._template.build(args, kwargs)
        return message, self._task.admission_tenant(args, kwargs)

    def _accept(
        self, messages: list[Outgoing], tenants: list[Tenant | None]
    ) -> Operation[list[int]]:
        suffixes = self._template.suffixes
        return publish.accept(self._broker, self._queue, messages, suffixes, tenants)

    def _short_cut(self) -> bool:
        """Return whether messages may go straight to the script."""
        if not self._plain or self._app.conf.task_always_eager:
            return False
        # Whoever listens to publishing wants Celery's own way, with all its arguments.
        return not (signals.before_task_publish.receivers or signals.after_task_publish.receivers)

    def _route(self, options: dict[str, Any]) -> tuple[str, bool]:
        """Return the queue, and whether it is a plain one that the short cut may serve."""
        routed = self._app.amqp.router.route(options, self._task.name, (), {})
        queue = routed.get("queue")
        if queue is None:
            queue = self._app.amqp.queues[self._app.conf.task_default_queue]
        plain = (
            (queue.exchange is None or queue.exchange.type in ("direct", None))
            and not routed.get("exchange")
            and not options.get("compression")
            and not self._app.conf.task_compression
            and not (queue.queue_arguments or {}).get("x-expires")
            and queue.expires is None
        )
        return queue.name, plain

    def _sent(self, task_id: str) -> Receipt:
        receipt = self._receipts([task_id])[0]
        parent = get_current_worker_task()
        if parent is not None and self._options.get("add_to_parent", parent.trail):
            parent.add_trail(receipt)
        return receipt

    def _receipts(self, ids: list[str]) -> Receipts:
        return Receipts(ids, self._app, self._task.name, ignored=bool(self._task.ignore_result))


def _note(parse: Any, messages: list[Outgoing], ids: list[str], reply: Any) -> list[int]:
    verdicts: list[int] = parse(reply)
    ids += [message.task_id for message in messages]
    return verdicts


@contextmanager
def _telling(ids: list[str]) -> Iterator[None]:
    """Have an error of admission say what was accepted before."""
    try:
        yield
    except (AdmissionRejectedError, AdmissionTooLargeError) as error:
        error.accepted = tuple(ids)
        raise


def _call(each: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Read one item of a bulk dispatch."""
    if isinstance(each, tuple):
        return each, {}
    if isinstance(each, dict):
        return (), each
    return (each,), {}


def _receipt(result: Any) -> Receipt:
    """Return Celery's own result as a receipt; eager results stay what they are."""
    if type(result).__name__ == "AsyncResult":
        result.__class__ = Receipt
    found: Receipt = result
    return found
