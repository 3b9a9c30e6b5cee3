from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relier.protocol.identity import Claim, derive, generation, identify, mint_token

SMALL = st.integers(0, 2**20)


@given(SMALL, SMALL, SMALL, SMALL)
def test_replacements_outrank_retries(n1: int, r1: int, n2: int, r2: int) -> None:
    one = generation({"replaced_task_nesting": n1, "retries": r1})
    two = generation({"replaced_task_nesting": n2, "retries": r2})
    assert (one < two) == ((n1, r1) < (n2, r2))


def test_a_generation_fits_a_lua_number() -> None:
    assert generation({"replaced_task_nesting": 2**20, "retries": 2**31}) < 2**53


def test_headers_without_counts_are_the_first_generation() -> None:
    assert generation({}) == generation({"retries": None, "replaced_task_nesting": None}) == 0


def test_a_stock_message_is_told_apart_by_its_delivery_tag() -> None:
    headers = {"id": "1", "task": "shop.add"}
    assert identify(headers, "tag").token == "d:tag"
    assert identify({**headers, "rl_token": "t"}, "tag").token == "t"


def test_derived_names_depend_on_every_part() -> None:
    base = derive("root", "id", 0, 1)
    others = {
        derive("root2", "id", 0, 1),
        derive("root", "id2", 0, 1),
        derive("root", "id", 1, 1),
        derive("root", "id", 0, 2),
    }
    assert base == derive("root", "id", 0, 1)
    assert len({base, *others}) == 5


def test_tokens_are_their_own() -> None:
    assert len({mint_token() for _ in range(1000)}) == 1000


def test_a_claims_tag_names_its_queue() -> None:
    assert Claim("w", "q", "7").tag != Claim("w", "r", "7").tag
