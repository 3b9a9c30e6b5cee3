"""Decide who is dead: pure, time passed in.

No clock is compared with another machine's. A worker is judged by what this observer itself saw, on
its own monotonic clock, while the server answered throughout; any gap starts the watch anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

GONE_GRACE_S = 0.75
"""A worker whose connection closed has this long to register another; it takes it 0.1 s."""

LONGEST_GAP_S = 2.0
"""Between two looks (or three of their intervals); after a longer one the watch starts anew."""


class Sighting(NamedTuple):
    """What a worker's entry says.

    Args:
        beat: its counter.
        client_id: of its beat's connection, or "".
        run_id: of the server that connection was made to.
        ttl_s: how long it may be silent.
        dying: whether somebody has begun to reap it.
    """

    beat: str
    client_id: str
    run_id: str
    ttl_s: float
    dying: bool


class Verdict(NamedTuple):
    """A worker found dead, and what gave it away."""

    worker: str
    sighting: Sighting
    reason: str


@dataclass
class _Watch:
    sighting: Sighting
    unchanged_since_s: float
    gone_since_s: float | None = None


class Detector:
    """Watch a fleet from one place.

    Args:
        every_s: how often it will look; a gap is a pause much longer than that.
    """

    def __init__(self, every_s: float = 0.25) -> None:
        self._gap_s = max(LONGEST_GAP_S, 3 * every_s)
        self._watched: dict[str, _Watch] = {}
        self._looked_at_s: float | None = None
        self._run_id = ""

    def look(
        self,
        fleet: Mapping[str, Sighting],
        connected: Collection[str] | None,
        run_id: str,
        now_s: float,
    ) -> list[Verdict]:
        """Take in one look at the fleet and say who is dead.

        Args:
            fleet: the entries by worker id.
            connected: client ids the server still knows, or None when it may not be asked.
            run_id: the server's run id.
            now_s: this observer's monotonic clock.
        """
        gap = self._looked_at_s is None or now_s - self._looked_at_s > self._gap_s
        if gap or run_id != self._run_id:
            self._watched.clear()
        self._looked_at_s, self._run_id = now_s, run_id
        for gone in self._watched.keys() - fleet.keys():
            del self._watched[gone]
        verdicts = []
        for worker, sighting in fleet.items():
            reason = self._judge(worker, sighting, connected, run_id, now_s)
            if reason:
                verdicts.append(Verdict(worker, sighting, reason))
        return verdicts

    @property
    def doubts(self) -> bool:
        """Return whether somebody's sign of life is overdue, though nobody is dead for it yet.

        From then on the observer must know that a sign could have been given: a server that
        refuses writes answers every question, and lets nobody say that it lives.
        """
        return any(
            watch.gone_since_s is not None
            or (self._looked_at_s or 0.0) - watch.unchanged_since_s >= watch.sighting.ttl_s / 2
            for watch in self._watched.values()
        )

    def forget(self) -> None:
        """Start the watch anew: the server took no writes, so nobody could say that it lives."""
        self._watched.clear()

    def _judge(
        self,
        worker: str,
        sighting: Sighting,
        connected: Collection[str] | None,
        run_id: str,
        now_s: float,
    ) -> str:
        if sighting.dying:
            return "being reaped"
        watch = self._watched.get(worker)
        if watch is None or watch.sighting != sighting:
            watch = self._watched[worker] = _Watch(sighting, now_s)
        if connected is not None and sighting.client_id and sighting.run_id == run_id:
            if sighting.client_id in connected:
                watch.gone_since_s = None
            elif watch.gone_since_s is None:
                watch.gone_since_s = now_s
            elif now_s - watch.gone_since_s >= GONE_GRACE_S:
                return "connection lost"
        if now_s - watch.unchanged_since_s >= sighting.ttl_s:
            return f"silent for {watch.sighting.ttl_s:g} s"
        return ""
