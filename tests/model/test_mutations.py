"""The model is no tautology: every misreading that is known makes it break a law."""

from __future__ import annotations

from dataclasses import fields

import pytest

from model.explore import explore
from model.mutations import MUTATIONS, Mutation
from model.rules import RIGHT, Rules

each_mutation = pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.switch)


@each_mutation
def test_a_misreading_breaks_a_law(mutation: Mutation) -> None:
    found = explore(mutation.world, mutation.wrong())
    print(f"{mutation.reading}: {found}")
    assert found.law.startswith(mutation.law), str(found)
    assert found.trace


@each_mutation
def test_the_same_world_is_lawful_when_read_rightly(mutation: Mutation) -> None:
    found = explore(mutation.world, mutation.right())
    assert not found.law, str(found)


def test_every_switch_of_the_rules_is_refuted() -> None:
    switches = {
        field.name for field in fields(Rules) if isinstance(getattr(RIGHT, field.name), bool)
    }
    assert switches == {mutation.switch for mutation in MUTATIONS}
