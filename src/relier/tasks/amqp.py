"""Celery's message sender, with a token on every publish and our error when Redis is away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.app import amqp
from kombu.exceptions import OperationalError

from relier.errors import (
    AdmissionRejectedError,
    AdmissionTooLargeError,
    RedisConnectionError,
    RelierError,
)
from relier.protocol import envelope
from relier.protocol.admission import Tenant
from relier.protocol.identity import generation
from relier.protocol.migrations import VERSION_HEADER
from relier.store.client import judge
from relier.tasks.task import Protected
from relier.worker import expiry, publish, versions
from relier.worker.grip import REQUEST_KEY
from relier.worker.transport import Transport

_OF_ANOTHER = (
    envelope.HEADER,
    VERSION_HEADER,
    REQUEST_KEY,
    publish.REDELIVERED_HEADER,
    expiry.HEADER,
)
"""What Celery copies on retry with the custom headers, and was an earlier message's."""


class _Acquired:
    """A producer for a while. Its connection is as good as before when a dispatch was refused.

    kombu drops a pooled connection after any error: under a flood of refusals each would connect.
    """

    def __init__(self, context: Any) -> None:
        self._context = context

    def __enter__(self) -> Any:
        return self._context.__enter__()

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> Any:
        if kind and issubclass(kind, (AdmissionRejectedError, AdmissionTooLargeError)):
            self._context.__exit__(None, None, None)
            return None
        return self._context.__exit__(kind, *error)


class AMQP(amqp.AMQP):
    """Mint one token per logical publish, before any retry loop."""

    @classmethod
    def take_over(cls, app: Celery) -> None:
        """Use this class for an app, whether or not it has sent anything yet."""
        app.amqp_cls = cls
        acquire = app.producer_or_acquire
        app.producer_or_acquire = lambda producer=None: _Acquired(acquire(producer))
        existing = app.__dict__.get("amqp")
        if existing is not None:
            existing.__class__ = cls
            existing.__dict__.pop("send_task_message", None)

    def _create_task_sender(self) -> Callable[..., Any]:
        send = super()._create_task_sender()
        broker = self.app.relier.broker

        def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> Any:
            # Celery copies custom headers when it retries: whatever token is there is another's.
            headers = {**(options.pop("headers", None) or {})}
            for copied in _OF_ANOTHER:
                headers.pop(copied, None)
            headers.update(publish.own_headers(message.headers.get("id", "")))
            version = versions.of_publish(name, options)
            if version > 1:
                headers[VERSION_HEADER] = version
            if isinstance(message.body, tuple):
                versions.stamp(message.body[2])
            tenant = self._tenant(name, message)
            try:
                with publish.on_account_of(tenant):
                    return send(producer, name, message, headers=headers, **options)
            except RelierError:
                raise
            except Transport.recoverable_channel_errors as error:
                # Declaring the queue was refused, before the message was sent.
                judge(error, broker.address, out_of_time=True)
                raise
            except (OperationalError, *Transport.recoverable_connection_errors) as error:
                cause = (error.__cause__ or error) if isinstance(error, OperationalError) else error
                if isinstance(cause, Transport.recoverable_connection_errors):
                    judge(cause, broker.address, out_of_time=True)
                raise RedisConnectionError(
                    f"Redis at {broker.address.public} cannot be reached ({error}). "
                    "Check that it runs; then dispatch again."
                ) from error

        return send_task_message

    def _tenant(self, name: str, message: Any) -> Tenant | None:
        """Return whose slot a call takes; a task that this app does not know has no tenant."""
        task = self.app.tasks.get(name)
        if not isinstance(task, Protected) or not isinstance(message.body, tuple):
            return None
        if not publish.is_subject(generation(message.headers)):
            return None
        args, kwargs, _ = message.body
        return task.admission_tenant(args or (), kwargs or {})
