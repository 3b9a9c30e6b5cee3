"""Phoenix as a service: look, judge, bring back, several times a second.

It runs in every worker and as ``rl run-resurrector``. All of them watch; the tick key lets one act
at a time, and when that one dies another goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from relier.errors import RedisConnectionError, RelierError
from relier.phoenix.detector import Detector, Sighting, Verdict
from relier.phoenix.reaper import bring_back, wake_parked
from relier.phoenix.retention import Retention, retain
from relier.phoenix.sweeper import Sweeper
from relier.store import fleet, reading, trimming
from relier.store.broker import Broker

logger = logging.getLogger(__name__)

_SWEEP_EVERY_S = 1.0
_TRIM_EVERY_MS = 2000


class Phoenix(threading.Thread):
    """Watch a broker's fleet until stopped.

    Args:
        broker: the broker.
    """

    def __init__(self, broker: Broker) -> None:
        super().__init__(name="relier-phoenix", daemon=True)
        self._broker = broker
        self._store = broker.new_store(max_connections=2)
        self._detector = Detector(broker.settings.resurrection_check_interval_s)
        self._stopping = threading.Event()
        self._swept_at_s = float("-inf")
        self._every_s = broker.settings.resurrection_check_interval_s
        files = broker.checkpoint_files
        self._sweeper = Sweeper(broker, files) if files else None
        self._retention = Retention.of(broker.settings)
        self._failing: set[str] = set()

    def run(self) -> None:
        """Look around until stopped; a server that is away only means to look again."""
        if self._sweeper is not None:
            self._sweeper.start()
        blind = False
        while not self._stopping.wait(self._every_s):
            try:
                self.look()
                if blind:
                    logger.info("Redis answers again; watching the workers")
                blind = False
            except RelierError as error:
                if not blind:
                    logger.warning("cannot watch the workers (%s); looking again", error)
                blind = True
            except Exception:
                # Nobody would come back from the dead if this thread died of a surprise.
                logger.exception("phoenix could not look around; looking again")
        self._store.close()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._sweeper is not None:
            self._sweeper.stop()
        if self.is_alive() and threading.current_thread() is not self:
            self.join(timeout=2.0)

    def look(self) -> None:
        """Look once, and bring back what the dead held."""
        store = self._store
        seen = fleet.survey(store)
        sightings = {worker: _sighting(entry) for worker, entry in seen.entries.items()}
        verdicts = self._detector.look(sightings, seen.connected, seen.run_id, time.monotonic())
        try:
            if self._detector.doubts:
                fleet.prove_writable(store)
            if verdicts and fleet.take_tick(store, int(self._every_s * 1000)):
                for verdict in verdicts:
                    self._bring_back(verdict)
            if time.monotonic() - self._swept_at_s > _SWEEP_EVERY_S:
                self._swept_at_s = time.monotonic()
                self._tidy()
        except RedisConnectionError:
            # Reading goes on where writing is refused, and then every worker looks silent.
            self._detector.forget()
            raise

    def _tidy(self) -> None:
        """Do what keeps the keyspace in order; the trouble of one is not the others'."""
        chores: dict[str, Callable[[], None]] = {
            "wake all parked calls": lambda: wake_parked(self._store, self._broker),
            "trim the event streams": self._trim,
            "remove old dead letters": self._retain,
        }
        for what, act in chores.items():
            try:
                act()
                self._failing.discard(what)
            except RedisConnectionError:
                raise
            except RelierError as error:
                if what not in self._failing:
                    logger.error("cannot %s (%s); trying again", what, error)
                self._failing.add(what)
            except Exception:
                # One chore's surprise must keep neither the others nor the watch from going on.
                logger.exception("could not %s; trying again", what)

    def _retain(self) -> None:
        if self._retention.asked_for:
            retain(self._store, self._retention)

    def _trim(self) -> None:
        settings, store = self._broker.settings, self._store
        if trimming.take_turn(store, _TRIM_EVERY_MS):
            oldest_ms = reading.now_ms(store) - int(settings.events_max_age_s * 1000)
            trimming.trim(
                store,
                fleet.known_queues(store),
                max_length=settings.events_max_length,
                oldest_ms=max(oldest_ms, 0),
            )

    def _bring_back(self, verdict: Verdict) -> None:
        """Bring back what one worker held; its trouble is not the others'."""
        try:
            bring_back(self._store, self._broker, verdict)
        except RedisConnectionError:
            raise
        except Exception:
            # One worker's trouble must not keep the others' tasks waiting.
            logger.exception("could not bring back what worker %s held", verdict.worker)


def _sighting(entry: Mapping[str, str]) -> Sighting:
    return Sighting(
        beat=entry.get("beat", ""),
        client_id=entry.get("client_id", ""),
        run_id=entry.get("run_id", ""),
        ttl_s=int(entry.get("hb", "10000")) / 1000,
        dying="dying" in entry or not entry,
    )
