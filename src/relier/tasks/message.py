"""Build task messages fast: protocol 2 in kombu's envelope, as a stock worker reads it.

What does not change from call to call is prepared once per task. Plain arguments (text, numbers,
truth values, nothing) take a short way whose result is the same; all others go through kombu.
"""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Sequence
from typing import Any

import msgspec
from celery._state import get_current_worker_task
from celery.utils.nodenames import anon_nodename
from celery.utils.saferepr import saferepr
from kombu import serialization
from kombu.exceptions import EncodeError

from relier.errors import PayloadError
from relier.protocol import envelope
from relier.protocol.identity import TOKEN_HEADER
from relier.protocol.migrations import VERSION_HEADER, SchemaRegistry
from relier.store.publishing import Outgoing
from relier.worker import expiry, publish
from relier.worker.delivery import until_ms

_SEP = "\x06\x16"
_STEPS = (0, 3, 6, 9)
_LONGEST_PLAIN_TEXT = 200
_NO_CANVAS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}

_encode = msgspec.json.Encoder().encode


class MessageTemplate:
    """The messages of one task.

    Args:
        task: the bound task.
        queue: where they go.
        options: the task's own execution options.
    """

    def __init__(self, task: Any, queue: str, options: dict[str, Any]) -> None:
        self._app = task.app
        self._keyring = task.app.relier.broker.keyring
        self._name: str = task.name
        self._check = task.__header__ if task.typing else None
        self._call_key = task.call_key
        self._serializer = options.get("serializer") or self._app.conf.task_serializer
        self._expires: Any = options.get("expires")
        self._repr_size = getattr(task, "argsrepr_maxsize", None) or self._app.amqp.argsrepr_maxsize
        self._suffix, priority = self._place(options.get("priority"))
        steps, sep = self._steps()
        self.suffixes = "".join(f"|{_suffix(sep, step)}" for step in steps)
        self._headers = _fixed_headers(task, options)
        self._properties = {
            "correlation_id": "",
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": priority,
            "body_encoding": "base64",
            "delivery_tag": "",
        }

    def build(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outgoing:
        """Return the message of one call.

        Raises:
            PayloadError: the arguments cannot be serialised.
            TypeError: they do not fit the task's signature.
        """
        if self._check is not None:
            self._check(*args, **kwargs)
        if self._call_key is not None:
            self._call_key.of(args, kwargs)
        task_id = _mint()
        token = publish.publish_token(task_id)
        plain = _are_plain(args) and _are_plain(kwargs.values())
        content_type, encoding, body = self._body(args, kwargs, plain)
        headers = self._headers_of(task_id, token, args, kwargs, plain)
        expires_ms = expiry.keep(headers) if self._expires is not None else ""
        properties = {**self._properties, "correlation_id": task_id, "delivery_tag": token}
        text = base64.b64encode(body).decode("ascii")
        if self._keyring.signs:
            headers[envelope.HEADER] = self._keyring.seal(
                headers, properties, content_type, encoding, text
            )
        raw = _encode(
            {
                "body": text,
                "content-encoding": encoding,
                "content-type": content_type,
                "headers": headers,
                "properties": properties,
            }
        )
        delay_ms = max(until_ms(headers["eta"]), 0) if headers["eta"] else 0
        return Outgoing(task_id, token, 0, self._suffix, delay_ms, self._name, raw, expires_ms)

    def _body(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], plain: bool
    ) -> tuple[str, str, bytes]:
        body = (args, kwargs, _NO_CANVAS)
        if plain and self._serializer == "json":
            try:
                return "application/json", "utf-8", _encode(body)
            except (OverflowError, UnicodeEncodeError, TypeError):
                pass  # a huge number or a lone surrogate: kombu knows how
        try:
            content_type, encoding, data = serialization.dumps(body, self._serializer)
        except (EncodeError, TypeError, ValueError, RecursionError) as error:
            raise PayloadError(
                f"the arguments of {self._name} cannot be serialised as {self._serializer} "
                f"({error}); nothing was enqueued. Pass plain data, or an id."
            ) from error
        return content_type, encoding, data.encode() if isinstance(data, str) else data

    def _headers_of(
        self,
        task_id: str,
        token: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        plain: bool,
    ) -> dict[str, Any]:
        headers = {**self._headers, "id": task_id, "root_id": task_id, TOKEN_HEADER: token}
        headers["argsrepr"] = repr(args) if plain else saferepr(args, self._repr_size)
        headers["kwargsrepr"] = repr(kwargs) if plain else saferepr(kwargs, self._repr_size)
        version = SchemaRegistry.version(self._name)
        if version > 1:
            headers[VERSION_HEADER] = version
        if self._expires is not None:
            headers["expires"] = self._expiry()
        parent = get_current_worker_task()
        if parent is not None and parent.request.id:
            headers["parent_id"] = parent.request.id
            headers["root_id"] = parent.request.root_id or parent.request.id
        return headers

    def _expiry(self) -> str:
        expires = self._expires
        if isinstance(expires, int | float):
            message = self._app.amqp.as_task_v2("", "", expires=expires)
            return str(message.headers["expires"])
        return str(expires.isoformat() if hasattr(expires, "isoformat") else expires)

    def _place(self, priority: int | None) -> tuple[str, int]:
        """Return the suffix of the priority's list, as kombu chooses it, and the priority."""
        if priority is None:
            priority = self._app.conf.task_default_priority or 0
        steps, sep = self._steps()
        bounded = max(min(int(priority), 9), 0)
        step = max((each for each in steps if each <= bounded), default=steps[0])
        return _suffix(sep, step), bounded

    def _steps(self) -> tuple[Sequence[int], str]:
        options = self._app.conf.broker_transport_options
        return options.get("priority_steps", _STEPS), options.get("sep", _SEP)


def _suffix(sep: str, step: int) -> str:
    return f"{sep}{step}" if step else ""


def _fixed_headers(task: Any, options: dict[str, Any]) -> dict[str, Any]:
    return {
        "lang": "py",
        "task": task.name,
        "id": "",
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [options.get("time_limit"), options.get("soft_time_limit")],
        "root_id": "",
        "parent_id": None,
        "argsrepr": "()",
        "kwargsrepr": "{}",
        "origin": anon_nodename(),
        "ignore_result": bool(task.ignore_result),
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


def _are_plain(values: Any) -> bool:
    """Return whether the values are short scalars, which Python and JSON write in one way."""
    for value in values:
        kind = type(value)
        if kind is int or kind is bool or value is None:
            continue
        if kind is str and len(value) <= _LONGEST_PLAIN_TEXT:
            continue
        if kind is float and math.isfinite(value):
            continue
        return False
    return True


def _mint() -> str:
    """Return a task id: a random UUID, version 4."""
    text = os.urandom(16).hex()
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"
