"""No world of the model breaks a law, however its faults fall."""

from __future__ import annotations

import pytest

from model.explore import explore
from model.world import World
from model.worlds import WORLDS


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_no_state_of_a_world_breaks_a_law(world: World) -> None:
    found = explore(world)
    print(f"{world.name}: {found}")
    assert not found.law, str(found)
