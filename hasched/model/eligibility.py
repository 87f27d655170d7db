"""Which nodes a job may run on at all: the rules that are hard and don't depend on what else runs.

The planner asks them before it proposes, and the state machine once more when it applies a plan.
"""

from __future__ import annotations

from hasched.model.constraints import MAX_CONSTRAINT_CHARS, ConstraintError, compile_constraint
from hasched.model.facts import NodeFacts
from hasched.model.spec import DEFAULT_POOL, EVERY, JobAffinity, PlacementRules, Resources
from hasched.model.states import TaintEffect
from hasched.model.taints import Taint
from hasched.model.units import MAX_INTEGER

MAX_RULES = 32  # of one sort
MAX_WEIGHT = 1000
MAX_TEXT_CHARS = 256


def is_in_pool(facts: NodeFacts, rules: PlacementRules) -> bool:
    return facts.pool in rules.pools or EVERY in rules.pools


def find_taint(facts: NodeFacts, rules: PlacementRules, effect: TaintEffect = TaintEffect.NO_START) -> Taint | None:
    """The first taint with this effect that the rules don't tolerate."""
    for taint in facts.taints:
        if taint.effect is effect and not taint.is_tolerated(rules.tolerations):
            return taint
    return None


def find_unmet(facts: NodeFacts, rules: PlacementRules) -> str | None:
    """The first constraint that does not hold of the node."""
    for constraint in rules.constraints:
        if not compile_constraint(constraint)(facts):
            return constraint
    return None


def is_admitted(facts: NodeFacts, rules: PlacementRules | None) -> bool:
    """Whether a job with these rules may run on the node; None are those of a job that has none."""
    if rules is None:
        return facts.pool == DEFAULT_POOL and all(taint.effect is TaintEffect.AVOID for taint in facts.taints)
    return is_in_pool(facts, rules) and find_taint(facts, rules) is None and find_unmet(facts, rules) is None


def find_fault(rules: PlacementRules) -> str | None:
    """What makes rules unfit to be kept. `hasched.model.parse` has refused it before, with more to say."""
    every = (
        rules.pools,
        rules.constraints,
        rules.prefer,
        rules.near,
        rules.apart,
        rules.spread,
        rules.tolerations,
        rules.any_of,
    )
    if not rules.pools or any(len(each) > MAX_RULES for each in every):
        return f"a job has at least one pool, and at most {MAX_RULES} rules of one sort"
    weights = [*(each.weight for each in (*rules.near, *rules.apart)), *(each.weight for each in rules.spread)]
    if any(not 0 <= weight <= MAX_WEIGHT for weight in weights) or any(
        not -MAX_WEIGHT <= each.weight <= MAX_WEIGHT for each in rules.prefer
    ):
        return f"a weight is at most {MAX_WEIGHT}"
    if any(not 1 <= each.max_skew <= MAX_INTEGER for each in rules.spread):
        return "a skew is at least 1"
    texts = [*rules.pools, *(each.label for each in rules.spread), rules.resource_class]
    for affinity in (*rules.near, *rules.apart):
        texts += _texts_of(affinity)
    for toleration in rules.tolerations:
        texts += (toleration.key, toleration.value or "")
    if any(len(text) > MAX_TEXT_CHARS for text in texts):
        return f"a name in a placement rule is longer than {MAX_TEXT_CHARS} characters"
    for constraint in (*rules.constraints, *(each.nodes for each in rules.prefer)):
        try:
            compile_constraint(constraint[: MAX_CONSTRAINT_CHARS + 1])
        except ConstraintError as error:
            return f"the constraint {constraint[:MAX_TEXT_CHARS]!r} can't be read: {error}"
    return None


def _texts_of(affinity: JobAffinity) -> list[str]:
    return [affinity.within, affinity.jobs.name, *(text for pair in affinity.jobs.labels for text in pair)]


def is_sound_request(asked: Resources) -> bool:
    """Whether every amount is one that the state can count with."""
    amounts = (asked.cpu_milli, asked.memory_bytes, asked.gpus, asked.disk_bytes, asked.gpu_memory_bytes)
    names = [name for name, _ in asked.countables]
    return (
        all(0 <= amount <= MAX_INTEGER for amount in amounts)
        and names == sorted(dict.fromkeys(names))
        and all(0 < amount <= MAX_INTEGER for _, amount in asked.countables)
        and len(asked.gpu_models) <= MAX_RULES
        and all(len(model) <= MAX_TEXT_CHARS for model in asked.gpu_models)
    )
