"""docs/traps.md tells the truth: every test that it names is there, and every row names one."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split(" | "))
    for line in (ROOT / "docs" / "traps.md").read_text().splitlines()
    if line.startswith("| ") and "tests |" not in line
]


@cache
def names_in(path: str) -> set[str]:
    """Return the names of the test functions of a file."""
    tree = ast.parse((ROOT / path).read_text())
    return {
        each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_a_trap_has_its_tests(row: tuple[str, ...]) -> None:
    named = re.findall(r"`(tests/[^`]+\.py)::(\w+)`", row[-1])
    assert named, "the row names no test"
    assert [name for path, name in named if name not in names_in(path)] == []


def test_no_table_was_lost() -> None:
    assert len(ROWS) >= 50
