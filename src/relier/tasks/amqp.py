"""Celery's message sender, with a token on every publish and our error when Redis is away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.app import amqp
from kombu.exceptions import OperationalError

from relier.errors import RedisConnectionError, RelierError
from relier.protocol.identity import TOKEN_HEADER
from relier.store.client import judge
from relier.worker.publish import publish_token
from relier.worker.transport import Transport


class AMQP(amqp.AMQP):
    """Mint one token per logical publish, before any retry loop."""

    @classmethod
    def take_over(cls, app: Celery) -> None:
        """Use this class for an app, whether or not it has sent anything yet."""
        app.amqp_cls = cls
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
            headers[TOKEN_HEADER] = publish_token(message.headers.get("id", ""))
            try:
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
