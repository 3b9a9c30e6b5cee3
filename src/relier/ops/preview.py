"""What an order about many dead letters would do, before it is given."""

from __future__ import annotations

from dataclasses import dataclass

from relier.ops import lettergroups
from relier.ops.lettergroups import Group
from relier.ops.lettersearch import Filter, Search
from relier.store.client import Store


@dataclass(frozen=True, slots=True)
class Preview:
    """The letters that a filter means now.

    Args:
        letters: how many.
        exact: whether these are all; else there are more.
        groups: their errors, the most frequent first.
    """

    letters: int
    exact: bool
    groups: tuple[Group, ...]
    now_ms: int


def preview(store: Store, chosen: Filter, most_groups: int = 20) -> Preview:
    """Count what a filter means, by the index where that can tell."""
    found = lettergroups.groups(store, chosen, limit=lettergroups.MOST_LOOKED_AT)
    groups = found.rows[:most_groups]
    if chosen.error:
        # A group has one text but for numbers and ids: what is sought may be one of those.
        search = Search(store, chosen, found.now_ms)
        return Preview(sum(1 for _ in search), True, (), found.now_ms)
    if not (chosen.task or chosen.reason):
        count = Search(store, chosen, found.now_ms).total
        return Preview(count, True, groups, found.now_ms)
    exact = found.looked_at == found.total and not found.unread
    return Preview(sum(each.count for each in found.rows), exact, groups, found.now_ms)
