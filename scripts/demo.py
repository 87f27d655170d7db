"""The main job: 40 tasks measure every source file of Python's standard library while the leader and an agent are killed.

Starts three managers and two agents, submits an array job that splits the files among 40 tasks (sha256, lines, compressed
size of each), kills the leading manager and one agent with SIGKILL when the batch is under way, submits a second job that
merges the parts, and then checks: the merged result equals a serial computation, and every task has exactly one outcome.
Exits 0 only if all of that holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from hasched.client.context import load_context
from hasched.client.sync import Client
from hasched.model.views import EventView, JobView

TASKS = 40
LIBRARY = Path(sysconfig.get_paths()["stdlib"])
BEGIN = time.monotonic()

MEASURE = """\
import hashlib, json, os, sys, zlib
from pathlib import Path

index, count = int(os.environ["HASCHED_TASK_INDEX"]), int(os.environ["HASCHED_TASK_COUNT"])
files = Path(os.environ["HASCHED_INPUT"]).read_text().splitlines()[index::count]
rows = []
for file in files:
    data = Path(file).read_bytes()
    rows.append([file, hashlib.sha256(data).hexdigest(), data.count(b"\\n"), len(zlib.compress(data, 9))])
part = Path(os.environ["PARTS"], f"{index}.{os.environ['HASCHED_ATTEMPT']}.json")
part.write_text(json.dumps(rows))
Path(os.environ["HASCHED_OUTPUT"]).write_text(part.name)
print(f"task {index}: {len(files)} files")
"""

MERGE = """\
import json, os
from pathlib import Path

parts = Path(os.environ["HASCHED_INPUT"]).read_text().split()
rows = sorted(row for part in parts for row in json.loads(Path(os.environ["PARTS"], part).read_text()))
Path(os.environ["MERGED"]).write_text(json.dumps(rows))
Path(os.environ["HASCHED_OUTPUT"]).write_text(f"{len(rows)} files, {sum(row[2] for row in rows)} lines")
"""


def say(text: str) -> None:
    print(f"[{time.monotonic() - BEGIN:5.1f} s] {text}", flush=True)


def measure_serially(files: list[str]) -> list[list[Any]]:
    """What the two jobs must arrive at, computed here, one file after the other."""
    rows = []
    for file in files:
        data = Path(file).read_bytes()
        rows.append([file, hashlib.sha256(data).hexdigest(), data.count(b"\n"), len(zlib.compress(data, 9))])
    return sorted(rows)


def start_cluster(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "hasched", "dev", "--data-dir", str(folder / "data")]
    with (folder / "dev.log").open("wb") as log:
        dev = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    while "ready" not in (folder / "dev.log").read_text(errors="replace"):
        if dev.poll() is not None or time.monotonic() - BEGIN > 60:
            dev.terminate()
            dev.wait()
            sys.exit(f"the cluster did not start:\n{(folder / 'dev.log').read_text(errors='replace')}")
        time.sleep(0.05)
    return dev


def kill(folder: Path, name: str) -> None:
    pid = json.loads((folder / "data" / "processes.json").read_text())[name]
    os.kill(pid, signal.SIGKILL)
    say(f"killed {name} (process {pid}) with SIGKILL")


def follow(client: Client, job_id: int, after: str, folder: Path) -> tuple[JobView, list[EventView], dict[str, int]]:
    """Print the batch's course, kill the leader at a quarter of it and an agent at a half.

    Returns the job once it has ended, its events, and how many tasks were still to end when each victim was killed.
    """
    ended, events, killed = 0, [], {}
    for event in client.events(job=job_id, after=after):
        events.append(event)
        if event.type == "AttemptEnded":
            ended += 1
            if ended % 10 == 0:
                say(f"{ended} of {TASKS} tasks have ended (event {event.id})")
            if ended >= TASKS // 4 and not killed:
                leader = client.managers().leader
                assert leader is not None
                kill(folder, leader)
                killed[leader] = TASKS - ended
                before = time.monotonic()
                client.cluster()
                say(
                    f"the cluster answered again {time.monotonic() - before:.2f} s later; now {client.managers().leader} leads"
                )
            elif ended >= TASKS // 2 and len(killed) == 1:
                assert event.node_id is not None
                kill(folder, event.node_id)
                killed[event.node_id] = TASKS - ended
        elif event.type == "JobEnded":
            return client.job(job_id), events, killed
    raise AssertionError("the event stream ended before the job")


def main() -> int:
    files = sorted(str(path) for path in LIBRARY.rglob("*.py") if "site-packages" not in path.parts)
    with tempfile.TemporaryDirectory(prefix="hasched-demo-") as name:
        folder = Path(name)
        os.environ["HASCHED_CONFIG_DIR"] = str(folder / "config")
        os.environ.pop("HASCHED_CONTEXT", None)
        (folder / "parts").mkdir()
        say("starting three managers and two agents")
        dev = start_cluster(folder)
        try:
            return run(folder, files)
        finally:
            dev.send_signal(signal.SIGINT)
            dev.wait(30)
            say("the cluster is stopped")


def run(folder: Path, files: list[str]) -> int:
    environment = {"PARTS": str(folder / "parts"), "MERGED": str(folder / "merged.json")}
    with Client(load_context()) as client:
        managers = client.managers()
        say(f"ready: {', '.join(manager.id for manager in managers.managers)}; {managers.leader} leads")
        batch = client.submit(
            {
                "name": "measure",
                "command": [sys.executable, "-c", MEASURE],
                "count": TASKS,
                "env": environment,
                "input": "\n".join(files),
                "retries": {"max": 0, "node_lost": 3},
            }
        )
        say(f"submitted job {batch.id}: {TASKS} tasks over {len(files)} files of {LIBRARY.name}'s standard library")
        job, events, killed = follow(client, batch.id, f"{batch.log_index - 1}.0", folder)
        say(f"job {job.id} ended {job.state}: {job.tasks}")

        tasks = list(client.tasks(batch.id))
        merge = client.submit(
            {
                "name": "merge",
                "command": [sys.executable, "-c", MERGE],
                "env": environment,
                "input": "\n".join(task.output or "" for task in tasks),
            }
        )
        merged = client.wait(merge.id)
        say(f"job {merge.id} ended {merged.state}: {client.task(merge.id, 0).output}")

        outcomes = Counter(event.task_index for event in events if event.type == "AttemptEnded")
        checks = {
            f"all {TASKS} tasks succeeded": job.state == "SUCCEEDED" and job.tasks == {"SUCCEEDED": TASKS},
            "every task has exactly one outcome": len(tasks) == TASKS
            and set(outcomes) == set(range(TASKS))
            and set(outcomes.values()) == {1},
            "the merged result equals the serial computation": merged.state == "SUCCEEDED"
            and json.loads((folder / "merged.json").read_text()) == measure_serially(files),
            "the leader and an agent were killed while tasks were still to end": len(killed) == 2
            and all(killed.values()),
        }
        for text, holds in checks.items():
            say(f"{'yes' if holds else 'NO '}  {text}")
        return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
