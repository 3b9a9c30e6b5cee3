"""`rl completion`, and the names that it completes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from relier import config
from relier.cli import common
from relier.cli.common import Asked
from relier.cli.lazy import COMPLETING
from relier.errors import RelierError

_PATIENCE_S = 0.3
_MOST = 200


@click.command()
@click.argument("shell", metavar="bash|zsh|fish", type=click.Choice(["bash", "zsh", "fish"]))
@common.offline
def completion(asked: Asked, shell: str) -> None:
    """Print what makes a shell complete commands, options and names of queues, workers, settings.

    Put `eval "$(rl completion bash)"` into ~/.bashrc, `eval "$(rl completion zsh)"` into ~/.zshrc,
    or save that of fish as ~/.config/fish/completions/rl.fish. Names come from the Redis that the
    command line, the environment or .env names; when it is away, none are offered.

    \b
    Example: rl completion bash
    """
    root = click.get_current_context().find_root()
    made = get_completion_class(shell)
    assert made is not None, "click knows these three"
    source = made(root.command, {}, "rl", COMPLETING).source()
    if not asked.answer({"shell": shell, "script": source}):
        click.echo(source)


def complete_names(command: click.Command) -> None:
    """Have the parameters of a command that name a queue, worker or setting offer them."""
    for parameter in command.params:
        names = _NAMES.get((parameter.metavar or "").strip("[]."))
        if names is not None:
            # What Parameter(shell_complete=...) sets; here for every command at once.
            parameter._custom_shell_complete = _offering(names)


def _offering(names: Callable[[click.Context], Iterable[str]]) -> Callable[..., Any]:
    def offer(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            known = sorted(set(names(context)))
        except (RelierError, OSError, ValueError):
            return []  # a shell that completes is no place for errors
        return [CompletionItem(name) for name in known if name.startswith(incomplete)][:_MOST]

    return offer


def _queues(context: click.Context) -> list[str]:
    from relier.store.fleet import known_queues
    from relier.store.reading import answered

    broker = _broker(context)
    with answered(broker.address):
        return known_queues(broker.store)


def _workers(context: click.Context) -> list[str]:
    from relier.ops import fleet
    from relier.store.reading import answered

    broker = _broker(context)
    with answered(broker.address):
        return [member.name for member in fleet.workers(broker.store)]


def _settings(_: click.Context) -> list[str]:
    names = [row.variable for row in config.SETTINGS]
    return names + [name.removeprefix("RELIER_") for name in names]


def _broker(context: click.Context) -> Any:
    overrides: dict[str, object] = {"redis_socket_timeout_s": _PATIENCE_S}
    if context.params.get("url"):
        overrides["redis_url"] = context.params["url"]
    settings = config.load(os.environ, Path(".env"), overrides)
    return common.broker_of(settings, context.params.get("prefix") or "")


_NAMES: dict[str, Callable[[click.Context], Iterable[str]]] = {
    "QUEUE": _queues,
    "WORKER": _workers,
    "SETTING": _settings,
}
"""By the placeholder that stands in the help."""
