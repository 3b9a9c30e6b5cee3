"""Write `docs/cli-reference.md` from the commands' own help; a test holds the two together."""

from __future__ import annotations

from pathlib import Path

from relier.cli.main import rl
from relier.cli.manual import contexts, markdown, page

if __name__ == "__main__":
    text = markdown([page(each) for each in contexts(rl)])
    (Path(__file__).parents[1] / "docs" / "cli-reference.md").write_text(text, encoding="utf-8")
