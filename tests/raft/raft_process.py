"""One manager's replica as a process of its own: `python raft_process.py ROOT NAME MEMBERS`.

Lines on standard input are submissions (numbers); each is answered on standard output with its number and outcome.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec
from raft_cluster import Authority, Cluster, submit

from hasched.model.errors import HaschedError
from hasched.raft.replica import Member
from hasched.raft.tuning import Tuning

TUNING = Tuning(snapshot_entries=100, segment_bytes=20_000, retained_bytes=5_000, chunk_bytes=4_000)


async def main(root: Path, name: str, members: list[Member]) -> None:
    cluster = Cluster.__new__(Cluster)
    cluster.root, cluster.members, cluster.tuning, cluster.nodes = root, members, TUNING, {}
    cluster.authority = Authority.load(root / "certs")
    await cluster.start(name)
    node = cluster.nodes[name]
    say("up")
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    working: dict[int, asyncio.Task[None]] = {}
    while line := (await lines.readline()).decode().strip():
        if line == "role":
            say(f"role {int(node.is_leader)}")
        elif line == "dump":
            await node.read_barrier()
            say("dump " + " ".join(f"{job.submission_id}={job.id}" for job in node.state.jobs.values()))
        else:
            number = int(line)
            working[number] = asyncio.create_task(work(node, number))
            working[number].add_done_callback(lambda _, number=number: working.pop(number))


async def work(node, number: int) -> None:
    try:
        outcome = await node.propose(submit(number))
    except HaschedError as error:
        say(f"failed {number} {error.code}")
    else:
        say(f"done {number} {outcome.job_id}")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], msgspec.json.decode(sys.argv[3], type=list[Member])))
