"""Build task messages fast, and send them in one round trip.

A message is a protocol 2 task message in kombu's envelope, byte for byte what a stock worker reads.
What does not change from call to call is prepared once per task.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec
from celery import signals
from celery._state import get_current_worker_task
from celery.utils.nodenames import anon_nodename
from celery.utils.saferepr import saferepr
from kombu import serialization
from kombu.exceptions import EncodeError
from kombu.utils.uuid import uuid

from relier.errors import PayloadError
from relier.protocol.identity import TOKEN_HEADER
from relier.store import publishing
from relier.store.broker import Broker
from relier.store.publishing import Outgoing
from relier.tasks.receipt import Receipt
from relier.worker import publish
from relier.worker.delivery import until_ms

CHUNK = 250
"""Messages per bulk script: Redis is blocked for less than 5 ms."""

_encode = msgspec.json.Encoder().encode
_SEP = "\x06\x16"
_STEPS = (0, 3, 6, 9)


class Dispatcher:
    """Build and send one task's messages.

    Args:
        task: the bound task.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        self._app = task.app
        self._broker: Broker = task.app.relier.broker
        options = task._get_exec_options()
        self._serializer = options.get("serializer") or self._app.conf.task_serializer
        self._queue, self._plain = self._route(options)
        self._suffix, self._priority = self._place(options.get("priority"))
        self._fixed = _Fixed(task, options)
        self._options = options

    # -- sending

    def push(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Receipt:
        """Send one call."""
        if not self._short_cut():
            return _receipt(self._task.apply_async(args, kwargs))
        message = self._build(args, kwargs)
        publish.send(self._broker, self._queue, message)
        return self._sent(message)

    async def apush(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Receipt:
        """Send one call from asyncio code."""
        if not self._short_cut():
            return _receipt(self._task.apply_async(args, kwargs))
        message = self._build(args, kwargs)
        store = self._broker.async_store()
        await store.run(publishing.enqueue(self._broker.keys, self._queue, [message]))
        return self._sent(message)

    def push_many(self, calls: Iterable[Any]) -> list[Receipt]:
        """Send many calls, a chunk per script."""
        if not self._short_cut():
            return [self.push(*_call(each)) for each in calls]
        receipts: list[Receipt] = []
        for chunk in self._chunks(calls):
            self._broker.store.run(self._enqueue(chunk))
            receipts += [self._receipt(message.task_id) for message in chunk]
        return receipts

    async def apush_many(self, calls: Iterable[Any]) -> list[Receipt]:
        """Send many calls from asyncio code."""
        if not self._short_cut():
            return [await self.apush(*_call(each)) for each in calls]
        store, receipts = self._broker.async_store(), []
        for chunk in self._chunks(calls):
            await store.run(self._enqueue(chunk))
            receipts += [self._receipt(message.task_id) for message in chunk]
        return receipts

    def _enqueue(self, chunk: list[Outgoing]) -> Any:
        return publishing.enqueue(self._broker.keys, self._queue, chunk)

    def _chunks(self, calls: Iterable[Any]) -> Iterator[list[Outgoing]]:
        waiting = iter(calls)
        while chunk := [self._build(*_call(each)) for each in islice(waiting, CHUNK)]:
            yield chunk

    def _short_cut(self) -> bool:
        """Return whether the message may go straight to the script."""
        if not self._plain or self._app.conf.task_always_eager:
            return False
        # Whoever listens to publishing wants Celery's own way, with all its arguments.
        return not (signals.before_task_publish.receivers or signals.after_task_publish.receivers)

    # -- building

    def _build(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outgoing:
        task = self._task
        if task.typing:
            task.__header__(*args, **kwargs)
        task_id = uuid()
        headers = self._fixed.headers(task_id, args, kwargs)
        body = (args, kwargs, _NO_CANVAS)
        content_type, encoding, data = self._serialize(body)
        raw = _encode(
            {
                "body": base64.b64encode(data).decode(),
                "content-encoding": encoding,
                "content-type": content_type,
                "headers": headers,
                "properties": {
                    "correlation_id": task_id,
                    "reply_to": "",
                    "delivery_mode": 2,
                    "delivery_info": {"exchange": "", "routing_key": self._queue},
                    "priority": self._priority,
                    "body_encoding": "base64",
                    "delivery_tag": headers[TOKEN_HEADER],
                },
            }
        )
        delay_ms = max(until_ms(headers["eta"]), 0) if headers["eta"] else 0
        return Outgoing(task_id, headers[TOKEN_HEADER], 0, self._suffix, delay_ms, task.name, raw)

    def _serialize(self, body: Any) -> tuple[str, str, bytes]:
        try:
            content_type, encoding, data = serialization.dumps(body, self._serializer)
        except (EncodeError, TypeError, ValueError, RecursionError) as error:
            raise PayloadError(
                f"the arguments of {self._task.name} cannot be serialised as "
                f"{self._serializer} ({error}); nothing was enqueued. Pass plain data, or an id."
            ) from error
        return content_type, encoding, data.encode() if isinstance(data, str) else data

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

    def _place(self, priority: int | None) -> tuple[str, int]:
        if priority is None:
            priority = self._app.conf.task_default_priority or 0
        options = self._app.conf.broker_transport_options
        steps = options.get("priority_steps", _STEPS)
        bounded = max(min(int(priority), 9), 0)
        step = max((each for each in steps if each <= bounded), default=steps[0])
        return (f"{options.get('sep', _SEP)}{step}" if step else ""), bounded

    # -- after

    def _sent(self, message: Outgoing) -> Receipt:
        receipt = self._receipt(message.task_id)
        parent = get_current_worker_task()
        if parent is not None and self._options.get("add_to_parent", parent.trail):
            parent.add_trail(receipt)
        return receipt

    def _receipt(self, task_id: str) -> Receipt:
        receipt = Receipt(task_id, app=self._app, task_name=self._task.name)
        receipt.ignored = bool(self._task.ignore_result)
        return receipt


class _Fixed:
    """The headers of a task's messages, most of which never change."""

    def __init__(self, task: Any, options: dict[str, Any]) -> None:
        self._app = task.app
        self._expires = options.get("expires")
        self._most = getattr(task, "argsrepr_maxsize", None) or task.app.amqp.argsrepr_maxsize
        self._template = {
            "lang": "py",
            "task": task.name,
            "shadow": None,
            "eta": None,
            "expires": None,
            "group": None,
            "group_index": None,
            "retries": 0,
            "timelimit": [options.get("time_limit"), options.get("soft_time_limit")],
            "root_id": "",
            "parent_id": None,
            "origin": anon_nodename(),
            "ignore_result": bool(task.ignore_result),
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
        }

    def headers(
        self, task_id: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the headers of one message."""
        headers = dict(self._template)
        headers["id"] = headers["root_id"] = task_id
        headers["argsrepr"] = saferepr(args, self._most)
        headers["kwargsrepr"] = saferepr(kwargs, self._most)
        headers[TOKEN_HEADER] = publish.publish_token(task_id)
        if self._expires is not None:
            headers["expires"] = self._expiry()
        parent = get_current_worker_task()
        if parent is not None and parent.request.id:
            headers["parent_id"] = parent.request.id
            headers["root_id"] = parent.request.root_id or parent.request.id
        return headers

    def _expiry(self) -> str:
        expires: Any = self._expires
        if isinstance(expires, int | float):
            message = self._app.amqp.as_task_v2("", "", expires=expires)
            return str(message.headers["expires"])
        return str(expires.isoformat() if hasattr(expires, "isoformat") else expires)


_NO_CANVAS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


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
