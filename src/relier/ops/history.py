"""The history that a task in trouble carries along: what outlives the event streams."""

from __future__ import annotations

from relier.ops.events import OMITTED, Event, number

_CELLS = 9


def read(lines: str, task_id: str) -> tuple[Event, ...]:
    """Read what lua/lib/history.lua wrote; a line that another version wrote otherwise is left out.

    Args:
        lines: of a record or of a dead letter.
        task_id: whose it is.
    """
    found: list[Event] = []
    for line in lines.split("\n"):
        if line.startswith("~") and found:
            last = found[-1]
            marker = Event(last.at_ms, last.queue, OMITTED, task_id, "", "", line[1:])
            found.append(marker)
        elif (event := _read(line, task_id)) is not None:
            found.append(event)
    return tuple(found)


def _read(line: str, task_id: str) -> Event | None:
    cells = line.split("\t")
    if len(cells) < _CELLS:
        return None
    stream_id, kind, queue, worker, name, claim, fence, attempt, detail, *_ = cells
    at_ms = stream_id.partition("-")[0]
    if not at_ms.isdigit():
        return None
    return Event(
        at_ms=int(at_ms),
        queue=queue,
        kind=kind,
        task_id=task_id,
        worker=worker,
        claim=claim,
        detail=detail,
        fence=number(fence),
        attempt=number(attempt),
        worker_name=name,
        stream_id=stream_id,
    )
