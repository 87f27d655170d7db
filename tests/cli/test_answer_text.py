"""How answers look to people: what is in them can be read, and no more is said than is known."""

from __future__ import annotations

import msgspec
import pytest

from hasched.cli.answer_text import brief_start, expected_start, print_plan, print_resources, print_what_if, print_why
from hasched.model.answers import (
    BlockerView,
    Comparison,
    JobForecast,
    NodeClassView,
    Plan,
    PlannedJob,
    PlannedPlacement,
    Preempted,
    RemedyView,
    ResourceGroup,
    ResourceLine,
    ResourcesView,
    WhatIf,
    Why,
)
from hasched.model.spec import Resources
from hasched.model.views import EstimateView, Reason

NOW = 1_700_000_000_000
MINUTE = 60_000


def foreseen(start: int | None, last: int | None = None, waiting: int = 3, starting: int = 3) -> JobForecast:
    """Starts in so many minutes."""
    at = [0 if minutes is None else NOW + minutes * MINUTE for minutes in (start, last)]
    reason = None if last is not None else Reason(code="gang", text="too wide")
    return JobForecast(
        job_id=7,
        name="train",
        waiting=waiting,
        starting=starting,
        start_ms=at[0],
        last_start_ms=at[1],
        nodes=["n1", "n2", "n3", "n4"],
        basis="time_limit",
        reason=reason,
    )


@pytest.mark.parametrize(
    ("forecast", "brief"),
    [
        pytest.param(None, "-", id="not there"),
        pytest.param(foreseen(None, starting=0), "not known", id="not known"),
        pytest.param(foreseen(0, 0), "at once", id="now"),
        pytest.param(foreseen(5, 5), "in 5m", id="all together"),
        pytest.param(foreseen(5, 9), "in 5m, all in 9m", id="one after the other"),
        pytest.param(foreseen(5, starting=2), "in 5m, 2 of 3", id="not all within the horizon"),
    ],
)
def test_a_start_in_a_table(forecast: JobForecast | None, brief: str) -> None:
    assert brief_start(forecast, NOW) == brief


def test_a_start_in_a_line() -> None:
    assert expected_start(foreseen(5, 5), NOW).endswith("in 5m, on n1, n2, n3 and others")
    assert expected_start(foreseen(0, 0), NOW) == "now on n1, n2, n3 and others"
    never = foreseen(None, starting=0)
    assert expected_start(never, NOW) == "not within a week, as far as can be foreseen"
    assert expected_start(msgspec.structs.replace(never, endless=2), NOW) == (
        "not within a week, as far as can be foreseen: 2 running tasks without time limit and history may run for ever"
    )


def test_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [
        PlannedJob(
            name="wide",
            tasks=4,
            starting_now=3,
            placements=[PlannedPlacement(node_id="n1", tasks=1), PlannedPlacement(node_id="n2", tasks=2)],
            preempts=[Preempted(job_id=3, task_index=1, node_id="n2")],
            later=foreseen(5, 5, waiting=4),
            cost=EstimateView(hour_micro=1, cost_micro=2_500_000, most_micro=2_500_000, priced=True, currency="EUR"),
        ),
        PlannedJob(name="bad", tasks=1, refused=Reason(code="quota", text="team-a has no GPUs left")),
    ]
    print_plan(Plan(check_index=42, now_ms=NOW, until_ms=NOW, jobs=jobs))
    out = capsys.readouterr().out.splitlines()
    assert out[:4] == [
        "job wide: 3 of 4 tasks would start now",
        "  1 task on n1",
        "  2 tasks on n2",
        "  task 3.1 on n2 would give way",
    ]
    assert out[4] == "  it costs at most 2.50 EUR"
    assert out[5].startswith("  the other 1 task: expected to have started by ") and "(in 5m)" in out[5]
    assert out[5].endswith("estimated by its time limit")
    assert out[6:] == ["job bad: would be refused: team-a has no GPUs left (quota)", "check index 42"]


def test_why(capsys: pytest.CaptureFixture[str]) -> None:
    lacking = BlockerView(
        code="insufficient_cpu", text="4 CPU isn't free", doc="docs/reasons.md#insufficient_cpu", nodes=2
    )
    view = NodeClassView(
        nodes=3,
        description="healthy, pool gpu",
        total=Resources(cpu_milli=8000),
        examples=["n1"],
        open=0,
        blockers=[lacking],
    )
    answer = Why(
        job_id=7,
        name="train",
        log_index=1,
        waiting=2,
        blockers=[BlockerView(code="suspended", text="the job is suspended", doc="docs/reasons.md#suspended")],
        classes=[view],
        remedies=[RemedyView(text="uncordon n1", nodes=1, changes=[], shared=True)],
        ahead=4,
    )
    print_why(answer)
    assert capsys.readouterr().out == (
        "job 7 (train): 2 tasks waiting, 4 jobs are ahead of it\n"
        "- the job is suspended (suspended: docs/reasons.md#suspended)\n"
        "\n"
        "3 nodes (n1, …): 8 CPU; healthy, pool gpu\n"
        "- 2: 4 CPU isn't free (insufficient_cpu: docs/reasons.md#insufficient_cpu)\n"
        "\n"
        "each of these would start it:\n"
        "- uncordon n1 (1 node; 4 jobs before it may take the room)\n"
    )
    print_why(Why(job_id=7, name="train", log_index=1, waiting=0))
    assert capsys.readouterr().out == "job 7 (train): nothing of it waits; `hasched job show 7` says how it is\n"


def test_what_if(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [
        Comparison(job_id=1, name="a", now=foreseen(9, 9), then=foreseen(4, 4), change_ms=-5 * MINUTE),
        Comparison(job_id=2, name="b", now=foreseen(9, 9), then=foreseen(9, 19), change_ms=0),
        Comparison(job_id=3, name="c", now=foreseen(9, 9), then=foreseen(None, starting=0)),
        Comparison(job_id=4, name="d", now=None, then=foreseen(4, 4)),
        Comparison(job_id=5, name="e", now=foreseen(9, 9), then=None),
        Comparison(job_id=6, name="f", now=None, then=foreseen(4, 4), runs=True),
    ]
    changes = ["node n1 drained", "without job 5"]
    print_what_if(WhatIf(log_index=1, now_ms=NOW, until_ms=NOW, changes=changes, jobs=jobs, unchanged=1, lost=2))
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["what if: node n1 drained; without job 5"]
    assert [line[-1].strip() for line in lines[2:8]] == [
        "5m sooner",
        "all 10m later",
        "can't start",
        "new",
        "gone",
        "starts again",
    ]
    assert lines[-2:] == [
        ["job 3 then: too wide (gang)"],
        ["1 waiting job would start as now, 2 running tasks would be stopped by it"],
    ]


def test_resources(capsys: pytest.CaptureFixture[str]) -> None:
    line = ResourceLine(
        resource="memory",
        total=2**34,
        allocated=2**30,
        held=0,
        unusable=0,
        free=15 * 2**30,
        largest=2**33,
        fragmented_percent=46,
    )
    group = ResourceGroup(
        name="all", nodes=3, usable=2, resources=[line], largest_task=Resources(cpu_milli=1500, memory_bytes=2**33)
    )
    print_resources(ResourcesView(log_index=1, by="all", groups=[group]))
    head, row, largest = capsys.readouterr().out.splitlines()
    assert head.split()[2:] == "RESOURCE TOTAL ALLOCATED HELD UNUSABLE FREE LARGEST SCATTERED".split()
    assert row.split() == ["all", "2/3", "memory", "16Gi", "1Gi", "0", "0", "15Gi", "8Gi", "46%"]
    assert largest == "largest task  1.5 CPU, 8Gi memory"
    print_resources(
        ResourcesView(log_index=1, by="label.rack", groups=[msgspec.structs.replace(group, name=""), group])
    )
    assert "largest task in (none)  1.5 CPU, 8Gi memory" in capsys.readouterr().out
