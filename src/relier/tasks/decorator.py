"""``rl_task``: the one decorator."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from celery import Celery, current_app
from celery.utils.functional import head_from_fun

from relier.errors import ConfigurationError
from relier.protocol import timeouts
from relier.protocol.admission import tenant_reader
from relier.tasks.context import context_of, current
from relier.tasks.options import Options, SoftTimeoutHook, checked, split
from relier.tasks.receipt import Receipt
from relier.tasks.task import RelierTask, timed_of
from relier.worker.coroutines import complete

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_CONTEXT_PARAMETER = "ctx"


class ProtectedTask(Protocol, Generic[P, R_co]):
    """A task made by ``rl_task``, as a type checker sees it."""

    name: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    def push(self, *args: P.args, **kwargs: P.kwargs) -> Receipt: ...
    def apush(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[Receipt]: ...
    def push_many(self, calls: Iterable[Any]) -> Sequence[Receipt]: ...
    def apush_many(self, calls: Iterable[Any]) -> Awaitable[Sequence[Receipt]]: ...
    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Receipt: ...
    def apply_async(self, args: Any = ..., kwargs: Any = ..., **options: Any) -> Receipt: ...
    def s(self, *args: Any, **kwargs: Any) -> Any: ...
    def si(self, *args: Any, **kwargs: Any) -> Any: ...
    def signature(self, *args: Any, **kwargs: Any) -> Any: ...


@overload
def rl_task(function: Callable[P, R], /) -> ProtectedTask[P, R]: ...
@overload
def rl_task(
    *,
    queue: str = ...,
    idempotent: bool = ...,
    idempotency_ttl: float | None = ...,
    idempotency_key: Callable[..., object] | None = ...,
    soft_timeout: float | None = ...,
    hard_timeout: float | None = ...,
    on_soft_timeout: SoftTimeoutHook | None = ...,
    raise_on_soft: bool = ...,
    dead_letter: bool = ...,
    max_resurrections: int | None = ...,
    admission_key: str | Callable[..., Any] | None = ...,
    admission_limit: int | None = ...,
    name: str | None = ...,
    app: Celery | None = ...,
    **celery_options: Any,
) -> Callable[[Callable[P, R]], ProtectedTask[P, R]]: ...


def rl_task(
    function: Callable[..., Any] | None = None, /, *, app: Celery | None = None, **options: Any
) -> Any:
    """Make a function a protected task; works bare and with options, on ``def`` and ``async def``.

    Args:
        queue: where its messages go; None leaves that to Celery's routing ("celery" by default).
        idempotent: calls with equal arguments run once: while one runs the others wait, and once
            it has succeeded they get its result.
        idempotency_ttl: for how long, in seconds; None takes the setting.
        idempotency_key: called with a call's arguments, it says what makes calls equal.
        soft_timeout: seconds its body may run before people are told and the hook is called; None
            takes the setting ``SOFT_TIMEOUT``, infinity none.
        hard_timeout: seconds after which it is stopped and becomes a dead letter with a
            ``HardTimeoutError``, whatever ``dead_letter`` says; None takes the setting
            ``HARD_TIMEOUT``, infinity none. A coroutine is cancelled first; under threads and solo
            a ``def`` only counts as stopped.
        on_soft_timeout: a function or coroutine function that takes the task's context and runs
            beside the task, to save partial state, say; what it raises is only reported.
        raise_on_soft: also raise Celery's ``SoftTimeLimitExceeded`` in the body (not in a ``def``
            under threads).
        dead_letter: keep a task that fails for good among the dead letters, with its traceback,
            from where it can be released; its result says FAILURE either way.
        max_resurrections: how often it may come back after killing its own process; None takes
            the setting ``MAX_RESURRECTIONS``.
        admission_key: whose slot a dispatch takes beside the cluster's: the name of an argument, or
            a callable that is given all arguments, that says which tenant it is for. Tasks whose
            keys are equal share their slots.
        admission_limit: dispatches per ``ADMISSION_WINDOW`` and tenant, 0 for no limit; None takes
            the setting ``ADMISSION_TENANT_LIMIT``.
        name: the task's name; None makes it from module and function.
        app: the Celery app; None takes the current one, which must be under ``Relier``.
        options: all of the above, and Celery's own of a task (``autoretry_for``, ``bind``,
            ``rate_limit``...).

    Raises:
        ConfigurationError: an option cannot work.
    """
    own, celery_options = split(options)

    def decorate(function: Callable[..., Any]) -> Any:
        return _make_task(function, own, celery_options, app)

    return decorate if function is None else decorate(function)


def _make_task(
    function: Callable[..., Any], own: Options, celery_options: dict[str, Any], app: Celery | None
) -> Any:
    if "Request" in celery_options:
        raise ConfigurationError("a task made by @rl_task keeps relier's Request class")
    base = celery_options.get("base") or RelierTask
    if not issubclass(base, RelierTask):
        raise ConfigurationError(
            f"{base.__name__} must derive from relier's RelierTask: class MyTask(RelierTask): ..."
        )
    options = {**celery_options, **own.attributes(), "base": base}
    options["runs_coroutine"] = inspect.iscoroutinefunction(function)
    owner = app or _owner()
    _check_timeouts(options, owner)
    bound = bool(options.pop("bind", False))
    if not bound:
        options["__header__"] = staticmethod(head_from_fun(_head(function)))
    if own.admission_key is not None:
        reader = tenant_reader(_call_signature(function, bound=bound), own.admission_key)
        options["admission_tenant_of"] = staticmethod(reader)
    return owner.task(bind=True, **options)(_body(function, bound=bound))


def _check_timeouts(options: dict[str, Any], owner: Celery) -> None:
    """Check a task's timeouts together with those of its base class and of the settings."""
    base, settings = options["base"], owner.relier.settings
    checked(
        timeouts.limits,
        options.get("soft_timeout", base.soft_timeout),
        options.get("hard_timeout", base.hard_timeout),
        default_soft_s=settings.soft_timeout_s,
        default_hard_s=settings.hard_timeout_s,
    )


def _owner() -> Celery:
    """Return the app whose tasks these are: the current one, or else relier's own."""
    app = current_app._get_current_object()
    if getattr(app, "relier", None) is not None:
        return cast(Celery, app)
    if app.main != "default":
        raise ConfigurationError(
            f"the current Celery app ({app.main}) is not under relier yet: call Relier(app) where "
            "the app is made, before the modules with @rl_task are imported"
        )
    # Imported here because this makes an app, and only who has none wants that.
    from relier.tasks.app import app as ready_app

    return ready_app


def _body(function: Callable[..., Any], *, bound: bool) -> Callable[..., Any]:
    """Return what Celery is to call: it sets the context and runs coroutines to their end."""
    signature = inspect.signature(function)
    wants_context = _CONTEXT_PARAMETER in signature.parameters
    is_async = inspect.iscoroutinefunction(function)

    @functools.wraps(function)
    def body(task: Any, *args: Any, **kwargs: Any) -> Any:
        context = context_of(task)
        timed = timed_of(task)
        token = current.set(context)
        try:
            if timed is not None:
                timed.enter(context)
            if wants_context:
                kwargs[_CONTEXT_PARAMETER] = context
            positional = (task, *args) if bound else args
            result = function(*positional, **kwargs)
            return complete(result, timed) if is_async else result
        finally:
            current.reset(token)

    # Celery checks a dispatch against this: the function's own parameters, less the context.
    return _with_signature(body, _dispatch_signature(signature, bound=bound))


def _head(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of the parameters that a caller gives.

    Celery sees by them that an errback takes (request, error, traceback) and calls it in place; of
    a bound task, as ours all are inside, it would assume that it takes a task id.
    """

    @functools.wraps(function)
    def head(*_args: Any, **_kwargs: Any) -> None: ...

    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name != _CONTEXT_PARAMETER]
    return _with_signature(head, signature.replace(parameters=parameters))


def _call_signature(function: Callable[..., Any], *, bound: bool) -> inspect.Signature:
    """Return what a caller gives: all but the context and, when it is bound, the task."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[int(bound) :]
    return signature.replace(parameters=[p for p in parameters if p.name != _CONTEXT_PARAMETER])


def _dispatch_signature(signature: inspect.Signature, *, bound: bool) -> inspect.Signature:
    parameters = [p for p in signature.parameters.values() if p.name != _CONTEXT_PARAMETER]
    if not bound:
        task = inspect.Parameter("_task", inspect.Parameter.POSITIONAL_ONLY)
        parameters.insert(0, task)
    return signature.replace(parameters=parameters)


def _with_signature(function: Any, signature: inspect.Signature) -> Callable[..., Any]:
    function.__signature__ = signature
    return cast(Callable[..., Any], function)
