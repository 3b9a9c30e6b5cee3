"""Connections break and the server goes away: nothing runs twice, nothing is lost."""

from __future__ import annotations

from faults.scene import FULL, Scene
from relier.store.embedded import EmbeddedServer
from support.proxy import Command, Predicate, Proxy

HELD = ("a", "b")


def calls(script: str) -> Predicate:
    return lambda command: command.script == script


def claims_something(scene: Scene) -> Predicate:
    def matches(command: Command) -> bool:
        return command.script == "claim" and scene.waiting() > 0

    return matches


def occupy(scene: Scene) -> list[str]:
    """Give a worker what it holds on to, and more than it claims; return the words of the rest."""
    for word in HELD:
        scene.push("hold", word)
    scene.began(*HELD)
    notes = [f"n{i}" for i in range(6)]
    for word in notes:
        scene.push("note", word)
    scene.wait_claimed(FULL)
    return notes


def test_a_severed_worker_runs_and_commits_once(scene: Scene, proxy: Proxy) -> None:
    worker = scene.worker("only", broker=proxy.url)
    notes = occupy(scene)
    proxy.sever()
    # What had not started goes back at once, and comes again; what runs stays where it is.
    scene.wait(lambda: scene.events("returned") or len(scene.claimed()) >= FULL, "the claims")
    proxy.sever()
    scene.let("a")
    proxy.sever()
    scene.wait_journal("passed", "a")
    scene.let("b")
    scene.settle()

    assert [scene.journal.count("began", word) for word in HELD] == [1, 1]
    assert [scene.journal.count("ran", word) for word in notes] == [1] * len(notes)
    assert all(scene.returns(each) == (0, 0) for each in scene.accepted)
    assert worker.running


def test_replies_are_lost_one_after_another(scene: Scene, proxy: Proxy) -> None:
    """Each script of a task's way loses its reply once, while its server did it."""
    worker = scene.worker("only", broker=proxy.url)

    claimed = proxy.cut_after(1, claims_something(scene))
    scene.push("note", "claim")
    claimed.wait(30)
    scene.wait_journal("ran", "claim")
    scene.settle()
    for script in ("start", "finish"):
        cut = proxy.cut_after(1, calls(script))
        scene.push("note", script)
        cut.wait(30)
        scene.settle()
    commit, ack = proxy.cut_after(1, calls("commit")), proxy.cut_after(1, calls("ack"))
    linked = scene.app.tasks["note"].apply_async(
        ("commit",), link=scene.app.signature("note", ("link",), immutable=True)
    )
    scene.accepted.append(linked.id)
    commit.wait(30)
    ack.wait(30)
    scene.wait_journal("ran", "link")
    scene.settle()

    words = ("claim", "start", "finish", "commit", "link")
    assert [scene.journal.count("ran", word) for word in words] == [1] * len(words)
    assert all(scene.returns(each) == (0, 0) for each in scene.accepted)
    assert len(scene.members()) == 1
    assert worker.running


def test_a_claim_without_an_answer_goes_back_at_shutdown(scene: Scene, proxy: Proxy) -> None:
    worker = scene.worker("only", broker=proxy.url)
    for word in HELD:
        scene.push("hold", word)
    scene.began(*HELD)
    answerless = proxy.cut_after(1, claims_something(scene), worker.sigterm)
    notes = [scene.push("note", f"n{i}") for i in range(8)]
    answerless.wait(30)
    scene.wait(lambda: scene.waiting() == len(notes), "all that had not started to be back")
    assert len(scene.claimed()) == len(HELD), "what runs is still claimed"
    assert worker.running, "it waits for what it runs"
    scene.let(*HELD)
    assert worker.wait() == 0
    scene.settle([each for each in scene.accepted if each not in notes], queued=len(notes))

    assert scene.journal.count("ran") == 0
    assert [scene.journal.count("began", word) for word in HELD] == [1, 1]
    assert not scene.members(), "it has said goodbye"
    scene.worker("next")
    scene.settle()
    order = [entry.fields[1] for entry in scene.journal.entries("ran")]
    assert sorted(order) == [f"n{i}" for i in range(len(notes))]


def test_prefetched_messages_go_back_as_the_worker_stops(scene: Scene) -> None:
    worker = scene.worker("only")
    for word in HELD:
        scene.push("hold", word)
    scene.began(*HELD)
    notes = [scene.push("note", f"n{i}") for i in range(8)]
    scene.wait_claimed(FULL)
    worker.sigterm()
    scene.wait(lambda: scene.waiting() == len(notes), "all that had not started to be back")
    queued = [str(each) for each in scene.redis.lrange(scene.queue, 0, -1)]
    assert [task_id in raw for task_id, raw in zip(reversed(notes), queued, strict=True)] == [
        True
    ] * len(notes), "in their old order"
    scene.let(*HELD)
    assert worker.wait() == 0
    scene.settle([each for each in scene.accepted if each not in notes], queued=len(notes))
    assert [scene.journal.count("began", word) for word in HELD] == [1, 1]
    assert all(scene.returns(each) == (0, 0) for each in scene.accepted)


def test_the_server_goes_away_and_comes_back(
    own_scene: Scene, fresh_server: EmbeddedServer
) -> None:
    scene = own_scene
    worker = scene.worker("only", env={"RELIER_REDIS_SOCKET_TIMEOUT": "3"})
    scene.push("note", "before")
    scene.wait_journal("ran", "before")
    fresh_server.restart()  # while a claim waits
    scene.push("note", "waited")
    scene.wait_journal("ran", "waited")

    notes = occupy(scene)
    fresh_server.kill()
    scene.let(*HELD)
    for word in HELD:
        scene.wait_journal("passed", word)
    scene.wait(lambda: "waits for Redis to finish" in worker.log(), "word of the wait")
    fresh_server.start()
    scene.settle()

    assert [scene.journal.count("began", word) for word in HELD] == [1, 1]
    assert [scene.journal.count("ran", word) for word in notes] == [1] * len(notes)
    assert all(scene.returns(each) == (0, 0) for each in scene.accepted)
    assert worker.running


def test_bytes_that_come_late_claim_nothing_for_nobody(scene: Scene, proxy: Proxy) -> None:
    # A long heartbeat, lest it be given up for dead: here it only loses its link for a while.
    # Celery's own heartbeat event would block its main thread before the reply is overdue.
    worker = scene.worker(
        "only",
        broker=proxy.url,
        env={"RELIER_HEARTBEAT_TTL": "60"},
        options=["--without-heartbeat"],
    )
    note = scene.push("note", "ready")
    scene.settle()
    proxy.partition()
    notes = [scene.push("note", f"n{i}") for i in range(4)]
    scene.wait(lambda: "overdue" in worker.log(), "the worker to drop the connection")
    proxy.heal()
    scene.settle()
    assert [scene.journal.count("ran", f"n{i}") for i in range(4)] == [1] * 4
    assert all(scene.returns(each) == (0, 0) for each in (note, *notes))
    assert len(scene.members()) == 1


def test_scripts_are_flushed_under_load(scene: Scene) -> None:
    worker = scene.worker("only")
    many = 300
    for n in range(many):
        scene.push("note", n)
        if n % 20 == 0:
            scene.redis.script_flush()

    def all_ran() -> bool:
        scene.redis.script_flush()
        return scene.journal.count("ran") >= many

    scene.wait(all_ran, "all notes, with a flush between any two looks")
    scene.settle()
    assert [scene.journal.count("ran", n) for n in range(many)] == [1] * many
    assert "Traceback" not in worker.log()
