"""`rl man`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import click

from relier.cli import common, manual
from relier.cli.common import Asked

_MOST_COLUMNS = 100


@click.command()
@click.argument("words", metavar="[COMMAND]...", nargs=-1)
@click.option("--markdown", is_flag=True, help="As one Markdown page, as in docs/cli-reference.md.")
@common.offline
def man(asked: Asked, words: tuple[str, ...], markdown: bool) -> None:
    """Show the manual of all commands, or of one; in a terminal, page by page.

    \b
    Example: rl man
    Example: rl man dlq release
    """
    root = click.get_current_context().find_root()
    found = [
        each
        for each in manual.contexts(root.command)
        if tuple(each.command_path.split()[1 : len(words) + 1]) == words
    ]
    if not found:
        raise common.NotFoundError(
            f"there is no command rl {' '.join(words)}: `rl man` shows those there are"
        )
    if asked.answer([manual.page(each) for each in found]):
        return
    if markdown:
        click.echo(manual.markdown([manual.page(each) for each in found]), nl=False)
        return
    width = min(shutil.get_terminal_size().columns, _MOST_COLUMNS)
    click.echo_via_pager(_text(found, width))


def _text(found: list[click.Context], width: int) -> Iterator[str]:
    for context in found:
        context.terminal_width = context.max_content_width = width
        yield click.style(context.command_path.upper(), bold=True) + "\n\n"
        yield context.get_help() + "\n\n"
