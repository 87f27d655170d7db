"""Real agents run real processes: what is started, what is seen of its end, and what is reported."""

from __future__ import annotations

from tests.agent.peer import AgentProcess, Peer, text_of
from hasched.model.spec import JobSpec
from hasched.model.states import EndKind


async def test_the_exit_code_and_both_streams_arrive(agent: AgentProcess, peer: Peer) -> None:
    await agent.start()
    ended = await peer.run(JobSpec(name="a", command=("sh", "-c", "echo out; echo err >&2; exit 3")))
    assert (ended.kind, ended.code) == (EndKind.EXITED, 3)
    assert text_of(await peer.read_log(1, 0, 1)) == b"out\n"
    assert text_of(await peer.read_log(1, 0, 1, stream="stderr")) == b"err\n"
