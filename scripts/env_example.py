"""Write `.env.example` from the table of settings; a test holds the two together."""

from __future__ import annotations

from pathlib import Path

from relier.config import example_dotenv

if __name__ == "__main__":
    (Path(__file__).parents[1] / ".env.example").write_text(example_dotenv(), encoding="utf-8")
