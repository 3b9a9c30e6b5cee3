"""Remove checkpoint files that nobody needs: what a process that died could not remove itself."""

from __future__ import annotations

import logging
import threading

from relier.errors import RedisConnectionError, RelierError
from relier.store import checkpoints
from relier.store.broker import Broker
from relier.store.checkpoint_files import CheckpointFiles
from relier.store.sweeping import sweep

logger = logging.getLogger(__name__)

SWEEP_EVERY_S = 600.0


class Sweeper(threading.Thread):
    """Sweep now and then; of all the processes that do, one at a time.

    A thread of its own, for a folder on a network may hang, and the dead must be noticed meanwhile.

    Args:
        broker: whose checkpoints.
        files: the backend.
        every_s: how often.
    """

    def __init__(
        self, broker: Broker, files: CheckpointFiles, every_s: float = SWEEP_EVERY_S
    ) -> None:
        super().__init__(name="relier-sweeper", daemon=True)
        self._store = broker.new_store(max_connections=1)
        self._files = files
        self._every_s = every_s
        self._stopping = threading.Event()

    def run(self) -> None:
        """Sweep until stopped."""
        while not self._stopping.wait(self._every_s):
            try:
                if checkpoints.take_sweep(self._store, int(self._every_s * 1000)):
                    sweep(self._store, self._files)
            except RedisConnectionError as error:
                logger.debug("sweeper: %s; sweeping later", error)
            except RelierError as error:
                logger.warning("checkpoint files could not be swept: %s", error)
            except Exception:
                # A folder can hold anything; the thread must live to look again.
                logger.exception("checkpoint files could not be swept")
        self._store.close()

    def stop(self) -> None:
        """Have the thread end; it is not waited for."""
        self._stopping.set()
