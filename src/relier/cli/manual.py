"""The manual, read off the commands themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click

EXAMPLE = "Example: "
STATUSES = (
    (0, "done"),
    (1, "a check failed, or the server refused"),
    (2, "wrong usage, or a setting that does not work"),
    (3, "Redis is away"),
    (4, "not found; the nearest names are offered"),
    (130, "interrupted by Ctrl-C"),
)
"""What every command exits with."""


@dataclass(frozen=True, slots=True)
class Page:
    """One command.

    Args:
        command: as it is typed: rl dlq list.
        usage: the same with what it takes.
        summary: its first sentence.
        text: its paragraphs, the summary first.
        options: (flags, what they do), those that every command has left out.
        examples: lines to type.
        group: whether it is only the name of others.
    """

    command: str
    usage: str
    summary: str
    text: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    examples: tuple[str, ...]
    group: bool


COMMON = {"--json", "--url", "--prefix", "--help"}
"""Options that stand at the head of the manual, once."""


def contexts(root: click.Command, name: str = "rl") -> Iterator[click.Context]:
    """Yield a context for a command and for all below it, in the order of their names."""
    yield from _below(click.Context(root, info_name=name))


def _below(context: click.Context) -> Iterator[click.Context]:
    yield context
    command = context.command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from _below(click.Context(child, info_name=name, parent=context))


def page(context: click.Context) -> Page:
    """Read one command's page."""
    command = context.command
    text, examples = _read(command.help or "")
    options = [each for each in command.params if isinstance(each, click.Option)]
    pieces = command.collect_usage_pieces(context)
    return Page(
        command=context.command_path,
        usage=" ".join([context.command_path, *pieces]),
        summary=text[0] if text else "",
        text=text,
        options=tuple(
            (_flags(each), _meaning(each)) for each in options if not COMMON.intersection(each.opts)
        ),
        examples=examples,
        group=isinstance(command, click.Group),
    )


def _read(doc: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split a docstring into paragraphs and examples."""
    text, examples = [], []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(doc)):
        lines = [line.strip() for line in paragraph.splitlines() if line.strip("\b ")]
        examples += [line.removeprefix(EXAMPLE) for line in lines if line.startswith(EXAMPLE)]
        rest = [line for line in lines if not line.startswith(EXAMPLE)]
        if rest:
            text.append(" ".join(rest))
    return tuple(text), tuple(examples)


def _flags(option: click.Option) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    if option.is_flag:
        return names
    if isinstance(option.type, click.Choice):
        return f"{names} {'|'.join(map(str, option.type.choices))}"
    return f"{names} {option.metavar or option.type.name.partition(' ')[0].upper()}"


def _meaning(option: click.Option) -> str:
    text = option.help or ""
    default = option.default
    if option.show_default and isinstance(default, str | int | float):
        text += f" (default: {default})"
    return f"{text} May be repeated." if option.multiple and "repeated" not in text else text


def markdown(pages: Sequence[Page]) -> str:
    """Return the whole manual as one Markdown page."""
    root, *others = pages
    lines = ["# Commands", "", *_paragraphs(root.text), "Every command takes", ""]
    lines += ["| option | |", "|---|---|"]
    lines += ["| `--json` | Answer as JSON; errors, too, on standard error. |"]
    lines += ["| `--url URL` | The Redis to ask; else `RELIER_REDIS_URL`, `.env`, localhost. |"]
    lines += ["| `--prefix TEXT` | The app's `global_keyprefix`, if it has one. |"]
    lines += ["", "as far as it asks a server and answers something, and exits with", ""]
    lines += ["| status | |", "|---|---|"]
    lines += [f"| {number} | {meaning} |" for number, meaning in STATUSES]
    for each in others:
        level = "##" if each.command.count(" ") == 1 else "###"
        lines += ["", f"{level} {each.command}", ""]
        if not each.group:
            lines += ["```", each.usage, "```", ""]
        lines += _paragraphs(each.text)
        if each.options:
            lines += ["| option | |", "|---|---|"]
            lines += [f"| `{_cell(flags)}` | {_cell(what)} |" for flags, what in each.options]
            lines.append("")
        if each.examples:
            lines += ["```console", *each.examples, "```", ""]
        lines.pop()
    return "\n".join(lines) + "\n"


def _paragraphs(text: Sequence[str]) -> list[str]:
    return [line for paragraph in text for line in (paragraph, "")]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
