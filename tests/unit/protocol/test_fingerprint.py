from __future__ import annotations

import pytest

from relier.protocol.fingerprint import fingerprint, normalised, own_frame

TRACEBACK = """Traceback (most recent call last):
  File "/srv/app/venv/lib/python3.12/site-packages/celery/app/trace.py", line 453, in trace_task
    R = retval = fun(*args, **kwargs)
  File "/srv/app/billing/charges.py", line {line}, in charge
    return gateway.charge(customer)
  File "/srv/app/venv/lib/python3.12/site-packages/stripe/api.py", line 9, in charge
    raise CardError(message)
"""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("order 17 is gone", "order 4096 is gone"),
        ("no row 'cus_8fKj2'", "no row 'it\\'s another'"),
        ('no row "a"', 'no row "b"'),
        ("<Cart object at 0x7f3a1b>", "<Cart object at 0x55ffee>"),
        ("task 9b2f1c1e-0c1d-4b7e-9c0a-111111111111", "task 00000000-0c1d-4b7e-9c0a-1ab111111111"),
        ("late since 2026-11-21T15:52:18.2", "late since 2025-01-02T00:00:00"),
        ("cus_8fKj2 owes 5,000.00", "cus_A1b2C3d4 owes 7.5"),
        ("host 10.0.0.7:6379 is away", "host 10.1.20.3:6380 is away"),
        ("two  lines\n of text", "two lines of text"),
        ("größe 12 für 'Ærø'", "größe 7 für '東京'"),
    ],
)
def test_what_changes_from_one_failure_to_the_next_does_not_count(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)
    assert fingerprint("t", "failed", f"E: {one}") == fingerprint("t", "failed", f"E: {other}")


@pytest.mark.parametrize(
    ("one", "other"), [("it isn't there", "it isn't here"), ("card declined", "card expired")]
)
def test_what_is_said_counts(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


def test_task_reason_class_and_place_count() -> None:
    first = ("pay", "failed", "CardError: declined", TRACEBACK.format(line=7))
    others = [
        ("refund", *first[1:]),
        ("pay", "rejected", *first[2:]),
        ("pay", "failed", "KeyError: declined", first[3]),
        (*first[:3], first[3].replace("in charge\n    return", "in refund\n    return")),
        (*first[:3], ""),
    ]
    assert len({fingerprint(*each) for each in [first, *others]}) == len(others) + 1
    assert fingerprint(*first[:3], TRACEBACK.format(line=99)) == fingerprint(*first)


def test_the_place_is_the_innermost_frame_of_the_users_own_code() -> None:
    assert own_frame(TRACEBACK.format(line=1)) == "charges.py charge"
    elsewhere = TRACEBACK.replace("/srv/app/billing", "C:\\\\app\\\\billing")
    assert own_frame(elsewhere.format(line=1)) == "charges.py charge"
    assert own_frame("no traceback at all") == ""


@pytest.mark.parametrize(
    "error", ["", "no class here", "E", "E: ", "\udc80", "x" * 100_000, "'" * 2000]
)
def test_any_text_has_a_fingerprint(error: str) -> None:
    found = fingerprint("", "", error, error)
    assert len(found) == 12
    assert found == fingerprint("", "", error, error)
