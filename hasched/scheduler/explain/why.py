"""Why a job waits, in full: every blocker at once, by class of node, and the smallest changes that would start a task.

The answer is worked out from the state alone, so any manager gives it. At 10,000 nodes it takes some milliseconds: what is free
on them is kept by class (`classes.py`), and whatever is asked of them is asked of a whole class at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from hasched.model.answers import BlockerView, ChangeView, NodeClassView, RemedyView, Why
from hasched.model.reasons import ReasonCode
from hasched.model.spec import Resources
from hasched.model.times import format_time
from hasched.model.units import format_duration
from hasched.model.words import counted
from hasched.scheduler.blockers import Blocker, Change, Target
from hasched.scheduler.explain.amounts import Amount, amounts_of
from hasched.scheduler.explain.classes import NodeClass, NodeClasses
from hasched.scheduler.explain.devices import find_unwell
from hasched.scheduler.explain.gangs import find_shortage, rules_blocker
from hasched.scheduler.explain.groups import Group, sort_nodes
from hasched.scheduler.explain.lacks import Asker, Known, Lack, find_shortages
from hasched.scheduler.explain.marks import GPUS, SLOTS
from hasched.scheduler.explain.remedies import find_remedies
from hasched.scheduler.explain.summary import sum_up
from hasched.scheduler.explain.surroundings import KEYS
from hasched.scheduler.gates import Gate, standard_gates
from hasched.scheduler.keeping import NOTHING, Kept
from hasched.scheduler.order import Order, group_of
from hasched.scheduler.slots import MAX_ATTEMPTS_PER_NODE
from hasched.statemachine.job import IN_BACKOFF, Job
from hasched.statemachine.node import Node
from hasched.statemachine.relations import relations_of
from hasched.statemachine.rules.dependencies import tell_waits
from hasched.statemachine.state import State

EXAMPLES = 3
_BY_AMOUNT = (ReasonCode.KEPT_FOR_GPUS, *KEYS)  # a node that lacks these for one task may count for some of a gang
COUNT_SLICE = 2_000  # jobs looked at between two steps of `count_ahead`


def explain_waiting(
    state: State,
    job: Job,
    classes: NodeClasses | None = None,
    known: Known | None = None,
    gates: Sequence[Gate] | None = None,
) -> Why:
    """Everything but the job's place in the order and its forecast. `classes` is kept from one question to the next."""
    waiting = 0 if job.ended else job.eligible + job.in_backoff
    if not waiting:
        return Why(job_id=job.id, name=job.name, log_index=state.index, waiting=0)
    classes = classes or NodeClasses()
    asker = Asker(state, job, known)
    groups = sort_nodes(classes.members(state), asker)
    of_job = find_job_blockers(state, job, standard_gates() if gates is None else gates)
    if job.starts_together:  # room for one task doesn't help
        of_job += _find_gang_blockers(state, job, groups, known.kept if known is not None else NOTHING)
        groups_for_one: Sequence[Group] = [group for group in groups if group.signature.open]
    else:
        groups_for_one = groups
    remedies = find_remedies(state, job, asker, of_job, groups_for_one)
    return Why(
        job_id=job.id,
        name=job.name,
        log_index=state.index,
        waiting=waiting,
        blockers=[view_blocker(each) for each in (*of_job, *sum_up(state, asker.open_requests, groups, bool(of_job)))],
        classes=_view_classes(asker, groups),
        remedies=[
            RemedyView(
                text=each.text,
                nodes=each.nodes,
                changes=[_view_change(change) for change in each.changes],
                shared=each.shared,
            )
            for each in remedies
        ],
    )


def find_job_blockers(state: State, job: Job, gates: Sequence[Gate]) -> list[Blocker]:
    """What keeps the job back on whichever node."""
    found = []
    for gate in gates:
        gate.rebuild(state)
        found += gate.blockers(state, job)
    if not job.eligible and job.held_back:
        change = Change("leave out dependency", key="dependency")
        found.append(Blocker(ReasonCode.DEPENDENCY, tell_waits(state, job), change=change))
    elif not job.eligible and job.in_backoff:
        found.append(_backoff(state, job))
    return found


def _find_gang_blockers(state: State, job: Job, groups: Sequence[Group], kept: Kept) -> Iterator[Blocker]:
    """Fewer tasks would start where there is room for some, if they all ask for the same and have no rules toward others."""
    assert job.gang is not None, "it starts together"
    alike = not job.gang.groups
    usable = [group for group in groups if not group.signature.of_class]
    if job.placement is not None and job.placement.constraints:
        usable = [group for group in usable if group.first.admits(job.placement)]
    open_now = [group for group in usable if all(lack.code in _BY_AMOUNT for lack in group.signature.of_itself)]

    def find(request: Resources) -> Iterator[Node]:
        if alike:  # then it is what the groups were sorted by
            return (node for group in open_now if not group.signature.mark for node in group.nodes)
        return (node for group in open_now for node in group.find(request))

    shortage = find_shortage(job, lambda _: (node for group in usable for node in group.nodes), find, kept)
    if shortage is None:
        if (blocker := rules_blocker(state, job, open_now, kept)) is not None:
            yield blocker
        return
    least = max(job.floor, 1)
    ruled = any(not relation.weight for relation in relations_of(job))
    reason, room = shortage
    change = None
    if room and alike and not ruled:
        key = "count" if job.gang.min_count == job.count else "min_count"
        change = Change(f"be content with {counted(room, 'task')} at once instead of {least}", key=key, value=room)
    yield Blocker(ReasonCode.GANG, reason.text, change=change)


def _backoff(state: State, job: Job) -> Blocker:
    histories = (job.histories or {}).items()
    due_ms = min(history.not_before_ms for index, history in histories if job.phases[index] == IN_BACKOFF)
    wait = format_duration(max(0, due_ms - state.now_ms) // 1000 * 1000)
    text = f"{counted(job.in_backoff, 'task')} waiting to be tried again, the first for {wait} more"
    change = Change(f"wait until {format_time(due_ms)}", Target.TIME, value=due_ms)
    return Blocker(ReasonCode.BACKOFF, text, change=change)


# ── By class of node ────────────────────────────────────────────────────────────────────────────────────────────────


def _view_classes(asker: Asker, groups: Sequence[Group]) -> list[NodeClassView]:
    """The largest class first."""
    by_class: dict[NodeClass, list[Group]] = {}
    for group in groups:
        by_class.setdefault(group.node_class, []).append(group)
    views = [_view_class(asker, node_class, of_class) for node_class, of_class in by_class.items()]
    return sorted(views, key=lambda view: (-view.nodes, view.description, view.examples))


def _view_class(asker: Asker, node_class: NodeClass, groups: Sequence[Group]) -> NodeClassView:
    rules: dict[str, Blocker] = {}
    shortages: dict[_Short, _Free] = {}
    for group in groups:
        number = len(group)
        for blocker in _rules_of(asker, group):
            before = rules[blocker.text].nodes if blocker.text in rules else 0
            rules[blocker.text] = Blocker(blocker.code, blocker.text, before + number)
        for short, free in _shortages_of(asker, group):
            known = shortages.get(short, free._replace(nodes=0))
            shortages[short] = _Free(
                known.nodes + free.nodes, max(known.most, free.most), free.tell, known.there or free.there
            )
    blockers = [
        *rules.values(),
        *(Blocker(short.code, _tell_shortage(short, free), free.nodes) for short, free in shortages.items()),
        *find_unwell(asker.requests, groups),
    ]
    return NodeClassView(
        nodes=sum(map(len, groups)),
        description=node_class.words,
        total=node_class.total,
        examples=list(islice((node_id for group in groups for node_id in group.ids), EXAMPLES)),
        open=sum(len(group) for group in groups if group.signature.open),
        blockers=[view_blocker(blocker) for blocker in blockers],
    )


class _Short(NamedTuple):
    """A resource that is short."""

    code: ReasonCode
    asked: str  # how much of it, in words


class _Free(NamedTuple):
    """On how many nodes it is short, the most of it that is free on one, and whether they have any of it at all."""

    nodes: int
    most: int
    tell: Callable[[int], str]
    there: bool = True


def _rules_of(asker: Asker, group: Group) -> Iterator[Blocker]:
    for lack in (*group.signature.of_class, *group.signature.of_itself):
        yield Blocker(lack.code, _tell(lack))
    if (unsuited := _unsuited(asker, group)) is not None:
        yield Blocker(unsuited.code, _tell(unsuited))


def _unsuited(asker: Asker, group: Group) -> Lack | None:
    """There are GPUs, and not those that the job wants."""
    if not group.signature.mark & GPUS:
        return None
    lacks = find_shortages(group.first, asker.requests[group.signature.choice])
    return next((lack for lack in lacks if lack.code in (ReasonCode.GPU_MODEL, ReasonCode.GPU_MEMORY)), None)


def _shortages_of(asker: Asker, group: Group) -> Iterator[tuple[_Short, _Free]]:
    """Each resource that is short, and the most of it that is free on one of the group's nodes."""
    mark, request = group.signature.mark, asker.requests[group.signature.choice]
    for amount in amounts_of(request):
        if mark & amount.bit and not (amount.bit == GPUS and _unsuited(asker, group) is not None):
            most = amount.rounded(max(0, *group.column(amount.column, amount.free)))
            there = _is_there(group.node_class.total, amount)
            yield _Short(amount.code, amount.tell(amount.asked)), _Free(len(group), most, amount.tell, there)
    if mark & SLOTS:
        asked = f"a place beside the {MAX_ATTEMPTS_PER_NODE} tasks that it runs"
        yield _Short(ReasonCode.INSUFFICIENT_SLOTS, asked), _Free(len(group), 0, str)


def _is_there(total: Resources, amount: Amount) -> bool:
    if amount.code is ReasonCode.INSUFFICIENT_COUNTABLE:
        return dict(total.countables).get(amount.name, 0) > 0
    return amount.bit != GPUS or total.gpus > 0


def _tell_shortage(short: _Short, free: _Free) -> str:
    most = f"the most that is free is {free.tell(free.most)}" if free.most else "nothing is free"
    if not free.there:
        most = "there is none"
    return f"it asks for {short.asked}; {most}"


def _tell(lack: Lack) -> str:
    match lack.code:
        case ReasonCode.NODE_UNHEALTHY:
            return f"the node is {lack.detail}"
        case ReasonCode.NODE_UNREACHABLE:
            return "the node has no connection to the leader now, or wants no work"
        case ReasonCode.RESERVED:
            return f"the node is kept for job {lack.detail}, which stands before this one"
        case ReasonCode.KEPT_FOR_GPUS:
            return f"each free GPU of the node keeps {lack.detail} from jobs without GPUs"
        case ReasonCode.NODE_CORDONED:
            return "the node is cordoned"
        case ReasonCode.NODE_DRAINING:
            return "the node is being drained"
        case ReasonCode.NODE_QUARANTINED:
            return "the node is in quarantine: launches failed there"
        case ReasonCode.POOL:
            return f"the node is in the pool {lack.detail}, which the job doesn't name"
        case ReasonCode.TAINT:
            return f"the job doesn't tolerate the taint {lack.detail}"
        case ReasonCode.CONSTRAINT:
            return f"the node doesn't meet {lack.detail}"
        case ReasonCode.RESERVATION:
            when = f"from {format_time(lack.free)} to {format_time(lack.total)}"
            return f"the reservation {lack.detail} keeps the node for others {when}, and the job may run into it"
        case ReasonCode.AFFINITY | ReasonCode.ANTI_AFFINITY | ReasonCode.SPREAD | ReasonCode.FILTER:
            return lack.detail
        case ReasonCode.GPU_MODEL:
            return f"its GPUs are {lack.detail}"
        case ReasonCode.GPU_MEMORY:
            return "its GPUs have too little memory"
        case _:
            return lack.code.meaning


# ── Its place in the order ──────────────────────────────────────────────────────────────────────────────────────────


def count_ahead(state: State, job: Job, order: Order) -> Iterator[int]:
    """How many jobs with waiting tasks come before it, so far; a slice at each step, the last number is the whole.

    Entries may be applied between the steps: then it is a number of about now.
    """
    order.rebuild(state)
    mine = order.rank(group_of(job), job.id)
    ahead = 0
    for number, job_id in enumerate(tuple(state.jobs), 1):
        other = state.jobs.get(job_id)
        if other is not None and not other.ended and other.eligible and order.rank(group_of(other), job_id) < mine:
            ahead += 1
        if not number % COUNT_SLICE:
            yield ahead
    yield ahead


# ── Views ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def view_blocker(blocker: Blocker) -> BlockerView:
    return BlockerView(
        code=blocker.code,
        text=blocker.text,
        doc=f"docs/reasons.md#{blocker.code}",
        nodes=blocker.nodes,
        change=_view_change(blocker.change) if blocker.change is not None else None,
    )


def _view_change(change: Change) -> ChangeView:
    return ChangeView(text=change.text, target=change.target, key=change.key, value=change.value)
