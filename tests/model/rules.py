"""The readings of the protocol, one switch each; the default is the right one.

Every switch was a plausible way to read the design. Turned off, it breaks a law in a world small
enough to be explored completely (see ``mutations.py``), so none of them may be lost on the way
from the model to the scripts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """How the scripts and the processes behave.

    Args:
        max_resurrections: returns after its own death that a task is allowed.
        max_interruptions: returns after deaths of whole workers with neighbours.
    """

    max_resurrections: int = 1
    max_interruptions: int = 2

    # Tokens.
    token_before_retry_loop: bool = True  # a publish that is repeated keeps its token
    record_keeps_all_tokens: bool = True  # not the last one only
    tokens_outlive_life: bool = True  # a new life of an id still knows the tokens of the old ones
    noop_keeps_token: bool = True  # a publish answered "it runs already" never runs later
    token_knows_its_life: bool = True  # start drops a copy that belongs to a former life
    copy_takes_generation: bool = True  # a copy of an unstarted task is of the record's generation
    kid_token_per_life: bool = True  # consequences derive from the life's root token

    # Start.
    ended_copy_dropped: bool = True  # a known token of an ended record does not run
    committed_copy_dropped: bool = True  # also while the outcome waits in the replay list
    started_copy_dropped: bool = True  # one copy runs at a time

    # The end of a life.
    replaced_is_not_ended: bool = True  # an id that goes on elsewhere cannot be redispatched
    ack_names_its_life: bool = True  # ack ends the record only if it is still of its own commit
    old_copy_ends_nothing: bool = True  # one that expires does not end its own retry
    letters_per_life: bool = True  # a second death of an id does not overwrite the first letter
    revive_spares_the_living: bool = True  # an id that lives again cannot be revived beside itself

    # Consequences.
    failed_send_stays_committed: bool = True  # a send that fails never ends the claim
    failure_sends_consequences: bool = True  # also when nobody is left who ran the body
    replace_held_back: bool = True  # what replace() publishes is sent after the commit

    # Checkpoints.
    checkpoint_names_claim: bool = True  # one that lost its claim saves nothing
    late_checkpoint_ignored: bool = True  # an older one takes no later one's place
    checkpoint_survives_death: bool = True  # of the process, or of the worker
    retry_keeps_checkpoint: bool = True  # it goes on with the same work
    replaced_drops_checkpoint: bool = True  # what goes on under the same id is another's work
    end_drops_checkpoint: bool = True
    letter_keeps_checkpoint: bool = True  # and a new life begins with it

    # Claims.
    claim_needs_entry: bool = True  # no entry, or dying: refused
    claim_names_epoch: bool = True  # the bytes of an older epoch claim nothing
    epoch_raised_in_place: bool = True  # a reconnected worker is the same incarnation
    reconcile_returns_replays: bool = True  # an unheld committed claim goes back to the replay list
    reconcile_spares_started: bool = True  # an unheld started claim stays: its bytes may be late
    release_refuses_started: bool = True  # main may not know yet that its child began
    child_death_returns_unstarted: bool = True  # never acknowledged by main

    # Death.
    reap_names_beat: bool = True  # a worker that has beaten since it was judged is alive
    reap_marks_dying: bool = True  # from the first batch on
    alone_judged_once: bool = True  # by the started count of the first batch
    unstarted_not_blamed: bool = True
    own_death_blamed: bool = True  # else a poison task is bounded only by interruptions
    interruptions_bounded: bool = True  # and those are bounded too
    suspects_run_apart: bool = True  # one on trial at a time: the next death tells who did it
    interruptions_charged: bool = True  # those that made it a suspect were its own doing

    # Idempotency keys.
    busy_key_parks: bool = True  # a duplicate waits for the end of the one that runs
    done_key_not_run: bool = True  # and takes its result
    key_found_under_claim: bool = True  # user code that says the key runs in a started task
    any_end_wakes: bool = True  # not the commit alone: every script that ends the owner's claim

    @property
    def suspect_from(self) -> int:
        """Return from how many deaths on a task is a suspect."""
        return max(1, min(3, self.max_resurrections))

    def suspects(self, blame: int, interruptions: int) -> bool:
        """Return whether a task that ran in so many deaths may have done those beside others."""
        return interruptions > 0 and blame + interruptions >= self.suspect_from


RIGHT = Rules()
