"""Every plausible misreading that is known, as one switch of the rules and a world that refutes it.

The first twelve are the readings whose traces the design paper holds; the others were found by
exploring this model while it followed an earlier draft of the scripts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from model.rules import RIGHT, Rules
from model.state import Message
from model.world import World
from model.worlds import AGAIN, ONE, SAME, A, B, kinds


class Mutation(NamedTuple):
    """One switch turned off.

    Args:
        switch: a field of ``Rules``.
        reading: how the design was misread.
        world: where that breaks a law.
        law: which one.
        limits: resurrections and interruptions allowed.
    """

    switch: str
    reading: str
    world: World
    law: str
    limits: tuple[int, int] = (RIGHT.max_resurrections, RIGHT.max_interruptions)

    def right(self) -> Rules:
        """Return the right rules with these limits."""
        resurrections, interruptions = self.limits
        return Rules(max_resurrections=resurrections, max_interruptions=interruptions)

    def wrong(self) -> Rules:
        """Return the rules as misread."""
        return replace(self.right(), **{self.switch: False})


def _world(
    words: str,
    *publishes: Message,
    bodies: str = "ok",
    faults: int = 1,
    workers: int = 1,
    room: int = 1,
    saves: int = 0,
    asks: bool = False,
) -> World:
    kind = kinds(words)
    return World(
        words, publishes or (A,), tuple(bodies.split()), faults, kind, workers, room, saves, asks
    )


MUTATIONS = (
    Mutation(
        "token_before_retry_loop",
        "kombu's publish retry mints a new delivery tag, and the tag is the token",
        _world("cut"),
        "LAW2",
    ),
    Mutation(
        "record_keeps_all_tokens",
        "the record keeps the last token; a retry replaced the first publish's",
        _world("cut", bodies="retry"),
        "LAW",
    ),
    Mutation(
        "ended_copy_dropped",
        "a copy that is claimed after the end finds nobody in its way and is adopted",
        _world("copy"),
        "LAW2",
    ),
    Mutation(
        "failed_send_stays_committed",
        "a send fails, the tracer reports an error and main acknowledges",
        _world("unsent"),
        "LAW2 consequence",
    ),
    Mutation(
        "failure_sends_consequences",
        "bury moves a started task straight to the dead letters",
        _world("timeout"),
        "LAW2 consequence",
    ),
    Mutation(
        "kid_token_per_life",
        "a consequence's token derives from the parent's id alone",
        _world("", A, AGAIN),
        "LAW2",
    ),
    Mutation(
        "claim_needs_entry",
        "a worker that was reaped while it was paused goes on claiming",
        _world("pause"),
        "LAW1",
    ),
    Mutation(
        "epoch_raised_in_place",
        "after a reconnect the worker is a new incarnation, the old one is reaped",
        _world("cut", faults=1),
        "LAW5",
    ),
    Mutation(
        "alone_judged_once",
        "each batch of a reap counts what is left: the last one ran alone",
        _world("crash", A, B, room=2),
        "LAW6",
    ),
    Mutation(
        "replace_held_back",
        "replace(group) publishes its header from inside the body, under random ids",
        _world("crash", bodies="replace"),
        "LAW2 consequence",
    ),
    Mutation(
        "child_death_returns_unstarted",
        "a child dies before start; main's on_failure acknowledges",
        _world("child"),
        "LAW1",
    ),
    Mutation(
        "release_refuses_started",
        "main returns a prefetched claim that its child has just begun",
        _world("release"),
        "LAW1",
    ),
    Mutation(
        "tokens_outlive_life",
        "a new life of an id writes its record afresh",
        _world("cut", A, AGAIN),
        "LAW",
    ),
    Mutation(
        "token_knows_its_life",
        "a known token is taken for one of the present life",
        _world("copy", A, AGAIN),
        "LAW2",
    ),
    Mutation(
        "noop_keeps_token",
        "a publish that finds the task running writes nothing, its own token neither",
        _world("cut", A, AGAIN),
        "LAW2",
    ),
    Mutation(
        "copy_takes_generation",
        "a copy of a task that waits for its retry counts as the generation it says",
        _world("purge", A, AGAIN, bodies="retry"),
        "LAW1",
    ),
    Mutation(
        "committed_copy_dropped",
        "a copy is dropped while another claim holds the outcome; the replay list is no claim",
        _world("crash", A, AGAIN, workers=2),
        "LAW2",
    ),
    Mutation(
        "started_copy_dropped",
        "start looks at the record's end only",
        _world("copy", workers=2),
        "LAW2",
    ),
    Mutation(
        "replaced_is_not_ended",
        "the ack of a replaced task ends it; its chord's body, a later generation, follows on",
        _world("", A, AGAIN, bodies="replace"),
        "LAW1",
    ),
    Mutation(
        "ack_names_its_life",
        "ack ends the record when it says committed, whoever committed",
        _world("", bodies="replace", workers=2),
        "LAW1",
    ),
    Mutation(
        "old_copy_ends_nothing",
        "an expired copy of a task that waits for its retry ends the record",
        _world("discard", A, AGAIN, bodies="retry"),
        "LAW1",
    ),
    Mutation(
        "letters_per_life",
        "a dead letter is filed under the task id",
        _world("", A, AGAIN, bodies="fail"),
        "LAW1",
    ),
    Mutation(
        "revive_spares_the_living",
        "a dead letter is revived while its id, dispatched again, lives",
        _world("revive", A, AGAIN, bodies="fail"),
        "LAW1",
    ),
    Mutation(
        "claim_names_epoch",
        "late bytes of a claim, sent before a reconnect, still claim",
        _world("cut"),
        "LAW1",
    ),
    Mutation(
        "reconcile_returns_replays",
        "reconcile gives back what is neither started nor committed",
        _world("cut unsent", faults=2),
        "LAW1",
    ),
    Mutation(
        "reconcile_spares_started",
        "reconcile gives back all that is not held; its bytes were late",
        _world("reconcile"),
        "LAW1",
    ),
    Mutation(
        "reap_names_beat",
        "a late reap takes the claims of a worker that came back",
        _world("cut pause", faults=2),
        "LAW5",
    ),
    Mutation(
        "reap_marks_dying",
        "only the last batch of a reap removes the entry",
        _world("crash", A, B, room=2),
        "LAW6",
    ),
    Mutation(
        "unstarted_not_blamed",
        "all that a dead worker held is blamed",
        _world("crash"),
        "LAW5",
    ),
    Mutation(
        "own_death_blamed",
        "a process that dies under its task counts as an interruption",
        _world("child", faults=2),
        "LAW6",
        limits=(0, 2),
    ),
    Mutation(
        "interruptions_bounded",
        "a task with neighbours is never condemned",
        _world("crash", A, B, room=2),
        "LAW6",
        limits=(0, 0),
    ),
    Mutation(
        "busy_key_parks",
        "a key is looked at when a task ends",
        _world("", ONE, SAME, workers=2),
        "LAW2",
    ),
    Mutation(
        "done_key_not_run",
        "a duplicate that was parked runs when it is woken",
        _world("", ONE, SAME),
        "LAW2",
    ),
    Mutation(
        "key_found_under_claim",
        "a key function, or a migration that leads to the key, runs before start",
        _world("child", ONE, faults=2, asks=True),
        "LAW6",
    ),
    Mutation(
        "any_end_wakes",
        "only a commit wakes the parked; main commits the failure of one that it stopped",
        _world("timeout", ONE, SAME, workers=2),
        "LAW1",
    ),
    Mutation(
        "suspects_run_apart",
        "the last suspect that started in a worker is blamed for its death",
        _world("crash", A, B, room=2, faults=2, workers=2),
        "LAW6",
    ),
    Mutation(
        "interruptions_charged",
        "a suspect that is found out may die as often again",
        _world("crash", A, B, room=2, faults=2, workers=2),
        "LAW6",
    ),
    Mutation(
        "checkpoint_names_claim",
        "a checkpoint is the task's, whoever saves it",
        _world("pause", workers=2, saves=1)._replace(audit=True),
        "LAW3",
    ),
    Mutation(
        "late_checkpoint_ignored",
        "the last checkpoint to arrive is the last one",
        _world("cut", saves=2),
        "LAW3",
    ),
    Mutation(
        "checkpoint_survives_death",
        "what comes back from the dead begins anew",
        _world("child", saves=1),
        "LAW1",
    ),
    Mutation(
        "retry_keeps_checkpoint",
        "a retry begins anew",
        _world("", bodies="retry", saves=1),
        "LAW1",
    ),
    Mutation(
        "replaced_drops_checkpoint",
        "a checkpoint belongs to the task id",
        _world("", bodies="replace", workers=2, saves=1),
        "LAW1",
    ),
    Mutation(
        "end_drops_checkpoint",
        "a checkpoint goes with its record's TTL",
        _world("", saves=1),
        "LAW1",
    ),
    Mutation(
        "letter_keeps_checkpoint",
        "a new life begins anew",
        _world("revive", bodies="fail", saves=1),
        "LAW1",
    ),
)
