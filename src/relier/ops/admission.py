"""Admission: what its limits are, how much of them is used, and how to open the gate again."""

from __future__ import annotations

from dataclasses import dataclass

from relier.store import admission
from relier.store.admission import Count
from relier.store.broker import Broker
from relier.store.client import Store


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of one limit is used, as the dispatchers apply it.

    Args:
        scope: "cluster" or "tenant".
        tenant: the tenant's name, "" for the cluster.
        mode: "window" or "smooth".
        used: how many slots are taken now, of `at_once`.
        limit: how many a window admits.
        retry_after_s: when there is room for one more; 0 for now.
    """

    scope: str
    tenant: str
    mode: str
    used: int
    at_once: int
    limit: int
    window_s: float
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class Status:
    """The limits as they are set here, and what counts on the server now.

    Args:
        usages: the cluster's, then the latest tenants', the fullest first.
    """

    mode: str
    window_s: float
    limit: int
    burst: int
    tenant_limit: int
    max_queue_depth: int
    usages: tuple[Usage, ...]


@dataclass(frozen=True, slots=True)
class Reset:
    """What a reset forgot; ``tenant`` is "" when it was everything."""

    tenant: str
    counts: int


def status(broker: Broker) -> Status:
    """Look at the limits."""
    rules = broker.admission
    return Status(
        mode=_mode(rules.smooth),
        window_s=rules.window_ms / 1000,
        limit=rules.limit,
        burst=rules.at_once(rules.limit),
        tenant_limit=rules.tenant_limit,
        max_queue_depth=rules.max_queue_depth,
        usages=tuple(_usage(each) for each in admission.counts(broker.store)),
    )


def reset(store: Store, tenant: str | None = None) -> Reset:
    """Forget what was admitted, so that each limit is whole again.

    Args:
        tenant: only this tenant's, as `status` names it; None for the cluster's and every tenant's.
    """
    return Reset(tenant or "", admission.reset(store, tenant))


def _usage(count: Count) -> Usage:
    return Usage(
        scope="tenant" if count.tenant else "cluster",
        tenant=count.tenant,
        mode=_mode(count.smooth),
        used=count.used,
        at_once=count.at_once,
        limit=count.limit,
        window_s=count.window_ms / 1000,
        retry_after_s=count.wait_ms / 1000,
    )


def _mode(smooth: bool) -> str:
    return admission.SMOOTH if smooth else admission.WINDOW
