"""Real processes, real disks, SIGKILL: nothing acknowledged is lost, nothing is done twice."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import msgspec
from raft_cluster import NAMES, Cluster

ROUNDS = int(os.environ.get("HASCHED_KILLS", "3"))


class Process:
    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name
        self.done: dict[int, int] = {}
        self.failed: dict[int, str] = {}
        self.answers: asyncio.Queue[str] = asyncio.Queue()

    async def start(self) -> None:
        script = Path(__file__).parent / "raft_process.py"
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(script),
            str(self.cluster.root),
            self.name,
            msgspec.json.encode(self.cluster.members).decode(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=1 << 24,
        )
        self.answers = asyncio.Queue()
        self.reader = asyncio.create_task(self._read())
        assert await self.answers.get() == "up"

    async def _read(self) -> None:
        while line := (await self.process.stdout.readline()).decode().strip():
            match line.split(" "):
                case ["done", number, job_id]:
                    self.done[int(number)] = int(job_id)
                case ["failed", number, code]:
                    self.failed[int(number)] = code
                case ["up"] | ["role", *_] | ["dump", *_]:
                    self.answers.put_nowait(line)

    async def ask(self, line: str) -> str:
        self.tell(line)
        async with asyncio.timeout(20):
            return await self.answers.get()

    def tell(self, line: str) -> None:
        self.process.stdin.write(f"{line}\n".encode())

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()
        await self.reader


async def test_kill_of_the_leader_under_load_loses_nothing_and_doubles_nothing(tmp_path):
    cluster = Cluster(tmp_path)
    for name in NAMES:
        cluster.authority.issue(name)
    processes = {name: Process(cluster, name) for name in NAMES}
    await asyncio.gather(*(process.start() for process in processes.values()))
    number = 0
    try:
        for _ in range(ROUNDS):
            leader = await leader_of(processes)
            deadline = asyncio.get_running_loop().time() + 0.8
            while asyncio.get_running_loop().time() < deadline:
                for process in processes.values():
                    number += 1
                    process.tell(str(number))
                await asyncio.sleep(0.003)  # the rate of the load
            await leader.kill()
            for process in processes.values():
                if process is not leader:
                    number += 1
                    process.tell(str(number))
            await leader.start()
        await leader_of(processes)
        dumps = [await process.ask("dump") for process in processes.values()]
    finally:
        for process in processes.values():
            await process.kill()
    jobs = [tuple(item.split("=")) for item in dumps[0].split(" ")[1:]]
    held = {submission: int(job_id) for submission, job_id in jobs}
    assert len(held) == len(jobs), "a submission was done twice"
    acknowledged = {number: job_id for process in processes.values() for number, job_id in process.done.items()}
    lost = [number for number, job_id in acknowledged.items() if held.get(f"submission-{number}") != job_id]
    assert not lost
    assert len(acknowledged) > 100 * ROUNDS
    refused = [n for process in processes.values() for n, code in process.failed.items() if code == "no_leader"]
    assert not [n for n in refused if f"submission-{n}" in held], "refused, but done"
    assert len(set(dumps)) == 1, "the managers differ"


async def leader_of(processes: dict[str, Process]) -> Process:
    async with asyncio.timeout(20):
        while True:
            for process in processes.values():
                if await process.ask("role") == "role 1":
                    return process
            await asyncio.sleep(0.02)
