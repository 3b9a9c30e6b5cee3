"""One task on the screen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from relier.cli import words
from relier.ops.inspection import TaskDetail

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN, _SHOWN_AS_JSON = 2000, 100_000
_LONG = ("args", "kwargs", "result_value", "error", "raw")


def show(console: Console, found: TaskDetail, *, full: bool) -> None:
    """Print a task.

    Args:
        full: print what is long, and its message, too.
    """
    console.print(words.facts(_pairs(found, full=full)))
    if full:
        for name in _LONG:
            if len(getattr(found, name)) > _SHOWN or (name == "raw" and found.raw):
                # Not by way of the console: it would measure each of ten million characters.
                click.echo(f"\n{name}:\n{words.safe(getattr(found, name), lines=True)}")
    if found.timeline:
        console.print()
        console.print(words.timeline(found.timeline), soft_wrap=True)


def shortened(found: TaskDetail) -> TaskDetail:
    """Return a task whose long texts are cut; ``left_out`` says whether one was."""
    texts = {name: getattr(found, name) for name in _LONG}
    cut = any(len(text) > _SHOWN_AS_JSON for text in texts.values())
    return replace(
        found,
        **{name: text[:_SHOWN_AS_JSON] for name, text in texts.items()},
        left_out=found.left_out or cut,
    )


def _pairs(found: TaskDetail, *, full: bool) -> list[tuple[str, object]]:
    def text(name: str) -> str:
        value: str = getattr(found, name)
        if len(value) <= _SHOWN:
            return value
        return "below" if full else f"{value[:_SHOWN]}... ({len(value):,} characters; --full)"

    died = [
        f"{found.blame} of its own process" if found.blame else "",
        f"{found.interruptions} of its worker" if found.interruptions else "",
    ]
    result = f"{found.result} {text('result_value')}".strip() if found.result else ""
    return [
        ("task", found.task_id),
        ("name", found.name),
        ("state", words.styled(found.state)),
        ("where", found.where),
        ("queue", found.queue),
        ("last worker", found.worker),
        ("accepted", _when(found.accepted_ms, found.now_ms)),
        ("due", _when(found.due_ms, found.now_ms)),
        ("started", _when(found.started_ms, found.now_ms)),
        ("life", found.life if found.life > 1 else ""),
        ("runs", found.attempt or ""),
        ("deaths", ", ".join(filter(None, died))),
        ("retries", found.retries or ""),
        ("fence", found.fence or ""),
        ("args", text("args")),
        ("kwargs", text("kwargs") if found.kwargs != "{}" else ""),
        ("size", f"{found.size_bytes:,} bytes" if found.size_bytes else ""),
        ("message", "too large to be read unasked; --full reads it" if found.left_out else ""),
        ("checkpoint", words.checkpoint(found.checkpoint, found.now_ms)),
        ("schema version", found.schema_version or ""),
        ("signature", words.signature(found.signature)),
        ("result", result),
        ("reason", found.reason),
        ("error", text("error")),
    ]


def _when(at_ms: int | None, now_ms: int) -> str:
    return f"{words.clock(at_ms)} ({words.ago(at_ms, now_ms)})" if at_ms else ""
