"""Celery's consumer, with an answer for every message that cannot be run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, ClassVar

from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.consumer.connection import Connection
from celery.worker.state import maybe_shutdown

from relier.errors import PayloadIntegrityError, RelierError, TaskNotRegisteredError
from relier.protocol import migrations
from relier.protocol.migrations import SchemaRegistry
from relier.store.preflight import await_willingness, preflight
from relier.worker import versions
from relier.worker.bootsteps import Fleet
from relier.worker.execution import Execution
from relier.worker.giveup import give_up
from relier.worker.grip import REQUEST_KEY
from relier.worker.membership import Held, Membership
from relier.worker.refusal import MOST_DEFERRALS, bury, put_off

logger = logging.getLogger(__name__)

_OLD_PROTOCOL = (
    "the message has no task in its headers, where a signature would cover it, and "
    "RELIER_REQUIRE_SIGNATURE is on: set task_protocol to 2 in its producer"
)


class Consumer(CeleryConsumer):
    """A consumer that keeps what it cannot run."""

    class Blueprint(CeleryConsumer.Blueprint):
        """Celery's steps and ours."""

        default_steps: ClassVar[list[Any]] = [*CeleryConsumer.Blueprint.default_steps, Fleet]

        def _finalize_steps(self, steps: Any) -> list[Any]:
            # Celery leaves open which of the steps that only need a connection comes first. The
            # dead are watched for while this worker asks its neighbours, which takes a second.
            order = [step for step in super()._finalize_steps(steps) if step is not Fleet]
            order.insert(order.index(Connection) + 1, Fleet)
            return order

    def connect(self) -> Any:
        """Connect, and look at the server before anything is made or read there.

        Raises:
            ConfigurationError: it would lose tasks.
            UnsupportedServerError: it is too old.
        """
        await_willingness(self.app.relier.broker, maybe_shutdown)
        connection = super().connect()
        membership = getattr(connection.transport, "membership", None)
        if membership is not None and not membership.joined:
            try:
                preflight(membership.broker)
            except RelierError:
                connection.release()
                raise
        return connection

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Return what Celery calls with each message, behind our own look at it."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> None:
            if self._may_run(message):
                handle(message)

        return on_task_received

    def _may_run(self, message: Any) -> bool:
        headers = message.headers
        if not isinstance(headers, dict):
            return True
        if "task" in headers:
            return not self._is_newer(message)
        if self._membership.broker.keyring.required:
            # Protocol 1 has its task in the body, which no envelope of ours speaks for.
            error = PayloadIntegrityError(_OLD_PROTOCOL)
            self._bury(message, f"{type(error).__name__}: {error}", reason="integrity")
            return False
        return True

    def _is_newer(self, message: Any) -> bool:
        """Leave a message to a newer worker that has arguments of a version unknown here."""
        headers = message.headers
        name, version = headers["task"], versions.of_message(headers)
        ours = SchemaRegistry.version(name) if version > 1 else 1
        if version <= ours or name not in self.strategies:
            return False
        tag = message.delivery_tag
        held = self._membership.held.get(tag)
        if held is None or held.outcome is not None:
            return False  # what follows from an outcome does not depend on the arguments
        self._membership.free(tag)
        error = migrations.newer(name, version, ours)
        broker = self._membership.broker
        verdict = put_off(broker, held.claim, held.who, name, "newer", error, buries=False)
        logger.warning(
            "message %s has arguments of %s in version %d, this worker knows %d: %s",
            held.who.task_id,
            name,
            version,
            ours,
            verdict,
        )
        if verdict == "spent":
            give_up(self.app, message, held, name, "newer", error)
        message.ack_log_error(logger, self.connection_errors)
        return True

    def call_soon_ack(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Acknowledge now, while the worker drains: its event loop may not turn any more."""
        if not self.app.relier.membership.draining:
            return super().call_soon_ack(call, *args, **kwargs)
        return call(*args, **kwargs)

    def on_unknown_message(self, _body: Any, message: Any) -> None:
        """Bury a message that carries no task."""
        self._bury(message, "no task in its headers")

    def on_decode_error(self, message: Any, exc: BaseException) -> None:
        """Bury a message whose body does not decode."""
        self._bury(message, f"its body does not decode: {exc}")

    def on_invalid_task(self, _body: Any, message: Any, exc: BaseException) -> None:
        """Bury a task message that Celery refuses."""
        self._bury(message, f"{type(exc).__name__}: {exc}")

    def on_unknown_task(self, _body: Any, message: Any, _exc: BaseException) -> None:
        """Put a task off that this worker does not know: a newer worker may."""
        held = self._take(message)
        name = message.headers.get("task", "")
        if held is None:
            return
        if held.outcome is not None:
            self._leave_to_others(message, held, f"this worker does not know {name!r}")
            return
        broker = self._membership.broker
        error = TaskNotRegisteredError(
            f"no worker knew {name!r} for as long as it was kept; import its module in a worker, "
            "then `rl dlq release`"
        )
        verdict = put_off(
            broker,
            held.claim,
            held.who,
            name,
            "unregistered",
            error,
            most_deferrals=MOST_DEFERRALS,
            buries=False,
        )
        logger.error(
            "this worker does not know the task %r of message %s: %s. Import its module "
            "(--include) if it should.",
            name,
            held.who.task_id,
            verdict,
        )
        if verdict == "spent":
            give_up(self.app, message, held, name, "unregistered", error)
        message.ack_log_error(logger, self.connection_errors)

    def update_strategies(self) -> None:
        """Choose how each task's messages are handled, as Celery does."""
        super().update_strategies()
        for name, task in self.app.tasks.items():
            if not isinstance(task.__trace__, Execution):
                self.strategies[name] = self._without_replays(name, self.strategies[name])

    def _without_replays(self, name: str, handle: Callable[..., Any]) -> Callable[..., Any]:
        """Handle an unprotected task's messages, but never run one that had committed elsewhere."""

        def strategy(message: Any, *args: Any) -> Any:
            held = message.properties.get(REQUEST_KEY)
            if held is None or held.outcome is None:
                return handle(message, *args)
            self._take(message)
            return self._leave_to_others(message, held, f"this worker does not protect {name!r}")

        return strategy

    def _leave_to_others(self, message: Any, held: Held, reason: str) -> None:
        """Leave what follows from a committed task to a worker that can send it."""
        self._membership.abandon(held.claim, reason, replays=held.replays, tried=False)
        message.ack_log_error(logger, self.connection_errors)

    @property
    def _membership(self) -> Membership:
        membership: Membership = self.connection.transport.membership
        return membership

    def _take(self, message: Any) -> Held | None:
        return self._membership.free(message.delivery_tag)

    def _bury(self, message: Any, error: str, reason: str = "unreadable") -> None:
        held = self._take(message)
        if held is not None and held.outcome is not None:
            task_id = held.who.task_id
            self._membership.abandon(held.claim, error, replays=held.replays, task_id=task_id)
        elif held is not None:
            headers = message.headers if isinstance(message.headers, dict) else {}
            name = str(headers.get("task", ""))
            bury(self._membership.broker, held.claim, held.who, error, name, reason=reason)
        message.ack_log_error(logger, self.connection_errors)
