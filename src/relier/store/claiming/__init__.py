"""A worker's own operations: being there, taking messages, giving them back."""

from relier.store.claiming.presence import RESTART, Seen, beat, drain, drained, goodbye, hello
from relier.store.claiming.refusing import Ended, Unread, bury, defer, discard
from relier.store.claiming.returning import Returned, disown, reconcile, release, requeue
from relier.store.claiming.taking import MOST_PER_CLAIM, Claimed, Harvest, claim

__all__ = [
    "MOST_PER_CLAIM",
    "RESTART",
    "Claimed",
    "Ended",
    "Harvest",
    "Returned",
    "Seen",
    "Unread",
    "beat",
    "bury",
    "claim",
    "defer",
    "discard",
    "disown",
    "drain",
    "drained",
    "goodbye",
    "hello",
    "reconcile",
    "release",
    "requeue",
]
