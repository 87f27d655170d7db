"""Clients that submit jobs for as long as a test lasts, and remember what they were promised.

They follow the list of managers, as users do who bring their contexts up to date.
"""

from __future__ import annotations

import threading
import time
import uuid
from types import TracebackType

from chaos.checkers import durability
from hasched.client.sync import Client
from hasched.model.errors import HaschedError
from tests.support.cluster import ProcessCluster, eventually

NEVER = {"command": ["/bin/true"], "resources": {"countables": {"never": 1}}}  # it waits for what no node has


class Submitters:
    """`acknowledged` maps submission ids to job ids. `longest_s` is the longest that a client waited for one answer."""

    def __init__(self, cluster: ProcessCluster, clients: int = 4, pause_s: float = 0.01) -> None:
        self.acknowledged: dict[str, int] = {}
        self.unknown: list[HaschedError] = []
        self.longest_s = 0.0
        self._cluster = cluster
        self._pause_s = pause_s
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._submit, daemon=True) for _ in range(clients)]

    def _submit(self) -> None:
        while not self._over.is_set():
            known = list(self._cluster.members)
            with self._cluster.client() as client:
                while known == self._cluster.members and not self._over.wait(self._pause_s):
                    self._submit_one(client)

    def _submit_one(self, client: Client) -> None:
        submission_id, begun = uuid.uuid4().hex, time.monotonic()
        try:
            self.acknowledged[submission_id] = client.submit(NEVER, submission_id=submission_id).id
        except HaschedError as error:
            self.unknown.append(error)
        self.longest_s = max(self.longest_s, time.monotonic() - begun)

    def more(self, count: int = 50) -> None:
        """Wait until so many more were acknowledged: the cluster works."""
        enough = len(self.acknowledged) + count
        eventually(f"{count} more submissions", lambda: len(self.acknowledged) >= enough)

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Submitters:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def find_violations(client: Client, acknowledged: dict[str, int]) -> list[str]:
    """What was promised and isn't so, and managers whose states differ."""
    wrong = durability.check(acknowledged, (), [(job.submission_id, job.id) for job in client.jobs()])
    index = client.check_managers()

    def compared() -> object:
        check = client.managers().check
        return check if check is not None and check.log_index >= index else None

    check = eventually("the managers compare their states", compared)
    if check.differing or not check.agreed:
        wrong.append(f"states differ: {check}")
    return wrong
