"""The shop's Celery app: what a user of relier would write, no more.

Each order is a chain of two tasks: an invoice is rendered to a PDF file, then it is booked. The
demo names the broker and the folder in the environment of every process that imports this.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from celery import Celery, chain, signals

from relier import Relier, rl_task
from relier.config import SETTINGS
from relier.demo import orders, pdf
from relier.demo.journal import BEGUN, DONE, Journal
from relier.demo.surroundings import Surroundings
from relier.tasks.context import task_context
from relier.tasks.receipt import Receipt

QUEUE = "invoices"
_PARENT_CHECK_S = 0.3

place = Surroundings.of_process()
journal = Journal(place.journal)

app = Celery("shop", broker=place.url, backend=place.url)
app.conf.update(
    task_default_queue=QUEUE,
    # One invoice per pool process and none in advance: a customer waits for each.
    worker_prefetch_multiplier=1,
    broker_transport_options={"global_keyprefix": place.prefix} if place.prefix else {},
    result_backend_transport_options={"global_keyprefix": place.prefix} if place.prefix else {},
)
# The demo shows the defaults, whatever a .env file or the environment says.
_settings: dict[str, Any] = {row.name: row.default for row in SETTINGS}
_settings |= {"redis_url": place.url, "env": "development", "cluster_name": "web-shop"}
Relier(app, **_settings)
app.set_default()


@rl_task(name="render_invoice")
def render_invoice(order: orders.Order) -> dict[str, Any]:
    """Render an order's invoice to a PDF file, line by line, as slowly as a printer would."""
    context = task_context()
    invoice = order["invoice"]
    journal.write(BEGUN, context.task_id, invoice, context.fence)
    lines = [f"for {order['customer']}", ""]
    for what, count, cents in order["lines"]:
        time.sleep(order["render_s"] / len(order["lines"]))
        lines.append(f"{count} x {what} at {orders.money(cents)}: {orders.money(count * cents)}")
    total = orders.total_cents(order)
    lines += ["", f"Total: {orders.money(total)}"]
    _replace(place.invoices / f"{invoice}.pdf", pdf.render(f"Invoice {invoice}", lines))
    journal.write(DONE, context.task_id, invoice, context.fence)
    return {"invoice": invoice, "cents": total}


@rl_task(name="book_invoice")
def book_invoice(rendered: dict[str, Any]) -> int:
    """Enter a rendered invoice into the books."""
    context = task_context()
    invoice = rendered["invoice"]
    journal.write(BEGUN, context.task_id, invoice, context.fence)
    entry = json.dumps({**rendered, "fence": context.fence})
    _replace(place.books / f"{invoice}.json", entry.encode())
    journal.write(DONE, context.task_id, invoice, context.fence)
    return int(rendered["cents"])


def accept(order: orders.Order) -> tuple[Receipt, Receipt]:
    """Take an order; return the receipts of its two tasks once Redis has accepted it."""
    booked = chain(render_invoice.s(order), book_invoice.s()).apply_async()
    return booked.parent, booked


def _replace(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; doing it again gives the same file."""
    half_written = path.with_suffix(f".{os.getpid()}.part")
    half_written.write_bytes(data)
    half_written.replace(path)


def _end_with_the_demo(**_: Any) -> None:
    """Leave no worker behind, should the demo itself be killed."""
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


signals.worker_init.connect(_end_with_the_demo)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_S)
    os.killpg(0, 9)
