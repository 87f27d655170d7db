"""What is true of every state that apply can reach. `check` computes it all anew: for tests, and for doubting operators."""

from __future__ import annotations

from collections.abc import Iterator

from hasched.model.notices import DeliveryState
from hasched.model.policy import FairShare, PolicyKind, Quota, kind_of
from hasched.model.schedule import SlotOutcome
from hasched.model.states import NodeState, TaskState
from hasched.statemachine.execution_invariants import check_executions
from hasched.statemachine.fair_share import THE_POLICY
from hasched.statemachine.job import IN_BACKOFF, Job, count_phases, derive_state
from hasched.statemachine.limits import AccountKey, Limits
from hasched.statemachine.node import Node
from hasched.statemachine.outbox import MAX_OVER, MAX_WAITING
from hasched.statemachine.policies import find_policy
from hasched.statemachine.rules.fair_shares import running_rates
from hasched.statemachine.schedules import parse_parent
from hasched.statemachine.state import LIMITING, State, Tombstone
from hasched.statemachine.usage import Account, ToldOf, Usage, count_told
from hasched.statemachine.wait_invariants import check_waits


def check(state: State) -> list[str]:
    """A sentence for everything that is wrong; empty if nothing is."""
    wrong: list[str] = []
    holders: dict[tuple[int, int], str] = {}
    for node in state.nodes.values():
        wrong += _check_node(state, node, holders)
    for job in state.jobs.values():
        wrong += _check_job(state, job, holders)
    wrong += [f"node {node_id} holds {task}, which isn't active" for task, node_id in holders.items()]
    wrong += _check_tables(state)
    wrong += _check_managers(state)
    wrong += _check_policies(state)
    wrong += _check_shares(state)
    wrong += _check_usage(state)
    wrong += _check_schedules(state)
    wrong += check_executions(state)
    wrong += _check_outbox(state)
    wrong += check_waits(state)
    return wrong


def _check_job(state: State, job: Job, holders: dict[tuple[int, int], str]) -> Iterator[str]:
    """Takes the job's active attempts out of `holders`, so that what stays there belongs to nobody."""
    name = f"job {job.id}"
    counts, in_backoff = count_phases(job.phases)
    if len(job.phases) != job.count or sum(counts) != job.count:
        yield f"{name} has {sum(counts)} phases for {job.count} tasks"
    if list(job.counts) != counts:
        yield f"{name} counts {list(job.counts)}, its phases say {counts}"
    if job.in_backoff != in_backoff or job.eligible != counts[TaskState.PENDING] - in_backoff:
        yield f"{name} counts {job.in_backoff} tasks in backoff, its phases say {in_backoff}"
    if job.state is not derive_state(counts, job.count, job.cancelling):
        yield f"{name} is {job.state.name}, which its tasks don't say"
    if job.ended != (job.id in state.ended) or job.ended != bool(job.ended_ms):
        yield f"{name} is {job.state.name} and the table of ended jobs doesn't agree"
    if job.max_running and job.active > job.max_running:
        yield f"{name} runs {job.active} tasks, {job.max_running} are allowed"
    if job.ending and counts[TaskState.PENDING]:
        yield f"{name} was cancelled or met its deadline, and has waiting tasks"
    timers = dict.fromkeys(due_ms for due_ms, job_id in state.job_timers if job_id == job.id)
    if (
        not job.ended
        and not job.ending
        and any(due and due not in timers for due in (job.not_before_ms, job.deadline_ms))
    ):
        yield f"{name} has a time that would never come"
    if job.not_before_ms and job.active:
        yield f"{name} runs before its time"
    if counts[TaskState.DEADLINE_EXCEEDED] and job.exceeded is None:
        yield f"{name} has tasks that met its deadline, which it has not"
    active = job.active_attempts or {}
    if len(active) != counts[TaskState.SCHEDULED] + counts[TaskState.RUNNING]:
        yield f"{name} has {len(active)} attempts, its phases say otherwise"
    for index, attempt in active.items():
        if job.task_state(index) is not attempt.state or not attempt.state.active:
            yield f"task {job.id}.{index} is {job.task_state(index).name}, its attempt {attempt.state.name}"
        if holders.pop((job.id, index), None) != attempt.node_id:
            yield f"task {job.id}.{index} runs on {attempt.node_id}, which doesn't hold it"
        if attempt.attempt != (job.histories[index].made if job.histories and index in job.histories else 0) + 1:
            yield f"task {job.id}.{index} makes attempt {attempt.attempt}, its history says otherwise"
        if job.ending and not attempt.stopping:
            yield f"task {job.id}.{index} isn't told to stop, though its job is being ended"
    if job.yields is not None and not (job.yields and job.yields.keys() <= active.keys()):
        yield f"{name} has tasks that yield, and don't run"
    if job.checkpoints is not None and not (
        job.checkpoints and all(not job.task_state(index).final for index in job.checkpoints)
    ):
        yield f"{name} remembers checkpoints that nobody needs"
    yield from _check_gang(state, job)
    for index, choice in (job.choices or {}).items():
        if not choice or not job.has_choice(choice) or job.attempt_of(index) is None:
            yield f"task {job.id}.{index} isn't active with alternative {choice}, which is kept of it"
    waiting = dict.fromkeys((due_ms, index) for due_ms, job_id, index in state.backoffs if job_id == job.id)
    for index, history in (job.histories or {}).items():
        if [history.place_of(record.attempt) for record in history.attempts] != list(range(len(history.attempts))):
            yield f"task {job.id}.{index} has a gap in its attempts"
        if job.phases[index] == IN_BACKOFF and (history.not_before_ms, index) not in waiting:
            yield f"task {job.id}.{index} is in backoff and would never leave it"
    for index in range(job.count):
        if job.task_state(index).final and not _has_an_end(job, index):
            yield f"task {job.id}.{index} is {job.task_state(index).name} without a record of its end"


def _check_gang(state: State, job: Job) -> Iterator[str]:
    if not job.is_gang:
        if job.gang_run is not None:
            yield f"job {job.id} is no gang and runs as one"
        return
    run, active = job.gang_run, job.active_attempts or {}
    if run is None:
        if active:
            yield f"gang {job.id} runs without having been scheduled"
        return
    nodes = {rank: state.node_names[number] for number, ranks in run.nodes for rank in ranks}
    if sorted(nodes) != list(range(run.size)):
        yield f"gang {job.id} has other ranks than 0 to {run.size - 1}"
    if any(nodes.get(index) != attempt.node_id for index, attempt in active.items()):
        yield f"gang {job.id} runs elsewhere than it was scheduled"
    going_on = [index for index, attempt in active.items() if not attempt.stopping and job.yield_of(index) is None]
    if going_on and any(
        not job.task_state(rank).active and job.task_state(rank) is not TaskState.SUCCEEDED for rank in range(run.size)
    ):
        yield f"gang {job.id} goes on in part"


def _has_an_end(job: Job, index: int) -> bool:
    history = job.history_of(index)
    state = job.task_state(index)
    if history is not None and history.attempts and history.attempts[-1].state is state:
        return True
    if history is None and job.plain_end_of(index) is not None:
        return True
    if state is TaskState.DEADLINE_EXCEEDED:
        return job.exceeded is not None
    return state is TaskState.CANCELLED and ((history is not None and history.cancel is not None) or job.cancelling)


def _check_node(state: State, node: Node, holders: dict[tuple[int, int], str]) -> Iterator[str]:
    """Adds what the node holds to `holders`."""
    cpu = memory = gpus = disk = 0
    countables: dict[str, int] = {}
    for job_id, index in node.attempts:
        if (job_id, index) in holders:
            yield f"task {job_id}.{index} runs on {node.id} and on {holders[job_id, index]}"
        holders[job_id, index] = node.id
        job = state.jobs.get(job_id)
        attempt = job.attempt_of(index) if job is not None else None
        if job is None or attempt is None or attempt.attempt != node.attempts[job_id, index]:
            yield f"node {node.id} holds an attempt of {job_id}.{index} that isn't current"
            continue
        held = job.request_of(index)
        cpu += held.cpu_milli
        memory += held.memory_bytes
        gpus += held.gpus
        disk += held.disk_bytes
        for name, amount in held.countables:
            countables[name] = countables.get(name, 0) + amount
    sums = (node.allocated_cpu_milli, node.allocated_memory_bytes, node.allocated_gpus, node.allocated_disk_bytes)
    if (cpu, memory, gpus, disk) != sums or (
        len(node.facts.gpus) > 1 and gpus != sum(node.allocated_gpu_kinds.values())
    ):
        yield f"node {node.id} has other sums allocated than its attempts ask for"
    if countables != node.allocated_countables:
        yield f"node {node.id} has other countables allocated than its attempts ask for"
    if node.state is NodeState.DISCONNECTED and node.attempts:
        yield f"node {node.id} is disconnected and holds attempts"
    if state.node_timers.get(node.id, 0) != node.control.due_ms:
        yield f"node {node.id} has the clock set for another time than something comes due"
    if node.control.drain is not None and node.control.drain.expired and not node.control.drain.deadline_ms:
        yield f"node {node.id} has let a drain expire that has no deadline"
    if node.info != node.control.overrides.apply(node.said):
        yield f"node {node.id} isn't what its agent says under what operators have decided"
    ports = [
        gang.gang_run.port
        for job_id, index in node.attempts
        if index == 0 and (gang := state.jobs.get(job_id)) is not None and gang.gang_run is not None
    ]
    if len(dict.fromkeys(ports)) != len(ports):
        yield f"two gangs have the same port of node {node.id}"
    if state.node_names[node.number] != node.id or state.node_numbers.get(node.id) != node.number:
        yield f"node {node.id} isn't number {node.number}"


def check_capacity(state: State) -> list[str]:
    """Nothing is promised twice. Not an invariant of every state: an inventory may shrink below what runs."""
    return [
        f"node {node.id} has more allocated than it offers"
        for node in state.nodes.values()
        if node.allocated_cpu_milli > node.total.cpu_milli
        or node.allocated_memory_bytes > node.total.memory_bytes
        or node.allocated_gpus > node.total.gpus
        or node.allocated_disk_bytes > node.total.disk_bytes
        or any(kind < 0 or held > node.facts.gpus[kind].number for kind, held in node.allocated_gpu_kinds.items())
        or any(amount > dict(node.total.countables).get(name, 0) for name, amount in node.allocated_countables.items())
    ]


def _check_tables(state: State) -> Iterator[str]:
    if state.node_due_ms != min(state.node_timers.values(), default=0):
        yield "the clock is set for another node than the first that something comes due for"
    if any(node_id not in state.nodes for node_id in state.node_timers):
        yield "the clock is set for a node that is gone"
    if list(state.jobs) != sorted(state.jobs) or any(not 0 < job_id < state.next_job_id for job_id in state.jobs):
        yield "jobs are out of order"
    if state.submissions != {job.submission_id: job.id for job in state.jobs.values()}:
        yield "the table of submissions doesn't match the jobs"
    if any(submission_id in state.submissions for submission_id in state.tombstones):
        yield "a submission is known twice"
    if state.output_bytes != {
        job.id: sum(map(len, job.outputs.values())) for job in state.jobs.values() if job.outputs
    }:
        yield "the table of output sizes doesn't match the jobs"
    for task_state in TaskState:
        if state.job_counts[task_state] != sum(job.state is task_state for job in state.jobs.values()):
            yield f"the number of {task_state.name} jobs is wrong"
        if state.task_counts[task_state] != sum(job.counts[task_state] for job in state.jobs.values()):
            yield f"the number of {task_state.name} tasks is wrong"
    ends = [state.jobs[job_id].ended_ms for job_id in state.ended]
    if ends != sorted(ends):
        yield "the table of ended jobs isn't in the order of their ends"
    gone = [Tombstone.unpack(packed).gone_ms for packed in state.tombstones.values()]
    if gone != sorted(gone):
        yield "the tombstones aren't in the order in which they were set"


def _check_managers(state: State) -> Iterator[str]:
    managers = state.managers.values()
    if any(name != manager.manager_id for name, manager in state.managers.items()):
        yield "a manager stands under another name than its own"
    if any(manager.log_index > state.index or manager.added_ms > state.now_ms for manager in managers):
        yield "a manager was added later than now"


def _check_shares(state: State) -> Iterator[str]:
    policy = find_policy(state.policies, FairShare, THE_POLICY)
    shares = state.shares
    if shares is None or policy is None:
        if (shares is not None) != (policy is not None and policy.enabled):
            yield "fair share is counted and shouldn't be, or should be and isn't"
        return
    if shares.epoch > state.now_ms // shares.half_life_ms:
        yield "fair share counts from the future"
    rates: dict[tuple[str, ...], int] = {}
    for job, rate in running_rates(state, shares):
        for key in (("queue", job.queue), ("namespace", job.namespace), ("user", job.namespace, job.actor)):
            rates[key] = rates.get(key, 0) + rate
    found: dict[tuple[str, ...], int] = {("queue", name): each.rate for name, each in shares.queues.items()}
    found.update({("namespace", name): each.rate for name, each in shares.namespaces.items()})
    found.update({("user", *key): each.rate for key, each in shares.users.items()})
    if {key: rate for key, rate in found.items() if rate} != rates:
        yield f"fair share charges {found}, and what runs is {rates}"


def _check_outbox(state: State) -> Iterator[str]:
    seen: dict[int, str] = {}
    for target, lane in state.outbox.lanes.items():
        if target not in state.policies[PolicyKind.NOTIFICATION]:
            yield f"notices wait for {target}, which isn't there"
        if len(lane.waiting) > MAX_WAITING or max(map(len, lane.over.values())) > MAX_OVER:
            yield f"more notices than that are kept of {target}"
        if not 0 <= lane.untold <= lane.dropped:
            yield f"{target} is to be told of more dropped notices than there were"
        tables = {DeliveryState.WAITING: lane.waiting, **lane.over}
        for state_of_all, table in tables.items():
            for delivery_id, delivery in table.items():
                if (delivery.id, delivery.target, delivery.state) != (delivery_id, target, state_of_all):
                    yield f"delivery {delivery_id} stands in another's place"
                if not 0 < delivery_id < state.outbox.next_id or delivery_id in seen:
                    yield f"delivery {delivery_id} has a number that it can't have"
                if bool(delivery.ended_ms) != (delivery.state is not DeliveryState.WAITING):
                    yield f"delivery {delivery_id} is {delivery.state.name} and its end says otherwise"
                seen[delivery_id] = target


def _check_policies(state: State) -> Iterator[str]:
    for kind, table in state.policies.items():
        for name, record in table.items():
            if record.name != name or kind_of(record.body) is not kind:
                yield f"{kind}/{name} stands in another's place"
            if record.log_index > state.index or not record.created_ms <= record.changed_ms <= state.now_ms:
                yield f"{kind}/{name} was changed later than now"
            if isinstance(record.body, Quota):
                parent, namespace = record.body.parent, record.body.namespace
                if parent and parent not in state.policies[PolicyKind.QUOTA]:
                    yield f"{kind}/{name} lacks its parent"
                if namespace and namespace not in state.policies[PolicyKind.NAMESPACE]:
                    yield f"{kind}/{name} lacks its namespace"


def _check_schedules(state: State) -> Iterator[str]:
    jobs: dict[str, dict[int, None]] = {}
    for job in state.jobs.values():
        if not job.ended and (found := parse_parent(job.parent)) is not None:
            jobs.setdefault(found[0], {})[job.id] = None
    if state.schedule_jobs != jobs:
        yield f"the table of jobs of schedules is {state.schedule_jobs}, their jobs say {jobs}"
    executions: dict[str, dict[int, None]] = {}
    for execution in state.executions.values():
        if not execution.ended and (found := parse_parent(execution.parent)) is not None:
            executions.setdefault(found[0], {})[execution.id] = None
    told: ToldOf = {}
    for execution in state.executions.values():
        if not execution.ended:
            count_told(told, execution.plan.told, 1)
    if state.told_executions != told:
        yield f"{state.told_executions} are told of executions, and these say {told}"
    if state.schedule_executions != executions:
        yield f"the table of executions of schedules is {state.schedule_executions}, and these say {executions}"
    if state.schedule_sizes.keys() != state.schedules.keys() or state.schedule_bytes != sum(
        state.schedule_sizes.values()
    ):
        yield "the size of all schedules is wrong"
    for name, schedule in state.schedules.items():
        slots = [each.slot_ms for each in schedule.pending]
        if schedule.name != name or not schedule.created_ms <= schedule.changed_ms <= state.now_ms:
            yield f"schedule {name} stands in another's place, or was changed later than now"
        if list(schedule.pending) != sorted(schedule.pending) or any(slot > schedule.planned_ms for slot in slots):
            yield f"schedule {name} has pending slots out of order, or beyond what is planned"
        if len(dict.fromkeys(slots)) != len(slots):
            yield f"schedule {name} has a slot twice"
        rows = list(schedule.ledger())
        fired = [row.first_ms for row in rows if row.outcome in (SlotOutcome.FIRED, SlotOutcome.CAUGHT_UP)]
        if len(dict.fromkeys(fired)) != len(fired) or any(slot in slots for slot in fired):
            yield f"schedule {name} has fired a slot twice, or would"
        if any((row.run_id and not row.outcome.fired) or row.settled_ms > state.now_ms for row in rows):
            yield f"schedule {name} has rows that can't be"
        if sum(row.number for row in rows) > sum(schedule.counts):
            yield f"schedule {name} counts fewer slots than it has rows"
        if schedule.due_ms and (schedule.due_ms, name) not in state.schedule_timers:
            yield f"schedule {name} has a time that would never come"
        if (schedule.planned_ms, name) not in state.schedule_plans:
            yield f"schedule {name} would not be planned any further"


def _check_usage(state: State) -> Iterator[str]:
    """What is held, and what of quotas and caps is used, against a count from nothing."""
    counted, usage = Usage(), state.usage
    counted.open(usage.lines(), usage.workflow_weeks(state.now_ms), state.now_ms)
    for job in state.jobs.values():
        counted.take_in(job, state.now_ms)
    quotas, caps = ({name: each.body for name, each in state.policies[kind].items()} for kind in LIMITING)
    counted.set_policies(quotas, caps, state.now_ms)
    yield from _compare_accounts("account", usage.accounts, counted.accounts, state.now_ms)
    yield from _compare_accounts("workflows of", usage.of_workflows, counted.of_workflows, state.now_ms)
    mine, theirs = usage.what_runs, counted.what_runs
    if (mine.subjects, mine.charged) != (theirs.subjects, theirs.charged):
        yield "what runs is counted for other names, users, tags, semaphores or charges than the jobs say"
    if usage.semaphore_jobs != counted.semaphore_jobs:
        yield "the takers of semaphores are others than the jobs say"
    if usage.told_jobs != counted.told_jobs:
        yield "others are told of jobs than these say"
    if usage.queues != counted.queues:
        yield f"queues count {usage.queues} running tasks, their jobs say {counted.queues}"
    yield from _compare_limits(usage.limits, counted.limits, state.now_ms)


def _compare_accounts(
    what: str, accounts: dict[AccountKey, Account], counted: dict[AccountKey, Account], now_ms: int
) -> Iterator[str]:
    for key in sorted(counted | accounts):
        one, other = accounts.get(key) or Account(), counted.get(key) or Account()
        if one.sums() != other.sums():
            yield f"{what} {key} counts {one.sums()}, its jobs say {other.sums()}"
        if one.meter.used(now_ms) != other.meter.used(now_ms):
            yield f"{what} {key} measures {one.meter.used(now_ms)} GPU-ms, its jobs {other.meter.used(now_ms)}"


def _compare_limits(limits: Limits, counted: Limits, now_ms: int) -> Iterator[str]:
    for key, node in limits.quotas.items():
        other = counted.quotas.get(key)
        for name, share in node.shares.items():
            used = other.shares[name].used if other is not None else 0
            if share.used != used:
                yield f"{node.title} counts {share.used} of {name}, its jobs say {used}"
        if node.week_limit is not None and node.meter.used(now_ms) != (other.meter.used(now_ms) if other else 0):
            yield f"{node.title} measures another GPU time than its jobs"
    in_use = {cap.key: cap for cap in counted.caps_in_use()} if limits.caps else {}
    for key, cap in limits.caps.items():
        used = in_use[key].used if key in in_use else 0
        if cap.used != used:
            yield f"{cap.title} counts {cap.used}, its tasks say {used}"


def check_limits(state: State) -> list[str]:
    """No quota and no cap is exceeded. Not an invariant of every state: a limit may be set below what runs, and what waits
    grows when running tasks are to be tried again."""
    over = []
    for node in state.usage.limits.quotas.values():
        for name, share in node.shares.items():
            most = share.subtree if node.parent is None else share.subtree + (share.borrow or 0)
            if (
                (node.parent is None or share.borrow is not None)
                and share.used > most
                and not name.startswith("queued")
            ):
                over.append(f"{node.title} has {share.used} of {name} in use, and may have {most}")
    return over + [
        f"{cap.title} has {cap.used} units in use, and has {cap.units}"
        for cap in state.usage.limits.caps_in_use()
        if cap.used > cap.units
    ]
