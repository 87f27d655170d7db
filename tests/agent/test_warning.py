"""Preemption on the node: a warning, TERM, KILL; and what a task says of its checkpoints."""

from __future__ import annotations

import pytest

from hasched.model.states import EndKind
from hasched.model.wire import Assign, Assignment, AttemptCheckpointed, AttemptKey, Resume, Stop
from tests.agent.peer import AgentProcess, Peer, text_of
from tests.agent.test_running import shell
from tests.agent.test_stopping import said

LOOP = "echo ready; while :; do sleep 0.02; done"


@pytest.fixture
async def running(agent: AgentProcess, peer: Peer) -> Peer:
    await agent.start()
    return peer


async def warn(peer: Peer, warning_ms: int, *key: int) -> None:
    await peer.send(Stop((AttemptKey(*key),), "preempted for job 7", "USR1", warning_ms))


async def test_the_signal_comes_first_then_term_then_kill(running: Peer) -> None:
    script = f"trap 'echo warned' USR1; trap 'echo asked' TERM; {LOOP}"
    await running.assign(1, shell(script, kill_grace_ms=200))
    await said(running, 1, 0, 1)
    await warn(running, 200, 1, 0, 1)
    ended = await running.ended(1, 0, 1)
    assert (ended.kind, ended.reason) == (EndKind.STOPPED, "preempted for job 7")
    assert text_of(await running.read_log(1, 0, 1)) == b"ready\nwarned\nasked\n"


async def test_a_task_that_ends_in_time_has_its_own_end(running: Peer) -> None:
    script = f"trap 'echo done > $HASCHED_CHECKPOINT; exit 0' USR1; {LOOP}"
    await running.assign(1, shell(script))
    await said(running, 1, 0, 1)
    await warn(running, 600_000, 1, 0, 1)
    ended = await running.ended(1, 0, 1)
    assert (ended.kind, ended.code, ended.reason) == (EndKind.EXITED, 0, "")
    assert ended.started_ms <= ended.checkpoint_ms <= ended.ended_ms


async def test_a_cancel_does_not_wait_for_the_warning(running: Peer) -> None:
    await running.assign(1, shell(f"trap 'echo warned' USR1; {LOOP}"))
    await said(running, 1, 0, 1)
    await warn(running, 600_000, 1, 0, 1)
    await running.stop_attempt(1, 0, 1)
    assert (await running.ended(1, 0, 1)).reason == "cancelled"


async def test_a_frozen_task_can_make_ready(running: Peer) -> None:
    await running.assign(1, shell(f"trap 'exit 0' USR1; {LOOP}"))
    await said(running, 1, 0, 1)
    await running.freeze(True, 1, 0, 1)
    await warn(running, 600_000, 1, 0, 1)
    assert (await running.ended(1, 0, 1)).kind is EndKind.EXITED


async def test_a_warning_outlives_the_agent_and_is_given_once(running: Peer, agent: AgentProcess) -> None:
    await running.assign(1, shell(f"trap 'echo warned' USR1; trap 'exit 3' TERM; {LOOP}", kill_grace_ms=60_000))
    await said(running, 1, 0, 1)
    await warn(running, 1_500, 1, 0, 1)
    request = await running.request_log(1, 0, 1, follow=True)
    await running.until(lambda: b"warned" in text_of(running.of(request)))
    await agent.kill()
    await agent.start()
    await running.until(lambda: len(running.hellos) == 2)
    await warn(running, 600_000, 1, 0, 1)  # a leader says again what it wants
    assert (await running.ended(1, 0, 1)).kind is EndKind.STOPPED
    assert text_of(await running.read_log(1, 0, 1)) == b"ready\nwarned\n"


async def test_a_checkpoint_is_told_while_the_task_runs_and_again_to_the_next_session(running: Peer) -> None:
    running.acknowledge = False
    await running.assign(1, shell(f": > $HASCHED_CHECKPOINT; {LOOP}"))
    await running.until(lambda: any(isinstance(each, AttemptCheckpointed) for each in running.reports))
    (told,) = (each for each in running.reports if isinstance(each, AttemptCheckpointed))
    assert (told.job_id, told.index, told.attempt) == (1, 0, 1)
    assert told.checkpoint_ms > 0
    running.reports.clear()
    await running.drop()
    await running.until(lambda: told in running.reports)


async def test_the_next_attempt_learns_where_it_may_go_on(running: Peer) -> None:
    spec = shell("echo $HASCHED_CHECKPOINT_MS $HASCHED_PREEMPTED_FROM")
    await running.send(Assign((Assignment(1, spec, ((0, 2), (1, 1)), (Resume(0, 17, "n9"),)),)))
    resumed, fresh = await running.ended(1, 0, 2), await running.ended(1, 1, 1)
    assert await running.log_of(resumed) == b"17 n9\n"
    assert await running.log_of(fresh) == b"\n"
