"""A client's work for a proof: submissions that nothing ever runs, one after another, the same ones each time."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

from hasched.client.context import Context
from hasched.client.sync import Client
from hasched.model.errors import HaschedError
from tests.support.cluster import ProcessCluster

INPUT_BYTES = 16 * 1024
GIVE_UP_S = 1.0


class Workload:
    """`acknowledged` are job ids by submission id; `unknown` may have been carried out or not."""

    def __init__(self, cluster: ProcessCluster, name: str, input_bytes: int = INPUT_BYTES) -> None:
        self._cluster = cluster
        self._name = name
        self._input_bytes = input_bytes
        self._number = 0
        self.acknowledged: dict[str, int] = {}
        self.last_acknowledged = 0.0  # when, in seconds since 1970
        self.unknown: list[str] = []

    def run(self, count: int, give_up_s: float = GIVE_UP_S, ended: Callable[[], bool] = lambda: False) -> None:
        """`count` more, or until the manager in question has `ended`."""
        with self._client(give_up_s) as client:
            for _ in range(count):
                if ended():
                    return
                self._number += 1
                self._submit(client, f"{self._name}-{self._number}")

    def retry(self) -> None:
        """Everything unknown once more, under its own id: now it must be known."""
        unknown, self.unknown = self.unknown, []
        with self._client(30.0) as client:
            for submission_id in unknown:
                self._submit(client, submission_id)
        assert not self.unknown, "a whole cluster answers"

    def _client(self, give_up_s: float) -> Client:
        managers = [member["api"] for member in self._cluster.members]
        return Client(Context(managers, str(self._cluster.ca), self._cluster.token), timeout_s=give_up_s)

    def _submit(self, client: Client, submission_id: str) -> None:
        text = Random(submission_id).randbytes(self._input_bytes // 2).hex()
        spec = {"command": ["/bin/true"], "resources": {"countables": {"never": 1}}, "input": text}
        try:
            self.acknowledged[submission_id] = client.submit(spec, submission_id).id
            self.last_acknowledged = time.time()
        except (HaschedError, OSError):
            self.unknown.append(submission_id)
