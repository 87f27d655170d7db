"""The asynchronous client, for services; the same methods as `sync.Client`, over aiohttp."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import aiohttp

from hasched.client import calls
from hasched.client.aio_notifications import AsyncNotificationClient
from hasched.client.aio_schedules import AsyncScheduleClient
from hasched.client.aio_wire import as_oserror
from hasched.client.aio_workflows import AsyncWorkflowClient
from hasched.client.calls import Document
from hasched.client.event_text import EventLines
from hasched.model.answers import Forecast, Plan, ResourcesView, WhatIf, Why
from hasched.model.errors import EventsCompacted, HaschedError
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


class AsyncClient(AsyncScheduleClient, AsyncWorkflowClient, AsyncNotificationClient):
    """One cluster, as one user; any number of calls at once. Use it as an async context manager.

    Every call is retried on other managers until `timeout_s`: a submission under the same id, so it takes effect once.
    Raises the errors of `hasched.model.errors`; ClusterUnreachable where no manager answered, OutcomeUnknown where one
    took a request that changes something and never said what came of it.

    Without `retries` each call is one request to one manager, the next one's turn if it doesn't serve, and raises what came
    of that: the manager's own error where it answered; OutcomeUnknown where a change may have been made nevertheless;
    ClusterUnreachable where no change was. A stream ends with ClusterUnreachable when it breaks.
    """

    # --- jobs ---

    async def submit(self, document: Document, submission_id: str | None = None, *, if_index: int = 0) -> Submitted:
        """Submit a job; returns once a majority of managers has it on disk. Raises SpecInvalid and others.

        With the `check_index` of a plan as `if_index`, only while that plan holds; else Conflict with `plan_outdated`.
        """
        return await self._do(calls.submit(document, submission_id, if_index))

    async def submit_many(self, documents: Iterable[Document | tuple[str, Document]]) -> list[Submitted | HaschedError]:
        """Submit up to 10,000 jobs in one request; one result or error for each, in order."""
        return calls.read_batch(await self._do(calls.submit_many(calls.with_ids(documents))))

    async def jobs(
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
    ) -> AsyncIterator[JobView]:
        """Jobs, the latest first, read page by page (`limit` a page) as they are taken."""
        cursor = ""
        while True:
            page = await self._do(
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
            for job in page.jobs:
                yield job
            cursor = page.next_cursor
            if not cursor:
                return

    async def job(self, job_id: int) -> JobView:
        return await self._do(calls.job(job_id))

    async def cancel(self, job_id: int, reason: str = "", tasks: Sequence[int] = ()) -> JobView:
        """Ask for the end of a job, or of some of its tasks."""
        return await self._do(calls.cancel(job_id, reason, tasks))

    async def preempt(self, job_id: int, reason: str = "", tasks: Sequence[int] = ()) -> JobView:
        """Have the running tasks of a job, or some of them, make room and wait for their next start."""
        return await self._do(calls.preempt(job_id, reason, tasks))

    async def suspend(self, job_id: int) -> JobView:
        return await self._do(calls.suspend(job_id))

    async def resume(self, job_id: int) -> JobView:
        return await self._do(calls.resume(job_id))

    async def update(self, job_id: int, changes: Mapping[str, Any]) -> JobView:
        """Change a job that has not ended: any of the keys `priority`, `priority_class`, `queue`, `not_before`, `deadline` and,
        before it starts, `dependency`.

        They are as in a job's document, and a time of 0 is none: `update(7, {"priority_class": "high"})`.
        """
        return await self._do(calls.update(job_id, changes))

    async def forecast(self, *job_ids: int) -> Forecast:
        """When the waiting tasks of these jobs start, or of all that wait. May take a while."""
        return await self._do(calls.forecast(job_ids))

    async def why(self, job_id: int, *, forecast: bool = False) -> Why:
        """Why a job waits: everything in its way, and what would start it. With `forecast` also when, which may take a while."""
        return await self._do(calls.why(job_id, forecast))

    async def resources(self, by: str = "all") -> ResourcesView:
        """What there is, by `all`, `pool`, `class`, `gpu_model` or `label.NAME`."""
        return await self._do(calls.resources(by))

    async def plan(self, documents: Sequence[Document], horizon_ms: int | None = None) -> Plan:
        """What would come of jobs if they were submitted now, one after the other. Submits nothing; may take a while."""
        return await self._do(calls.plan(documents, horizon_ms))

    async def what_if(self, changes: Mapping[str, Any], horizon_ms: int | None = None) -> WhatIf:
        """Who would start when if `changes` were made, as the API takes them (`WhatIfRequest`). May take a while."""
        return await self._do(calls.what_if(changes, horizon_ms))

    async def delete(self, job_id: int) -> None:
        """Forget a job that has ended."""
        await self._do(calls.delete(job_id))

    async def wait(self, job_id: int, timeout: float | None = None) -> JobView:
        """The job once it has ended; as it is after `timeout` seconds if it hasn't."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    job = await self.job(job_id)
                    if TaskState[job.state].final:
                        return job
                    await self._next_end(job)
        except TimeoutError:
            return await self.job(job_id)

    async def _next_end(self, job: JobView) -> None:
        types = ("JobEnded", "JobDeleted", "JobExpired")
        try:
            async for event in self.events(calls.after_index(job.log_index), job.id, types):
                if event.job_id == job.id:
                    return
        except EventsCompacted:
            return  # ask again

    # --- tasks ---

    async def tasks(self, job_id: int, state: str | Sequence[str] | None = None) -> AsyncIterator[TaskView]:
        """The tasks of a job in order of their index, without their attempts."""
        cursor = ""
        while True:
            page = await self._do(calls.tasks_page(job_id, cursor, state))
            for task in page.tasks:
                yield task
            cursor = page.next_cursor
            if not cursor:
                return

    async def task(self, job_id: int, index: int) -> TaskView:
        """One task with all its attempts."""
        return await self._do(calls.task(job_id, index))

    async def logs(
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
    ) -> AsyncIterator[bytes]:
        """What a task wrote, in pieces. `follow` goes on until the attempt has ended, across a change of leader.

        `offset` counts from the attempt's first byte for ever; bytes that are no longer kept are left out.
        """
        position = offset
        tries = self._tries()
        while True:
            path = calls.logs_path(
                job_id, index, stream=stream, attempt=attempt, offset=position, limit=limit, tail=tail, follow=follow
            )
            opened = False
            try:
                async with await self._open(tries, path) as response:
                    opened = True
                    position = int(response.headers.get("Hasched-Log-Offset", position or 0))
                    tail = None
                    async for piece in response.content.iter_any():
                        position += len(piece)
                        if limit is not None:
                            limit -= len(piece)
                        yield piece
                        tries = self._tries()
                    return
            except (OSError, HaschedError, aiohttp.ClientError) as error:
                if limit == 0:
                    return
                if opened and follow and isinstance(error, TimeoutError):
                    tries = self._tries()  # a silent task, or a dead link: ask anew to know which
                else:
                    await asyncio.sleep(tries.failed(as_oserror(error), time.monotonic()))

    # --- the cluster ---

    async def nodes(self) -> NodePage:
        return await self._do(calls.nodes())

    async def node(self, node_id: str) -> NodeView:
        return await self._do(calls.node(node_id))

    async def cordon_node(self, node_id: str, reason: str = "") -> NodeView:
        """Give a node no new work; what runs there goes on."""
        return await self._do(calls.cordon_node(node_id, reason))

    async def uncordon_node(self, node_id: str) -> NodeView:
        """Take a cordon back. A drain or a quarantine beside it goes on."""
        return await self._do(calls.uncordon_node(node_id))

    async def drain_node(self, node_id: str, deadline_in_ms: int | None = None, reason: str = "") -> NodeView:
        """Empty a node: no new work, and what still runs at the deadline is stopped and started elsewhere.

        0 moves everything at once; None gives what runs all the time it takes.
        """
        return await self._do(calls.drain_node(node_id, deadline_in_ms, reason))

    async def undrain_node(self, node_id: str) -> NodeView:
        """Let a node that drains, or is drained, have work again."""
        return await self._do(calls.undrain_node(node_id))

    async def unquarantine_node(self, node_id: str) -> NodeView:
        """Let a node whose launches failed have work again, and forget that they did."""
        return await self._do(calls.unquarantine_node(node_id))

    async def set_node_properties(
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
        return await self._do(calls.set_node_properties(node_id, pool, labels or {}, taints or {}, reset))

    async def remove_node(self, node_id: str) -> None:
        """Forget a disconnected node."""
        await self._do(calls.remove_node(node_id))

    async def managers(self) -> ManagerPage:
        return await self._do(calls.managers())

    async def manager(self) -> ManagerView:
        """The manager that answers, as it sees itself."""
        return await self._do(calls.manager())

    async def add_manager(self, manager_id: str, api_url: str, raft_address: str) -> ManagerView:
        """Add a manager. Returns once that is decided; `managers` tells when it has its vote."""
        return await self._do(calls.add_manager(manager_id, api_url, raft_address))

    async def remove_manager(self, manager_id: str) -> None:
        """Remove a manager. Returns once that is decided; `managers` tells when it has left."""
        await self._do(calls.remove_manager(manager_id))

    async def transfer(self, to: str | None = None) -> str:
        """Hand leadership over to `to`, or to whoever is best prepared. Returns who leads. Raises TransferFailed."""
        return (await self._do(calls.transfer(to))).leader

    async def check_managers(self) -> int:
        """Have the managers compare their states. `managers().check` has the result, with this index or a later one."""
        return (await self._do(calls.check_managers())).log_index

    async def fair_share(self) -> FairShareView:
        """What queues, namespaces and users are due, and have used."""
        return await self._do(calls.fair_share())

    async def policies(self, kind: str | None = None) -> PolicyPage:
        """Every policy, or those of a kind."""
        return await self._do(calls.policies(kind))

    async def policy(self, kind: str, name: str) -> PolicyView:
        return await self._do(calls.policy(kind, name))

    async def put_policy(
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
        return await self._do(calls.put_policy(kind, name, document, if_index, allow_unknown_nodes))

    async def check_policies(
        self, documents: Sequence[Mapping[str, Any]], *, allow_unknown_nodes: bool = False
    ) -> None:
        """Whether policies could be put, one after the other: documents with `kind` and `name`. Nothing is changed. Raises what
        `put_policy` would raise of the first that is refused."""
        await self._do(calls.check_policies(documents, allow_unknown_nodes))

    async def delete_policy(self, kind: str, name: str, if_index: int | None = None) -> None:
        """Delete a policy that nothing refers to."""
        await self._do(calls.delete_policy(kind, name, if_index))

    async def usage(
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
        return await self._do(calls.usage(by, namespace=namespace, user=user, week=week, cursor=cursor, limit=limit))

    async def limits(self, kind: str | None = None, name: str | None = None) -> LimitPage:
        """What of each quota and cap is used, and what is left."""
        return await self._do(calls.limits(kind, name))

    async def estimate(self, document: Document) -> EstimateView:
        """What a job would cost; nothing is submitted."""
        return await self._do(calls.estimate(document))

    async def cluster(self) -> ClusterView:
        return await self._do(calls.cluster())

    async def events(
        self,
        after: str | None = None,
        job: int | None = None,
        types: Sequence[str] = (),
        *,
        execution: int | None = None,
    ) -> AsyncIterator[EventView]:
        """What happens, from now on or after the event `after`, without gaps across fail-overs. Raises EventsCompacted."""
        after = after or calls.after_index((await self.cluster()).applied_index)
        tries = self._tries()
        while True:
            try:
                async with await self._open(tries, calls.events_path(after, job, types, execution)) as response:
                    lines = EventLines()
                    async for line in response.content:
                        event = lines.feed(line.rstrip(b"\r\n"))
                        if event is not None:
                            after = event.id
                            yield event
                        tries = self._tries()
                    raise ConnectionResetError("the event stream ended")
            except (OSError, HaschedError, aiohttp.ClientError) as error:
                await asyncio.sleep(tries.failed(as_oserror(error), time.monotonic()))
