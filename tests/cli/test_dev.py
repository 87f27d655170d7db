"""`hasched dev` as its user meets it: a cluster in one terminal that survives kill -9 and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.support.cluster import eventually
from tests.support.dev import PROGRAM, Dev
from tests.support.page import Terminal, sections

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SECTIONS = {
    f"{page}: {heading}": steps
    for page in ("jobs", "notifications", "workflows")
    for heading, steps in sections(ROOT / "docs" / f"{page}.md").items()
}

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    with Dev(tmp_path_factory.mktemp("dev")) as dev:
        yield dev
        assert dev.stop() == 0
        assert dev.remains() == []


def test_a_job_is_like_a_command_run_here(dev: Dev):
    done = dev.run("job", "run", "--wait", "--", "sh", "-c", "echo hi; echo oops >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "hi\n", "oops\n")


@pytest.mark.parametrize(
    ("options", "command", "code"),
    [
        pytest.param([], ["true"], 0, id="a clean exit"),
        pytest.param([], ["sh", "-c", "kill -TERM $$"], 143, id="128 + the signal"),
        pytest.param([], ["/no/such/program"], 127, id="what can't be started"),
        pytest.param(["--timeout", "300ms"], ["sleep", "60"], 124, id="its own timeout"),
        pytest.param(
            ["--count", "3"], ["sh", "-c", "exit $HASCHED_TASK_INDEX"], 1, id="the first failed task of an array"
        ),
    ],
)
def test_the_exit_code_is_the_jobs_own(dev: Dev, options: list[str], command: list[str], code: int):
    done = dev.run("job", "run", "--wait", *options, "--", *command)
    assert done.returncode == code, done.stderr


@pytest.mark.parametrize(
    ("options", "command", "why"),
    [
        pytest.param(["--timeout", "300ms"], ["sleep", "60"], ".0 TIMED_OUT: ", id="a timeout"),
        pytest.param([], ["sh", "-c", "kill -KILL $$"], ".0 FAILED: killed by signal 9", id="a signal"),
        pytest.param([], ["/no/such/program"], ".0 FAILED: ", id="what can't be started"),
        pytest.param(
            ["--count", "3"],
            ["sh", "-c", "exit $HASCHED_TASK_INDEX"],
            ".1 FAILED: exited with code 1",
            id="the first failed task of an array",
        ),
    ],
)
def test_a_wait_that_ends_badly_says_why(dev: Dev, options: list[str], command: list[str], why: str):
    done = dev.run("job", "run", "--wait", *options, "--", *command)
    assert done.stderr.startswith("hasched: task "), done.stderr
    assert why in done.stderr
    assert dev.run("job", "run", "--wait", "--json", *options, "--", *command).stderr == ""


def test_waiting_for_an_earlier_job_tells_its_exit_code_too(dev: Dev):
    job = str(dev.json("job", "run", "--", "sh", "-c", "exit 3")["id"])
    done = dev.run("job", "wait", job)
    assert (done.returncode, done.stderr) == (3, f"hasched: task {job}.0 FAILED: exited with code 3\n")


def test_a_wait_says_once_why_nothing_starts(dev: Dev):
    for number, options in enumerate(([], ["--count", "2"])):
        command = ["job", "run", "--wait", "--name", f"huge-{number}", "--cpu", "9000", *options, "--", "true"]
        with subprocess.Popen([*PROGRAM, *command], env=dev.environment, stderr=subprocess.PIPE, text=True) as waiting:
            assert waiting.stderr is not None
            said = waiting.stderr.readline()
            assert "is waiting: no healthy node has 9000 CPU" in said, said
            job = said.split()[2]
            assert dev.run("job", "cancel", job).returncode == 0
            assert waiting.stderr.read().splitlines()[0].startswith(f"hasched: task {job}.0 CANCELLED: ")
        assert waiting.returncode == 143


def test_a_wait_in_a_pipe_says_how_far_an_array_has_come(dev: Dev):
    go = dev.data / "go-on"
    script = "test $HASCHED_TASK_INDEX = 0 || while [ ! -e $GO ]; do sleep 0.05; done"
    command = ["job", "run", "--wait", "--count", "2", "--env", f"GO={go}", "--", "sh", "-c", script]
    with subprocess.Popen([*PROGRAM, *command], env=dev.environment, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stderr is not None
        assert waiting.stderr.readline().endswith(": 1 RUNNING, 1 SUCCEEDED\n")
        go.touch()
        assert waiting.stderr.read() == ""
    assert waiting.returncode == 0


def test_our_input_reaches_a_task_as_a_file_when_asked(dev: Dev):
    command = ("--", "sh", "-c", "cat; test -z $HASCHED_INPUT || cat $HASCHED_INPUT")
    assert dev.run("job", "run", "--wait", *command, input="data\n").stdout == ""
    assert dev.run("job", "run", "--wait", "--input", "-", *command, input="data\n").stdout == "data\n"
    assert dev.run("job", "run", "--input", "-", *command, input="x" * (256 * 1024 + 1)).returncode == 65


def test_output_comes_while_the_task_runs(dev: Dev):
    command = [
        *PROGRAM,
        "job",
        "run",
        "--wait",
        "--",
        "sh",
        "-c",
        "echo first; while [ ! -e $GO ]; do sleep 0.02; done; echo last",
    ]
    go = dev.data / "go"
    command[command.index("--", 5) : command.index("--", 5)] = ["--env", f"GO={go}"]
    with subprocess.Popen(command, env=dev.environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "first\n"
        go.touch()
        assert process.stdout.read() == "last\n"
    assert process.returncode == 0


def test_jobs_wait_for_jobs(dev: Dev, tmp_path: Path):
    """A gate that the test opens; until then nothing that waits for it starts."""
    gate = tmp_path / "gate"
    script = f"until [ -e {gate} ]; do sleep 0.05; done; exit 3"
    first = str(dev.json("job", "run", "--", "sh", "-c", script)["id"])
    file = tmp_path / "job.yaml"
    file.write_text("command: [echo, cleaned up]\n")
    after = str(dev.json("job", "submit", "--dependency", f"afternotok:{first}", str(file))["jobs"][0]["id"])
    never = str(dev.json("job", "run", "--dependency", f"afterok:{first}", "--", "true")["id"])
    assert dev.json("job", "show", after)["reason"]["code"] == "dependency"
    assert f"afterok:{first}" in dev.run("job", "show", never).stdout
    assert [each["code"] for each in dev.json("job", "why", never)["blockers"]] == ["dependency"]
    gate.touch()
    assert dev.run("job", "wait", after).returncode == 0
    assert dev.run("job", "logs", after).stdout == "cleaned up\n"
    done = dev.run("job", "wait", never)
    assert (done.returncode, "dependency_never_satisfied" in done.stderr) == (143, True), done.stderr
    refused = dev.run("job", "run", "--dependency", "afterok:999999", "--", "true")
    assert (refused.returncode, "there is no job 999999 yet" in refused.stderr) == (66, True)
    assert dev.run("job", "submit", "--dependency", "aftrok:1", str(file)).returncode == 65


def test_an_array_of_a_thousand_succeeds(dev: Dev):
    done = dev.run("job", "run", "--count", "1000", "--wait", "--json", "--", "true")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tasks"] == {"SUCCEEDED": 1000}


def test_the_failed_tasks_of_an_array_are_found(dev: Dev):
    script = "echo task $HASCHED_TASK_INDEX; test $HASCHED_TASK_INDEX -lt 2"
    job = str(dev.json("job", "run", "--count", "4", "--", "sh", "-c", script)["id"])
    assert dev.run("job", "wait", job).returncode == 1

    failed = dev.json("job", "tasks", job, "--state", "failed")
    assert [task["task_index"] for task in failed["tasks"]] == [2, 3]  # type: ignore[attr-defined]
    assert dev.json("job", "tasks", job, "--limit", "3")["more"] is True
    lines = dev.run("job", "tasks", job).stdout.splitlines()
    assert lines[0].split()[:2] == ["TASK", "STATE"]
    assert [line.split()[:2] for line in lines[3:]] == [[f"{job}.2", "FAILED"], [f"{job}.3", "FAILED"]]

    fields = dict(line.split("  ", 1) for line in dev.run("job", "show", job).stdout.splitlines())
    assert fields["first failed"].strip() == f"{job}.2 FAILED: exited with code 1"
    shown = dev.run("job", "logs", job)
    assert (shown.stdout, f"task {job}.2 FAILED" in shown.stderr) == ("task 2\n", True), shown.stderr
    named = dev.run("job", "logs", job, "--task", "0")
    assert (named.stdout, named.stderr) == ("task 0\n", "")
    assert dev.json("job", "logs", job)["task_index"] == 2


def test_a_file_of_jobs_and_its_mistakes(dev: Dev):
    text = "command: [echo, one]\n---\nname: two\ncommand: [echo, two]\n"
    done = dev.run("job", "submit", "-", "--wait", input=text)
    assert (done.returncode, done.stdout.count("SUCCEEDED: 1 SUCCEEDED")) == (0, 2), done.stderr
    before = dev.json("job", "list")
    done = dev.run("job", "submit", "-", input="name: x\ncommand: [a]\nresources:\n  gpus: 3.5\ncont: 3\n")
    assert done.returncode == 65
    assert "stdin:4: resources.gpus" in done.stderr
    assert "stdin:5: cont" in done.stderr
    assert dev.json("job", "list") == before


@pytest.mark.parametrize("options", [[], ["--wait"]])
@pytest.mark.parametrize("text", ["command: [date]\n", "command: [date]\n---\ncommand: [date]\n"])
def test_submitted_jobs_are_a_list_in_json_however_many(dev: Dev, options: list[str], text: str):
    done = dev.run("job", "submit", "-", "--json", *options, input=text)
    assert len(json.loads(done.stdout)["jobs"]) == text.count("command")


def test_a_repeated_submission_id_is_one_job(dev: Dev):
    command = ("job", "run", "--submission-id", "only-once", "--json", "--", "true")
    first, second = json.loads(dev.run(*command).stdout), json.loads(dev.run(*command).stdout)
    assert (first["id"], first["duplicate"], second["duplicate"]) == (second["id"], False, True)


def test_cancel_suspend_resume_delete_and_logs(dev: Dev):
    job = str(dev.json("job", "run", "--", "sh", "-c", "echo started; sleep 60")["id"])
    eventually("its output", lambda: dev.run("job", "logs", job).stdout == "started\n")
    assert dev.run("job", "delete", job).returncode == 76
    assert dev.json("job", "suspend", job)["jobs"][0]["suspended"] is True  # type: ignore[index]
    assert dev.json("job", "resume", job)["jobs"][0]["suspended"] is False  # type: ignore[index]
    assert dev.run("job", "wait", job, "--timeout", "100ms").returncode == 124
    assert dev.run("job", "cancel", job, "--reason", "enough").returncode == 0
    assert dev.run("job", "wait", job).returncode == 143
    assert dev.run("job", "delete", job).returncode == 0
    assert dev.run("job", "show", job).returncode == 66


def test_a_preempted_task_goes_on_elsewhere_or_here(dev: Dev):
    script = "[ -z $HASCHED_PREEMPTED_FROM ] || exit 0; echo started; sleep 60"
    job = str(dev.json("job", "run", "--", "sh", "-c", script)["id"])
    eventually("its output", lambda: dev.run("job", "logs", job).stdout == "started\n")
    assert dev.json("task", "preempt", f"{job}.0", "--reason", "to move it")["id"] == int(job)
    assert dev.run("job", "wait", job).returncode == 0
    first = dev.json("job", "show", f"{job}.0")["attempts"][0]  # type: ignore[index]
    assert (first["state"], first["reason"]["code"]) == ("PREEMPTED", "preempted")
    assert dev.run("task", "preempt", job).returncode == 76


@pytest.mark.parametrize(
    "command",
    [
        ["manager", "list"],
        ["manager", "leader"],
        ["node", "list"],
        ["node", "show", "n1"],
        ["job", "list", "--limit", "3"],
        ["top", "--once"],
        ["fairshare", "show"],
        ["context", "list"],
        ["context", "show"],
        ["version"],
    ],
    ids=" ".join,
)
def test_every_look_has_a_text_and_a_json_form(dev: Dev, command: list[str]):
    assert dev.run(*command).stdout.strip()
    assert dev.json(*command)


def test_a_node_that_works_is_not_removed_and_jobs_are_found_by_their_user(dev: Dev):
    assert dev.run("node", "remove", "nobody").returncode == 66
    assert dev.run("node", "remove", "n1").returncode == 76
    dev.run("job", "run", "--", "true")
    user = dev.json("job", "list", "--limit", "1")["jobs"][0]["actor"]  # type: ignore[index]
    assert dev.json("job", "list", "--actor", user)["jobs"]
    assert dev.json("job", "list", "--actor", "nobody") == {"jobs": []}


def test_the_events_of_an_execution_are_followed(dev: Dev, tmp_path: Path):
    (tmp_path / "w.yaml").write_text("name: w\ntasks: {a: {command: [echo, hi]}}\n")
    begun = dev.json("workflow", "run", str(tmp_path / "w.yaml"))
    place = ["--execution", str(begun["id"]), "--after", f"{begun['log_index']}.0"]
    end = [*place, "--type", "ExecutionEnded", "--limit", "1"]
    assert dev.json("events", *end)["type"] == "ExecutionEnded"
    assert "ExecutionEnded  execution_id=" in dev.run("events", *end).stdout
    assert dev.run("events", "--execution", "999").returncode == 66


def test_a_memo_outlives_the_job_that_left_it(dev: Dev, tmp_path: Path):
    (tmp_path / "m.yaml").write_text("name: m\ntasks: {a: {command: [echo, hi], memo: {}}}\n")
    run = ["workflow", "run", str(tmp_path / "m.yaml"), "--wait"]
    first = dev.json(*run)
    job = dev.json("workflow", "show", str(first["id"]))["tasks"][0]["job"]  # type: ignore[index]
    dev.run("job", "delete", str(job))
    again = str(dev.json(*run)["id"])
    assert dev.json("workflow", "show", again)["tasks"][0]["memo_of"] == first["id"]  # type: ignore[index]
    assert dev.json("workflow", "logs", again) == []


def test_any_manager_takes_what_is_to_become_of_a_node(dev: Dev):
    for manager in dev.json("manager", "list")["managers"]:
        environment = {**dev.environment, "HASCHED_MANAGERS": manager["api_url"]}
        for command, status in (("cordon", "healthy,cordoned"), ("uncordon", "healthy")):
            done = dev.run("node", command, "n1", "--json", env=environment)
            assert done.returncode == 0, (manager["id"], done.stderr)
            (node,) = json.loads(done.stdout)["nodes"]
            assert (node["status"], node["connected"]) == (status, True), manager["id"]


def test_a_wrong_token_and_a_silent_cluster_have_codes_of_their_own(dev: Dev):
    environment = dev.environment
    try:
        dev.environment = {**environment, "HASCHED_TOKEN": "wrong"}
        assert dev.run("job", "list").returncode == 77
        dev.environment = {**environment, "HASCHED_MANAGERS": "https://127.0.0.1:1"}
        assert dev.run("--timeout", "300ms", "job", "list").returncode == 69
    finally:
        dev.environment = environment


@pytest.mark.parametrize("name", ["m1", "m2", "m3", "n1", "n2"])
def test_whoever_is_killed_comes_back(dev: Dev, name: str):
    before = dev.pids()[name]
    os.kill(before, signal.SIGKILL)
    eventually(f"a new {name}", lambda: dev.pids().get(name, before) != before)
    assert dev.run("job", "run", "--wait", "--", "echo", "still here").stdout == "still here\n"

    def whole() -> bool:
        managers, nodes = dev.json("manager", "list"), dev.json("node", "list")
        return all(manager["reachable"] for manager in managers["managers"]) and all(  # type: ignore[attr-defined]
            node["connected"]
            for node in nodes["nodes"]  # type: ignore[attr-defined]
        )

    eventually("the whole cluster", whole)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_of_a_page_is_true(dev: Dev, section: str, tmp_path: Path):
    """It needs nodes that run something, so the simulated ones of the other pages won't do."""
    programs = str(Path(sys.executable).parent)
    environment = {**dev.environment, "PATH": f"{programs}:{os.environ['PATH']}", "COLUMNS": "120"}
    environment["SECRETS"] = str(dev.data / "secrets")
    with Terminal(tmp_path, environment) as terminal:
        for step in SECTIONS[section]:
            terminal.take(step)


def test_a_pipeline_survives_its_leader_in_every_phase(dev: Dev, tmp_path: Path):
    """The example of docs, its tasks slowed down: the leader is killed while each of them runs, and each ran once."""
    folder = shutil.copytree(EXAMPLES / "data-pipeline", tmp_path / "pipeline")
    pipeline = (folder / "pipeline.yaml").read_text()
    pace = "[sh, -c, 'echo $1 >> runs; sleep 2; exec \"$@\"', pace, python3, "
    (folder / "pipeline.yaml").write_text(pipeline.replace("[python3, ", pace))
    command = ["workflow", "run", str(folder / "pipeline.yaml"), "-p", f"folder={folder}"]
    number = str(dev.json(*command)["id"])

    def tasks() -> dict[str, str]:
        view: dict[str, Any] = dev.json("workflow", "show", number)
        return {task["name"]: task["state"] for task in view["tasks"]}

    for task in ("extract", "transform", "load"):
        eventually(f"{task} to run", lambda task=task: tasks()[task] == "running")
        name = str(dev.json("manager", "leader")["leader"])
        before = dev.pids()[name]
        os.kill(before, signal.SIGKILL)
        eventually(f"a new {name}", lambda name=name, before=before: dev.pids().get(name, before) != before)
    done = dev.run("workflow", "wait", number)
    assert (done.returncode, done.stdout) == (0, '{"countries": 154, "zones": 312}\n'), done.stderr
    assert (folder / "runs").read_text().split() == ["python3"] * 6  # one part for each hundred zones
    with closing(sqlite3.connect(folder / "warehouse.db")) as warehouse:
        assert warehouse.execute("SELECT count(*), sum(zones) FROM zones").fetchone() == (154, 312)


def test_a_second_cluster_in_the_same_directory_is_refused(dev: Dev):
    done = dev.run("dev", "--data-dir", str(dev.data))
    assert done.returncode == 76
    assert "is running" in done.stderr


def test_ctrl_c_leaves_nothing_and_the_same_directory_goes_on(tmp_path: Path):
    with Dev(tmp_path, "--managers", "1", "--agents", "1") as dev:
        ended = str(dev.json("job", "run", "--", "true")["id"])
        assert dev.run("job", "wait", ended).returncode == 0
        running = str(dev.json("job", "run", "--", "sleep", "600")["id"])
        eventually("its start", lambda: dev.json("job", "status", running)["state"] == "RUNNING")
        assert dev.stop() == 0
        assert dev.remains() == []

    dev.log.unlink()
    with Dev(tmp_path, "--managers", "1", "--agents", "1") as dev:
        assert dev.json("job", "status", ended)["state"] == "SUCCEEDED"
        assert dev.stop(signal.SIGTERM) == 0
        assert dev.remains() == []


def test_a_killed_terminal_loses_nothing_that_runs(tmp_path: Path):
    """`hasched dev` itself is killed: its daemons are taken over by the next one, and a task never notices."""
    with Dev(tmp_path, "--managers", "1", "--agents", "1") as dev:
        go = tmp_path / "go"
        script = f"echo begun; while [ ! -e {go} ]; do sleep 0.05; done; echo done"
        job = str(dev.json("job", "run", "--", "sh", "-c", script)["id"])
        eventually("its output", lambda: dev.run("job", "logs", job).stdout == "begun\n")
        dev.process.kill()
        dev.process.wait()

    dev.log.unlink()
    with Dev(tmp_path, "--managers", "1", "--agents", "1") as dev:
        go.touch()
        assert dev.run("job", "wait", job).returncode == 0
        assert dev.run("job", "logs", job).stdout == "begun\ndone\n"
        assert dev.json("job", "show", f"{job}.0")["attempt"] == 1
        assert dev.stop() == 0
        assert dev.remains() == []


def test_simulated_nodes_take_work_and_run_nothing(tmp_path: Path):
    with Dev(tmp_path, "--managers", "1", "--agents", "0", "--simulate-nodes", "30") as dev:
        nodes = dev.json("node", "list")["nodes"]
        assert len(nodes) == 30  # type: ignore[arg-type]
        assert {node["labels"]["rack"] for node in nodes} == {"r1", "r2", "r3", "r4"}  # type: ignore[attr-defined]
        command = ("--env", "SIMULATED_EXIT_CODE=7", "--gpu", "8", "--count", "10", "--", "/no/such/training")
        assert dev.run("job", "run", "--wait", *command).returncode == 7
        job = str(dev.json("job", "run", "--", "sleep", "1000")["id"])
        assert dev.run("job", "cancel", job).returncode == 0
        assert dev.run("job", "wait", job).returncode == 143
        killed = dev.pids()["simulated"]
        os.kill(killed, signal.SIGKILL)
        eventually("another process", lambda: dev.pids().get("simulated", killed) != killed)
        assert dev.run("job", "run", "--wait", *command).returncode == 7


def test_whoever_leads_tells_of_what_has_ended(dev: Dev):
    """The leader is killed again and again while jobs end: each end is told at least once, always in the same words."""
    told: dict[str, set[bytes]] = {}

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            Webhook(secret).verify(body, dict(self.headers))
            told.setdefault(self.headers["webhook-id"], set()).add(body)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    secret = "whsec_" + b64encode(os.urandom(24)).decode()
    (dev.data / "secrets" / "watcher.secret").write_text(secret)
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        policy = {
            "kind": "notification",
            "name": "watcher",
            "to": "webhook",
            "url": f"http://127.0.0.1:{server.server_port}/",
            "secret_file": "watcher.secret",
            "events": ["job.succeeded"],
            "retry_after": "100ms",
            "retry_at_most": "1s",
        }
        assert dev.run("policy", "apply", "-", input=json.dumps(policy)).returncode == 0
        jobs = []
        for _ in range(2):
            jobs += [dev.json("job", "run", "--name", "told", "--", "true")["id"] for _ in range(2)]
            name = str(dev.json("manager", "leader")["leader"])
            before = dev.pids()[name]
            os.kill(before, signal.SIGKILL)
            eventually(f"a new {name}", lambda name=name, before=before: dev.pids().get(name, before) != before)
        eventually("all to be told", lambda: ended_jobs(told) >= set(jobs), patience_s=90)
        assert all(len(bodies) == 1 for bodies in told.values())
        assert len(told) == len(ended_jobs(told))
        assert dev.run("policy", "delete", "notification", "watcher").returncode == 0
        server.shutdown()


def ended_jobs(told: dict[str, set[bytes]]) -> set[object]:
    return {json.loads(body)["data"]["job_id"] for bodies in list(told.values()) for body in bodies}
