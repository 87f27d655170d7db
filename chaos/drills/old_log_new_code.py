"""A log that another version wrote: what is older is read in full; what is newer is refused, and never skipped."""

from __future__ import annotations

import re
import time
from pathlib import Path

from chaos.drills import configs
from chaos.drills.base import Drill
from chaos.drills.foreign_entry import ForeignJournal
from chaos.drills.props import QUICK, kill_all, leader_of, run_one, start_all, until_ended
from chaos.drills.scene import Scene
from hasched.model.views import JobView

UNKNOWN_KIND = 99
LATER_VERSION = 99  # of a batch
COMMANDS = 0  # the kind of an entry that holds a batch of commands

# As version 0.1.0 wrote it: none of the fields that came later.
_OLD_JOB = {"name": "from-an-old-log", "command": ["true"]}


def old_entry() -> dict[str, object]:
    submit = {"type": "submit_job", "submission_id": "old-log-new-code", "actor": "ada", "spec": _OLD_JOB}
    return {"v": 1, "now_ms": time.time_ns() // 1_000_000, "commands": [submit]}


def foreign_entries() -> dict[str, tuple[int, object]]:
    """What a later version might write, by what is foreign in it: the entry's kind, and its content."""
    now_ms = time.time_ns() // 1_000_000
    return {
        "a kind of entry that isn't known": (UNKNOWN_KIND, {}),
        "a command that isn't known": (COMMANDS, {"v": 1, "now_ms": now_ms, "commands": [{"type": "paint_job_blue"}]}),
        "a batch of a later version": (COMMANDS, {"v": LATER_VERSION, "now_ms": now_ms, "commands": []}),
    }


class OldLogNewCode(Drill):
    name = "old-log-new-code"
    happened = "A field without a default made old entries unreadable; they were skipped with a warning."
    expects = (
        "An entry of an older version takes effect. At one that it doesn't know a manager stops with a code and a hint, "
        "and changes nothing on its disk: the version that wrote it goes on from there."
    )
    managers = 1  # whatever stands in the only log is the cluster's
    agents = 1
    settings = QUICK

    async def play(self, scene: Scene) -> None:
        manager = scene.cluster.managers[0]
        config = configs.config_file(scene, manager)
        journal = ForeignJournal(Path(configs.read(config)["data_dir"]) / "journal")
        before = await run_one(scene, "before")

        await kill_all(scene, [manager])
        scene.show(f"an entry as 0.1.0 wrote it is put behind the last: {journal.append(COMMANDS, old_entry())}")
        await start_all(scene, [manager])

        async def found() -> JobView | None:
            return await anext(scene.client.jobs(name="from-an-old-log"), None)

        old = await scene.eventually("the job of the old entry", found)
        ended = await until_ended(scene, old.id)
        scene.expect(ended.state == "SUCCEEDED", f"the old entry made job {old.id}, and it ran", ended.state)

        for what, (kind, content) in foreign_entries().items():
            await kill_all(scene, [manager])
            where = journal.append(kind, content)
            put = journal.bytes()
            told = scene.cluster.logs()[manager]
            scene.show(f"{what} is put behind the last: {where}")
            await start_all(scene, [manager])
            log = await self._refusal(scene, manager, told)
            entry = where.partition(" of ")[0]
            scene.expect(
                "storage_failed" in log and names(log, entry), f"the manager stops at {entry}, with its code", log
            )
            scene.expect("upgrade hasched" in log, "and with what to do", log)
            scene.expect(
                journal.bytes().startswith(put), "what it doesn't know is still on its disk", f"{len(put)} bytes"
            )
            journal.take_back()
            await start_all(scene, [manager])
            await leader_of(scene)
            scene.show("without that entry it starts")
        known = [(await scene.client.job(job_id)).state for job_id in (before.id, old.id)]
        scene.expect(known == ["SUCCEEDED"] * 2, "every job is still there", known)
        await run_one(scene, "afterwards")

    async def _refusal(self, scene: Scene, manager: str, told: str) -> str:
        """The line by which it says why it stopped; `told` is its log as it was before it was started."""

        async def stopped() -> bool:
            return scene.cluster.processes.pid(manager) is None

        await scene.eventually(f"{manager} to stop by itself", stopped)
        return refusal(told, scene.cluster.logs()[manager])


def refusal(before: str, after: str) -> str:
    """The last line of a log in which a manager says why it stopped, of those that are new: each has its time, so none comes
    twice. If there is none, the last new line."""
    old = dict.fromkeys(before.splitlines())
    lines = [line for line in after.splitlines() if line not in old]
    return next((line.strip() for line in reversed(lines) if "manager_failed" in line), lines[-1] if lines else "")


def names(line: str, entry: str) -> bool:
    """Whether it names this entry: "entry 12", and no other that begins with it."""
    return re.search(rf"{re.escape(entry)}(?!\d)", line) is not None
