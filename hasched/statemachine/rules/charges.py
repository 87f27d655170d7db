"""Charges: what an attempt has used when it ends, by the state's own clock, and what that costs.

An attempt holds its request from the moment that it is placed; it is charged at the prices of the moment of its end. The
price called like its node's pool counts where there is one, else the one called `default`.
"""

from __future__ import annotations

from hasched.model.facts import gpu_class_of, is_model
from hasched.model.policy import Price
from hasched.model.spec import Resources
from hasched.model.units import GIB, HOUR_MS, MAX_INTEGER
from hasched.statemachine.job import ActiveAttempt, Job
from hasched.statemachine.node import Node
from hasched.statemachine.policies import PolicyTables, find_policy
from hasched.statemachine.state import State

DEFAULT_PRICE = "default"


def charge(state: State, job: Job, index: int, active: ActiveAttempt, cpu_ms: int) -> None:
    """Write into the ledger, and onto the job, what a task's attempt that ends now has used."""
    request, node = job.request_of(index), state.nodes[active.node_id]
    held_ms = state.now_ms - active.scheduled_ms
    price = price_on(state.policies, node.facts.pool)
    cost_micro = 0 if price is None else cost_of(price, request, model_on(node, request), held_ms)
    state.usage.charge(job.account, request, (active.scheduled_ms, state.now_ms), cpu_ms, cost_micro)
    job.cpu_ms = min(job.cpu_ms + cpu_ms, MAX_INTEGER)
    job.cost_micro = min(job.cost_micro + cost_micro, MAX_INTEGER)
    if not (part := job.part_of(index)):
        job.held_ms += held_ms
    else:
        job.held_by_part = job.held_by_part or {}
        job.held_by_part[part] = job.held_by_part.get(part, 0) + held_ms


def price_on(tables: PolicyTables, pool: str) -> Price | None:
    """What counts on the nodes of a pool."""
    return find_policy(tables, Price, pool) or find_policy(tables, Price, DEFAULT_PRICE)


def model_on(node: Node, request: Resources) -> str:
    """The model of the GPUs that such a task gets on a node."""
    kind = gpu_class_of(node.facts.gpus, request) if request.gpus else -1
    return node.facts.gpus[kind].model if kind >= 0 else ""


def cost_of(price: Price, request: Resources, gpu_model: str, held_ms: int) -> int:
    """What it costs to hold a request for so long, in millionths of the price's currency, rounded down."""
    named = (micro for model, micro in price.gpu_models if gpu_model and is_model(gpu_model, model))
    gpu_micro = next(named, price.gpu_micro)
    an_hour = (
        request.cpu_milli * price.cpu_micro * GIB
        + (request.memory_bytes * price.memory_micro + request.disk_bytes * price.disk_micro) * 1000
        + request.gpus * gpu_micro * 1000 * GIB
    )
    return min(an_hour * held_ms // (1000 * GIB * HOUR_MS), MAX_INTEGER)
