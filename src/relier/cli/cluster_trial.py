"""Import an app as the workers of a cluster would, in a process of its own, and say what is wrong.

Started as `python -m relier.cli.cluster_trial APP [MODULE ...]`: what user code does at import is
no business of the supervisor's process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping

from relier.cluster.launch import Wish
from relier.errors import ConfigurationError, RelierError

_TRIAL_S = 60.0


def try_app(wish: Wish, env: Mapping[str, str]) -> None:
    """Import the app elsewhere.

    Raises:
        ConfigurationError: it cannot be imported, or relier is not installed in it.
    """
    line = [sys.executable, "-m", "relier.cli.cluster_trial", wish.app, *wish.include]
    try:
        done = subprocess.run(
            line,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=False,
            timeout=_TRIAL_S,
        )
    except subprocess.TimeoutExpired:
        raise ConfigurationError(
            f"to import the app {wish.app!r} took more than {_TRIAL_S:g} s: does it wait for "
            "something at import?"
        ) from None
    try:
        error = json.loads(done.stdout)["error"]
    except ValueError:
        error = f"to import the app {wish.app!r} ended the process with status {done.returncode}"
    if error:
        raise ConfigurationError(error)


def main(app: str, include: list[str]) -> None:
    """Print what is wrong with an app as JSON."""
    from relier.cli.apps import load_app

    error = ""
    try:
        if getattr(load_app(app, include), "relier", None) is None:
            error = f"the app {app!r} is without relier: write `Relier(app)` where it is made"
    except RelierError as found:
        error = str(found)
    print(json.dumps({"error": error}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
