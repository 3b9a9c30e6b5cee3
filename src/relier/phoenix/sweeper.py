"""Remove checkpoint files that nobody needs: what a process that died could not remove itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from itertools import islice

from relier.errors import RedisConnectionError, RelierError
from relier.protocol.checkpoint import Place
from relier.store import checkpoints
from relier.store.broker import Broker
from relier.store.checkpoint_files import CheckpointFiles
from relier.store.client import Store

logger = logging.getLogger(__name__)

SWEEP_EVERY_S = 600.0
RESERVED_FOR_MS = 600_000
"""How long writing one file may take."""


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


def sweep(store: Store, files: CheckpointFiles, grace_ms: int = RESERVED_FOR_MS) -> int:
    """Remove every file that no checkpoint refers to; return how many.

    A file is announced before it is written, so what is in the folder and is not known to the
    server is nobody's. What was announced ``grace_ms`` ago and is still not referred to is given
    up in the script that says so, and could not be referred to afterwards.

    Raises:
        RedisConnectionError: the server is away.
        CheckpointError: the folder cannot be listed, or a file not removed.
    """
    home = checkpoints.home(store)
    if not home:
        return 0
    removed = 0
    for found in (files.names(home), checkpoints.reserved_files(store)):
        for names in _batches(found):
            for name in store.run(checkpoints.free_files(store.keys, names, grace_ms)):
                files.remove(Place(files.name, home, name))
                removed += 1
    if removed:
        logger.info("removed %d checkpoint files that nobody needs", removed)
    return removed


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(names)
    while batch := list(islice(remaining, checkpoints.MOST_FILES)):
        yield batch
