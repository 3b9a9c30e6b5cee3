"""The shortest ways in which a plausible reading of the protocol lost or doubled a task.

Each was found by the model of ``tests/model``; here the real scripts walk it. Tasks are a and b;
tokens t0, t1; k is what a task publishes when it is over, h a chord's header; every worker is 1, 2.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model.real import QUEUE, RealScripts, ending
from model.state import (
    COMMITTED,
    CONTINUED,
    DEAD,
    ENDED,
    QUEUED,
    STARTED,
    Message,
    Outcome,
    Record,
    Redis,
    derive,
)
from relier.store import claiming, letters, reading
from relier.store.address import Address
from relier.store.client import Store
from relier.store.embedded import EmbeddedServer
from relier.store.keys import Keys
from relier.store.publishing import Outgoing

A, AGAIN, B = Message("a", 0, "t0"), Message("a", 0, "t1"), Message("b", 0, "t2")


class Scene(RealScripts):
    """The scripts, with the few things that every story does."""

    numbers = 0

    def take(self, worker: int = 1, epoch: int = 1) -> int:
        """Claim one message; return the claim's number."""
        self.numbers += 1
        taken = self.claim(worker, epoch, (self.numbers,))
        assert isinstance(taken, tuple), taken
        assert taken, "there was nothing to claim"
        return self.numbers

    def begin(self, worker: int = 1) -> int:
        """Claim one message and start it."""
        number = self.take(worker)
        assert self.start(worker, number)[0] == "run"
        return number

    def body(self, worker: int, number: int, kind: str) -> Outcome:
        """The body of a started claim ends; return what it committed."""
        _, root, generation = self.start(worker, number)[:3]
        outcome = ending(kind, self._messages[number], root, generation)
        assert self.commit(worker, number, outcome)
        return outcome

    def send_and_ack(self, worker: int, number: int, outcome: Outcome) -> list[str]:
        """Send what follows from an outcome and end the claim; return what the sends were."""
        answers = [self.enqueue(message) for message in outcome.sends]
        assert self.ack(worker, number)
        return answers

    def run(self, worker: int = 1, kind: str = "ok") -> Outcome:
        """Take one message to its end."""
        number = self.begin(worker)
        outcome = self.body(worker, number, kind)
        self.send_and_ack(worker, number, outcome)
        return outcome

    def disown(self, *numbers: int) -> int:
        """Let the first worker's main process find that nobody works under its claims."""
        claims = [self._numbers[number] for number in numbers]
        real = [claim.number for claim in claims]
        return self.store.run(
            claiming.disown(self.keys, claims[0].worker, QUEUE, real, "forgotten")
        )

    def now(self) -> Redis:
        """Return what the server holds."""
        redis = self.state()[0]
        self.name_letters(redis, redis)
        return redis

    def of(self, task: str = "a") -> Record:
        """Return a task's record."""
        record = self.now().record(task)
        assert record is not None
        return record

    def nothing_is_left(self) -> bool:
        """Tell whether nothing waits and nobody holds anything."""
        now = self.now()
        return not (now.queue or now.scheduled or now.replay or now.claims)


@pytest.fixture
def scene(server: EmbeddedServer) -> Iterator[Scene]:
    store = Store(Address.parse(server.url), Keys())
    made = Scene(store)
    made.hello(1)
    made.hello(2)
    yield made
    store.close()


# Tokens: which publish is which.


def test_a_task_that_retries_for_hours_keeps_a_small_record(scene: Scene) -> None:
    scene.enqueue(A)
    for _ in range(250):
        scene.run(kind="retry")
    (record,) = scene.store.redis.keys(scene.keys.task("*"))
    assert scene.store.redis.hlen(record) < 220
    scene.run()
    assert scene.enqueue(A) == "known"
    assert scene.nothing_is_left()


def test_a_publish_repeated_by_its_retry_loop_runs_once(scene: Scene) -> None:
    assert scene.enqueue(A) == "queued"  # its reply is lost
    scene.run()
    assert scene.enqueue(A) == "known"
    assert scene.nothing_is_left()
    assert len(scene.now().kids) == 1


def test_the_first_publish_is_still_known_after_a_retry_was_published(scene: Scene) -> None:
    scene.enqueue(A)
    scene.run(kind="retry")
    assert scene.enqueue(A) == "known"
    scene.run()
    assert scene.enqueue(A) == "known"
    assert scene.nothing_is_left()
    assert len(scene.now().kids) == 1


def test_a_copy_that_a_stock_transport_restores_is_dropped(scene: Scene) -> None:
    scene.enqueue(A)
    first = scene.begin()
    scene.copy(A)
    assert scene.start(2, scene.take(2)) == ("drop",)  # beside the first, which runs
    outcome = scene.body(1, first, "ok")
    scene.copy(A)
    assert scene.start(2, scene.take(2)) == ("drop",)  # it has committed
    scene.send_and_ack(1, first, outcome)
    scene.copy(A)
    assert scene.start(2, scene.take(2)) == ("drop",)  # it has ended
    assert scene.nothing_is_left()


def test_a_redispatched_id_derives_other_consequences(scene: Scene) -> None:
    scene.enqueue(A)
    first = scene.run()
    assert scene.enqueue(AGAIN) == "queued"
    number = scene.begin()
    second = scene.body(1, number, "ok")
    assert first.sends != second.sends
    assert scene.send_and_ack(1, number, second) == ["queued"]


def test_a_publish_repeated_after_a_later_life_began_does_not_run(scene: Scene) -> None:
    scene.enqueue(A)
    scene.run()
    scene.enqueue(AGAIN)
    assert scene.enqueue(A) == "known"
    scene.copy(A)
    scene.run()
    assert scene.start(1, scene.take()) == ("drop",)
    assert scene.enqueue(A) == "known"
    assert scene.nothing_is_left()


def test_a_publish_that_found_its_task_running_never_runs_later(scene: Scene) -> None:
    scene.enqueue(A)
    number = scene.begin()
    assert scene.enqueue(AGAIN) == "known"  # its reply is lost
    scene.send_and_ack(1, number, scene.body(1, number, "ok"))
    assert scene.enqueue(AGAIN) == "known"
    assert scene.nothing_is_left()


def test_a_message_that_was_dropped_beside_its_task_never_runs_later(scene: Scene) -> None:
    scene.enqueue(A)
    number = scene.begin()
    scene.copy(AGAIN)  # a stock producer's, under an id of its own choice
    assert scene.start(2, scene.take(2)) == ("drop",)
    scene.send_and_ack(1, number, scene.body(1, number, "ok"))
    scene.copy(AGAIN)
    assert scene.start(2, scene.take(2)) == ("drop",)


def test_a_copy_of_a_task_that_waits_for_its_retry_is_that_retry(scene: Scene) -> None:
    scene.enqueue(A)
    scene.run(kind="retry")
    scene.purge()  # takes the retry
    assert scene.enqueue(AGAIN) == "queued"
    number = scene.take()
    assert scene.start(1, number) == ("run", "t0", 1, None)
    scene.send_and_ack(1, number, scene.body(1, number, "ok"))
    assert scene.of().state == ENDED


def test_a_token_of_a_negative_generation_is_known(scene: Scene) -> None:
    odd = Message("a", -1, "t0")
    scene.enqueue(odd)
    scene.copy(odd)
    scene.run()
    assert scene.start(1, scene.take()) == ("drop",)


# The end of a life.


def test_a_hard_timeout_commits_a_failure_whose_consequences_are_sent(scene: Scene) -> None:
    scene.enqueue(A)
    number = scene.begin()
    assert not scene.bury(1, number)
    assert scene.condemn(1, number)
    assert not scene.commit(1, number, ending("ok", A, "t0", 0))
    replayed = scene.take(2)
    assert scene.start(2, replayed) == ("replay", "t0", 0)
    assert scene.send_and_ack(2, replayed, ending("fail", A, "t0", 0)) == ["queued"]
    assert scene.of().state == DEAD


def test_a_replaced_task_dispatched_again_waits_for_its_chord_to_go_on(scene: Scene) -> None:
    scene.enqueue(A)
    outcome = scene.run(kind="replace")
    assert scene.of().state == CONTINUED
    assert scene.enqueue(AGAIN) == "known"
    body = Message("a", 1, derive(outcome.root, 0, "b"))
    assert scene.enqueue(body) == "queued"
    scene.run()
    assert scene.of().state == ENDED
    assert scene.nothing_is_left()


def test_an_ack_leaves_the_generation_alone_that_came_before_it(scene: Scene) -> None:
    scene.enqueue(A)
    number = scene.begin()
    outcome = scene.body(1, number, "replace")
    scene.enqueue(outcome.sends[0])
    scene.enqueue(Message("a", 1, derive(outcome.root, 0, "b")))  # the chord was quick
    assert scene.ack(1, number)
    assert (scene.of().state, scene.of().generation) == (QUEUED, 1)
    scene.run(2)
    assert scene.of().state == ENDED


def test_an_ack_leaves_the_generation_alone_that_committed_after_it(scene: Scene) -> None:
    scene.enqueue(A)
    number = scene.begin()
    outcome = scene.body(1, number, "replace")
    scene.enqueue(Message("a", 1, derive(outcome.root, 0, "b")))
    later = scene.begin(2)
    end = scene.body(2, later, "ok")
    scene.send_and_ack(1, number, outcome)
    assert (scene.of().state, scene.of().generation) == (COMMITTED, 1)
    scene.send_and_ack(2, later, end)
    assert scene.of().state == ENDED


def test_a_copy_that_expires_does_not_end_the_retry_that_waits(scene: Scene) -> None:
    scene.enqueue(A)
    scene.copy(A)
    scene.run(kind="retry")
    assert scene.discard(1, scene.take(), "expired") == 1
    assert scene.of().state == QUEUED
    scene.run()
    assert scene.of().state == ENDED


def test_the_letters_of_two_lives_lie_side_by_side(scene: Scene) -> None:
    scene.enqueue(A)
    scene.run(kind="fail")
    scene.enqueue(AGAIN)
    scene.run(kind="fail")
    assert sorted(message for _, message in scene.now().dead) == [A, AGAIN]


def test_no_letter_is_written_over_another_of_its_life(scene: Scene) -> None:
    scene.enqueue(A)
    scene.copy(A)
    scene.copy(A)
    for _ in range(3):
        assert scene.bury(1, scene.take())
    late = Message("a", 1, "t1")
    scene.copy(late)
    scene.run(kind="fail")
    assert sorted(message for _, message in scene.now().dead) == [A, A, A, late]


def test_the_letters_of_two_generations_of_one_life_lie_side_by_side(scene: Scene) -> None:
    scene.enqueue(A)
    scene.copy(A)
    first, copy = scene.begin(), scene.take()
    assert scene.bury(1, copy)
    outcome = scene.body(1, first, "fail")
    body = Message("a", 1, "t1")
    scene.enqueue(body)
    scene.send_and_ack(1, first, outcome)
    scene.run(kind="fail")
    assert sorted(message for _, message in scene.now().dead) == [A, A, body]


def test_a_letter_is_not_revived_beside_the_new_life_of_its_task(scene: Scene) -> None:
    scene.enqueue(A)
    scene.run(kind="fail")
    [(letter, _)] = scene.now().dead
    scene.enqueue(AGAIN)
    revived = Message("a", 0, "v0")
    assert scene.revive(letter, revived) == -1
    scene.run()
    assert scene.revive(letter, revived) == 1
    scene.run()
    assert scene.nothing_is_left()


def test_two_operators_who_revive_one_letter_make_one_task(scene: Scene) -> None:
    scene.enqueue(A)
    scene.run(kind="fail")
    [(letter, _)] = scene.now().dead
    assert scene.revive(letter, Message("a", 0, "v0")) == 1
    assert scene.revive(letter, Message("a", 0, "v1")) == 0
    assert [message.token for message in scene.now().queue] == ["v0"]


def test_a_revival_asked_for_again_after_the_new_life_died_is_the_same_one(scene: Scene) -> None:
    scene.enqueue(A)
    scene.bury(1, scene.take())
    [(letter, _)] = scene.now().dead
    revived = Message("a", 0, "v0")
    assert scene.revive(letter, revived) == 1  # its reply is lost
    scene.bury(1, scene.take())
    assert scene.revive(letter, revived) == 1
    assert scene.nothing_is_left()
    assert len(scene.now().dead) == 1


def test_a_release_that_comes_late_takes_no_later_letter(scene: Scene) -> None:
    store, client = scene.store, scene.store.redis
    scene.enqueue(A)
    scene.bury(1, scene.take())
    [(letter_id, at_ms)] = reading.dead(store, QUEUE, 1)
    late, quick = (Outgoing("a", token, 0, "", 0, "name", "raw") for token in ("late", "quick"))
    assert store.run(letters.revive(store.keys, QUEUE, letter_id, quick, at_ms)) == 1
    client.delete(QUEUE)
    parcel = {"parcel": "|raw of the later", "at_ms": at_ms + 1}
    client.hset(store.keys.dead_letter(QUEUE, letter_id), mapping=parcel)
    client.zadd(store.keys.dead(QUEUE), {letter_id: at_ms + 1})
    client.hset(store.keys.task("a"), "s", "d")
    assert store.run(letters.revive(store.keys, QUEUE, letter_id, late, at_ms)) == 0
    assert client.llen(QUEUE) == 0
    assert reading.dead(store, QUEUE, 2) == [(letter_id, at_ms + 1)], "the later letter stays"


def test_what_nobody_runs_any_more_goes_back_and_is_not_blamed(scene: Scene) -> None:
    for message in (A, B):
        scene.enqueue(message)
    running, committed = scene.begin(), scene.begin()
    outcome = scene.body(1, committed, "ok")
    scene.enqueue(Message("c", 0, "t3"))
    held = scene.take()
    assert [scene.disown(running, committed, held) for _ in range(2)] == [2, 0]
    now = scene.now()
    assert (now.queue, [each.message for each in now.replay]) == ((A,), [B])
    assert [claim.number for claim in now.claims] == [held], "what had not started stays"
    assert (scene.of("a").state, scene.of("b").state) == (QUEUED, COMMITTED)
    assert not scene.ack(1, committed)
    replayed = scene.take(2)
    assert scene.start(2, replayed)[0] == "replay"
    assert scene.send_and_ack(2, replayed, outcome) == ["queued"]
    scene.run(2)
    ended = scene.of("a")
    assert (ended.state, ended.blame, ended.interruptions) == (ENDED, 0, 0)


def test_a_task_that_outlives_its_record_leaves_none_behind(scene: Scene) -> None:
    scene.enqueue(A)
    number = scene.begin()
    outcome = ending("ok", A, "t0", 0)
    scene.store.redis.delete(scene.keys.task("a"))
    assert scene.commit(1, number, outcome)
    scene.send_and_ack(1, number, outcome)
    assert not scene.store.redis.exists(scene.keys.task("a"))
    assert scene.enqueue(AGAIN) == "queued"


# Consequences.


def test_a_send_that_fails_leaves_the_task_committed(scene: Scene) -> None:
    scene.enqueue(A)
    number = scene.begin()
    outcome = scene.body(1, number, "ok")
    assert scene.discard(1, number, "acknowledged") == 0  # the main process, as Celery's does
    assert scene.abandon(1, number)
    assert scene.of().state == COMMITTED
    replayed = scene.take(2)
    assert scene.start(2, replayed)[0] == "replay"
    assert scene.send_and_ack(2, replayed, outcome) == ["queued"]
    assert scene.of().state == ENDED


def test_what_replace_publishes_is_accepted_once_whoever_sends_it(scene: Scene) -> None:
    scene.enqueue(A)
    number = scene.begin()
    outcome = scene.body(1, number, "replace")
    assert scene.enqueue(outcome.sends[0]) == "queued"  # and worker 1 dies before the ack
    assert scene.reap(1, 0) == "done"
    replayed = scene.take(2)
    assert scene.start(2, replayed)[0] == "replay"
    assert scene.send_and_ack(2, replayed, outcome) == ["known"]
    assert len(scene.now().kids) == 1


def test_a_copy_is_dropped_while_the_outcome_waits_in_the_replay_list(scene: Scene) -> None:
    scene.enqueue(A)
    number = scene.begin()
    outcome = scene.body(1, number, "ok")
    scene.reap(1, 0)
    scene.copy(A)
    replayed, copy = scene.take(2), scene.take(2)
    assert scene.start(2, copy) == ("drop",)
    scene.send_and_ack(2, replayed, outcome)
    assert scene.nothing_is_left()


def test_a_replay_whose_claim_reply_was_lost_is_given_back(scene: Scene) -> None:
    scene.enqueue(A)
    number = scene.begin()
    outcome = scene.body(1, number, "ok")
    scene.abandon(1, number)
    scene.take(2)  # its reply is lost
    assert scene.reconcile(2, 2, ()) == 1
    replayed = scene.take(2, epoch=2)
    scene.send_and_ack(2, replayed, outcome)
    assert scene.nothing_is_left()


# Claims and deaths.


def test_a_reaped_worker_claims_nothing(scene: Scene) -> None:
    scene.enqueue(A)
    assert scene.reap(1, 0) == "done"  # it was paused, and goes on
    assert scene.claim(1, 1, (1,)) == "gone"
    assert not scene.beat(1)
    assert scene.now().queue == (A,)


def test_a_reconnected_worker_keeps_what_it_runs_and_gives_back_the_rest(scene: Scene) -> None:
    scene.enqueue(B)
    running = scene.begin()
    scene.enqueue(A)
    scene.take()  # its reply is lost
    assert scene.reconcile(1, 2, (running,)) == 1
    assert scene.claim(1, 1, (9,)) == "epoch"  # and its bytes arrive again
    assert scene.now().queue == (A,)
    scene.beat(1)
    assert scene.reap(1, 0) == "alive"
    assert scene.of("b").state == STARTED


def test_a_late_reconcile_leaves_alone_what_has_started_since(scene: Scene) -> None:
    scene.enqueue(A)
    number = scene.begin()
    assert scene.reconcile(1, 1, ()) == 0
    scene.send_and_ack(1, number, scene.body(1, number, "ok"))


def test_neighbours_are_not_judged_alone_by_the_last_batch(scene: Scene) -> None:
    scene.enqueue(A)
    scene.enqueue(B)
    scene.begin()
    scene.begin()
    assert scene.reap(1, 0, batch=1) == "more"
    assert not scene.beat(1)
    assert scene.reap(1, 0, batch=1) == "done"
    assert [(r.blame, r.interruptions) for r in scene.now().records] == [(0, 1), (0, 1)]


def test_a_task_that_ran_alone_is_blamed_for_its_worker(scene: Scene) -> None:
    scene.enqueue(A)
    scene.enqueue(B)
    scene.begin()
    scene.take()
    assert scene.reap(1, 0, batch=2) == "done"
    assert (scene.of("a").blame, scene.of("a").interruptions) == (1, 0)
    assert (scene.of("b").blame, scene.of("b").interruptions) == (0, 0)
    assert scene.now().queue == (A, B)


def test_a_neighbour_that_has_committed_is_no_suspect(scene: Scene) -> None:
    scene.enqueue(A)
    scene.enqueue(B)
    scene.begin()
    scene.body(1, scene.begin(), "ok")
    assert scene.reap(1, 0, batch=2) == "done"
    assert (scene.of("a").blame, scene.of("a").interruptions) == (1, 0)
    assert (scene.of("b").blame, scene.of("b").interruptions) == (0, 0)


def test_a_hard_timeout_that_comes_after_the_commit_changes_nothing(scene: Scene) -> None:
    scene.enqueue(A)
    number = scene.begin()
    outcome = scene.body(1, number, "ok")
    assert not scene.condemn(1, number)
    scene.send_and_ack(1, number, outcome)
    assert scene.of().state == ENDED


def test_a_process_that_dies_before_start_burns_nothing(scene: Scene) -> None:
    scene.enqueue(A)
    assert scene.reap_claim(1, scene.take()) == "unstarted"
    assert scene.now().scheduled == (A,)
    assert scene.of().blame == 0


def test_a_running_claim_is_not_released(scene: Scene) -> None:
    scene.enqueue(A)
    number = scene.begin()  # and main does not know yet
    assert scene.release(1, number) == 0
    scene.send_and_ack(1, number, scene.body(1, number, "ok"))
    assert scene.of().state == ENDED


def test_a_process_that_lost_its_task_is_not_told_that_it_finished_it(scene: Scene) -> None:
    scene.enqueue(A)
    number = scene.begin()  # and worker 1 is paused
    scene.reap(1, 0)
    assert scene.discard(2, scene.take(2), "revoked") == 1
    assert scene.of().state == ENDED
    assert not scene.finish(1, number, ending("bare", A, "t0", 0))
