"""The key `placement` of a job's document, and what of `resources` says which GPUs."""

from __future__ import annotations

from typing import Any

import pytest

from hasched.model.errors import SpecInvalid
from hasched.model.parse import JobDefaults, parse_spec
from hasched.model.spec import (
    ANYWHERE,
    JobAffinity,
    JobSelector,
    JobSpec,
    NodePreference,
    PlacementRules,
    Resources,
    Spread,
    Toleration,
)
from hasched.model.states import GpuLocality, TaintEffect
from hasched.model.taints import Taint, format_toleration, parse_taint, parse_toleration

GIB = 2**30


def parse(**placement: Any) -> JobSpec:
    return parse_spec({"command": ["true"], "placement": placement})


def problems_of(document: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(SpecInvalid) as caught:
        parse_spec({"command": ["true"], **document})
    return [(error.path, error.cause) for error in caught.value.errors]


def test_a_job_without_rules_has_the_rules_of_everybody() -> None:
    assert parse().placement == parse_spec({"command": ["true"]}).placement == ANYWHERE


@pytest.mark.parametrize(
    ("given", "rules"),
    [
        pytest.param({"pool": ["b", "a", "b"]}, PlacementRules(pools=("a", "b")), id="several pools"),
        pytest.param({"pool": ["b", "*"]}, PlacementRules(pools=("*",)), id="all pools"),
        pytest.param(
            {"constraints": ["arch==amd64", "arch == amd64"]}, PlacementRules(constraints=("arch == amd64",)), id="once"
        ),
        pytest.param(
            {"affinity": {"nodes": "label.rack == r1"}},
            PlacementRules(constraints=("label.rack == r1",)),
            id="a hard affinity to nodes is a constraint",
        ),
        pytest.param(
            {"anti_affinity": {"nodes": "pool == a or pool == b"}},
            PlacementRules(constraints=("not (pool == a or pool == b)",)),
            id="and a hard anti-affinity its opposite",
        ),
        pytest.param(
            {
                "affinity": [{"nodes": "has label.ssd", "weight": 5}],
                "anti_affinity": {"nodes": "pool == a", "weight": 7},
            },
            PlacementRules(prefer=(NodePreference("has label.ssd", 5), NodePreference("pool == a", -7))),
            id="wishes about nodes",
        ),
        pytest.param(
            {"affinity": {"jobs": {"name": "db", "labels": {"b": "2", "a": "1"}}, "within": "label.rack"}},
            PlacementRules(near=(JobAffinity(JobSelector("db", (("a", "1"), ("b", "2"))), "rack"),)),
            id="near jobs",
        ),
        pytest.param(
            {"anti_affinity": {"jobs": "self", "within": "node", "weight": 3}},
            PlacementRules(apart=(JobAffinity(JobSelector(), "", 3),)),
            id="apart from itself",
        ),
        pytest.param(
            {"spread": ["rack", {"label": "zone", "max_skew": 2, "weight": 10}, {}]},
            PlacementRules(spread=(Spread("rack"), Spread("zone", 2, 10), Spread())),
            id="spread",
        ),
        pytest.param(
            {"tolerations": ["gpu", "dedicated=ml", "*"]},
            PlacementRules(tolerations=(Toleration("gpu"), Toleration("dedicated", "ml"), Toleration("*"))),
            id="tolerations",
        ),
        pytest.param({"gpu_locality": "nvlink"}, PlacementRules(gpu_locality=GpuLocality.NVLINK), id="locality"),
        pytest.param({"resource_class": "large"}, PlacementRules(resource_class="large"), id="a resource class"),
    ],
)
def test_what_is_given_is_kept_in_canonical_form(given: dict[str, Any], rules: PlacementRules) -> None:
    assert parse(**given).placement == rules
    assert hash(parse(**given).placement) == hash(rules)


def test_alternatives_stand_over_the_request_and_the_first_is_preferred() -> None:
    spec = parse_spec(
        {
            "command": ["true"],
            "resources": {"cpu": 4, "gpus": 1},
            "placement": {
                "any_of": [{"gpu_model": ["h100", "H200"]}, {"gpus": 2, "gpu_model": "A100", "gpu_memory": "40Gi"}]
            },
        },
        JobDefaults(resources=Resources(memory_bytes=GIB)),
    )
    first = Resources(cpu_milli=4000, memory_bytes=GIB, gpus=1, gpu_models=("H200", "h100"))
    second = Resources(cpu_milli=4000, memory_bytes=GIB, gpus=2, gpu_models=("A100",), gpu_memory_bytes=40 * GIB)
    assert spec.placement.any_of == (first, second)
    assert spec.resources == first


@pytest.mark.parametrize(
    ("document", "place", "cause"),
    [
        (
            {"placement": {"constraints": ["kernle > 4"]}},
            "placement.constraints[0]",
            "at character 1: unknown attribute",
        ),
        ({"placement": {"pool": "a b"}}, "placement.pool", "'a b' is not a name"),
        ({"placement": {"pool": []}}, "placement.pool", "must be one or more pools, not an empty list"),
        ({"placement": {"affinity": {"weight": 3}}}, "placement.affinity", "has neither `nodes` nor `jobs`"),
        (
            {"placement": {"affinity": {"nodes": "pool == a", "within": "rack"}}},
            "placement.affinity.within",
            "belongs to",
        ),
        ({"placement": {"affinity": {"jobs": {}}}}, "placement.affinity.jobs", "names no job"),
        ({"placement": {"affinity": {"jobs": "db"}}}, "placement.affinity.jobs", "must be a mapping such as"),
        ({"placement": {"spread": {"max_skew": 0}}}, "placement.spread.max_skew", "must be 1 or more"),
        ({"placement": {"tolerations": ["=x"]}}, "placement.tolerations[0]", "'=x' is not a toleration"),
        (
            {"placement": {"tolerations": 5}},
            "placement.tolerations",
            "must be a toleration such as dedicated=ml, not 5",
        ),
        ({"placement": {"gpu_locality": "numa"}}, "placement.gpu_locality", "must be one of any, same_numa, nvlink"),
        ({"placement": {"any_of": [{"gpu_model": "A100"}]}}, "placement.any_of[0].gpu_model", "no GPU is asked for"),
        ({"resources": {"gpu_memory": "8Gi"}}, "resources.gpu_memory", "no GPU is asked for"),
        ({"resources": {"gpus": 1, "gpu_model": []}}, "resources.gpu_model", "not an empty list"),
        ({"resources": {"gpus": 1, "gpu_model": "--"}}, "resources.gpu_model", "must be a GPU's model such as A100"),
        ({"constraints": ["arch == amd64"]}, "constraints", "unknown key"),
        (
            {"resources": {"cpu": 1}, "placement": {"resource_class": "large"}},
            "placement.resource_class",
            "and `resources` exclude each other",
        ),
    ],
)
def test_a_mistake_is_named(document: dict[str, Any], place: str, cause: str) -> None:
    ((found, why),) = problems_of(document)
    assert found == place
    assert cause in why


def test_a_gang_can_be_near_to_itself_and_each_rank_have_a_node() -> None:
    rules = {"affinity": {"jobs": "self", "within": "rack"}, "anti_affinity": {"jobs": "self"}}
    placement = parse_spec({"command": ["true"], "gang": True, "count": 4, "placement": rules}).placement
    assert (placement.near, placement.apart) == ((JobAffinity(within="rack"),), (JobAffinity(),))


@pytest.mark.parametrize("text", ["gpu", "dedicated=ml", "old:avoid", "dedicated=ml:avoid"])
def test_a_taint_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_taint(text)) == text


@pytest.mark.parametrize("text", ["", "=x", "a b", "gpu:never", "gpu=x\n", "gpu=" + "x" * 200])
def test_what_is_no_taint(text: str) -> None:
    with pytest.raises(ValueError, match=r"taint|effect|value"):
        parse_taint(text)


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [("gpu", True), ("gpu=a100", True), ("gpu=t4", False), ("*", True), ("gp", False), ("gpu=", False)],
)
def test_what_tolerates_a_taint(toleration: str, tolerated: bool) -> None:
    parsed = parse_toleration(toleration)
    assert Taint("gpu", "a100", TaintEffect.NO_START).is_tolerated((parsed,)) is tolerated
    assert format_toleration(parsed) == toleration
