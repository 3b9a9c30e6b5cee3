"""The protected task: Celery's, with our tracer, our request, and `push`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from celery.app.task import Task
from celery.exceptions import Reject

from relier.errors import ConfigurationError
from relier.protocol.admission import Tenant, TenantOf
from relier.tasks.dispatch import Dispatcher
from relier.tasks.receipt import Receipt, Receipts
from relier.worker import publish, versions
from relier.worker.execution import Execution
from relier.worker.idempotency import CallKey, call_key
from relier.worker.pinning import derived_id
from relier.worker.publish import held_back
from relier.worker.run import Run
from relier.worker.timed import Timed
from relier.worker.trouble import may_pass

logger = logging.getLogger(__name__)

_CHORD_UNLOCK = "celery.chord_unlock"
_RETRY_PAUSE_S = 0.5


class TraceSlot:
    """Where Celery puts a task's tracer; what it finds there is ours.

    Celery's prefork initializer, its consumer and its threads each assign ``__trace__`` at start,
    so only a descriptor of the class keeps our tracer in place.
    """

    def __get__(self, task: Any, owner: type | None = None) -> Any:
        return None if task is None else task.__dict__.get("_relier_trace")

    def __set__(self, task: Any, celery_trace: Callable[..., Any] | None) -> None:
        if celery_trace is None:
            task.__dict__.pop("_relier_trace", None)
        else:
            task.__dict__["_relier_trace"] = Execution(
                task, task.app.relier.timekeeper, celery_trace
            )


if TYPE_CHECKING:
    from celery.app.task import Task as InFrontOfTask
else:
    InFrontOfTask = object


class Protected(InFrontOfTask):
    """What makes a task protected, whatever its own class is."""

    __trace__: ClassVar[TraceSlot] = TraceSlot()
    Request = "relier.worker.request:Request"
    acks_late = True
    acks_on_failure_or_timeout = True
    reject_on_worker_lost = False
    retry_on_worker_lost = False
    max_resurrections: int | None = None
    dead_letter = False
    soft_timeout: float | None = None
    hard_timeout: float | None = None
    on_soft_timeout: Callable[[Any], Any] | None = None
    raise_on_soft = False
    runs_coroutine = False
    admission_limit: int | None = None
    admission_tenant_of: TenantOf | None = None
    idempotent = False
    idempotency_ttl: float | None = None
    idempotency_key: Callable[..., object] | None = None
    publishes_late = False
    """Whether what its body publishes is sent once it has committed."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Protection does not depend on settings: a claim ends when the task has.
        cls.acks_late = True

    def admission_tenant(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tenant | None:
        """Return whose slot a call takes beside the cluster's, if anybody's is limited.

        Raises:
            PayloadError: the call names no tenant.
        """
        if self.admission_tenant_of is None:
            return None
        limit = self.admission_limit
        if limit is None:
            limit = self.app.relier.broker.admission.tenant_limit
        return Tenant(self.admission_tenant_of(args, kwargs), limit) if limit else None

    def apply_async(self, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        """Dispatch as Celery does; ``schema_version=`` says that the arguments are of another."""
        task = self
        if versions.differs(self.name, options):
            # A signature out of an older message, say: its arguments do not fit the present body.
            task = object.__new__(type(self))
            task.__dict__.update(self.__dict__, typing=False, _dump_pydantic_arguments=None)
        return super(Protected, task).apply_async(args, kwargs, *rest, **options)

    def retry(self, *args: Any, **kwargs: Any) -> Any:
        """Retry as Celery does; the next generation is released by the commit."""
        run = self._run()
        if run is None:
            return super().retry(*args, **kwargs)
        while True:
            try:
                with held_back(run.outbox):
                    return super().retry(*args, **kwargs)
            except Reject as rejected:
                # Celery gives up a retry that it cannot publish: the task would be lost.
                if not isinstance(rejected.reason, Exception) or not may_pass(rejected.reason):
                    raise
                logger.warning("%s cannot be retried yet: %s", self, rejected.reason)
                time.sleep(_RETRY_PAUSE_S)

    def replace(self, sig: Any) -> Any:
        """Replace the task by a signature; its publishes are released by the commit."""
        run = self._run()
        if run is None:
            return super().replace(sig)
        if self.idempotent:
            raise ConfigurationError(
                "an idempotent task cannot replace itself: its key would keep no result. Make "
                "what replaces it idempotent, and dispatch that."
            )
        run.replaced = True
        with held_back(run.outbox):
            return super().replace(sig)

    def _run(self) -> Run | None:
        return getattr(self.request, "relier_run", None)


class ChordUnlock(Protected):
    """Celery's `chord_unlock`, which waits for a chord's parts and then publishes its body.

    Its body's publishes are part of its commit: an error cannot turn them into the chord's failure,
    and a second run publishes nothing.
    """

    publishes_late = True

    def apply_async(
        self, args: Any = None, kwargs: Any = None, task_id: Any = None, **options: Any
    ) -> Any:
        """Dispatch; on a parent's behalf under an id of its own, for that may happen again."""
        parent = publish.parent()
        if parent is not None and not task_id:
            task_id = derived_id(parent, f"unlock {args[0]}")
        return super().apply_async(args, kwargs, task_id=task_id, **options)


class RelierTask(Protected, Task):
    """A protected task with relier's dispatch."""

    abstract = True
    dead_letter = True

    @property
    def dispatcher(self) -> Dispatcher:
        """Return what builds and sends this task's messages."""
        found: Dispatcher | None = self.__dict__.get("_dispatcher")
        if found is None:
            found = self.__dict__["_dispatcher"] = Dispatcher(self)
        return found

    @property
    def call_key(self) -> CallKey | None:
        """Return how this task's calls are told apart, or None when it is not idempotent."""
        if "_call_key" not in self.__dict__:
            self.__dict__["_call_key"] = call_key(self)
        found: CallKey | None = self.__dict__["_call_key"]
        return found

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Dispatch as Celery does.

        Raises:
            PayloadError: the task is idempotent, and an argument has no canonical form.
        """
        if self.call_key is not None and not versions.differs(self.name, options):
            self.call_key.of(args or (), kwargs or {})
        return super().apply_async(args, kwargs, **options)

    def push(self, *args: Any, **kwargs: Any) -> Receipt:
        """Dispatch with these arguments, in one round trip.

        Returns:
            A receipt for the accepted task.

        Raises:
            AdmissionRejectedError: a limit has no room for it now; nothing was enqueued.
            PayloadError: the arguments cannot be serialised; nothing was enqueued.
            RedisConnectionError: Redis did not answer within the socket timeout.
            RedisFullError: Redis is out of memory; nothing was enqueued.
            TypeError: the arguments do not fit the task's signature.
        """
        return self.dispatcher.push(args, kwargs)

    async def apush(self, *args: Any, **kwargs: Any) -> Receipt:
        """Dispatch from asyncio code; like :meth:`push`."""
        return await self.dispatcher.apush(args, kwargs)

    def push_many(self, calls: Iterable[Any]) -> Receipts:
        """Dispatch many calls in chunks, each chunk all or none.

        Args:
            calls: one item per call: a tuple of positional arguments, a dict of keyword arguments,
                or any other value as the only argument.

        Returns:
            A receipt for each, in order.

        Raises:
            AdmissionTooLargeError: a chunk is larger than a limit ever admits.
            The errors of :meth:`push`; chunks sent before stay accepted, and the `accepted` of an
                error of admission has their ids: go on with ``calls[len(error.accepted):]``.
        """
        return self.dispatcher.push_many(calls)

    async def apush_many(self, calls: Iterable[Any]) -> Receipts:
        """Dispatch many calls from asyncio code; like :meth:`push_many`."""
        return await self.dispatcher.apush_many(calls)


def timed_of(task: Any) -> Timed | None:
    """Return the running execution's timeouts, if it has any."""
    run: Run | None = getattr(task.request, "relier_run", None)
    return run.timed if run is not None else None


def protect(task: Any) -> None:
    """Protect a task that exists: it keeps its own class's behaviour, with ours in front."""
    cls = type(task)
    front = ChordUnlock if task.name == _CHORD_UNLOCK else Protected
    task.__class__ = type(cls.__name__, (front, cls), {"__module__": cls.__module__})
    trace = task.__dict__.pop("__trace__", None)
    if trace is not None:
        task.__trace__ = trace
    for name in ("acks_late", "reject_on_worker_lost", "retry_on_worker_lost", "Request"):
        task.__dict__.pop(name, None)
