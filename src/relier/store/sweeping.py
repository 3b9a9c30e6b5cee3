"""Remove checkpoint files that nobody needs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import islice

from relier.protocol.checkpoint import Place
from relier.store import checkpoints
from relier.store.checkpoint_files import CheckpointFiles
from relier.store.client import Store

logger = logging.getLogger(__name__)

RESERVED_FOR_MS = 600_000
"""How long writing one file may take."""


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
