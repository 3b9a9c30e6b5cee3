"""The bench runs, cleans up after itself, and says what it measured; its figures are not judged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from relier.bench import main
from relier.bench.figures import Figure, Spread, ratios
from relier.bench.lab import Effort, Lab

pytestmark = pytest.mark.slow

TINY = Effort(
    repeats=1,
    kills=1,
    calls=20,
    bulk=500,
    drain=100,
    claims=100,
    timed=5,
    scheduled=20,
    queued=200,
    dead=50,
    workers=3,
    delivery_runs=1,
    spread_s=0.5,
    idle_s=0.2,
    patience_s=0.5,
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "QUICK", TINY)


def marked(mark: str) -> list[int]:
    """Every process, of whatever kind, that was started with the mark in its environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            pass  # it has just ended, or is another user's
    return found


def test_it_prints_a_table_writes_json_and_leaves_nothing(
    tiny: None,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mark, folder = f"mark-{tmp_path}", os.getcwd()
    monkeypatch.setenv("BENCH_TEST_MARK", mark)
    target = tmp_path / "figures.json"
    names = ["process-killed", "timeouts", "dispatch", "bulk", "drain", "lateness", "scale"]
    chosen = [word for name in names for word in ("--only", name)]
    assert main.run(["--quick", "--json", str(target), *chosen]) == 0
    printed = capfd.readouterr().out
    content = json.loads(target.read_text())
    assert {figure["scenario"] for figure in content["figures"]} == set(names)
    for figure in content["figures"]:
        assert figure["name"] in printed
        assert "failed" not in str(figure["relier"]), figure
    assert "\x1b" not in printed, "colours off a terminal"
    assert not marked(mark)
    assert os.getcwd() == folder


def test_strict_turns_a_missed_bar_into_the_exit_status(
    tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hopeless(lab: Lab, effort: Effort) -> list[Figure]:
        return [Figure("dispatch", "hopeless", relier="no", bar="yes", met=False)]

    monkeypatch.setitem(main.SCENARIOS, "dispatch", hopeless)
    arguments = ["--quick", "--only", "dispatch"]
    assert main.run(arguments) == 0
    assert main.run([*arguments, "--strict"]) == 1


def test_settings_and_env_files_of_the_user_do_not_reach_the_bench(
    tiny: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("RELIER_REDIS_URL=redis://127.0.0.1:1/0\n")
    monkeypatch.setenv("RELIER_REDIS_URL", "redis://127.0.0.1:1/0")
    assert main.run(["--quick", "--only", "memory"]) == 0


def test_a_spread_shows_its_median_and_its_ends() -> None:
    assert str(Spread([3.0, 1.0, 2.0], "ms")) == "2 ms (1..3)"
    assert str(Spread([1234.5])) == "1,234"
    assert ratios([1.0, 4.0], [2.0, 4.0]).values == [0.5, 1.0]
