"""Give many dead letters a new life, at a bounded rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from relier.errors import PayloadError, PayloadIntegrityError
from relier.ops import revival
from relier.ops.lettersearch import Filter, Search
from relier.ops.revival import Order
from relier.protocol.envelope import Keyring
from relier.store import reading
from relier.store.client import Store

_MOST_EXAMPLES = 5


@dataclass(slots=True)
class Tally:
    """What was done so far; true at any moment, so that an interruption can be accounted for.

    Args:
        looked_at: letters that were looked at.
        released: that live again by this.
        gone: that somebody else released or removed first.
        alive: whose task was dispatched anew and lives; they stay.
        refused: that cannot be released like this; they stay.
        examples: some of those refused, and why.
    """

    looked_at: int = 0
    released: int = 0
    gone: int = 0
    alive: int = 0
    refused: int = 0
    examples: dict[str, str] = field(default_factory=dict)


def retry_all(
    store: Store,
    chosen: Filter,
    keyring: Keyring,
    order: Order,
    tally: Tally,
    pace: Callable[[int], None],
) -> None:
    """Release every letter that a filter means and that is dead by now, the oldest first.

    What dies meanwhile is left, so that a task which fails again is not released for ever. Two
    that do this at once release each letter once.

    Args:
        tally: counts what is done.
        pace: called before each release with the number of those before it; it waits.

    Raises:
        RedisConnectionError: the server is away; what was done is done, and the rest can be done
            by doing this again.
    """
    search = Search(store, chosen, reading.now_ms(store), newest_first=False)
    for row in search:
        tally.looked_at = search.looked_at
        found = revival.find(store, row.letter_id, [row.queue])
        if found is None or found.at_ms != row.at_ms:
            tally.gone += 1
            continue
        pace(tally.released)
        try:
            done = revival.release(store, found, keyring, order)
        except (PayloadError, PayloadIntegrityError) as error:
            tally.refused += 1
            if len(tally.examples) < _MOST_EXAMPLES:
                tally.examples[row.letter_id] = str(error)
            continue
        tally.released += done.released
        tally.alive += done.alive
        tally.gone += not (done.released or done.alive)
    tally.looked_at = search.looked_at
