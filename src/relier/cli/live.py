"""The view of what is in flight, once or live."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import cast

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
_NARROW = 72


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
    rows, narrow = _rows(found, short=console.width < words.WIDE), console.width < _NARROW
    hidden = 0
    if height is not None:
        room = max(height - _FRAME_ROWS - min(len(found.queues), 3), 1) // (2 if narrow else 1)
        hidden = max(len(rows) - room, 0)
        rows = rows[:room]
    parts: list[RenderableType] = [_header(found), *_queues(found), Text()]
    parts.append(_table(rows, narrow=narrow) if rows else Text("no workers", style="yellow"))
    parts += [Text(), _footer(found, hidden)]
    return Group(*parts)


def _table(rows: Sequence[tuple[object, ...]], *, narrow: bool) -> RenderableType:
    if not narrow:
        return words.table(("worker", "task", "id", "for", "state", "queue", "run"), rows)
    lines = []
    for worker, task, task_id, lasts, state, queue, run in rows:
        # The second line is for who wants to know more; the first says what runs, and for how long.
        lines.append(Text.assemble(words.safe(f"{task} "), cast(Text, state), f" {lasts}"))
        below = words.safe(f"  {worker} {task_id} {queue} run {run}")
        lines.append(Text(below, style="dim", no_wrap=True, overflow="ellipsis"))
    return Group(*lines)


def _header(found: Snapshot) -> Text:
    text = Text(words.safe(found.cluster), style="bold")
    text.append(f"  {found.waiting:,} queued  p95 {words.span(found.p95_ms)}", style="")
    text.append(f"  {words.clock(found.at_ms)[11:19]}", style="dim")
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
            state = words.styled(_state_of(worker, found))
            rows.append((worker.name, "-", "-", "-", state, ",".join(worker.queues), "-"))
    return rows


def _state_of(worker: Worker, found: Snapshot) -> str:
    if worker.worker_id in found.lost:
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
    busy = {task.worker_id for task in found.tasks}
    idle = sum(worker.worker_id not in busy for worker in found.workers)
    lost = sum(task.worker_id in found.lost for task in found.tasks)
    last = found.last_recovery
    back = f"last recovery {words.ago(last.at_ms, found.at_ms)}" if last else "no recoveries"
    text = Text(f"{words.count(running, 'task')} running, {words.count(idle, 'worker')} idle, ")
    text.append(f"{lost:,} lost", style="bold red" if lost else "")
    text.append(f", {back}", style="green" if last else "dim")
    if last and last.reason:
        text.append(words.safe(f": {' '.join(filter(None, (last.task_id, last.reason)))}"), "dim")
    if hidden:
        text.append(f"\n{hidden} rows not shown", style="dim")
    return text
