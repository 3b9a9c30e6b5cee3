"""One dead letter on the screen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from relier.cli import common, words
from relier.cli.common import NotFoundError
from relier.ops import deadletters
from relier.ops.deadletters import Letter
from relier.store.client import Store

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN, _SHOWN_AS_JSON, _LONGEST_LINE = 2000, 100_000, 500
_LONG = ("error", "args", "kwargs", "state", "raw")


def show(console: Console, found: Letter, *, full: bool) -> None:
    """Print a letter.

    Args:
        full: print what is long, too.
    """
    console.print(words.facts(_pairs(found, full=full)))
    if full:
        for name in _LONG:
            if len(getattr(found, name)) > _SHOWN and (name != "raw" or not found.readable):
                # Not by way of the console: it would measure each of ten million characters.
                click.echo(f"\n{name}:\n{words.safe(getattr(found, name), lines=True)}")
    if found.traceback:
        traceback = found.traceback.rstrip()
        if not full:
            traceback = "\n".join(_cut_line(line) for line in traceback.splitlines())
        shown = words.safe(traceback, lines=True)
        console.print("\n" + shown, markup=False, soft_wrap=True)
    if found.timeline:
        console.print()
        console.print(words.timeline(found.timeline), soft_wrap=True)
    console.print()
    hint = "" if found.readable or found.left_out else " --raw"
    shown = words.safe(f"`rl dlq release {found.letter_id}{hint}` gives it another life.")
    console.print(shown, markup=False, soft_wrap=True)


def shortened(found: Letter) -> Letter:
    """Return a letter whose long texts are cut; ``left_out`` says whether one was."""
    texts = {name: getattr(found, name) for name in _LONG}
    cut = any(len(text) > _SHOWN_AS_JSON for text in texts.values())
    return replace(
        found,
        **{name: text[:_SHOWN_AS_JSON] for name, text in texts.items()},
        left_out=found.left_out or cut,
    )


def unknown(store: Store, letter_id: str) -> NotFoundError:
    """Return what to raise for a dead letter that is not there."""
    found = deadletters.alike(store, letter_id)
    if found.begin_so:
        return NotFoundError(
            f"there is no dead letter {letter_id}: did you mean {' or '.join(found.begin_so)}?"
        )
    return common.unknown(
        "dead letter",
        letter_id,
        found.newest,
        "`rl dlq list` shows those there are, "
        f"`rl tasks inspect {letter_id}` where else the task may be",
    )


def _pairs(found: Letter, *, full: bool) -> list[tuple[str, object]]:
    def text(name: str) -> str:
        value: str = getattr(found, name)
        if len(value) <= _SHOWN:
            return value
        return "below" if full else f"{value[:_SHOWN]}... {_rest(len(value))}"

    message = "" if found.readable else text("raw")
    if found.left_out:
        message = "too large to be read unasked; --full reads and shows it"
    return [
        ("dead letter", found.letter_id),
        ("task", found.name),
        ("queue", found.queue),
        ("died", f"{words.clock(found.at_ms)} ({words.ago(found.at_ms, found.now_ms)})"),
        ("reason", found.reason),
        ("error", text("error")),
        ("fingerprint", found.fingerprint),
        ("args", text("args")),
        ("kwargs", text("kwargs") if found.kwargs != "{}" else ""),
        ("retries", found.retries or ""),
        ("history", _history(found)),
        ("schema version", found.schema_version or ""),
        ("signature", words.signature(found.signature)),
        ("size", f"{found.size_bytes:,} bytes"),
        ("checkpoint", words.checkpoint(found.checkpoint, found.now_ms)),
        ("state", text("state")),
        ("message", message),
    ]


def _cut_line(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..."


def _rest(size: int) -> str:
    return f"({size:,} characters; --full shows all)"


def _history(found: Letter) -> str:
    """Return how the life that ended here went."""
    parts = [
        f"life {found.life}" if found.life > 1 else "",
        words.count(found.runs, "run") if found.runs else "",
        f"{found.deaths} by its own process's death" if found.deaths else "",
        f"{found.interruptions} by its worker's" if found.interruptions else "",
    ]
    return ", ".join(filter(None, parts))
