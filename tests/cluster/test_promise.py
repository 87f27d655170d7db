"""The promise, shown on real processes: nothing accepted is lost or doubled, whichever manager or agent dies."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import ProcessCluster, eventually

pytestmark = pytest.mark.timeout(180)

QUICK = {"heartbeat": "200ms", "unhealthy_after": "1s", "node_grace": "3s"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with ProcessCluster(tmp_path, settings=QUICK) as cluster:
        cluster.start()
        cluster.wait_ready()
        yield cluster


def test_submissions_survive_the_death_of_the_leader_exactly_once(cluster: ProcessCluster) -> None:
    """Eight clients, 5,000 submissions, the leader killed in the middle: every id names exactly one job."""
    clients, each = 8, 625
    ids = [[uuid.uuid4().hex for _ in range(each)] for _ in range(clients)]
    accepted: list[dict[str, int]] = [{} for _ in range(clients)]
    quarter = threading.Event()
    never = {"command": ["/bin/true"], "resources": {"countables": {"never": 1}}}

    def submit(number: int) -> None:
        with cluster.client() as client:
            for submission_id in ids[number]:
                accepted[number][submission_id] = client.submit(never, submission_id=submission_id).id
                if sum(map(len, accepted)) > clients * each // 4:
                    quarter.set()

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    assert quarter.wait(60)
    cluster.kill(cluster.leader())
    for thread in threads:
        thread.join()

    with cluster.client() as client:
        by_submission = Counter(job.submission_id for job in client.jobs())
        assert by_submission == Counter(submission_id for each in ids for submission_id in each)
        job_of = {job.submission_id: job.id for job in client.jobs()}
    assert {key: value for each in accepted for key, value in each.items()} == job_of


def test_a_task_outlives_its_agent(cluster: ProcessCluster) -> None:
    """SIGKILL of the agent, and its restart, while a task runs: one attempt, its exit code and its whole log."""
    script = "for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.25; done; exit 7"
    with cluster.client() as client:
        job = client.submit({"script": script}).id
        node = eventually(
            "the task runs", lambda: client.task(job, 0).state == "RUNNING" and client.task(job, 0).node_id
        )
        cluster.kill(node)
        eventually("for a while the node has no agent", lambda: not client.node(node).connected)
        cluster.start(node)
        ended = client.wait(job)
        task = client.task(job, 0)
        assert (ended.state, task.exit_code, task.attempt) == ("FAILED", 7, 1)
        log = b"".join(client.logs(job, 0))
        assert log == b"".join(b"line %d\n" % i for i in range(1, 9))


def test_a_frozen_agent_is_replaced_and_its_late_report_refused(cluster: ProcessCluster) -> None:
    """Beyond node_grace the task runs elsewhere as attempt 2; what attempt 1 says later changes nothing, and is shown."""
    with cluster.client() as client:
        job = client.submit({"script": "sleep 5; exit $((40 + HASCHED_ATTEMPT))"}).id
        node = eventually(
            "the task runs", lambda: client.task(job, 0).state == "RUNNING" and client.task(job, 0).node_id
        )
        cluster.freeze(node)
        second = eventually("attempt 2", lambda: (task := client.task(job, 0)).attempt == 2 and task)
        assert second.node_id != node
        client.wait(job)
        cluster.thaw(node)

        def late() -> object:
            first = client.task(job, 0).attempts[0]
            return first.late_report

        eventually("the late report of attempt 1 is shown", late)
        task = client.task(job, 0)
        assert [attempt.state for attempt in task.attempts] == ["NODE_LOST", "FAILED"]
        assert (task.state, task.exit_code, task.attempt) == ("FAILED", 42, 2)


def test_everything_is_there_after_all_managers_were_stopped(cluster: ProcessCluster, tmp_path: Path) -> None:
    """A full stop: queue, results and running tasks survive, and the tasks ran on meanwhile."""
    ticks = tmp_path / "ticks"
    script = f"while [ ! -e {tmp_path}/stop ]; do echo tick >> {ticks}; sleep 0.05; done; exit 5"
    with cluster.client() as client:
        done = client.submit({"script": "echo result > $HASCHED_OUTPUT"}).id
        client.wait(done)
        queued = client.submit({"command": ["true"], "resources": {"countables": {"never": 1}}}).id
        running = client.submit({"script": script}).id
        eventually("the task runs", ticks.exists)
        for name in cluster.manager_names:
            cluster.terminate(name)
        before = ticks.stat().st_size
        eventually("the task runs on without managers", lambda: ticks.stat().st_size > before)
        cluster.start(*cluster.manager_names)
        cluster.wait_ready()
        assert client.task(done, 0).output == "result\n"
        assert client.job(queued).state == "PENDING"
        assert client.task(running, 0).attempt == 1
        (tmp_path / "stop").touch()
        client.wait(running)
        assert (client.task(running, 0).exit_code, client.task(running, 0).attempt) == (5, 1)
