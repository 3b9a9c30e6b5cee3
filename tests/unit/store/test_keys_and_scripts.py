from __future__ import annotations

import re
from importlib.resources import files

import pytest

from relier.store.keys import Keys
from relier.store.scripts import load

LUA = files("relier.store") / "lua"
NAMES = sorted(path.name[:-4] for path in LUA.iterdir() if path.name.endswith(".lua"))


def test_templates_agree_with_the_names_they_stand_for() -> None:
    keys = Keys("50%:")
    # Lua's string.format and Python's % agree on %s and %%.
    assert keys.claims_template % ("q", "w") == keys.claims("q", "w")
    assert keys.task_template % "id" == keys.task("id")


def test_every_key_carries_the_prefix() -> None:
    keys = Keys("app:")
    names = [keys.list("q"), keys.replay("q"), keys.claims("q", "w"), keys.task("id"), keys.fence]
    assert all(name.startswith("app:") for name in names)


@pytest.mark.parametrize("name", NAMES)
def test_a_script_states_its_keys_arguments_and_answer(name: str) -> None:
    source = load(name).source
    assert source.startswith("#!lua"), "the shebang declares how the script meets a full server"
    assert "--@include" not in source
    header = source.split("\n\n")[0]
    for part in ("KEYS", "ARGV", "returns"):
        used = part == "returns" or f"{part}[" in source or f"#{part}" in source
        assert not used or f"-- {part}" in header, f"{name}.lua does not say its {part}"


@pytest.mark.parametrize("name", NAMES)
def test_only_a_dispatch_is_refused_by_a_full_server(name: str) -> None:
    allowed = "flags=allow-oom" in load(name).source.split("\n", 1)[0]
    assert allowed is (name != "enqueue")


@pytest.mark.parametrize("name", NAMES)
def test_no_script_decodes_a_message(name: str) -> None:
    assert not re.search(r"cjson|cmsgpack", load(name).source)
