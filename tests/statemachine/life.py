"""A life: a seeded run of commands of every kind, sensible ones and nonsense, as a cluster would send them."""

from __future__ import annotations

from random import Random

from hasched.model.notices import Channel, Topic
from hasched.model.policy import (
    Amounts,
    Cap,
    CapSubject,
    FairShare,
    Namespace,
    Notification,
    Policy,
    PolicyKind,
    Price,
    Queue,
    Quota,
    kind_of,
)
from hasched.model.spec import Condition, Dependency, JobSpec, Resources
from hasched.model.states import ConditionKind, EndKind, NodeState, OnBrokenDependency
from hasched.model.taints import Taint
from hasched.model.units import HOUR_MS
from hasched.model.wire import AttemptKey
from hasched.statemachine.commands import (
    AddManager,
    Command,
    DeleteJob,
    DeletePolicy,
    DrainNode,
    EndQuarantine,
    Placement,
    PlacePlan,
    PreemptAttempts,
    PreemptTasks,
    PutPolicy,
    QuarantineNode,
    RecordManagers,
    RecordOrigin,
    RemoveManager,
    RemoveNode,
    ResumeJob,
    RetryNotifications,
    SetNodeEligibility,
    SetNodeProperties,
    SetNodeState,
    SettleDeliveries,
    Settlement,
    SubmitJob,
    SuspendJob,
    TryNotification,
    UndrainNode,
    UpdateJob,
    WatchNodes,
)
from hasched.statemachine.manager import ManagerAddress
from hasched.statemachine.state import RETENTION_MS, Job
from tests.statemachine.machine import Machine, retries
from tests.statemachine.schedule_life import live_by_schedule

NODES = ("n1", "n2", "n3")


def live(machine: Machine, dice: Random, steps: int) -> None:
    """Let so many things happen. The same dice and state give the same life."""
    for _ in range(steps):
        machine.now_ms += dice.randrange(200)
        _happen(machine, dice)


def _happen(machine: Machine, dice: Random) -> None:
    jobs = machine.state.jobs
    job = jobs[dice.choice(list(jobs))] if jobs else machine.submit()
    node_id = dice.choice(NODES)
    match dice.randrange(27):
        case 0 | 1 | 2:
            spec = JobSpec(
                name="job",
                command=("true",),
                count=dice.choice((1, 1, 1, 3, 3, 3, 3, 300)),
                priority=dice.choice((0, 0, 5)),
                **dice.choice(({}, {}, {"max_running": 2}, {"gang": True}, {"gang": True, "min_count": 1})),
                labels=dice.choice(({}, {"team": "red"})),
                not_before_after_ms=dice.choice((0, 0, 0, 0, 0, 0, 0, 700)),
                deadline_after_ms=dice.choice((0, 0, 0, 0, 0, 1500)),
                retries=retries(dice.randrange(3), node_lost=dice.randrange(3), initial_ms=dice.choice((0, 500))),
                resources=Resources(
                    cpu_milli=dice.choice((500, 2000)), countables=dice.choice(((), (("licence", 1),)))
                ),
                dependency=_draw_dependency(machine, dice),
                on_broken_dependency=dice.choice(list(OnBrokenDependency)),
            )
            machine.do(SubmitJob(submission_id=f"submission-{dice.randrange(10_000)}", actor="ada", spec=spec))
        case 3:
            machine.node(node_id, cpu=dice.randrange(2, 6), countables=(("licence", 3),))
        case 4 | 5 | 6 | 7:
            plan = [
                Placement(number, dice.choice(NODES), tuple(dice.sample(range(one.count), min(one.count, 3))))
                for number, one in list(jobs.items())[-6:]
            ]
            machine.do(PlacePlan(placements=tuple(plan)))
            _place_gangs(machine, dice)
        case 8 | 9 | 10 | 11 | 12:
            _report(machine, dice, node_id)
        case 13:
            machine.cancel(job, *dice.choice(((), (0,), (0,))))
        case 14:
            commands: list[Command] = [
                SuspendJob(job_id=job.id, actor="ada"),
                ResumeJob(job_id=job.id, actor="ada"),
                DeleteJob(job_id=job.id, actor="ada"),
                UpdateJob(
                    job_id=job.id,
                    actor="ada",
                    priority_class=dice.choice((None, "high", "none such")),
                    queue=dice.choice((None, "batch")),
                    deadline_after_ms=dice.choice((None, 900)),
                    dependency=dice.choice((None, _draw_dependency(machine, dice) or Dependency(()))),
                ),
            ]
            machine.do(dice.choice(commands), dice.choice(commands))
        case 15:
            state, node = dice.choice(list(NodeState)), machine.state.nodes.get(node_id)
            judged = dice.choice((0, node.log_index if node is not None else 0, 1))
            term = dice.choice((0, machine.state.watch_term, 1))
            machine.do(
                SetNodeState(node_id=node_id, state=state, reason="judged", term=term, log_index=judged),
                WatchNodes(term=dice.randrange(9)),
            )
        case 16:
            machine.do(RemoveNode(node_id=node_id, actor="ada"))
            _tell(machine, Random(machine.state.index))
        case 17:
            _report_late(machine, job)
        case 18:
            _change_managers(machine, dice)
        case 23:
            _change_policies(machine, dice)
        case 19:
            _control_node(machine, dice, node_id)
            _share(machine, dice)
            live_by_schedule(machine, dice)
        case 26:
            _end_gang(machine, dice)
        case 24 | 25:
            _preempt(machine, dice, job)
        case _:
            machine.wait(dice.choice((0, 500, 2000, 2000, 2000, RETENTION_MS // 4)))


def _tell(machine: Machine, dice: Random) -> None:
    """Somebody wants to be told, and a leader delivers some of what waits, or can't."""
    name = dice.choice(("ops", "chat"))
    events = tuple(sorted(dice.sample([topic.value for topic in Topic], 6)))
    body = Notification(to=Channel.EMAIL, recipients=("ada@example.com",), events=events, give_up_after_ms=5000)
    commands: list[Command] = [
        PutPolicy(kind=PolicyKind.NOTIFICATION, name=name, body=body, actor="ada"),
        DeletePolicy(kind=PolicyKind.NOTIFICATION, name=name, actor="ada"),
        TryNotification(target=name, actor="ada"),
        RetryNotifications(target=name, actor="ada"),
    ]
    machine.do(dice.choices(commands, (6, 1, 2, 2))[0])
    waits = list(machine.state.outbox.waiting(name).values())[:5]
    settled = [Settlement(name, each.id, each.attempts + 1, dice.random() < 0.5, "refused") for each in waits]
    machine.do(SettleDeliveries(settled=tuple(settled + settled[:1])))


def _draw_dependency(machine: Machine, dice: Random) -> Dependency | None:
    """On some of the latest jobs; now and then one that can't be."""
    if dice.random() < 0.7:
        return None
    conditions: dict[Condition, None] = {}
    for kind in dice.choices([*ConditionKind, ConditionKind.AFTER], k=dice.choice((1, 1, 2))):
        named = kind is not ConditionKind.SINGLETON
        job_id = max(1, machine.state.next_job_id - dice.randrange(8)) if named else 0
        conditions[Condition(kind, job_id, dice.choice((0, 300, 10**10)) if kind is ConditionKind.AFTER else 0)] = None
    return Dependency(tuple(conditions), dice.random() < 0.3)


def _share(machine: Machine, dice: Random) -> None:
    if dice.random() < 0.3:
        body = FairShare(half_life_ms=dice.choice((60_000, 120_000)), enabled=dice.random() < 0.8)
        machine.do(PutPolicy(kind=PolicyKind.FAIR_SHARE, name="default", body=body, actor="ada"))


def _control_node(machine: Machine, dice: Random, node_id: str) -> None:
    commands: list[Command] = [
        SetNodeEligibility(node_id=node_id, eligible=dice.random() < 0.6, actor="ada", reason=dice.choice(("", "fan"))),
        DrainNode(node_id=node_id, actor="ada", wait_ms=dice.choice((None, 0, 1000, -1))),
        UndrainNode(node_id=node_id, actor="ada"),
        UndrainNode(node_id=node_id, actor="ada"),
        QuarantineNode(node_id=node_id, reason="launches fail", wait_ms=dice.choice((0, 1000))),
        EndQuarantine(node_id=node_id, actor=dice.choice(("", "ada"))),
        SetNodeProperties(
            node_id=node_id,
            actor="ada",
            pool=dice.choice(("", "default", "lab", "?")),
            labels=dice.choice(({}, {"rack": "r1"}, {"rack": None})),
            taints=dice.choice(({}, {"loud": Taint("loud")}, {"loud": None})),
            reset=dice.random() < 0.5,
        ),
    ]
    machine.do(dice.choice(commands), dice.choice(commands))


def _change_policies(machine: Machine, dice: Random) -> None:
    name, other = dice.choice("abc"), dice.choice("abc")
    bodies: list[Policy] = [
        Namespace(),
        Queue(priority=dice.randrange(3)),
        Quota(namespace=dice.choice(("", "default", other)), parent=dice.choice(("", other)), nominal=_limits(dice)),
        Quota(each_user=True, nominal=_limits(dice)),
        Cap(units=dice.randrange(4)),
        Cap(units=dice.randrange(1, 4), subject=dice.choice(list(CapSubject)[1:]), match=dice.choice(("", "job"))),
        Price(cpu_micro=dice.randrange(9)),
    ]
    body = dice.choice(bodies)
    machine.do(
        PutPolicy(kind=kind_of(body), name=name, body=body, actor="ada", if_index=dice.choice((None, None, 0))),
        DeletePolicy(kind=kind_of(dice.choice(bodies)), name=dice.choice((name, other, "default")), actor="ada"),
    )


def _place_gangs(machine: Machine, dice: Random) -> None:
    """On two nodes, as many of each as its smallest size, or one more."""
    for job in list(machine.state.jobs.values())[-9:]:
        if job.is_gang:
            ranks = tuple(range(min(job.floor + dice.randrange(2), job.count)))
            cut, names = dice.randrange(len(ranks) + 1), dice.sample(NODES, 2)
            parts = [each for each in zip(names, (ranks[:cut], ranks[cut:]), strict=True) if each[1]]
            machine.gang(job, *parts, port=29_400 + dice.randrange(3))


def _end_gang(machine: Machine, dice: Random) -> None:
    """One after the other succeeds, but for the last now and then."""
    for job in list(machine.state.jobs.values())[-9:]:
        if job.is_gang and job.active > 1:
            last, fails = max(job.active_attempts or {}), dice.random() < 0.5
            for index, active in sorted((job.active_attempts or {}).items()):
                code = int(fails and index == last)
                machine.end(job, index, active.attempt, active.node_id, kind=EndKind.EXITED, code=code)
            return


def _preempt(machine: Machine, dice: Random, job: Job) -> None:
    """For an operator, or for the most urgent job."""
    running = [
        AttemptKey(*task, attempt + dice.choice((0, 0, 1)))
        for _, node in sorted(machine.state.nodes.items())
        for task, attempt in sorted(node.attempts.items())
    ]
    urgent = max(machine.state.jobs.values(), key=lambda each: (each.eligible > 0, each.priority, each.id))
    machine.do(
        PreemptTasks(job_id=job.id, actor="ada", reason="maintenance", indices=dice.choice(((), (0,), (9,)))),
        PreemptAttempts(attempts=tuple(running[:2]), for_job=urgent.id),
    )


def _limits(dice: Random) -> Amounts:
    return Amounts(
        cpu_milli=dice.choice((None, 1000, 4000)),
        running_tasks=dice.choice((None, None, 3)),
        running_jobs=dice.choice((None, None, 2)),
        queued_jobs=dice.choice((None, None, 9)),
        gpu_ms_per_week=dice.choice((None, None, 278 * HOUR_MS)),
        countables=dice.choice(((), (("licence", 2),))),
    )


def _change_managers(machine: Machine, dice: Random) -> None:
    name, host = f"m{dice.randrange(1, 10)}", f"m{dice.randrange(1, 10)}"
    members = tuple(ManagerAddress(f"m{n}", f"https://m{n}:7411", f"m{n}:7412") for n in range(1, 4))
    commands: list[Command] = [
        RecordManagers(members=dice.choice((members, ()))),
        RecordOrigin(origin=host),
        RemoveManager(manager_id=name, actor="ada"),
        AddManager(manager_id=name, actor="ada", api_url=f"https://{name}:7411", raft_address=f"{name}:7412"),
        AddManager(manager_id=name, actor="ada", api_url=f"https://{host}:7411", raft_address=f"{host}:7412"),
    ]
    machine.do(dice.choice(commands), dice.choice(commands))


def _report(machine: Machine, dice: Random, node_id: str) -> None:
    """What runs on the node starts and ends, sometimes twice, sometimes as another attempt than is current."""
    node = machine.state.nodes.get(node_id)
    reports = []
    for (job_id, index), current in sorted(node.attempts.items() if node is not None else ()):
        job = machine.state.jobs[job_id]
        attempt = current + dice.choice((0, 0, 0, 0, 0, -1, 1))
        if dice.random() < 0.7:
            reports.append(machine.started(job, index, attempt))
        if dice.random() < 0.2:
            reports.append(machine.checkpointed(job, index, attempt))
        if dice.random() < 0.6:
            kind = dice.choice((EndKind.EXITED, EndKind.EXITED, *EndKind))
            output = dice.choice((b"", b"", b"42"))
            code = dice.choice((0, 0, 1, 2**40))
            reports += [machine.ended(job, index, attempt, kind=kind, code=code, output=output)] * dice.choice(
                (1, 1, 2)
            )
    dice.shuffle(reports)
    machine.report(*reports, node_id=node_id)


def _report_late(machine: Machine, job: Job) -> None:
    """The lost attempts of a job report after all."""
    for index, history in list((job.histories or {}).items()):
        for record in history.attempts:
            if not record.reported:
                machine.end(job, index, record.attempt, record.node_id)
                return
