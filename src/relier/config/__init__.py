"""Settings: read once from keyword arguments, the environment and a `.env` file, then frozen.

The table `SETTINGS` is the one list of what can be set; `.env.example` is printed from it.
"""

from relier.config.dotenv import example_dotenv
from relier.config.loading import load
from relier.config.settings import Settings
from relier.config.table import DEFAULT_REDIS_URL, SETTINGS

__all__ = ["DEFAULT_REDIS_URL", "SETTINGS", "Settings", "example_dotenv", "load"]
