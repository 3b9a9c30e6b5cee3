"""The options that say which dead letters are meant; every command of many letters has them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from relier.cli import common, words
from relier.cli.ages import age_ms
from relier.ops import queues
from relier.ops.lettergroups import Group
from relier.ops.lettersearch import Filter
from relier.store.client import Store

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 160
"""Columns in which an error, its fingerprint and an example fit beside each other."""

_OPTIONS = {
    "task": "TASK",
    "queue": "QUEUE",
    "reason": "REASON",
    "older": "AGE",
    "newer": "AGE",
    "error": "TEXT",
    "fingerprint": "ID",
}


def chosen(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a filter; it is passed on as ``chosen``."""

    @click.option("--task", default="", metavar="TASK", help="Only this task; * is any text.")
    @click.option("--queue", default="", metavar="QUEUE", help="Only this queue.")
    @click.option(
        "--reason",
        default="",
        metavar="REASON",
        help="Only what died of this: failed, rejected, hard_timeout, max_resurrections, "
        "max_interruptions, unreadable, unregistered, integrity, migration, consequences.",
    )
    @click.option(
        "--older", callback=age_ms, metavar="AGE", help="Dead for longer: 90s, 15m, 2h, 7d."
    )
    @click.option("--newer", callback=age_ms, metavar="AGE", help="Dead for less long.")
    @click.option("--error", default="", metavar="TEXT", help="Only with this in the error.")
    @click.option(
        "--fingerprint", default="", metavar="ID", help="Only this error, as list --group shows it."
    )
    @click.option(
        "--filter",
        "also",
        multiple=True,
        metavar="NAME=VALUE",
        help="Any of these in one word: task=pay.*; may be repeated.",
    )
    @functools.wraps(function)
    def wrapped(*args: Any, also: tuple[str, ...], **options: Any) -> Any:
        values = {name: options.pop(name) for name in _OPTIONS}
        values |= dict(map(_read, also))
        return function(
            *args,
            chosen=Filter(
                queue=values["queue"],
                task=values["task"],
                reason=values["reason"],
                error=values["error"],
                fingerprint=values["fingerprint"],
                older_ms=values["older"],
                newer_ms=values["newer"],
            ),
            **options,
        )

    return wrapped


def check(store: Store, filtered: Filter) -> None:
    """Refuse a queue that nobody knows.

    Raises:
        NotFoundError: with the names that are like it.
    """
    if filtered.queue and not queues.is_known(store, filtered.queue):
        hint = "`rl queue list` shows those there are"
        raise common.unknown("queue", filtered.queue, queues.known(store), hint)


def print_groups(groups: Sequence[Group], now_ms: int) -> None:
    """Print errors, one a line; nothing for none."""
    if not groups:
        return
    console = common.console()
    if console.width < _WIDE:
        for each in groups:
            _print_group(console, each, now_ms)
        return
    rows = [
        (
            f"{each.count:,}",
            words.ago(each.first_ms, now_ms),
            words.ago(each.last_ms, now_ms),
            each.reason,
            each.task,
            each.error,
            each.fingerprint,
            each.example_id,
        )
        for each in groups
    ]
    headers = ("count", "first", "last", "reason", "task", "error", "fingerprint", "example")
    console.print(words.table(headers, rows))


def _print_group(console: Console, group: Group, now_ms: int) -> None:
    """Print an error in some lines: ids are copied, and must not be cut."""
    since = f"{words.ago(group.first_ms, now_ms)} to {words.ago(group.last_ms, now_ms)}"
    lines = [
        f"{group.count:,} {group.reason}: {group.task or '(no task)'}, {since}",
        f"  {group.error}",
        f"  {group.fingerprint}, such as",
        f"  {group.example_id}",
    ]
    for line in lines[:2]:
        console.print(words.safe(line), markup=False, no_wrap=True, overflow="ellipsis")
    for line in lines[2:]:
        console.print(words.safe(line), markup=False, soft_wrap=True)


@contextmanager
def accounted(begun: Callable[[], object], show: Callable[[], None]) -> Iterator[None]:
    """Say what was done to many letters, also where it ends half way.

    Args:
        begun: whether anything was done.
        show: says it.
    """
    try:
        yield
    except BaseException:
        # Ctrl-C, too: what was done by then is said before it ends.
        if begun():
            show()
        raise
    show()


def said(filtered: Filter) -> str:
    """Return a filter in words: " of task pay, dead for 2 h"; "" for all letters."""
    parts = [
        f"of task {filtered.task}" if filtered.task else "",
        f"in queue {filtered.queue}" if filtered.queue else "",
        f"with reason {filtered.reason}" if filtered.reason else "",
        f"with {filtered.error!r} in the error" if filtered.error else "",
        f"of error {filtered.fingerprint}" if filtered.fingerprint else "",
        f"dead for {words.span(filtered.older_ms)} or longer" if filtered.older_ms else "",
        f"dead for less than {words.span(filtered.newer_ms)}" if filtered.newer_ms else "",
    ]
    return "".join(f" {part}" for part in parts if part)


def _read(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or name not in _OPTIONS:
        raise click.BadParameter(
            f"{text!r} is no filter: write NAME=VALUE, the name one of {', '.join(_OPTIONS)}",
            param_hint="--filter",
        )
    return name, age_ms(None, None, value) if _OPTIONS[name] == "AGE" else value
