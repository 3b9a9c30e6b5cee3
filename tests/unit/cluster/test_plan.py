"""What a supervisor decides: whom to start, whom to stop, how soon, and when to give up."""

from __future__ import annotations

from relier.cluster import plan
from relier.cluster.plan import RESURRECTOR, SERVER, Part, Step


def named(*parts: Part) -> dict[str, Part]:
    return {part.name: part for part in parts}


def test_missing_workers_are_added_and_started_when_due() -> None:
    assert plan.steps({}, 2, 0) == [Step("add", "worker-1"), Step("add", "worker-2")]
    parts = named(Part("worker-1", due_s=1), Part("worker-2"), Part(RESURRECTOR))
    assert plan.steps(parts, 2, 0.5) == [Step("start", "worker-2"), Step("start", RESURRECTOR)]
    assert Step("start", "worker-1") in plan.steps(parts, 2, 1)


def test_the_highest_numbers_drain_and_those_without_a_process_are_dropped() -> None:
    parts = named(
        Part(RESURRECTOR, "running"),
        Part("worker-1", "running"),
        Part("worker-2", "starting"),
        Part("worker-10", "waiting"),
        Part("worker-11", "failed"),
    )
    assert plan.steps(parts, 1, 0) == [
        Step("drain", "worker-2"),
        Step("drop", "worker-10"),
        Step("drop", "worker-11"),
    ]


def test_one_that_drains_is_left_alone_until_its_time_is_up_even_if_wished_for_again() -> None:
    parts = named(plan.draining(Part("worker-1", "running"), 5))
    assert plan.steps(parts, 0, 4) == plan.steps(parts, 1, 4) == []
    assert plan.steps(parts, 0, 5) == [Step("kill", "worker-1")]


def test_a_part_that_lived_long_starts_again_soon_and_is_never_given_up() -> None:
    part = Part("worker-1")
    for life in range(20):
        now_s = life * 1000.0
        part = plan.ended(plan.ready(plan.started(part, now_s)), "was killed", now_s + 60)
        assert part.state == "waiting"
        assert part.due_s - (now_s + 60) == plan.delay_s(0) < 1
    assert part.restarts == 20


def test_short_lives_are_put_off_longer_each_time_and_then_given_up() -> None:
    part, now_s, delays = Part("worker-1"), 0.0, []
    while True:
        part = plan.ended(plan.started(part, now_s), "ended with status 1", now_s + 1)
        if part.state == "failed":
            break
        delays.append(part.due_s - (now_s + 1))
        now_s = part.due_s
    assert len(delays) == plan.MOST_QUICK_ENDS - 1
    assert delays == sorted(delays)
    assert delays[-1] > delays[0]
    assert plan.steps(named(part), 1, now_s + 10_000) == []
    assert plan.revived(part).state == "waiting"
    assert plan.delay_s(100) == plan.delay_s(99) <= 60


def test_a_long_life_forgives_short_ones() -> None:
    part = plan.ended(plan.started(Part("worker-1"), 0), "x", 1)
    assert part.quick_ends == 1
    assert plan.ended(plan.started(part, 2), "x", 100).quick_ends == 0


def test_a_cluster_is_hopeless_without_its_server_or_without_any_worker() -> None:
    failed, lives = Part("worker-1", "failed", why="ended"), Part("worker-2", "running")
    assert plan.hopeless(named(failed, lives)) == ""
    assert "worker-1 ended" in plan.hopeless(named(failed))
    assert "server" in plan.hopeless(named(Part(SERVER, "failed"), lives))
    assert plan.hopeless(named(Part(RESURRECTOR, "failed"), lives)) == ""
    assert plan.hopeless({}) == ""
