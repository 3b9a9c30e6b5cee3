"""Put a Celery app under relier: ``Relier(app)``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from celery import Celery, signals

from relier import config
from relier.config import Settings
from relier.errors import ConfigurationError
from relier.store.address import Address
from relier.store.broker import Broker
from relier.tasks import results
from relier.tasks.amqp import AMQP
from relier.tasks.task import Protected, RelierTask, protect
from relier.worker import publish, transport
from relier.worker.membership import Membership
from relier.worker.timeouts import Timekeeper

_CELERYS = "celery."
_DEFAULT_URL = "redis://127.0.0.1:6379/0"
_STOCK_CONTROL = "celery.app.control:Control"
_CONTRADICTIONS = {
    "broker_transport": "it would bring the stock transport back on failover",
    "worker_consumer": "relier needs its own consumer",
}


class Relier:
    """Protect an app's tasks.

    Args:
        app: the Celery app. Its broker must be Redis or Valkey; only this app is touched.
        protect_all: also protect plain ``@app.task`` tasks, acks_early ones too. Celery's own
            (``celery.accumulate``, ``chord_unlock``, ``map``) are protected in any case.
        settings: any setting by its name, stronger than the environment and ``.env``.

    Raises:
        ConfigurationError: a setting cannot work, or the app's broker is not Redis.
    """

    def __init__(self, app: Celery, *, protect_all: bool = False, **settings: object) -> None:
        if getattr(app, "relier", None) is not None:
            raise ConfigurationError("this app is under relier already: call Relier(app) once")
        self.app = app
        self.protect_all = protect_all
        self.settings: Settings = config.load(os.environ, Path(".env"), settings)
        transport.register()
        url = self._broker_url()
        address = Address.parse(url, _tls(app.conf.get("broker_use_ssl")))
        prefix = (app.conf.get("broker_transport_options") or {}).get("global_keyprefix", "")
        self.broker = Broker(address, self.settings, prefix)
        self.membership = Membership(self.broker)
        self.timekeeper = Timekeeper(self.broker)
        self._refuse_other_servers(address)
        self._configure(url)
        app.relier = self

    def _broker_url(self) -> str:
        conf = self.app.conf
        for name, why in _CONTRADICTIONS.items():
            chosen = conf.get(name)
            if chosen and chosen != "celery.worker.consumer:Consumer":
                raise ConfigurationError(f"unset {name}: {why}")
        found = self.settings.redis_url or conf.broker_url or _DEFAULT_URL
        urls = [each for part in _listed(found) for each in part.split(";")]
        if len(urls) > 1:
            raise ConfigurationError(
                f"give one broker URL, not {len(urls)}: a task's bytes must be in one place, and "
                "failing over to another server would put them in two"
            )
        password = self.settings.redis_password
        return _with_password(urls[0], password) if password else urls[0]

    def _refuse_other_servers(self, address: Address) -> None:
        """Refuse read and write URLs that lead elsewhere, and variables that would override ours.

        Raises:
            ConfigurationError: naming the setting.
        """
        for name in ("CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"):
            if os.environ.get(name):
                raise ConfigurationError(f"unset {name}: give one URL, as the app's broker_url")
        for name in ("broker_read_url", "broker_write_url"):
            for url in _listed(self.app.conf.get(name) or ()):
                if Address.parse(url).server != address.server:
                    raise ConfigurationError(
                        f"unset {name}: messages and what protects them must be on one server"
                    )

    def _configure(self, url: str) -> None:
        app, conf = self.app, self.app.conf
        # All three: CELERY_BROKER_URL in the environment is stronger than the first alone.
        conf.broker_url = conf.broker_read_url = conf.broker_write_url = _ours(url)
        options = dict(conf.get("broker_transport_options") or {})
        conf.broker_transport_options = {**options, transport.OPTION: self.membership}
        if not conf.get("result_backend") and self.settings.redis_url:
            conf.result_backend = self.settings.redis_url
        conf.worker_consumer = "relier.worker.consumer:Consumer"
        conf.task_publish_retry = False
        conf.worker_cancel_long_running_tasks_on_connection_loss = False
        # A publish ends within the socket timeout, connecting included.
        conf.broker_connection_timeout = self.settings.redis_socket_timeout_s
        AMQP.take_over(app)
        results.take_over(app)
        if app.control_cls == _STOCK_CONTROL and "control" not in app.__dict__:
            app.control_cls = "relier.tasks.control:Control"
        signals.beat_init.connect(publish.exempt_beat)
        if "Task" not in app.__dict__ and app.task_cls == "celery.app.task:Task":
            app.task_cls = RelierTask if self.protect_all else app.task_cls
        app.on_after_finalize.connect(self._protect, weak=False)
        if app.finalized:
            self._protect(app)

    def _protect(self, sender: Celery, **_: Any) -> None:
        for name, task in sender.tasks.items():
            if not isinstance(task, Protected) and (self.protect_all or name.startswith(_CELERYS)):
                protect(task)


def _listed(url: str | Iterable[str]) -> list[str]:
    return [url] if isinstance(url, str) else list(url)


def _ours(url: str) -> str:
    """Return the URL under relier's scheme."""
    plain = url.removeprefix("relier+")
    Address.parse(plain)
    return f"{transport.SCHEME}+{plain.removeprefix('redis+') if '+socket' in plain else plain}"


def _with_password(url: str, password: str) -> str:
    scheme, _, rest = url.partition("://")
    return url if "@" in rest else f"{scheme}://:{password}@{rest}"


def _tls(use_ssl: object) -> dict[str, Any]:
    return dict(use_ssl) if isinstance(use_ssl, dict) else {}
