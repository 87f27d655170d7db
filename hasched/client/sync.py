"""The synchronous client, over the standard library alone: the CLI starts quickly, and scripts need no event loop."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from hasched.client import calls
from hasched.client.calls import Document
from hasched.client.notifications import NotificationClient
from hasched.client.policy import LONGEST_PAUSE_S
from hasched.client.schedules import ScheduleClient
from hasched.client.wire import as_oserror
from hasched.client.workflows import WorkflowClient
from hasched.model.answers import Forecast, Plan, ResourcesView, WhatIf, Why
from hasched.model.errors import (
    EventsCompacted,
    HaschedError,
    NodeUnreachable,
    Overloaded,
)
from hasched.model.states import TaskState
from hasched.model.taints import Taint
from hasched.model.views import (
    ClusterView,
    EstimateView,
    EventView,
    FairShareView,
    JobView,
    LimitPage,
    ManagerPage,
    ManagerView,
    NodePage,
    NodeView,
    PolicyPage,
    PolicyView,
    Submitted,
    TaskView,
    UsagePage,
)

CHUNK_BYTES = 64 * 1024


class Client(ScheduleClient, WorkflowClient, NotificationClient):
    """One cluster, as one user. Not for concurrent use; open one for each thread.

    `on_silence` is told once, on a thread of its own, when a call has no answer after SILENCE_S, and what came of it so far.
    Every call is retried on other managers until `timeout_s`: a submission under the same id, so it takes effect once.
    Raises the errors of `hasched.model.errors`; ClusterUnreachable where no manager answered, OutcomeUnknown where one
    took a request that changes something and never said what came of it.
    """

    # --- jobs ---

    def submit(self, document: Document, submission_id: str | None = None, *, if_index: int = 0) -> Submitted:
        """Submit a job; returns once a majority of managers has it on disk. Raises SpecInvalid and others.

        With the `check_index` of a plan as `if_index`, only while that plan holds; else Conflict with `plan_outdated`.
        """
        return self._do(calls.submit(document, submission_id, if_index))

    def submit_many(self, documents: Iterable[Document | tuple[str, Document]]) -> list[Submitted | HaschedError]:
        """Submit up to 10,000 jobs in one request; one result or error for each, in order."""
        return calls.read_batch(self._do(calls.submit_many(calls.with_ids(documents))))

    def jobs(
        self,
        *,
        state: str | Sequence[str] | None = None,
        namespace: str | None = None,
        queue: str | None = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        actor: str | None = None,
        limit: int = calls.PAGE_SIZE,
        stale: bool = False,
    ) -> Iterator[JobView]:
        """Jobs, the latest first, read page by page (`limit` a page) as they are taken."""
        cursor = ""
        while True:
            page = self._do(
                calls.jobs_page(
                    cursor,
                    state=state,
                    namespace=namespace,
                    queue=queue,
                    name=name,
                    labels=labels,
                    actor=actor,
                    limit=limit,
                    stale=stale,
                )
            )
            yield from page.jobs
            cursor = page.next_cursor
            if not cursor:
                return

    def job(self, job_id: int) -> JobView:
        return self._do(calls.job(job_id))

    def cancel(self, job_id: int, reason: str = "", tasks: Sequence[int] = ()) -> JobView:
        """Ask for the end of a job, or of some of its tasks."""
        return self._do(calls.cancel(job_id, reason, tasks))

    def preempt(self, job_id: int, reason: str = "", tasks: Sequence[int] = ()) -> JobView:
        """Have the running tasks of a job, or some of them, make room and wait for their next start."""
        return self._do(calls.preempt(job_id, reason, tasks))

    def suspend(self, job_id: int) -> JobView:
        return self._do(calls.suspend(job_id))

    def resume(self, job_id: int) -> JobView:
        return self._do(calls.resume(job_id))

    def update(self, job_id: int, changes: Mapping[str, Any]) -> JobView:
        """Change a job that has not ended: any of the keys `priority`, `priority_class`, `queue`, `not_before`, `deadline` and,
        before it starts, `dependency`.

        They are as in a job's document, and a time of 0 is none: `update(7, {"priority_class": "high"})`.
        """
        return self._do(calls.update(job_id, changes))

    def forecast(self, *job_ids: int) -> Forecast:
        """When the waiting tasks of these jobs start, or of all that wait. May take a while."""
        return self._do(calls.forecast(job_ids))

    def why(self, job_id: int, *, forecast: bool = False) -> Why:
        """Why a job waits: everything in its way, and what would start it. With `forecast` also when, which may take a while."""
        return self._do(calls.why(job_id, forecast))

    def resources(self, by: str = "all") -> ResourcesView:
        """What there is, by `all`, `pool`, `class`, `gpu_model` or `label.NAME`."""
        return self._do(calls.resources(by))

    def plan(self, documents: Sequence[Document], horizon_ms: int | None = None) -> Plan:
        """What would come of jobs if they were submitted now, one after the other. Submits nothing; may take a while."""
        return self._do(calls.plan(documents, horizon_ms))

    def what_if(self, changes: Mapping[str, Any], horizon_ms: int | None = None) -> WhatIf:
        """Who would start when if `changes` were made, as the API takes them (`WhatIfRequest`). May take a while."""
        return self._do(calls.what_if(changes, horizon_ms))

    def delete(self, job_id: int) -> None:
        """Forget a job that has ended."""
        self._do(calls.delete(job_id))

    def wait(self, job_id: int, timeout: float | None = None) -> JobView:
        """The job once it has ended; as it is after `timeout` seconds if it hasn't."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            job = self.job(job_id)
            if TaskState[job.state].final or (deadline is not None and time.monotonic() >= deadline):
                return job
            after = calls.after_index(job.log_index)
            try:
                for event in self._events(after, job_id, ("JobEnded", "JobDeleted", "JobExpired"), deadline):
                    if event.job_id == job_id:
                        break
            except EventsCompacted:
                continue

    # --- tasks ---

    def tasks(self, job_id: int, state: str | Sequence[str] | None = None) -> Iterator[TaskView]:
        """The tasks of a job in order of their index, without their attempts."""
        cursor = ""
        while True:
            page = self._do(calls.tasks_page(job_id, cursor, state))
            yield from page.tasks
            cursor = page.next_cursor
            if not cursor:
                return

    def task(self, job_id: int, index: int) -> TaskView:
        """One task with all its attempts."""
        return self._do(calls.task(job_id, index))

    def logs(
        self,
        job_id: int,
        index: int = 0,
        *,
        stream: str = "stdout",
        attempt: int | None = None,
        offset: int | None = None,
        limit: int | None = None,
        tail: int | None = None,
        follow: bool = False,
        keep_trying: Callable[[], bool] = lambda: False,
    ) -> Iterator[bytes]:
        """What a task wrote, in pieces. `follow` goes on until the attempt has ended, across a change of leader.

        While `keep_trying` says so, a busy cluster or a node that can't be reached is waited for without a time limit.
        `offset` counts from the attempt's first byte for ever; bytes that are no longer kept are left out.
        """
        position = offset
        tries = self._tries()
        while True:
            path = calls.logs_path(
                job_id,
                index,
                stream=stream,
                attempt=attempt,
                offset=position,
                limit=limit,
                tail=tail,
                follow=follow,
            )
            opened = False
            try:
                response, connection = self._open(tries, path)
                opened = True
                try:
                    position = int(response.headers.get("Hasched-Log-Offset", position or 0))
                    tail = None
                    while piece := response.read1(CHUNK_BYTES):
                        position += len(piece)
                        if limit is not None:
                            limit -= len(piece)
                        yield piece
                        tries = self._tries()
                    if response.isclosed() or limit == 0:
                        return
                    raise ConnectionResetError("the log broke off")
                finally:
                    connection.close()
            except (OSError, HaschedError, http.client.HTTPException) as error:
                if opened and follow and isinstance(error, TimeoutError):
                    tries = self._tries()  # a silent task, or a dead link: ask anew to know which
                    continue
                try:
                    pause = tries.failed(as_oserror(error), time.monotonic())
                except (Overloaded, NodeUnreachable):
                    if not keep_trying():
                        raise
                    tries, pause = self._tries(), LONGEST_PAUSE_S
                time.sleep(pause)

    # --- the cluster ---

    def nodes(self) -> NodePage:
        return self._do(calls.nodes())

    def node(self, node_id: str) -> NodeView:
        return self._do(calls.node(node_id))

    def cordon_node(self, node_id: str, reason: str = "") -> NodeView:
        """Give a node no new work; what runs there goes on."""
        return self._do(calls.cordon_node(node_id, reason))

    def uncordon_node(self, node_id: str) -> NodeView:
        """Take a cordon back. A drain or a quarantine beside it goes on."""
        return self._do(calls.uncordon_node(node_id))

    def drain_node(self, node_id: str, deadline_in_ms: int | None = None, reason: str = "") -> NodeView:
        """Empty a node: no new work, and what still runs at the deadline is stopped and started elsewhere.

        0 moves everything at once; None gives what runs all the time it takes.
        """
        return self._do(calls.drain_node(node_id, deadline_in_ms, reason))

    def undrain_node(self, node_id: str) -> NodeView:
        """Let a node that drains, or is drained, have work again."""
        return self._do(calls.undrain_node(node_id))

    def unquarantine_node(self, node_id: str) -> NodeView:
        """Let a node whose launches failed have work again, and forget that they did."""
        return self._do(calls.unquarantine_node(node_id))

    def set_node_properties(
        self,
        node_id: str,
        *,
        pool: str = "",
        labels: Mapping[str, str | None] | None = None,
        taints: Mapping[str, Taint | None] | None = None,
        reset: bool = False,
    ) -> NodeView:
        """Say what a node's pool, labels and taints (by key) are, over what its agent says; None stands for "hasn't".

        What isn't named stays as it is; `reset` first takes back all that was said before.
        """
        return self._do(calls.set_node_properties(node_id, pool, labels or {}, taints or {}, reset))

    def remove_node(self, node_id: str) -> None:
        """Forget a disconnected node."""
        self._do(calls.remove_node(node_id))

    def managers(self) -> ManagerPage:
        return self._do(calls.managers())

    def manager(self) -> ManagerView:
        """The manager that answers, as it sees itself."""
        return self._do(calls.manager())

    def add_manager(self, manager_id: str, api_url: str, raft_address: str) -> ManagerView:
        """Add a manager. Returns once that is decided; `managers` tells when it has its vote."""
        return self._do(calls.add_manager(manager_id, api_url, raft_address))

    def remove_manager(self, manager_id: str) -> None:
        """Remove a manager. Returns once that is decided; `managers` tells when it has left."""
        self._do(calls.remove_manager(manager_id))

    def transfer(self, to: str | None = None) -> str:
        """Hand leadership over to `to`, or to whoever is best prepared. Returns who leads. Raises TransferFailed."""
        return self._do(calls.transfer(to)).leader

    def check_managers(self) -> int:
        """Have the managers compare their states. `managers().check` has the result, with this index or a later one."""
        return self._do(calls.check_managers()).log_index

    def fair_share(self) -> FairShareView:
        """What queues, namespaces and users are due, and have used."""
        return self._do(calls.fair_share())

    def policies(self, kind: str | None = None) -> PolicyPage:
        """Every policy, or those of a kind."""
        return self._do(calls.policies(kind))

    def policy(self, kind: str, name: str) -> PolicyView:
        return self._do(calls.policy(kind, name))

    def put_policy(
        self,
        kind: str,
        name: str,
        document: Document,
        if_index: int | None = None,
        *,
        allow_unknown_nodes: bool = False,
    ) -> PolicyView:
        """Put a policy whole. `if_index`: only if its `log_index` is still this, 0: only if nobody has put it. A reservation
        names nodes that are there, or `allow_unknown_nodes`. Raises Conflict, PolicyInvalid."""
        return self._do(calls.put_policy(kind, name, document, if_index, allow_unknown_nodes))

    def check_policies(self, documents: Sequence[Mapping[str, Any]], *, allow_unknown_nodes: bool = False) -> None:
        """Whether policies could be put, one after the other: documents with `kind` and `name`. Nothing is changed. Raises what
        `put_policy` would raise of the first that is refused."""
        self._do(calls.check_policies(documents, allow_unknown_nodes))

    def delete_policy(self, kind: str, name: str, if_index: int | None = None) -> None:
        """Delete a policy that nothing refers to."""
        self._do(calls.delete_policy(kind, name, if_index))

    def usage(
        self,
        by: str = "account",
        *,
        namespace: str | None = None,
        user: str | None = None,
        week: str | None = None,
        cursor: str = "",
        limit: int | None = None,
    ) -> UsagePage:
        """What was used and what it cost, by account, user, namespace or week; or by job, a page at a time."""
        return self._do(calls.usage(by, namespace=namespace, user=user, week=week, cursor=cursor, limit=limit))

    def limits(self, kind: str | None = None, name: str | None = None) -> LimitPage:
        """What of each quota and cap is used, and what is left."""
        return self._do(calls.limits(kind, name))

    def estimate(self, document: Document) -> EstimateView:
        """What a job would cost; nothing is submitted."""
        return self._do(calls.estimate(document))

    def cluster(self) -> ClusterView:
        return self._do(calls.cluster())

    def events(
        self,
        after: str | None = None,
        job: int | None = None,
        types: Sequence[str] = (),
        *,
        execution: int | None = None,
    ) -> Iterator[EventView]:
        """What happens, from now on or after the event `after`, without gaps across fail-overs. Raises EventsCompacted."""
        after = after or calls.after_index(self.cluster().applied_index)
        return self._events(after, job, types, None, execution=execution)
