"""Remove dead letters for good."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from relier.errors import CheckpointError
from relier.ops.lettersearch import Filter, LetterRow, Search
from relier.protocol.checkpoint import Place
from relier.protocol.identity import mint_token
from relier.store import letters, reading
from relier.store.checkpoint_files import CheckpointFiles
from relier.store.client import Store


@dataclass(slots=True)
class Tally:
    """What was removed so far; true at any moment.

    Args:
        removed: letters, by queue.
        files: of their checkpoints, removed here.
        files_left: that the workers' sweeper will remove: their folder is out of reach here.
    """

    removed: dict[str, int] = field(default_factory=dict)
    files: int = 0
    files_left: int = 0

    @property
    def total(self) -> int:
        """Return how many letters were removed."""
        return sum(self.removed.values())


def purge(
    store: Store, chosen: Filter, tally: Tally, why: str, files: CheckpointFiles | None
) -> None:
    """Remove every letter that a filter means and that is dead by now, the oldest first.

    The results of their tasks stay. A letter that somebody releases at the same time is released
    or removed, never both.

    Args:
        tally: counts what is done.
        why: said by the event of each.
        files: the backend of large checkpoints, if it can be reached here.

    Raises:
        RedisConnectionError: the server is away; what is counted was removed.
    """
    search = Search(store, chosen, reading.now_ms(store), newest_first=False)
    for queue, batch in _batches(iter(search)):
        found = [(row.letter_id, row.at_ms) for row in batch]
        operation = letters.purge(
            store.keys, queue, found, why, mint_token(), fingerprint=chosen.fingerprint
        )
        done = store.run(operation)
        tally.removed[queue] = tally.removed.get(queue, 0) + done.letters
        for place in done.files:
            if files is not None and _removed(files, place):
                tally.files += 1
            else:
                tally.files_left += 1


def _batches(rows: Iterator[LetterRow]) -> Iterator[tuple[str, list[LetterRow]]]:
    """Yield the rows in small batches, each of one queue."""
    while batch := list(islice(rows, letters.MOST_PURGED)):
        for queue in sorted({row.queue for row in batch}):
            yield queue, [row for row in batch if row.queue == queue]


def _removed(files: CheckpointFiles, place: Place) -> bool:
    """Remove a file; what fails is left to the sweeper, for which nobody refers to it now."""
    if place.backend != files.name:
        return False
    try:
        files.remove(place)
    except CheckpointError:
        return False
    return True
