"""Load a user's Celery app as `celery -A` does, and say what a command needs to know of it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

from relier.errors import ConfigurationError, RelierError
from relier.ops.doctor.celery_app import AppFacts
from relier.store.address import Address


def load_app(name: str, include: Sequence[str] = ()) -> Any:
    """Import an app and its tasks.

    Args:
        name: as `celery -A` takes it: shop, shop.celery, shop:app.
        include: more modules to import.

    Raises:
        ConfigurationError: there is no such app, or its module fails; the message says where.
    """
    from celery.app.utils import find_app

    try:
        # What the module prints is not the command's answer.
        with redirect_stdout(sys.stderr):
            app = find_app(name)
            app.loader.import_default_modules()
            for each in include:
                app.loader.import_task_module(each)
            app.finalize()
    except RelierError:
        raise
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"cannot load the app {name!r}: there is no module {error.name!r}. Give -A as to "
            "`celery -A`, from the folder in which that works"
        ) from error
    except (Exception, SystemExit) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise ConfigurationError(
            f"cannot load the app {name!r}: {type(error).__name__}: {error} "
            f"({where.filename}, line {where.lineno})"
        ) from error
    return app


def facts_of(app: Any, name: str) -> AppFacts:
    """Return what `rl doctor` judges of an app."""
    from relier.tasks.task import Protected

    installed = getattr(app, "relier", None)
    own = {task: found for task, found in app.tasks.items() if not task.startswith("celery.")}
    protected = {task for task, found in own.items() if isinstance(found, Protected)}
    backend = app.conf.get("result_backend") or ""
    return AppFacts(
        name=name,
        installed=installed is not None,
        conf=app.conf,
        protected=tuple(sorted(protected)),
        unprotected=tuple(sorted(own.keys() - protected)),
        result_backend="" if backend == "disabled://" else _without_secrets(str(backend)),
        same_server=installed is not None and _is_at(str(backend), installed.broker.address),
        signed=installed is not None and installed.settings.require_signature,
    )


def _is_at(backend: str, address: Address) -> bool:
    try:
        return Address.parse(backend).server == address.server
    except (ConfigurationError, ValueError):
        return False


def _without_secrets(url: str) -> str:
    from kombu.utils.url import maybe_sanitize_url

    return str(maybe_sanitize_url(url)) if "://" in url else url.partition(":")[0]
