"""Send a task's messages in one round trip, single or in bulk, from sync and async code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from celery import signals
from celery._state import get_current_worker_task

from relier.store import publishing
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
        message = self._template.build(args, kwargs)
        publish.send(self._broker, self._queue, message)
        return self._sent(message.task_id)

    async def apush(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Receipt:
        """Send one call from asyncio code."""
        if not self._short_cut() or publish.is_held_back():
            return self.push(args, kwargs)
        message = self._template.build(args, kwargs)
        await self._broker.async_store().run(self._enqueue([message]))
        return self._sent(message.task_id)

    def push_many(self, calls: Iterable[Any]) -> Receipts:
        """Send many calls, a chunk per script; the next is built while Redis works."""
        if not self._short_cut() or publish.is_held_back():
            return self._receipts([self.push(*_call(each)).id for each in calls])
        ids: list[str] = []
        self._broker.store.run_all(self._chunks(calls, ids))
        return self._receipts(ids)

    async def apush_many(self, calls: Iterable[Any]) -> Receipts:
        """Send many calls from asyncio code."""
        if not self._short_cut() or publish.is_held_back():
            return self._receipts([self.push(*_call(each)).id for each in calls])
        store, ids = self._broker.async_store(), list[str]()
        for operation in self._chunks(calls, ids):
            await store.run(operation)
        return self._receipts(ids)

    def _chunks(self, calls: Iterable[Any], ids: list[str]) -> Iterator[Operation[list[int]]]:
        waiting, build = iter(calls), self._template.build
        while chunk := [build(*_call(each)) for each in islice(waiting, CHUNK)]:
            ids += [message.task_id for message in chunk]
            yield self._enqueue(chunk)

    def _enqueue(self, messages: list[Outgoing]) -> Operation[list[int]]:
        return publishing.enqueue(self._broker.keys, self._queue, messages)

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
