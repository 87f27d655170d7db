"""Memoised tasks of workflows: what is remembered, how long, and under what."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from hasched.statemachine import memos, streams
from hasched.statemachine.commands import DeleteExecution, ForgetMemos, RetryExecution
from hasched.statemachine.digest import digest
from hasched.statemachine.queries.executions import show_execution, show_instances
from hasched.statemachine.snapshot import records, restore
from tests.statemachine.test_workflows import now, refusal, start
from tests.statemachine.workflow_world import World


@pytest.fixture
def world() -> World:
    return World()


MEMO = """
parameters: {day: monday}
tasks:
  extract:
    command: [extract]
    memo: {key: "day #{params.day}", max_age: 1h}
  load:
    after: extract
    command: [load, "#{extract.output}"]
"""


def test_a_memoised_task_leaves_what_was_left_before(world: World):
    first = start(world, MEMO)
    world.end(world.job("execution/1/extract"), output=b"42 rows")
    world.end(world.job("execution/1/load"))
    second = start(world, MEMO)
    assert world.states(second.id) == {"extract": "succeeded", "load": "running"}
    assert world.job("execution/2/load").spec.command == ("load", "42 rows")
    shown = show_execution(second, with_tasks=True, recalled=world.state.memos.recalled[second.id]).tasks
    assert [(each.memoised, each.memo_of, each.job) for each in shown] == [(1, first.id, 1), (0, 0, 3)]
    assert (
        show_instances(second, 0, limit=9, cursor="", recalled=world.state.memos.recalled[2]).instances[0].memo_of == 1
    )
    world.end(world.job("execution/2/load"))
    assert now(world, second).state.name == "SUCCEEDED"
    world.do(DeleteExecution(execution_id=2, actor="ada"))
    assert not world.state.memos.recalled
    start(world, MEMO, day="tuesday")
    assert world.job("execution/3/extract")


def test_a_memo_is_no_older_than_asked_for_and_goes_when_told(world: World):
    for job in range(1, 3):
        execution = start(world, MEMO)
        world.end(world.job(f"execution/{execution.id}/extract"), output=b"%d" % job)
        world.wait(3_599_999)
        within = start(world, MEMO)
        assert world.job(f"execution/{within.id}/load").spec.command[1] == str(job)
        world.wait(1)
    assert refusal(world, ForgetMemos(namespace="default", workflow="w", task="load", actor="ada")) == "no_such_memo"
    assert refusal(world, ForgetMemos(namespace="other", workflow="w", actor="ada")) == "no_such_memo"
    world.do(ForgetMemos(namespace="default", workflow="w", task="extract", key="day monday", actor="ada"))
    assert (world.state.memos.kept, world.state.memos.size_bytes) == ({}, 0)


def test_without_a_key_the_whole_job_is_what_counts(world: World):
    text = """
parameters: {day: monday}
tasks:
  a: {command: [a, "#{params.day}"], memo: {}}
"""
    start(world, text)
    world.end(world.job("execution/1/a"))
    assert start(world, text).ended
    assert not start(world, text, day="tuesday").ended
    assert not start(world, text.replace("[a,", "[b,")).ended


def test_what_failed_or_was_judged_so_is_not_remembered(world: World):
    text = 'tasks:\n  a: {command: [a], success: {output: "good*"}, memo: {key: k}}\n'
    for output, code, kept in ((b"bad", 0, 0), (b"good", 1, 0), (b"good 1", 0, 1)):
        execution = start(world, text)
        world.end(world.job(f"execution/{execution.id}/a"), code, output)
        assert len(world.state.memos.kept) == kept
        assert not world.state.memos.asked
    (memo,) = world.state.memos.kept.values()
    assert (memo.output, memo.execution_id, memo.job_id) == (b"good 1", 3, 3)


def test_each_item_of_a_fan_out_has_its_own_memo(world: World):
    text = """
parameters: {n: {type: integer, default: 2}}
tasks:
  each: {for_each: range(params.n), command: [a], memo: {key: "#{item}"}}
output: join(each.outputs, ' ')
"""
    start(world, text)
    for item in range(2):
        world.end(world.job(f"execution/1/each[{item}]"), output=b"%d" % item)
    second = start(world, text, n=3)
    assert [job.parent for job in world.jobs()] == ["execution/2/each[2]"]
    world.fail_over(Random(1))
    world.end(world.job("execution/2/each[2]"), code=1)
    assert now(world, second).ended
    world.do(RetryExecution(execution_id=2, actor="ada"))
    world.settle()
    world.end(world.job("execution/2/each[2]"), output=b"two")
    assert now(world, second).output == "0 1 two"
    assert len(world.state.memos.kept) == 3


def test_memos_are_bounded_and_those_made_first_go(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memos, "MAX_MEMOS", 2)
    for day in ("one", "two", "three"):
        execution = start(world, MEMO, day=day)
        world.end(world.job(f"execution/{execution.id}/extract"), output=b"x")
    assert [name[3] for name in world.state.memos.kept] == ["day two", "day three"]
    with monkeypatch.context() as patch:
        patch.setattr(memos, "MAX_MEMO_BYTES", 300)
        execution = start(world, MEMO, day="four")
        world.end(world.job(f"execution/{execution.id}/extract"), output=b"x")
        assert [name[3] for name in world.state.memos.kept] == ["day four"]
    moved = restore(records(world.state))
    assert digest(moved) == digest(world.state)
    assert moved.memos.kept == world.state.memos.kept


def test_memos_have_records_of_their_own_in_a_snapshot_and_had_none(world: World, monkeypatch: pytest.MonkeyPatch):
    for day in ("one", "two", "three"):
        execution = start(world, MEMO, day=day)
        world.end(world.job(f"execution/{execution.id}/extract"), output=b"x" * 1000)
    monkeypatch.setattr(streams, "RECORD_BYTES", 1200)
    front = [record[4:] for record in records(world.state)][:3]
    assert b"x" * 1000 not in front[0]
    assert [len(msgspec.msgpack.decode(record)) for record in front[1:]] == [1, 1]

    monkeypatch.setattr(streams, "RECORD_BYTES", 64 * 1024)
    header, _, *others = list(records(world.state))
    written = msgspec.msgpack.decode(header[4:])
    del written["more"]["following"]
    written["more"]["memos"] = world.state.memos.records()
    older = msgspec.msgpack.encode(written)
    moved = restore([len(older).to_bytes(4, "big") + older, *others])
    assert moved.memos.kept == world.state.memos.kept and len(moved.memos.kept) == 3
    assert digest(moved) == digest(world.state)


@pytest.mark.parametrize(
    ("key", "output", "why"),
    [
        ("#{a.output}", None, "memo: "),
        ("#{strip(a.output)}", b" ", "memo: its key is empty"),
        ("#{a.output}", b"x" * 1025, "memo: "),
    ],
)
def test_a_key_that_can_t_be_fails_the_task(world: World, key: str, output: bytes | None, why: str):
    text = f'tasks:\n  a: {{command: [a]}}\n  b: {{after: a, command: [b], memo: {{key: "{key}"}}}}\n'
    execution = start(world, text)
    world.end(world.job("execution/1/a"), output=output or b"")
    assert now(world, execution).rows[1].reason.startswith(why)
