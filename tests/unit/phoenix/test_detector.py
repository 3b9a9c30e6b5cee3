from __future__ import annotations

from relier.phoenix.detector import GONE_GRACE_S, LONGEST_GAP_S, Detector, Sighting

RUN = "run-1"


def sighting(beat: int = 1, client: str = "7", run_id: str = RUN, ttl_s: float = 10) -> Sighting:
    return Sighting(str(beat), client, run_id, ttl_s, dying=False)


def look(
    detector: Detector, now_s: float, seen: Sighting, connected: set[str] | None, run: str = RUN
) -> list[str]:
    return [v.reason for v in detector.look({"w": seen}, connected, run, now_s)]


def watch(
    detector: Detector, until_s: float, seen: Sighting, connected: set[str] | None
) -> list[str]:
    reasons: list[str] = []
    for step in range(int(until_s * 10) + 1):
        reasons = look(detector, step / 10, seen, connected)
    return reasons


def test_a_worker_that_beats_lives() -> None:
    detector = Detector()
    for step in range(300):
        assert look(detector, step / 10, sighting(beat=step), {"7"}) == []


def test_silence_for_a_whole_ttl_is_death() -> None:
    detector = Detector()
    assert watch(detector, 9.9, sighting(), {"7"}) == []
    assert look(detector, 10.0, sighting(), {"7"}) == ["silent for 10 s"]


def test_a_lost_connection_that_is_not_replaced_is_death() -> None:
    detector = Detector()
    assert look(detector, 0.0, sighting(), set()) == []
    assert look(detector, GONE_GRACE_S - 0.01, sighting(), set()) == []
    assert look(detector, GONE_GRACE_S, sighting(), set()) == ["connection lost"]


def test_a_new_connection_in_time_is_life() -> None:
    detector = Detector()
    look(detector, 0.0, sighting(), set())
    look(detector, 0.5, sighting(beat=2, client="8"), {"8"})
    assert look(detector, 2.0, sighting(beat=2, client="8"), {"8"}) == []


def test_connections_to_another_run_of_the_server_tell_nothing() -> None:
    detector = Detector()
    assert watch(detector, 5, sighting(run_id="run-0"), set()) == []


def test_where_clients_may_not_be_listed_only_silence_tells() -> None:
    detector = Detector()
    assert watch(detector, 9.9, sighting(), None) == []
    assert look(detector, 10.0, sighting(), None) == ["silent for 10 s"]


def test_a_gap_in_the_watch_concludes_nothing() -> None:
    detector = Detector()
    watch(detector, 9.5, sighting(), {"7"})
    late = 9.5 + LONGEST_GAP_S + 0.1
    assert look(detector, late, sighting(), {"7"}) == []
    assert look(detector, late + 1, sighting(), {"7"}) == []


def test_a_detector_that_seldom_looks_finds_the_dead_all_the_same() -> None:
    every_s = 3
    detector = Detector(every_s)
    verdicts = {now: look(detector, now, sighting(), {"7"}) for now in range(0, 16, every_s)}
    assert [now for now, reasons in verdicts.items() if reasons] == [12, 15], "ttl_s is 10"


def test_a_detector_that_seldom_looks_knows_a_gap_too() -> None:
    every_s = 3
    detector = Detector(every_s)
    for now in (0, 3, 6):
        assert look(detector, now, sighting(), {"7"}) == []
    assert look(detector, 6 + 3 * every_s + 1, sighting(), {"7"}) == []


def test_a_watch_that_is_forgotten_begins_anew() -> None:
    detector = Detector()
    watch(detector, 9.9, sighting(), {"7"})
    detector.forget()
    assert look(detector, 10.0, sighting(), {"7"}) == []


def test_a_sign_of_life_that_is_overdue_is_doubted_before_it_is_death() -> None:
    silent, gone = Detector(), Detector()
    doubts = {}
    for step in range(75):
        assert look(silent, step / 10, sighting(), {"7"}) == []
        doubts[step] = silent.doubts
    assert [step for step, doubted in doubts.items() if doubted] == list(range(50, 75))
    assert look(silent, 7.5, sighting(beat=2), {"7"}) == []
    assert not silent.doubts
    assert look(gone, 0.0, sighting(), set()) == []
    assert gone.doubts
    gone.forget()
    assert not gone.doubts


def test_a_restarted_server_starts_the_watch_anew() -> None:
    detector = Detector()
    watch(detector, 9.5, sighting(), {"7"})
    assert look(detector, 10.0, sighting(), {"7"}, run="run-2") == []


def test_a_worker_that_is_being_reaped_is_taken_up_at_once() -> None:
    dying = sighting()._replace(dying=True)
    assert look(Detector(), 0.0, dying, {"7"}) == ["being reaped"]
