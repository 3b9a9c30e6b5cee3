from __future__ import annotations

import inspect
import re
from typing import Any
from uuid import UUID

import pytest

from relier import config
from relier.errors import ConfigurationError, PayloadError
from relier.protocol.admission import Rules, TenantOf, tenant_name, tenant_reader


def rules(**settings: object) -> Rules:
    return Rules.of(config.load({}, overrides=settings))


def reader(function: Any, key: Any) -> TenantOf:
    return tenant_reader(inspect.signature(function), key)


def send(letter: str, tenant: str = "nobody", *, urgent: bool = False) -> None: ...


def test_admission_is_off_unless_a_limit_is_set() -> None:
    assert not rules().limit_everyone
    assert not rules(admission_tenant_limit=5).limit_everyone
    assert rules(admission_limit=5).limit_everyone
    assert rules(admission_max_queue_depth=5).limit_everyone


def test_a_window_admits_its_limit_at_once() -> None:
    assert rules(admission_limit=5, admission_burst=2).at_once(5) == 5
    assert rules(admission_window_s=0.25).window_ms == 250


def test_smooth_admits_a_burst_at_once() -> None:
    smooth = rules(admission_mode="smooth")
    assert [smooth.at_once(limit) for limit in (1, 9, 10, 1000)] == [1, 1, 1, 100]
    smooth = rules(admission_mode="smooth", admission_burst=50)
    assert [smooth.at_once(limit) for limit in (10, 1000)] == [10, 50]


@pytest.mark.parametrize(
    ("args", "kwargs", "tenant"),
    [
        (("hello", "acme"), {}, "acme"),
        (("hello",), {"tenant": "acme"}, "acme"),
        ((), {"letter": "hello", "tenant": "acme"}, "acme"),
        (("hello",), {}, "nobody"),
    ],
)
def test_an_argument_names_the_tenant_wherever_it_stands(
    args: tuple[str, ...], kwargs: dict[str, str], tenant: str
) -> None:
    assert reader(send, "tenant")(args, kwargs) == tenant


def test_a_keyword_only_argument_is_not_taken_by_position() -> None:
    def call(*parts: str, tenant: str) -> None: ...

    assert reader(call, "tenant")(("a", "b"), {"tenant": "acme"}) == "acme"


def test_a_callable_is_given_what_the_task_is_given() -> None:
    def key(letter: str, tenant: str = "x", **_: Any) -> str:
        return f"{tenant}/{len(letter)}"

    named = reader(send, key)(("hello",), {"tenant": "acme", "urgent": True})
    assert named == tenant_name("acme/5")


async def asks_somebody(*_: Any) -> str:
    return "acme"


@pytest.mark.parametrize("key", ["tenent", "", 5, asks_somebody])
def test_a_key_that_cannot_name_anybody_is_refused_at_decoration(key: Any) -> None:
    with pytest.raises(ConfigurationError, match="admission_key is"):
        reader(send, key)


def test_the_arguments_that_might_be_meant_are_named() -> None:
    with pytest.raises(ConfigurationError, match="letter, tenant, urgent"):
        reader(send, "tenent")


def test_plain_names_are_kept_and_others_hashed() -> None:
    assert tenant_name("acme:eu-1") == "acme:eu-1"
    assert tenant_name(42) == "42"
    assert tenant_name(UUID(int=1)) == "00000000-0000-0000-0000-000000000001"
    for odd in ("a b", "ä", "{q}", "x" * 129, "\ud800", "a\n"):
        assert re.fullmatch(r"h:[0-9a-f]{32}", tenant_name(odd))
    assert tenant_name("a b") != tenant_name("a  b")


@pytest.mark.parametrize("value", [None, "", True, 1.5, ["a"], object()])
def test_what_names_nobody_is_refused(value: object) -> None:
    with pytest.raises(PayloadError, match="Nothing was enqueued"):
        tenant_name(value)
