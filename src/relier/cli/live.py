"""The view of what is in flight, once or live."""

from __future__ import annotations

import time
from collections.abc import Callable

import click
import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from relier.cli import common, words
from relier.ops.fleet import Worker
from relier.ops.inflight import InFlight, Snapshot

_EVERY_S = 0.5
_SHORT_ID = 8
_FRAME_ROWS = 6


def follow(look: Callable[[], Snapshot], *, as_json: bool) -> None:
    """Keep the view fresh until Ctrl-C; as JSON or off a terminal, one look after the other."""
    console = common.console()
    with common.terminable():
        try:
            if as_json:
                while True:
                    click.echo(msgspec.json.encode(look()).decode())
                    time.sleep(_EVERY_S)
            if not console.is_terminal:
                while True:
                    console.print(picture(look(), console))
                    time.sleep(_EVERY_S)
            with Live(console=console, auto_refresh=False, screen=True) as view:
                while True:
                    view.update(picture(look(), console, console.height - 1), refresh=True)
                    time.sleep(_EVERY_S)
        except KeyboardInterrupt:
            return


def picture(found: Snapshot, console: Console, height: int | None = None) -> RenderableType:
    """Return the fleet as a picture of at most ``height`` rows (None: as many as it takes)."""
    rows = _rows(found, short=console.width < words.WIDE)
    hidden = 0
    if height is not None:
        room = max(height - _FRAME_ROWS - min(len(found.queues), 3), 1)
        hidden = max(len(rows) - room, 0)
        rows = rows[:room]
    headers = ("worker", "task", "id", "for", "state", "queue", "run")
    parts: list[RenderableType] = [_header(found), *_queues(found), Text()]
    parts.append(words.table(headers, rows) if rows else Text("no workers", style="yellow"))
    parts += [Text(), _footer(found, hidden)]
    return Group(*parts)


def _header(found: Snapshot) -> Text:
    text = Text(found.cluster, style="bold")
    text.append(f"  {words.clock(found.at_ms)[:19]}", style="dim")
    return text


def _queues(found: Snapshot) -> list[Text]:
    lines = []
    for queue in found.queues[:3]:
        text = Text(
            f"{words.safe(queue.name)}: {queue.waiting:,} waiting",
            no_wrap=True,
            overflow="ellipsis",
        )
        for count, word in (
            (queue.scheduled, "scheduled"),
            (queue.claimed, "claimed"),
            (queue.replay, "to replay"),
            (queue.dead, "dead"),
        ):
            if count:
                text.append(f", {count:,} {word}", style="bold red" if word == "dead" else "")
        if queue.paused:
            text.append(", paused", style="yellow")
        lines.append(text)
    if len(found.queues) > 3:
        lines[-1].append(f"  (and {len(found.queues) - 3} more queues)", style="dim")
    return lines


def _rows(found: Snapshot, *, short: bool) -> list[tuple[object, ...]]:
    """Return a row for each task in hand, by worker, and one for each idle worker."""
    rows: list[tuple[object, ...]] = []
    for worker in found.workers:
        own = [task for task in found.tasks if task.worker_id == worker.worker_id]
        rows += [_row(worker, task, short=short) for task in own]
        if not own:
            state = words.styled(_state_of(worker))
            rows.append((worker.name, "-", "-", "-", state, ",".join(worker.queues), "-"))
    return rows


def _state_of(worker: Worker) -> str:
    if worker.dying:
        return "dead"
    return "draining" if worker.draining else "idle"


def _row(worker: Worker, task: InFlight, *, short: bool) -> tuple[object, ...]:
    attempt = Text(str(task.attempt) if task.attempt else "-")
    if task.returns:
        attempt.append(f" (back {task.returns}x)", style="green")
    return (
        worker.name,
        task.name,
        task.task_id[:_SHORT_ID] if short and _is_uuid(task.task_id) else task.task_id,
        words.span(task.duration_ms),
        words.styled(task.state),
        task.queue,
        attempt,
    )


def _is_uuid(task_id: str) -> bool:
    return len(task_id) == 36 and task_id.count("-") == 4


def _footer(found: Snapshot, hidden: int) -> Text:
    running = sum(task.state == "running" for task in found.tasks)
    done = sum(worker.done for worker in found.workers)
    failed = sum(worker.failed for worker in found.workers)
    text = Text(
        f"{words.count(len(found.workers), 'worker')}, {found.held} in hand, {running} running, "
        f"{done:,} done, {failed:,} failed",
        no_wrap=True,
        overflow="ellipsis",
    )
    if hidden:
        text.append(f", {hidden} rows not shown", style="dim")
    last = found.last_recovery
    if last:
        when = words.ago(last.at_ms, found.at_ms)
        why = words.safe(f"{last.task_id} ({last.reason})")
        text.append(f"\nlast recovery {when}: {why}", style="green")
    else:
        text.append("\nno recoveries", style="dim")
    return text
