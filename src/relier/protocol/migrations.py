"""Versions of the shape of tasks' arguments, and the steps that lead from one to the next.

A task whose arguments change their shape gets a migration from the old version; its version is one
more than the highest that a migration starts from. A message says which version its arguments have
(none: the first), and a worker takes it through all the steps that it lacks. A worker that has
fewer steps than the message leaves it to a newer worker.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from relier.errors import ConfigurationError, SchemaMigrationError

VERSION_HEADER = "rl_v"
"""Absent in messages of version 1, and so in those of stock producers."""

Migration = Callable[[tuple[Any, ...], dict[str, Any]], tuple[Sequence[Any], Mapping[str, Any]]]
M = TypeVar("M", bound=Migration)


class Migrations:
    """The migrations of a process, by task."""

    def __init__(self) -> None:
        self._steps: dict[str, dict[int, Migration]] = {}
        self._versions: dict[str, int] = {}

    def __bool__(self) -> bool:
        """Return whether any task has a migration."""
        return bool(self._steps)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the tasks that have migrations."""
        return tuple(self._steps)

    def register_migration(self, task_name: str, from_version: int = 1) -> Callable[[M], M]:
        """Make a function the step from one version of a task's arguments to the next.

        It gets the arguments as a tuple and a dict, and returns them in their new shape. It must
        not do anything else: it may run more than once for one message.

        Args:
            task_name: the task's full name.
            from_version: the version that the function starts from, 1 or more.

        Raises:
            ConfigurationError: the name, the version or the function cannot work, or another
                function starts from the same version.
        """
        name, first = _checked(task_name, from_version)

        def register(function: M) -> M:
            if inspect.iscoroutinefunction(function):
                raise ConfigurationError(
                    f"the migration of {name} from version {first} must be a plain function of "
                    "(args, kwargs), made with def"
                )
            steps = self._steps.setdefault(name, {})
            before = steps.setdefault(first, function)
            if _place(before) != _place(function):
                raise ConfigurationError(
                    f"two migrations of {name} start from version {first}, {_place(before)} and "
                    f"{_place(function)}: remove one"
                )
            steps[first] = function  # its module may have been loaded again
            self._versions[name] = max(steps) + 1
            return function

        return register

    def version(self, task_name: str) -> int:
        """Return the version of the arguments that a task's body takes here."""
        return self._versions.get(task_name, 1)

    def check(self) -> None:
        """Hold every chain of steps to be whole.

        Raises:
            ConfigurationError: a step is missing.
        """
        for name, steps in self._steps.items():
            missing = [step for step in range(1, max(steps) + 1) if step not in steps]
            if missing:
                raise ConfigurationError(
                    f"no migration of {name} starts from version "
                    f"{', '.join(map(str, missing))}, though one starts from {max(steps)}: "
                    "messages of every version must find their way, so register it too"
                )

    def migrate(
        self, task_name: str, version: int, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Take arguments of an older version to the present one, step by step.

        Raises:
            SchemaMigrationError: a step is missing, raised, or returned something else.
        """
        for step in range(version, self.version(task_name)):
            args, kwargs = self._one_step(task_name, step, args, kwargs)
        return args, kwargs

    def _one_step(
        self, task_name: str, step: int, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        what = f"the migration of {task_name} from version {step}"
        function = self._steps[task_name].get(step)
        if function is None:
            raise SchemaMigrationError(f"{what} is missing: register it, then `rl dlq release`")
        try:
            made = function(tuple(args), dict(kwargs))
        except (Exception, SystemExit) as error:
            raise SchemaMigrationError(
                f"{what} raised {type(error).__name__}: {error}; mend it, then `rl dlq release`"
            ) from error
        if not _are_arguments(made):
            raise SchemaMigrationError(
                f"{what} returned {type(made).__name__}, not (args, kwargs); mend it, then "
                "`rl dlq release`"
            )
        return made


def newer(task_name: str, version: int, ours: int) -> SchemaMigrationError:
    """Return what to say of a message that no worker here is new enough for."""
    return SchemaMigrationError(
        f"the message has arguments of {task_name} in version {version}, and no worker knew more "
        f"than version {ours} for as long as it was kept; deploy the newer code, then "
        "`rl dlq release`"
    )


def _checked(task_name: object, from_version: object) -> tuple[str, int]:
    if not isinstance(task_name, str) or not task_name:
        raise ConfigurationError(f"{task_name!r} is no task's name: give its full name as text")
    if isinstance(from_version, bool) or not isinstance(from_version, int) or from_version < 1:
        raise ConfigurationError(
            f"a migration of {task_name} cannot start from version {from_version!r}: "
            "the first version is 1"
        )
    return task_name, from_version


def _are_arguments(made: object) -> bool:
    return (
        isinstance(made, tuple | list)
        and len(made) == 2
        and isinstance(made[0], tuple | list)
        and isinstance(made[1], Mapping)
    )


def _place(function: Migration) -> str:
    name = getattr(function, "__qualname__", repr(function))
    return f"{getattr(function, '__module__', '')}.{name}"


SchemaRegistry = Migrations()
"""The migrations of this process: modules register theirs as they are imported."""
