"""What there is to see: each invoice's way, the workers, and what was said so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from relier.ops.events import Event
from relier.ops.fleet import Worker as Member

RENDER, BOOK = "render", "book"


class Said(NamedTuple):
    """One line of the story: when (seconds into the run), what, and how loud."""

    at_s: float
    text: str
    kind: str  # "plain", "kill", or "back"


@dataclass
class Way:
    """One invoice's way, step by step.

    Args:
        invoice: its number.
        place: "queued", "printing", "killed", "booking" or "done".
        steps: what happened to it, in words.
        worker: the name of the worker that has it, or "".
        since_s: when it came to where it is, seconds into the run.
        deaths: how often a process died under it.
    """

    invoice: str
    place: str = "queued"
    steps: list[str] = field(default_factory=list)
    worker: str = ""
    since_s: float = 0.0
    deaths: int = 0


@dataclass
class Stage:
    """One worker as the audience sees it; ``state`` is "starting", "ready", "killed", "stopped"."""

    name: str
    state: str = "starting"
    pid: int = 0
    done: int = 0


class Scene:
    """The run so far.

    Args:
        total: how many orders will be placed.
        names: of the workers.
    """

    def __init__(self, total: int, names: Iterable[str]) -> None:
        self.total = total
        self.now_s = 0.0
        self.accepted = 0
        self.resurrected = 0
        self.stages = {name: Stage(name) for name in names}
        self.ways: dict[str, Way] = {}
        self.said: list[Said] = []
        self._tasks: dict[str, tuple[Way, str]] = {}
        self._names: dict[str, str] = {}

    @property
    def done(self) -> int:
        """Return how many invoices are printed and booked."""
        return sum(way.place == "done" for way in self.ways.values())

    def count(self, place: str) -> int:
        """Return how many invoices are in one place."""
        return sum(way.place == place for way in self.ways.values())

    def printing(self, worker: str) -> list[Way]:
        """Return what a worker is printing."""
        return [w for w in self.ways.values() if w.place == "printing" and w.worker == worker]

    def say(self, text: str, kind: str = "plain") -> None:
        """Add a line to the story."""
        self.said.append(Said(self.now_s, text, kind))

    def order(self, invoice: str, render_id: str, book_id: str) -> None:
        """Take in an accepted order."""
        way = self.ways[invoice] = Way(invoice, since_s=self.now_s)
        self._tasks[render_id], self._tasks[book_id] = (way, RENDER), (way, BOOK)
        self.accepted += 1

    def way_of(self, task_id: str) -> tuple[Way, str] | None:
        """Return whose task it is, and which of its two; None for a stranger's."""
        return self._tasks.get(task_id)

    def see_members(self, members: Iterable[Member]) -> None:
        """Take in who is in the fleet."""
        for member in members:
            name = member.name.partition("@")[0]
            self._names[member.worker_id] = name
            stage = self.stages.get(name)
            # The entry of a killed process stays until it is reaped.
            if stage and stage.pid == member.pid and stage.state == "starting":
                stage.state = "ready"
                self.say(f"worker {name} is ready (pid {member.pid})")

    def see(self, event: Event) -> None:
        """Take in one event."""
        found = self._tasks.get(event.task_id)
        if found is None:
            return
        way, part = found
        worker = self._names.get(event.worker, "")
        if event.kind == "started":
            self._started(way, part, worker)
        elif event.recovery:
            self.resurrected += 1
            self._move(way, "queued", "", "resurrected")
        elif event.kind == "returned":
            self._move(way, "queued", "", "handed back")
        elif event.kind == "committed" and part == RENDER:
            self._move(way, "booking", way.worker, "printed")
        elif event.kind == "ended" and part == BOOK:
            self._move(way, "done", worker, "booked")
            way.steps.remove("printed")
            if worker in self.stages:
                self.stages[worker].done += 1
        elif event.kind == "dead":
            self._move(way, "dead", "", "dead letter")

    def killed(self, way: Way) -> None:
        """Note that a process died under an invoice; Redis learns of it later."""
        way.deaths += 1
        self._move(way, "killed", way.worker, "killed")

    def back(self, way: Way, after_s: float) -> None:
        """Note that an invoice is being printed again, so long after the kill."""
        step = f"back on {way.worker}"
        if step in way.steps:
            way.steps[way.steps.index(step)] = f"{step} after {after_s:.2f} s"
        self.say(
            f"{way.invoice} is printed again on {way.worker}, {after_s:.2f} s after the kill",
            "back",
        )

    def _started(self, way: Way, part: str, worker: str) -> None:
        if part == RENDER:
            if way.steps[-1:] == ["resurrected"]:
                way.steps.pop()
            self._move(way, "printing", worker, f"{'back ' if way.deaths else ''}on {worker}")
        else:
            self._move(way, "booking", worker, "")

    def _move(self, way: Way, place: str, worker: str, step: str) -> None:
        way.place, way.worker, way.since_s = place, worker, self.now_s
        if step:
            way.steps.append(step)
