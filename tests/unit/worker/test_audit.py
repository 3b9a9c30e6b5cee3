from __future__ import annotations

from relier.protocol.identity import Claim
from relier.worker.audit import Audit

ENDED, RUNNING, LATER = (Claim("w", "q", number) for number in "123")


def restarted() -> Audit:
    audit = Audit()
    audit.served_by("one")
    audit.served_by("two")
    return audit


def test_nothing_is_in_doubt_while_one_run_of_the_server_answers() -> None:
    audit = Audit()
    for _ in range(3):
        audit.served_by("one")
    assert not audit.open


def test_what_two_looks_find_idle_goes_back() -> None:
    audit = restarted()
    assert audit.look({ENDED, RUNNING}, {RUNNING}) == set()
    assert audit.look({ENDED, RUNNING}, {RUNNING}) == {ENDED}
    assert audit.look({RUNNING}, {RUNNING}) == set()
    assert audit.open, "what runs may still end without a word"
    assert audit.look(set(), set()) == set()
    assert not audit.open


def test_what_is_idle_for_one_look_only_stays() -> None:
    audit = restarted()
    for in_hand in (set(), {RUNNING}, set(), {RUNNING}):
        assert audit.look({RUNNING}, in_hand) == set()


def test_what_starts_after_the_restart_is_in_no_doubt() -> None:
    audit = restarted()
    audit.look({RUNNING}, {RUNNING})
    for _ in range(3):
        assert audit.look({RUNNING, LATER}, {RUNNING}) == set()


def test_another_restart_doubts_all_again() -> None:
    audit = restarted()
    audit.look({ENDED}, set())
    audit.served_by("three")
    assert audit.look({ENDED}, set()) == set()
    assert audit.look({ENDED}, set()) == {ENDED}
