"""The shop's customers: the same orders for the same seed, so that a run can be repeated."""

from __future__ import annotations

import random
from typing import Any

_CUSTOMERS = (
    "Ada Lovelace", "Grace Hopper", "Edsger Dijkstra", "Barbara Liskov", "Tony Hoare",
    "Frances Allen", "Ken Thompson", "Radia Perlman", "Leslie Lamport", "Sophie Wilson",
)  # fmt: skip
_GOODS = (
    ("teapot, glazed", 3490), ("teapot, plain", 2450), ("cup and saucer", 1250),
    ("sugar bowl", 990), ("milk jug", 1120), ("tea towel, linen", 840),
    ("darjeeling, 250 g", 1375), ("assam, 250 g", 1095),
)  # fmt: skip
_FIRST_NUMBER = 1001

Order = dict[str, Any]
"""``invoice``, ``customer``, ``lines`` of [what, how many, cents each], and ``render_s``."""


def place(count: int, seed: int) -> list[Order]:
    """Return as many orders."""
    chance = random.Random(seed)
    return [_order(chance, f"INV-{_FIRST_NUMBER + i}") for i in range(count)]


def total_cents(order: Order) -> int:
    """Return what an order costs."""
    return sum(count * cents for _, count, cents in order["lines"])


def money(cents: int) -> str:
    """Return an amount as people write it."""
    return f"{cents // 100:,}.{cents % 100:02d}"


def _order(chance: random.Random, invoice: str) -> Order:
    goods = chance.sample(_GOODS, chance.randint(1, 4))
    return {
        "invoice": invoice,
        "customer": chance.choice(_CUSTOMERS),
        "lines": [[what, chance.randint(1, 3), cents] for what, cents in goods],
        "render_s": round(chance.uniform(0.5, 1.0), 2),
    }
