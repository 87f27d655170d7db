"""Numbers and amounts in sentences."""

from __future__ import annotations

import pytest

from hasched.model.kinds import MOST_COMPARED, suggest_name
from hasched.model.spec import Resources
from hasched.model.words import counted, none_of, short_bytes, tell_resources

GIB = 2**30


def test_one_is_one():
    assert [counted(number, "job") for number in (0, 1, 2)] == ["0 jobs", "1 job", "2 jobs"]
    assert [none_of(number, "node") for number in (1, 22)] == ["no node", "none of 22 nodes"]


def test_resources_in_a_row():
    whole = Resources(
        cpu_milli=1500,
        memory_bytes=1024 * GIB,
        gpus=1,
        gpu_models=("A100", "H100"),
        disk_bytes=GIB,
        countables=(("l", 2),),
    )
    assert tell_resources(whole) == "1.5 CPU, 1Ti memory, 1 GPU (A100 or H100), 1Gi disk, 2 l"
    assert tell_resources(whole, disk=False).count("disk") == 0
    assert tell_resources(Resources(), zeros_of=Resources(cpu_milli=1, gpus=2)) == "0 CPU, 0 GPUs"
    assert tell_resources(Resources()) == ""


@pytest.mark.parametrize(
    ("size", "told"),
    [(0, "0"), (1023, "1023"), (2**30, "1Gi"), (16_777_216_000, "15.6Gi"), (2**40, "1Ti"), (2**60, "1024.0Pi")],
)
def test_sizes_are_short(size: int, told: str):
    assert short_bytes(size) == told


def test_what_was_meant_is_sought_among_so_many_names_at_most():
    assert suggest_name("hihg", ["low", "high"]) == "did you mean 'high'?"
    assert suggest_name("zzz", ["b", "a"]) == "there are: a, b"
    assert suggest_name("zzz", map(str, range(100_000, 200_000)), "see the list") == "see the list"
    names = iter([*("x" * 20 for _ in range(MOST_COMPARED)), "high"])
    assert suggest_name("hihg", names) == ""
    assert list(names) == ["high"]
