"""Which version of its arguments a message, and each signature inside one, was made with.

A chain's later tasks, callbacks and a chord's body travel inside messages and may be sent by a
newer process than the one that made them: each keeps the version of its maker as an option.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from relier.errors import ConfigurationError
from relier.protocol.migrations import VERSION_HEADER, SchemaRegistry

logger = logging.getLogger(__name__)

OPTION = "schema_version"
"""The execution option by which whoever dispatches says the version, if it is not the present one
of this process: a signature from a message, or a producer without the task's migrations."""

_EMBEDDED = ("callbacks", "errbacks", "chain", "chord")
_NESTED_OPTIONS = ("link", "link_error", "chord", "chain")
_NESTED_ARGUMENTS = ("tasks", "header", "body")


def check(app: Any) -> None:
    """Hold the migrations to make sense before a worker takes its first message.

    Raises:
        ConfigurationError: a step is missing, or a task that has migrations is not protected.
    """
    SchemaRegistry.check()
    for name in SchemaRegistry.names:
        task = app.tasks.get(name)
        if task is None:
            logger.warning("there are migrations of %r, but this worker knows no such task", name)
        elif task.Request != "relier.worker.request:Request":
            raise ConfigurationError(
                f"the task {name} has migrations, but nothing applies them: make it with @rl_task, "
                "or give Relier(app) protect_all=True"
            )


def of_publish(name: str, options: dict[str, Any]) -> int:
    """Take the version that a publish is to say out of its options."""
    stated = options.pop(OPTION, None)
    if stated is None:
        return SchemaRegistry.version(name)
    if not isinstance(stated, int) or stated < 1:
        raise ConfigurationError(f"{OPTION}={stated!r} of {name} is no version: give 1 or more")
    return stated


def differs(name: str, options: Mapping[str, Any]) -> bool:
    """Return whether a dispatch has arguments of another version than the body takes here."""
    stated = options.get(OPTION)
    return stated is not None and stated != SchemaRegistry.version(name)


def of_message(headers: Mapping[str, Any]) -> int:
    """Return the version that a message says; one that says none is of the first."""
    return int(headers.get(VERSION_HEADER) or 1)


def stamp(embed: dict[str, Any]) -> None:
    """Let the signatures that leave with a message say the version that they were made with."""
    if SchemaRegistry:
        for name in _EMBEDDED:
            if embed.get(name):
                embed[name] = _stamped(embed[name], SchemaRegistry.version)


def stamp_received(request: Any) -> None:
    """Let the signatures that came with a message and say no version say that it is the first.

    Whoever made them knew of no other, or was a stock producer.
    """
    if SchemaRegistry:
        for name in _EMBEDDED:
            if getattr(request, name, None):
                setattr(request, name, _stamped(getattr(request, name), lambda _: 1))


def _stamped(node: Any, version_of: Callable[[str], int]) -> Any:
    """Return a signature, or a list of them, with versions; what is not one stays as it is."""
    if isinstance(node, list | tuple):
        return [_stamped(each, version_of) for each in node]
    if not isinstance(node, dict) or not isinstance(node.get("task"), str):
        return node
    options, kwargs = dict(node.get("options") or {}), node.get("kwargs")
    for name in _NESTED_OPTIONS:
        if options.get(name):
            options[name] = _stamped(options[name], version_of)
    if node.get("subtask_type") and isinstance(kwargs, dict):
        kwargs = {
            name: _stamped(value, version_of) if name in _NESTED_ARGUMENTS else value
            for name, value in kwargs.items()
        }
    elif SchemaRegistry.version(node["task"]) > 1:
        options.setdefault(OPTION, version_of(node["task"]))
    return {**node, "options": options, **({"kwargs": kwargs} if "kwargs" in node else {})}
