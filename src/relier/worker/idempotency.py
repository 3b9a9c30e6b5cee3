"""The idempotency key of a call, as dispatch checks it and a worker asks for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from relier.errors import PayloadError
from relier.protocol.idempotency import NotCanonicalError, digest


class CallKey:
    """What makes two calls of one task the same call.

    Args:
        name: the task's full name.
        function: what is called; its signature binds the arguments, so that ``f(1)``, ``f(x=1)``
            and defaults agree.
        chosen: the task's ``idempotency_key``, which says it instead; None: all arguments do.
    """

    def __init__(
        self, name: str, function: Callable[..., Any], chosen: Callable[..., object] | None
    ) -> None:
        self._name = name
        self._signature = inspect.signature(function)
        self._chosen = chosen

    @property
    def chosen(self) -> bool:
        """Return whether a function of the user's says it."""
        return self._chosen is not None

    def of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return the key's name: the task's name and 64 hexadecimal digits.

        Raises:
            PayloadError: an argument has no canonical form.
            TypeError: the arguments do not fit the function.
        """
        try:
            return f"{self._name}:{digest(self._say(args, kwargs))}"
        except NotCanonicalError as error:
            raise PayloadError(
                f"{self._name} is idempotent, but its call has no key ({error}); nothing was "
                "enqueued. Pass plain data, or give idempotency_key=a function of the arguments."
            ) from error

    def _say(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> object:
        if self._chosen is not None:
            return ["chosen", self._chosen(*args, **kwargs)]
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments


def call_key(task: Any) -> CallKey | None:
    """Return how a task's calls are told apart, or None when it is not idempotent."""
    if not getattr(task, "idempotent", False):
        return None
    return CallKey(task.name, task.run, task.idempotency_key)
