"""Print what the model finds: ``PYTHONPATH=tests python -m model``."""

from __future__ import annotations

from model.explore import explore
from model.mutations import MUTATIONS
from model.worlds import WORLDS


def main() -> None:
    """Explore every world by the right rules, then every mutation."""
    for world in WORLDS:
        print(f"{world.name}: {explore(world)}")
    for mutation in MUTATIONS:
        found = explore(mutation.world, mutation.wrong())
        print(f"\n== {mutation.switch}: {mutation.reading}\n{found}")


if __name__ == "__main__":
    main()
