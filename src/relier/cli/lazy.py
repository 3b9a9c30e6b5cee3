"""A click group that knows its commands by name and imports each when it is asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

EXITS = "Exit status: 0 done, 1 failed, 2 wrong usage, 3 Redis is away, 4 not found."
COMPLETING = "_RL_COMPLETE"
"""The variable that is set when a shell asks for names to complete."""


class LazyGroup(click.Group):
    """A group of commands that are not imported yet.

    Args:
        commands_at: for each name where it is ("module:attribute") and its line in the help.
    """

    def __init__(self, *args: Any, commands_at: Mapping[str, tuple[str, str]], **kwargs: Any):
        super().__init__(*args, epilog=EXITS, **kwargs)
        self._commands_at = commands_at

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's name
        """Return the names, sorted."""
        return sorted(self._commands_at)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's name
        cmd_name: str,
    ) -> click.Command | None:
        """Import one command."""
        if cmd_name not in self._commands_at:
            return None
        module, _, attribute = self._commands_at[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        _finish(command)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's name
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the commands' lines without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, self._commands_at[name][1]) for name in sorted(self._commands_at)]
            )


def _finish(command: click.Command) -> None:
    """Give a command, and those below it, what all have."""
    command.epilog = command.epilog or EXITS
    if COMPLETING in os.environ:
        from relier.cli.completion import complete_names

        complete_names(command)
    for each in getattr(command, "commands", {}).values():
        _finish(each)
