from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import relier
from relier.errors import ConfigurationError, SchemaMigrationError
from relier.protocol.migrations import Migrations, SchemaRegistry


def step(number: int) -> Any:
    def migration(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return (*args, number), {**kwargs, f"v{number}": True}

    migration.__qualname__ = f"step_{number}"
    return migration


def chain_of(*numbers: int) -> Migrations:
    migrations = Migrations()
    for number in numbers:
        migrations.register_migration("pay", from_version=number)(step(number))
    return migrations


def test_the_public_name_is_the_registry_of_the_process() -> None:
    assert relier.SchemaRegistry is SchemaRegistry
    assert isinstance(SchemaRegistry, Migrations)


def test_a_task_without_migrations_is_of_version_one() -> None:
    assert Migrations().version("pay") == 1
    assert not Migrations()
    assert chain_of(1).version("another") == 1


def test_the_first_migration_starts_from_version_one() -> None:
    migrations = Migrations()
    migrations.register_migration("pay")(step(1))
    assert migrations.version("pay") == 2
    assert migrations.names == ("pay",)


@given(st.permutations([1, 2, 3, 4]), st.integers(1, 5))
def test_steps_run_in_their_order_from_the_messages_version(order: list[int], version: int) -> None:
    migrations = chain_of(*order)
    migrations.check()
    args, kwargs = migrations.migrate("pay", version, [0], {"x": 1})
    assert list(args) == [0, *range(version, 5)]
    assert kwargs == {"x": 1, **{f"v{n}": True for n in range(version, 5)}}


@given(st.sets(st.integers(1, 6), min_size=1))
def test_a_gap_is_told_at_start(numbers: set[int]) -> None:
    migrations = chain_of(*numbers)
    if numbers == set(range(1, max(numbers) + 1)):
        migrations.check()
    else:
        with pytest.raises(ConfigurationError, match="no migration of pay starts from version"):
            migrations.check()


def test_what_a_step_gets_is_its_own() -> None:
    migrations = Migrations()

    @migrations.register_migration("pay")
    def spoil(args: Any, kwargs: Any) -> Any:
        kwargs["spoilt"] = True
        return args, kwargs

    given_kwargs: dict[str, Any] = {}
    assert migrations.migrate("pay", 1, [], given_kwargs) == ((), {"spoilt": True})
    assert given_kwargs == {}


@pytest.mark.parametrize("error", [ValueError("odd"), SystemExit(3), KeyError("cents")])
def test_a_failing_step_says_which_and_why(error: BaseException) -> None:
    migrations = chain_of(1)

    @migrations.register_migration("pay", from_version=2)
    def fails(_args: Any, _kwargs: Any) -> Any:
        raise error

    with pytest.raises(SchemaMigrationError, match="of pay from version 2 raised") as told:
        migrations.migrate("pay", 1, [], {})
    assert type(error).__name__ in str(told.value)
    assert told.value.__cause__ is error


@pytest.mark.parametrize("made", [None, 7, (), ([],), ([], []), ("ab", {}), ([], {}, {})])
def test_a_step_must_return_arguments(made: Any) -> None:
    migrations = Migrations()
    migrations.register_migration("pay")(lambda _args, _kwargs: made)
    with pytest.raises(SchemaMigrationError, match=r"not \(args, kwargs\)"):
        migrations.migrate("pay", 1, [], {})


def test_two_steps_from_one_version_are_refused_but_a_reloaded_one_is_not() -> None:
    migrations = chain_of(1)
    migrations.register_migration("pay")(step(1))
    with pytest.raises(ConfigurationError, match="two migrations of pay start from version 1"):
        migrations.register_migration("pay")(step(2))


async def _coroutine(args: Any, kwargs: Any) -> Any:
    return args, kwargs


@pytest.mark.parametrize(
    ("name", "version", "function"),
    [
        ("", 1, step(1)),
        (print, 1, step(1)),
        ("pay", 0, step(1)),
        ("pay", "1", step(1)),
        ("pay", True, step(1)),
        ("pay", 1, _coroutine),
    ],
)
def test_what_cannot_be_a_migration_is_refused(name: Any, version: Any, function: Any) -> None:
    migrations = Migrations()
    with pytest.raises(ConfigurationError):
        migrations.register_migration(name, version)(function)
    assert not migrations
