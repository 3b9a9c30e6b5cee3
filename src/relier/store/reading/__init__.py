"""Read what is there, for people. Reading changes nothing, is bounded, and needs no script.

Nothing here scans the keyspace, `health` apart: the registries of queues and workers lead to every
other key.
"""

from relier.store.reading.claims import HeldClaim, held, parcels
from relier.store.reading.events import (
    About,
    StreamEvent,
    events_about,
    events_after,
    events_before,
    history,
)
from relier.store.reading.letters import (
    Extent,
    GroupCounts,
    Span,
    Summary,
    count_dead,
    dead,
    dead_between,
    dead_extents,
    group_counts,
    group_spans,
    letter,
    letter_message,
    letter_sizes,
    letter_summaries,
    letter_tracebacks,
    letters_beginning,
)
from relier.store.reading.messages import (
    SUFFIXES,
    Depth,
    Waiting,
    depths,
    oldest,
    replays,
    scheduled,
    scheduled_parcel,
    size,
    unwrap,
    waiting,
)
from relier.store.reading.queues import InHand, any_waiting, in_hand, next_messages, pauses
from relier.store.reading.server import answered, info, load_script, now_ms, remove_prefixed
from relier.store.reading.tallies import Counts, ended_by_half_hour, ended_by_minute
from relier.store.reading.tasks import records, stored_result
from relier.store.reading.workers import worker_entries, worker_entry, worker_names

__all__ = [
    "SUFFIXES",
    "About",
    "Counts",
    "Depth",
    "Extent",
    "GroupCounts",
    "HeldClaim",
    "InHand",
    "Span",
    "StreamEvent",
    "Summary",
    "Waiting",
    "answered",
    "any_waiting",
    "count_dead",
    "dead",
    "dead_between",
    "dead_extents",
    "depths",
    "ended_by_half_hour",
    "ended_by_minute",
    "events_about",
    "events_after",
    "events_before",
    "group_counts",
    "group_spans",
    "held",
    "history",
    "in_hand",
    "info",
    "letter",
    "letter_message",
    "letter_sizes",
    "letter_summaries",
    "letter_tracebacks",
    "letters_beginning",
    "load_script",
    "next_messages",
    "now_ms",
    "oldest",
    "parcels",
    "pauses",
    "records",
    "remove_prefixed",
    "replays",
    "scheduled",
    "scheduled_parcel",
    "size",
    "stored_result",
    "unwrap",
    "waiting",
    "worker_entries",
    "worker_entry",
    "worker_names",
]
