"""What a supervisor is to do: pure decisions of (parts, wished size, now)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

QUICK_S = 10.0
"""A part that ends sooner than this after its start was of no use."""
MOST_QUICK_ENDS = 5
"""So many useless starts in a row, and it is given up."""
_FIRST_DELAY_S, _MOST_DELAY_S = 0.25, 30.0
SERVER, RESURRECTOR = "server", "resurrector"
_WORKER = "worker-"

State = Literal["waiting", "starting", "running", "draining", "failed"]
Act = Literal["add", "start", "drain", "kill", "drop"]


class Part(msgspec.Struct, frozen=True):
    """One process of the cluster, over all its lives.

    Args:
        name: server, resurrector, worker-1, worker-2, ...
        state: waiting (for its start, at `due_s`), starting, running, draining, or failed: given
            up.
        restarts: how often it was started again.
        quick_ends: how many lives in a row were shorter than `QUICK_S`.
        started_s: when its latest life began, on the supervisor's monotonic clock.
        due_s: when it is to be started; for one that drains, when it is killed.
        why: how its latest life ended.
    """

    name: str
    state: State = "waiting"
    restarts: int = 0
    quick_ends: int = 0
    started_s: float = 0.0
    due_s: float = 0.0
    why: str = ""

    @property
    def alive(self) -> bool:
        """Return whether it has a process."""
        return self.state in ("starting", "running", "draining")


class Step(NamedTuple):
    """One thing to do, and to which part."""

    act: Act
    name: str


def is_worker(name: str) -> bool:
    """Return whether a part is a worker."""
    return name.startswith(_WORKER)


def number(name: str) -> int:
    """Return a worker's number."""
    return int(name.removeprefix(_WORKER))


def steps(parts: Mapping[str, Part], size: int, now_s: float) -> list[Step]:
    """Return what brings the parts to the wished number of workers.

    The workers with the highest numbers go first. One that drains keeps its name until it has
    ended; if it is wished for again, it is added anew then.

    Args:
        parts: what there is, by name.
        size: how many workers there are to be.
        now_s: the supervisor's monotonic clock.
    """
    found: list[Step] = []
    for part in parts.values():
        surplus = is_worker(part.name) and number(part.name) > size
        if part.state == "draining":
            if now_s >= part.due_s:
                found.append(Step("kill", part.name))
        elif surplus:
            found.append(Step("drain" if part.alive else "drop", part.name))
        elif part.state == "waiting" and now_s >= part.due_s:
            found.append(Step("start", part.name))
    wished = (f"{_WORKER}{n}" for n in range(1, size + 1))
    return found + [Step("add", name) for name in wished if name not in parts]


def started(part: Part, now_s: float) -> Part:
    """Return a part whose process has just been started."""
    return msgspec.structs.replace(part, state="starting", started_s=now_s)


def ready(part: Part) -> Part:
    """Return a part that works."""
    return msgspec.structs.replace(part, state="running")


def draining(part: Part, until_s: float) -> Part:
    """Return a part that was asked to end, and is killed at `until_s`."""
    return msgspec.structs.replace(part, state="draining", due_s=until_s)


def ended(part: Part, why: str, now_s: float) -> Part:
    """Return a part whose process has ended unasked: to be started again later, or given up.

    Args:
        part: the part as it lived.
        why: how it ended.
        now_s: the supervisor's monotonic clock.
    """
    quick_ends = part.quick_ends + 1 if now_s - part.started_s < QUICK_S else 0
    if quick_ends >= MOST_QUICK_ENDS:
        return msgspec.structs.replace(part, state="failed", quick_ends=quick_ends, why=why)
    return msgspec.structs.replace(
        part,
        state="waiting",
        restarts=part.restarts + 1,
        quick_ends=quick_ends,
        due_s=now_s + delay_s(quick_ends),
        why=why,
    )


def revived(part: Part) -> Part:
    """Return a part that was given up and is tried again."""
    return Part(part.name, restarts=part.restarts + 1)


def delay_s(quick_ends: int) -> float:
    """Return how long to wait before the next start: doubled with each useless one, bounded."""
    return min(_FIRST_DELAY_S * 2.0 ** max(quick_ends - 1, 0), _MOST_DELAY_S)


def hopeless(parts: Mapping[str, Part]) -> str:
    """Return why the cluster cannot go on: its server, or every worker, was given up; else ""."""
    server = parts.get(SERVER)
    if server is not None and server.state == "failed":
        return f"the server was given up: {server.why}"
    workers = [part for part in parts.values() if is_worker(part.name)]
    if workers and all(part.state == "failed" for part in workers):
        return f"every worker was given up: {workers[0].name} {workers[0].why}"
    return ""
