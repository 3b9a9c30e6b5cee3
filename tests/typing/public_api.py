"""Never run, only type-checked: what a user's editor must know of the public API.

Each `type: ignore` is a claim, too: mypy complains of one that hides no error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, assert_type

from relier import Receipt, SchemaRegistry, TaskContext, rl_task, task_context
from relier.errors import AdmissionRejectedError


@rl_task
def add(x: int, y: int) -> int:
    return x + y


@rl_task(queue="invoices", max_resurrections=3, bind=False)
async def render(order_id: str, pages: int = 1) -> str:
    return order_id * pages


async def save(ctx: TaskContext) -> None:
    assert_type(ctx.deadline, float | None)


@rl_task(soft_timeout=8, hard_timeout=10.5, on_soft_timeout=save, raise_on_soft=True)
def slow(x: int) -> int:
    return x


@rl_task(on_soft_timeout=lambda: None)  # type: ignore[arg-type, misc]
def unhooked() -> None: ...


@rl_task(admission_key="tenant", admission_limit=100)
def notify(tenant: str, text: str) -> None:
    print(tenant, text)


@rl_task(admission_key=lambda tenant, text: f"letters of {tenant}")
def write(tenant: str, text: str) -> None:
    print(tenant, text)


@SchemaRegistry.register_migration("add", from_version=1)
def one_argument_more(args: Any, kwargs: Any) -> Any:
    return (*args, 0), kwargs


@SchemaRegistry.register_migration("add", from_version=2)
def typed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, {**kwargs, "z": 1}


def refusal(error: AdmissionRejectedError) -> None:
    assert_type(error.retry_after, float)
    assert_type(error.headers, dict[str, str])
    assert_type(error.accepted, tuple[str, ...])


def dispatch() -> None:
    assert_type(add.push(1, 2), Receipt)
    assert_type(add.delay(1, y=2), Receipt)
    assert_type(add.push_many([(1, 2), {"x": 1, "y": 2}]), Sequence[Receipt])
    assert_type(add(1, 2), int)
    add.push("1", 2)  # type: ignore[arg-type]
    add.push(1)  # type: ignore[call-arg]
    render.push("order-17", pages=2)
    render.push(order_id=17)  # type: ignore[arg-type]


async def dispatch_from_asyncio() -> None:
    assert_type(await render.apush("order-17"), Receipt)
    assert_type(await render("order-17"), str)
    await add.apush(1, "2")  # type: ignore[arg-type]


def inside_a_task() -> None:
    context = task_context()
    assert_type(context, TaskContext)
    assert_type(context.fence, int)
    assert_type(context.metadata, Mapping[str, Any])
    context.save_partial({"step": context.partial_result})


async def inside_an_async_task(ctx: TaskContext) -> None:
    await ctx.set_partial([1, 2])
