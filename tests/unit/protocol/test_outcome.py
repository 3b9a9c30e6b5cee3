from __future__ import annotations

import msgspec
import pytest

from relier.protocol.outcome import (
    VERSION,
    Failure,
    Message,
    NewerOutcomeError,
    Outcome,
    Value,
    decode,
    encode,
    exhausted,
)


def test_an_outcome_survives_its_bytes() -> None:
    message = Message("q", "id", "token", 1, "", 250, "shop.add", b"\x00|raw")
    outcome = Outcome(
        "RETRY",
        value=Value("application/json", "utf-8", b"1"),
        failure=Failure("ValueError", "builtins", ["no"], "Traceback"),
        next=message,
        published=[message],
    )
    assert decode(encode(outcome)) == outcome


@pytest.mark.parametrize("extra", [{}, {"state": 7}])
def test_a_newer_outcome_is_left_for_a_newer_worker(extra: dict[str, object]) -> None:
    newer = {"state": "SUCCESS", "version": VERSION + 1, **extra}
    with pytest.raises(NewerOutcomeError):
        decode(msgspec.msgpack.encode(newer))


def test_what_is_no_outcome_says_so() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(b"\xc1")


def test_an_exhausted_task_goes_to_the_dead_letters_as_a_failure() -> None:
    outcome = exhausted("max_resurrections", "too often")
    assert (outcome.state, outcome.letter) == ("FAILURE", "max_resurrections")
