"""Show the play: live in a terminal, line by line elsewhere, or not at all."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from relier.demo.account import Account
from relier.demo.orders import money
from relier.demo.scene import Said, Scene, Stage, Way

_STYLES = {"plain": "", "kill": "bold red", "back": "green"}
_PLACES = {
    "queued": "yellow",
    "printing": "cyan",
    "killed": "bold red",
    "booking": "blue",
    "done": "green",
    "dead": "bold red",
}
_SHOWN_LINES = 7
_FIXED_ROWS = 9


class Screen(Protocol):
    """Where a play is shown; a context manager around it."""

    def draw(self, scene: Scene) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Silent:
    """No screen: only the account is wanted."""

    def draw(self, scene: Scene) -> None:
        """Show nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class Lines:
    """One line for each thing said, and a count now and then.

    Args:
        console: where to.
    """

    _COUNT_EVERY = 10

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed = 0
        self._counted = 0

    def draw(self, scene: Scene) -> None:
        """Print what is new."""
        for said in scene.said[self._printed :]:
            self._console.print(_line(said), soft_wrap=True)
        self._printed = len(scene.said)
        tens = scene.done // self._COUNT_EVERY
        if tens > self._counted:
            self._counted = tens
            done = Said(scene.now_s, f"{scene.done} of {scene.total} invoices done", "plain")
            self._console.print(_line(done), soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class Stagecraft:
    """The live view.

    Args:
        console: a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._last: Scene | None = None

    def draw(self, scene: Scene) -> None:
        """Draw the whole picture."""
        self._last = scene
        self._live.update(self._picture(scene), refresh=True)

    def __enter__(self) -> Self:
        self._live.start(refresh=False)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()
        if self._last is not None:
            # What stays on the terminal is the story; the picture was of the moment.
            for said in self._last.said:
                self._console.print(_line(said), soft_wrap=True)

    def _picture(self, scene: Scene) -> RenderableType:
        room = max(self._console.height - 1, 12)
        lines = min(_SHOWN_LINES, max(room - _FIXED_ROWS - 4, 2))
        rows = max(room - _FIXED_ROWS - lines, 2)
        story = [_line(said, self._console.width) for said in scene.said[-lines:]]
        story += [Text()] * (lines - len(story))
        return Group(
            _title(scene, self._console.width),
            Text(),
            _workers(scene),
            Text(),
            _progress(scene),
            Text(),
            *story,
            Text(),
            _ways(scene, rows, self._arrow),
        )

    @property
    def _arrow(self) -> str:
        return " → " if self._console.encoding.lower().startswith("utf") else " > "


def show_account(console: Console, found: Account) -> None:
    """Print the closing account."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("accepted", f"{found.orders} orders, two tasks each: {found.accepted} tasks")
    table.add_row("completed", f"{found.completed}, after {found.runs} runs")
    table.add_row("resurrected", str(found.resurrected))
    for killed in ("worker", "pool process"):
        times = [r for r in found.recoveries if r.killed == killed]
        if times:
            shown = ", ".join(f"{_seconds(r.after_s)} ({r.invoice})" for r in times)
            table.add_row(f"{killed} killed", f"running again after {shown}")
    table.add_row("booked", f"{money(found.booked_cents)} of {money(found.ordered_cents)} ordered")
    table.add_row("lost", _count(found.lost))
    table.add_row("committed twice", _count(found.committed_twice))
    if found.left_over:
        table.add_row("left in Redis", Text(str(found.left_over), style="bold red"))
    console.print()
    console.print(table)
    console.print()
    verdict = (
        Text(f"The account is clean, after {found.took_s:.0f} s.", style="bold green")
        if found.clean
        else Text("THE ACCOUNT IS NOT CLEAN.", style="bold red")
    )
    console.print(verdict)
    console.print(f"The invoices: {found.folder}/invoices", soft_wrap=True, highlight=False)


def _seconds(after_s: float | None) -> str:
    return "never" if after_s is None else f"{after_s:.2f} s"


def _count(names: tuple[str, ...]) -> Text:
    if not names:
        return Text("0", style="bold green")
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return Text(f"{len(names)}: {', '.join(names[:5])}{more}", style="bold red")


def _line(said: Said, width: int | None = None) -> Text:
    text = Text(f"{said.at_s:6.1f} s  ", style="dim")
    text.append(said.text, style=_STYLES[said.kind])
    if width:
        text.truncate(width - 1, overflow="ellipsis")
    return text


def _title(scene: Scene, width: int) -> Text:
    text = Text("relier demo", style="bold")
    text.append("  a web shop prints invoices while its workers are killed", style="dim")
    clock = f"{scene.now_s:.1f} s"
    text.truncate(max(width - len(clock) - 2, 12))
    text.append(clock.rjust(max(width - len(text) - 1, len(clock) + 1)), style="bold")
    return text


def _workers(scene: Scene) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("worker", width=8)
    table.add_column("pid", width=7)
    table.add_column("state", width=9)
    table.add_column("booked", justify="right")
    table.add_column("prints now", no_wrap=True)
    for stage in scene.stages.values():
        table.add_row(
            Text(stage.name, style="bold"),
            str(stage.pid or ""),
            _state(stage),
            str(stage.done),
            _prints(scene, stage),
        )
    return table


def _state(stage: Stage) -> Text:
    style = {"ready": "green", "killed": "bold red"}.get(stage.state, "yellow")
    return Text(stage.state, style=style)


def _prints(scene: Scene, stage: Stage) -> Text:
    if stage.state == "killed":
        return Text("nothing any more", style="red")
    ways = scene.printing(stage.name)
    if not ways:
        return Text("idle" if stage.state == "ready" else "", style="dim")
    shown = [f"{way.invoice} {scene.now_s - way.since_s:3.1f} s" for way in ways]
    return Text("   ".join(shown), style="cyan")


def _progress(scene: Scene) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_row(
        Text(f"{scene.done}/{scene.total} done", style="bold"),
        ProgressBar(total=scene.total, completed=scene.done, width=22),
        Text(
            f"queued {scene.count('queued')}  printing {scene.count('printing')}  "
            f"resurrected {scene.resurrected}"
        ),
    )
    return table


def _ways(scene: Scene, rows: int, arrow: str) -> Table:
    """Show the ways that are under way, and those of the killed, which one wants to follow."""
    ways = list(scene.ways.values())
    killed = [way for way in ways if way.deaths][-4:]
    moving = [way for way in ways if not way.deaths and way.place != "done"]
    done = [way for way in ways if not way.deaths and way.place == "done"]
    room = max(rows - 1 - len(killed), 0)
    shown = [*killed, *([*done, *moving][-room:] if room else [])]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("invoice", min_width=8, no_wrap=True)
    table.add_column("now", min_width=8, no_wrap=True)
    table.add_column("its way", no_wrap=True, overflow="ellipsis")
    for way in shown[: max(rows - 1, 1)]:
        table.add_row(
            Text(way.invoice, style="bold" if way.deaths else ""),
            Text(way.place, style=_PLACES.get(way.place, "")),
            _steps(way, arrow),
        )
    return table


def _steps(way: Way, arrow: str) -> Text:
    text = Text(overflow="ellipsis", no_wrap=True)
    for index, step in enumerate(way.steps):
        if index:
            text.append(arrow, style="dim")
        if step == "killed":
            text.append(step, style="bold red")
        elif step == "booked" or step.startswith("back"):
            text.append(step, style="green")
        else:
            text.append(step)
    return text
