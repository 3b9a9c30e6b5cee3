"""What admission limits, and whose slot a dispatch takes: pure decisions."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from relier.config import Settings
from relier.errors import ConfigurationError, PayloadError

_BURST_SHARE = 10
_PLAIN_NAME = re.compile(r"[\w.:@+-]{1,128}", re.ASCII)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class TenantOf(Protocol):
    """Names the tenant of a call by its positional and keyword arguments."""

    def __call__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str: ...


class Tenant(NamedTuple):
    """Who takes a slot beside the cluster's, and how many there are per window."""

    name: str
    limit: int


class Rules(NamedTuple):
    """What is admitted in one window of time.

    Args:
        smooth: spread the limit evenly over the window, rather than count what came in it.
        window_ms: the window.
        limit: how many the whole cluster admits in a window; 0 for no limit.
        tenant_limit: the same for one tenant, unless its task says otherwise.
        burst: how many at once when smooth; 0 for a tenth of the limit.
        max_queue_depth: how many may wait in a queue; 0 for any number.
    """

    smooth: bool
    window_ms: int
    limit: int
    tenant_limit: int
    burst: int
    max_queue_depth: int

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """Return the rules that the settings make."""
        return cls(
            smooth=settings.admission_mode == "smooth",
            window_ms=round(settings.admission_window_s * 1000),
            limit=settings.admission_limit,
            tenant_limit=settings.admission_tenant_limit,
            burst=settings.admission_burst,
            max_queue_depth=settings.admission_max_queue_depth,
        )

    @property
    def limit_everyone(self) -> bool:
        """Return whether they limit dispatches that have no tenant, too."""
        return bool(self.limit or self.max_queue_depth)

    def at_once(self, limit: int) -> int:
        """Return how many a limit admits at once, when nobody has asked for long."""
        if not self.smooth:
            return limit
        return min(self.burst or max(limit // _BURST_SHARE, 1), limit)


def tenant_reader(signature: inspect.Signature, key: str | Callable[..., Any]) -> TenantOf:
    """Return what names the tenant of a call.

    Args:
        signature: of a call of the task.
        key: the name of one of its arguments, or a callable that is given all of them.

    Raises:
        ConfigurationError: there is no such argument, or the key cannot be called.
    """
    if isinstance(key, str):
        read = _argument_reader(signature, key)
    elif not inspect.iscoroutinefunction(key) and callable(key):
        read = _asker(key)
    else:
        raise ConfigurationError(
            f"admission_key is {key!r}: give the name of an argument, or a plain function that is "
            "called with the task's arguments"
        )

    def tenant_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        return tenant_name(read(args, kwargs))

    return tenant_of


def tenant_name(value: object) -> str:
    """Return the text that names a tenant in Redis.

    Raises:
        PayloadError: the value is no text, whole number or UUID, or is empty.
    """
    if not isinstance(value, str | int | UUID) or isinstance(value, bool) or value == "":
        raise PayloadError(
            f"admission_key gives {value!r} for the tenant: it must be a text that is not empty, a "
            "whole number or a UUID. Nothing was enqueued."
        )
    name = str(value)
    if _PLAIN_NAME.fullmatch(name):
        return name
    return f"h:{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def _asker(key: Callable[..., Any]) -> Callable[[Sequence[Any], Mapping[str, Any]], Any]:
    return lambda args, kwargs: key(*args, **kwargs)


def _argument_reader(
    signature: inspect.Signature, name: str
) -> Callable[[Sequence[Any], Mapping[str, Any]], Any]:
    """Return what takes one argument from a call, wherever it stands."""
    parameter = signature.parameters.get(name)
    if parameter is None or parameter.kind not in _BY_NAME:
        named = [each.name for each in signature.parameters.values() if each.kind in _BY_NAME]
        raise ConfigurationError(
            f"admission_key is {name!r}, which is no argument of the task: use one of "
            f"{', '.join(named) or 'none (it takes no named ones)'}, or a callable"
        )
    by_position = parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    index = list(signature.parameters).index(name) if by_position else None
    default = None if parameter.default is inspect.Parameter.empty else parameter.default

    def read(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if index is not None and index < len(args):
            return args[index]
        return kwargs.get(name, default)

    return read
