"""The key `placement` of a job's document: where its tasks may run, and where they had better."""

from __future__ import annotations

from typing import Any

from hasched.model.constraints import MAX_CONSTRAINT_CHARS, ConstraintError, canonical
from hasched.model.eligibility import MAX_RULES, MAX_TEXT_CHARS, MAX_WEIGHT
from hasched.model.kinds import Field, Kind, Problems, choice, describe, mapping, name, pairs, text, whole
from hasched.model.resource_text import RESOURCES, fault_of_name, fill_request, one_or_more
from hasched.model.spec import (
    EVERY,
    JobAffinity,
    JobSelector,
    NodePreference,
    PlacementRules,
    Resources,
    Spread,
    Toleration,
)
from hasched.model.states import GpuLocality
from hasched.model.taints import parse_toleration
from hasched.model.units import MAX_INTEGER

NODE = "node"  # a place of its own, where the name of a label would stand
SELF = "self"


def fill_placement(given: dict[str, Any], base: Resources, problems: Problems) -> tuple[PlacementRules, Resources]:
    """The rules, and the request that they leave: the first of the alternatives, where there are any."""
    rules: dict[str, Any] = {key: given[key] for key in ("pools", "tolerations", "resource_class") if key in given}
    if locality := given.get("gpu_locality"):
        rules["gpu_locality"] = locality
    constraints: list[str] = list(given.get("constraints", ()))
    prefer: list[NodePreference] = []
    near, apart = [], []
    for affinity in given.get("affinity", ()):
        if isinstance(affinity, JobAffinity):
            near.append(affinity)
        elif affinity.weight:
            prefer.append(affinity)
        else:
            constraints.append(affinity.nodes)
    for affinity in given.get("anti_affinity", ()):
        if isinstance(affinity, JobAffinity):
            apart.append(affinity)
        elif affinity.weight:
            prefer.append(NodePreference(affinity.nodes, -affinity.weight))
        else:
            constraints.append(canonical(f"not ({affinity.nodes})"))
    alternatives = tuple(
        fill_request(base, each, f"placement.any_of[{number}]", problems)
        for number, each in enumerate(given.get("any_of", ()))
    )
    filled = PlacementRules(
        **rules,
        constraints=tuple(dict.fromkeys(constraints)),
        prefer=tuple(prefer),
        near=tuple(near),
        apart=tuple(apart),
        spread=given.get("spread", ()),
        any_of=alternatives,
    )
    return filled, alternatives[0] if alternatives else base


def _constraint() -> Kind:
    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, str):
            problems.note(place, f"must be a constraint such as 'arch == amd64', not {describe(value)}")
            return ""
        try:
            return canonical(value)
        except ConstraintError as error:
            problems.note(place, str(error), error.hint)
            return ""

    return Kind(read, {"type": "string", "maxLength": MAX_CONSTRAINT_CHARS, "examples": ["kernel >= 5.15"]})


def _pools() -> Kind:
    """Names of pools; `*` for all of them."""

    def read_one(value: Any, place: str, problems: Problems) -> Any:
        return value if value == EVERY else pool.read(value, place, problems)

    def read(value: Any, place: str, problems: Problems) -> Any:
        before = len(problems)
        pools = several.read(value, place, problems)
        if len(problems) > before:
            return (EVERY,)
        return (EVERY,) if EVERY in pools else tuple(sorted(dict.fromkeys(pools)))

    pool = name()
    several = one_or_more(Kind(read_one, {"type": "string"}), MAX_RULES, "one or more pools")
    return Kind(read, several.schema)


def _jobs() -> Kind:
    """Which jobs are meant: `self`, or `{name: …, labels: {…}}`."""

    def read(value: Any, place: str, problems: Problems) -> Any:
        if value == SELF:
            return JobSelector()
        before = len(problems)
        if not isinstance(value, dict):
            problems.note(place, f"must be a mapping such as {{labels: {{app: db}}}}, or `self`, not {describe(value)}")
            return JobSelector()
        given = selector.read(value, place, problems)
        if len(problems) == before and not given.get("name") and not given.get("labels"):
            problems.note(place, "names no job", "give a name or labels, or write `self`")
        labels = given.get("labels")
        return JobSelector(given.get("name") or "", tuple(sorted(labels.items())) if isinstance(labels, dict) else ())

    selector = mapping(
        {
            "name": Field("name", name(), "Jobs with this name."),
            "labels": Field("labels", pairs(fault_of_name, _LABEL, MAX_RULES), "Jobs that have all of these labels."),
        },
        "a mapping of name and labels",
    )
    return Kind(read, {"anyOf": [{"const": SELF}, selector.schema]})


def _place() -> Kind:
    """A label of nodes; `node` is the node itself."""

    def read(value: Any, place: str, problems: Problems) -> Any:
        if value == NODE:
            return ""
        before = len(problems)
        label.read(value, place, problems)
        return "" if len(problems) > before else value.removeprefix("label.")

    label = name()
    return Kind(read, {"type": "string", "examples": ["rack"]})


def _affinity() -> Kind:
    """Toward nodes for which a constraint holds, or toward where certain jobs run."""

    def read(value: Any, place: str, problems: Problems) -> Any:
        given = affinity.read(value, place, problems)
        if isinstance(value, dict) and ("nodes" in value) == ("jobs" in value):
            both = "nodes" in value
            problems.note(
                place, "has both `nodes` and `jobs`" if both else "has neither `nodes` nor `jobs`", "give one of them"
            )
        weight = given.get("weight") or 0
        if "nodes" in given:
            if "within" in given:
                problems.note(f"{place}.within", "belongs to `jobs`, not to `nodes`")
            return NodePreference(given["nodes"], weight)
        return JobAffinity(given.get("jobs") or JobSelector(), given.get("within") or "", weight)

    affinity = mapping(
        {
            "nodes": Field("nodes", _constraint(), "Nodes for which this constraint holds."),
            "jobs": Field("jobs", _jobs(), "Where tasks of these jobs run."),
            "within": Field(
                "within", _place(), "A label: nodes with the same value are one place. By default the node."
            ),
            "weight": Field("weight", whole(1, MAX_WEIGHT, _HARD), "How much it counts; without it, it must hold."),
        },
        "a mapping of nodes or jobs, within and weight",
    )
    return Kind(read, affinity.schema)


def _spread() -> Kind:
    """A label, short for `{label: NAME}`, or the mapping."""

    def read(value: Any, place: str, problems: Problems) -> Any:
        if isinstance(value, str):
            return Spread(label.read(value, place, problems))
        given = spread.read(value, place, problems)
        return Spread(given.get("label") or "", given.get("max_skew") or 1, given.get("weight") or 0)

    label = _place()
    spread = mapping(
        {
            "label": Field("label", label, "The label over whose values the tasks are spread. By default over nodes."),
            "max_skew": Field("max_skew", whole(1, MAX_INTEGER), "So many more than where the fewest are."),
            "weight": Field("weight", whole(1, MAX_WEIGHT, _HARD), "How much it counts; without it, it must hold."),
        },
        "a label's name, or a mapping of label, max_skew and weight",
    )
    return Kind(read, {"anyOf": [label.schema, spread.schema]})


def _toleration() -> Kind:
    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, str):
            problems.note(place, f"must be a toleration such as dedicated=ml, not {describe(value)}")
            return Toleration(EVERY)
        try:
            return parse_toleration(value)
        except ValueError as error:
            problems.note(place, str(error))
            return Toleration(EVERY)

    return Kind(read, {"type": "string", "examples": ["dedicated=ml"]})


def _listed(item: Kind) -> Kind:
    return one_or_more(item, MAX_RULES, "a list")


_HARD = "leave it out for a rule that must hold"
_LABEL = text(MAX_TEXT_CHARS, empty=True)

PLACEMENT_FIELDS = {
    "pool": Field("pools", _pools(), "The pools whose nodes it may use; `*` for all. By default the pool `default`."),
    "constraints": Field("constraints", _listed(_constraint()), "What must hold of a node."),
    "affinity": Field("affinity", _listed(_affinity()), "What to be near to: nodes, or where jobs run."),
    "anti_affinity": Field("anti_affinity", _listed(_affinity()), "What to be apart from: nodes, or where jobs run."),
    "spread": Field("spread", _listed(_spread()), "Labels over whose values the job's tasks are spread evenly."),
    "tolerations": Field("tolerations", _listed(_toleration()), "Taints that don't keep it away: KEY, KEY=VALUE or *."),
    "any_of": Field("any_of", _listed(RESOURCES), "Alternative requests, the preferred first; each over `resources`."),
    "resource_class": Field("resource_class", name(), "A class whose amounts stand for `resources`: standard, large."),
    "gpu_locality": Field("gpu_locality", choice(GpuLocality), "How near to each other its GPUs should be."),
}
PLACEMENT = mapping(PLACEMENT_FIELDS, "a mapping such as {pool: batch, constraints: [arch == amd64]}")
