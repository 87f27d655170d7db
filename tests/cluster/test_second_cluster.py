"""Managers that lost their disks form a second cluster, under the name, CA and addresses of the first. Real processes.

It knows nothing of what runs on the nodes, and would stop it all: so the agents don't listen to it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.cluster import ProcessCluster, eventually

pytestmark = pytest.mark.timeout(120)


def test_a_second_cluster_of_the_same_name_takes_no_agent_and_stops_no_task(tmp_path: Path) -> None:
    with ProcessCluster(tmp_path, managers=1, agents=1) as cluster:
        cluster.start()
        cluster.wait_ready()
        alive = tmp_path / "alive"
        script = f"while :; do echo x >> {alive}; sleep 0.1; done"
        with cluster.client() as client:
            origin = client.cluster().origin
            client.submit({"script": script})
            eventually("the task runs", alive.exists)
        cluster.terminate("m1")
        (tmp_path / "m1").rename(tmp_path / "lost")
        cluster.start("m1")

        def refused() -> bool:
            return "foreign_cluster" in (tmp_path / "n1.log").read_text()

        with cluster.client() as client:
            eventually("the agent refuses it", refused)
            assert client.cluster().origin not in ("", origin)
            assert client.nodes().nodes == []
            before = alive.stat().st_size
            eventually("the task runs on", lambda: alive.stat().st_size > before)
        cluster.terminate("m1")
        shutil.rmtree(tmp_path / "m1")
        (tmp_path / "lost").rename(tmp_path / "m1")
        cluster.start("m1")
        cluster.wait_ready()
        with cluster.client() as client:
            assert client.cluster().origin == origin
            (job,) = client.jobs()
            assert job.state == "RUNNING"
            assert client.task(job.id, 0).attempt == 1
