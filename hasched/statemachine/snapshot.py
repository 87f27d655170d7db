"""The whole state as a stream of bytes: captured at a point in time while the state moves on, and restored from it.

A stream is a sequence of records, each a 4-byte length and a MessagePack document: a header, tombstones, schedules,
deliveries, ends of jobs that are gone, memos, jobs in the order of their ids, executions, and an end that counts the jobs. How
the stream is cut into chunks has no meaning. What can be computed (counters, allocations, the retry heap, the order of ends) is
left out and built again.

A capture costs lists of ids; the encoding happens chunk by chunk between further entries. Before `evolve` first changes a
job that isn't written yet, `State.touch` hands it over to be encoded as it was (copy on write).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from hasched.model.notices import Notice
from hasched.model.states import NodeState, TaskState
from hasched.model.wire import NodeInfo
from hasched.statemachine import columns
from hasched.statemachine.control import FREE, Control
from hasched.statemachine.execution import Execution, Phase
from hasched.statemachine.fair_share import AccountRecord
from hasched.statemachine.job import IN_BACKOFF, PHASES, Job, count_phases, derive_state
from hasched.statemachine.manager import ManagerRecord
from hasched.statemachine.memos import Asked, Memo, MemoRecords, Recalled
from hasched.statemachine.node import Node
from hasched.statemachine.outbox import Delivery, LaneRecord
from hasched.statemachine.policies import PolicyRecord, put_policies
from hasched.statemachine.rules import dependencies, fair_shares, releases
from hasched.statemachine.rules.clock import renew_bounds
from hasched.statemachine.schedules import Schedule, is_sound_ledger
from hasched.statemachine.state import State, Tombstone
from hasched.statemachine.streams import Records, SnapshotInvalid, expect, frame, sized_records, take
from hasched.statemachine.templates import Template
from hasched.statemachine.usage import LedgerLine, WorkflowWeek
from hasched.statemachine.waits import KeptEnd

FORMAT = "hasched-state"
VERSION = 1
CHUNK_BYTES = 128 * 1024  # what one slice of the loop encodes: about 600 jobs, in less than a millisecond
_TOMBSTONES_PER_RECORD = 1000
_SCHEDULES_PER_RECORD = 8
_DELIVERIES_PER_RECORD = 100


class _NodeRecord(msgspec.Struct, frozen=True, array_like=True):
    id: str
    info: NodeInfo
    state: NodeState
    reason: str
    registered_ms: int
    changed_ms: int
    log_index: int


class _Following(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many of each follow the deliveries."""

    kept_ends: int = 0
    memos: int = 0
    asked: int = 0
    recalled: int = 0


class _More(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What would make the header's own fields more than 15: then MessagePack would write even an old one another way."""

    policies: list[PolicyRecord] = []
    ledger: list[LedgerLine] = []
    week: int = 0
    share_epoch: int = 0
    shares: list[AccountRecord] = []
    templates: list[Template] = []
    next_execution_id: int = 1
    executions: int = 0  # so many follow the jobs
    schedules: int = 0
    workflow_weeks: list[WorkflowWeek] = []
    memos: MemoRecords | None = None  # as they were written before they had records of their own
    next_delivery_id: int = 1
    lanes: list[LaneRecord] = []
    deliveries: int = 0  # so many follow the schedules
    following: _Following | None = None


class _Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A field that is added later has a default: it is left out where it says nothing, so old digests stay true."""

    format: str
    version: int
    index: int
    now_ms: int
    next_job_id: int
    node_names: list[str]
    nodes: list[_NodeRecord]
    tombstones: int
    jobs: int
    watch_term: int = 0
    managers: list[ManagerRecord] = []
    origin: str = ""
    plan_index: int = 0
    controls: list[tuple[str, Control]] = []  # of the nodes that operators or the leader have decided something about
    more: _More | None = None


_NOTHING_MORE = _More()
_NOTHING_FOLLOWS = _Following()


class _End(msgspec.Struct, frozen=True):
    jobs: int


STREAM_TYPES = (_Header, Tombstone, Schedule, Delivery, KeptEnd, Memo, Asked, Recalled, Job, Execution, _End)

_encoder = msgspec.msgpack.Encoder()
_header_decoder = msgspec.msgpack.Decoder(_Header)
_FIRST_STATES = 9  # counts of the first version
_FIRST_FIELDS = 28  # of a job in the first version
_ARRAY = struct.Struct(">BH")
_ARRAY_CODE = 0xDC  # MessagePack's array with a length of 16 bits
_MAP_CODE, _SMALL_MAP = 0xDE, 0x80  # a map with a length of 16 bits, and of 4
_ADDED_FIELDS = tuple(  # those that came later, the last first, with their defaults and what these take
    (field.name, field.default, len(_encoder.encode(field.default)))
    for field in reversed(msgspec.structs.fields(Job)[_FIRST_FIELDS:])
)
_tombstones_decoder = msgspec.msgpack.Decoder(list[tuple[str, Tombstone]])
_schedules_decoder = msgspec.msgpack.Decoder(list[Schedule])
_deliveries_decoder = msgspec.msgpack.Decoder(list[Delivery])
_kept_ends_decoder = msgspec.msgpack.Decoder(list[KeptEnd])
_memos_decoder = msgspec.msgpack.Decoder(list[Memo])
_asked_decoder = msgspec.msgpack.Decoder(list[Asked])
_recalled_decoder = msgspec.msgpack.Decoder(list[Recalled])
_job_decoder = msgspec.msgpack.Decoder(Job)
_execution_decoder = msgspec.msgpack.Decoder(Execution)
_end_decoder = msgspec.msgpack.Decoder(_End)


# ── Writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Capture:
    """The state as it was when `capture` was called, one chunk at a time. Close it, or read it to its end."""

    def __init__(self, state: State) -> None:
        self.index = state.index
        self._state = state
        self._ids = tuple(state.jobs)  # the garbage collector walks a list of a million each time, such a tuple once
        self._next = 0
        self._written_id = 0  # jobs up to this id are written
        self._last_id = self._ids[-1] if self._ids else 0
        self._saved: dict[int, bytes] = {}
        self._executions = tuple(state.executions)
        self._next_execution = 0
        self._written_execution = 0  # executions up to this id are written
        self._saved_executions: dict[int, bytes] = {}
        self._front = _front_records(state)
        self._buffer = bytearray()
        self._ended = False
        state.savers.append(self)

    def save(self, job: Job) -> None:
        """Encode a job before it changes, unless it is written, saved, or newer than the capture."""
        if self._written_id < job.id <= self._last_id and job.id not in self._saved:
            self._saved[job.id] = _pack_job(job)

    def save_execution(self, execution: Execution) -> None:
        """The same of an execution."""
        last_id = self._executions[-1] if self._executions else 0
        if self._written_execution < execution.id <= last_id and execution.id not in self._saved_executions:
            self._saved_executions[execution.id] = _encoder.encode(execution)

    def next_chunk(self) -> bytes | None:
        """About `CHUNK_BYTES` more, None at the end. Encodes no more jobs than that takes."""
        while len(self._buffer) < CHUNK_BYTES and (record := next(self._front, None)) is not None:
            self._buffer += record
        while len(self._buffer) < CHUNK_BYTES and self._next < len(self._ids):
            job_id = self._ids[self._next]
            saved = self._saved.pop(job_id, None)
            self._buffer += frame(saved if saved is not None else _pack_job(self._state.jobs[job_id]))
            self._written_id = job_id
            self._next += 1
        while len(self._buffer) < CHUNK_BYTES and self._next_execution < len(self._executions):
            execution_id = self._executions[self._next_execution]
            saved = self._saved_executions.pop(execution_id, None)
            document = saved if saved is not None else _encoder.encode(self._state.executions[execution_id])
            self._buffer += frame(document)
            self._written_execution = execution_id
            self._next_execution += 1
        if len(self._buffer) < CHUNK_BYTES and not self._ended:
            self._buffer += _end_record(len(self._ids))
            self._ended = True
            self.close()
        chunk = bytes(self._buffer[:CHUNK_BYTES])
        del self._buffer[:CHUNK_BYTES]
        return chunk or None

    def close(self) -> None:
        """Stop following the state. Safe to call twice, and after the end."""
        if self in self._state.savers:
            self._state.savers.remove(self)


def capture(state: State) -> Capture:
    """Fix the state as it is now. Each capture that is open costs a copy of the jobs that change meanwhile."""
    return Capture(state)


def records(state: State) -> Iterator[bytes]:
    """The stream of the state as it is, record by record; the state must not change meanwhile."""
    yield from _front_records(state)
    for job in state.jobs.values():
        yield frame(_pack_job(job))
    for execution in state.executions.values():
        yield frame(_encoder.encode(execution))
    yield _end_record(len(state.jobs))


def _front_records(state: State) -> Iterator[bytes]:
    """Everything but the jobs, as it is at the call. Canonical: the order in which things came to be known leaves no trace."""
    deliveries = state.outbox.deliveries()
    kept_ends = [kept for _, kept in sorted(state.kept_ends.items())]
    memos = state.memos.records()
    following = _Following(
        kept_ends=len(kept_ends), memos=len(memos.kept), asked=len(memos.asked), recalled=len(memos.recalled)
    )
    more = _More(
        policies=put_policies(state.policies),
        ledger=state.usage.lines(),
        workflow_weeks=state.usage.workflow_weeks(state.now_ms),
        week=state.week,
        share_epoch=state.shares.epoch if state.shares is not None else 0,
        shares=state.shares.records() if state.shares is not None else [],
        templates=[template for _, template in sorted(state.templates.items())],
        next_execution_id=state.next_execution_id,
        executions=len(state.executions),
        schedules=len(state.schedules),
        next_delivery_id=state.outbox.next_id,
        lanes=state.outbox.records(),
        deliveries=len(deliveries),
        following=following if following != _NOTHING_FOLLOWS else None,
    )
    header = _Header(
        format=FORMAT,
        version=VERSION,
        index=state.index,
        now_ms=state.now_ms,
        next_job_id=state.next_job_id,
        node_names=state.node_names[:],
        nodes=[
            _NodeRecord(
                node.id,
                node.said,
                node.state,
                node.reason,
                node.registered_ms,
                node.changed_ms,
                node.log_index,
            )
            for _, node in sorted(state.nodes.items())
        ],
        tombstones=len(state.tombstones),
        jobs=len(state.jobs),
        watch_term=state.watch_term,
        managers=[manager for _, manager in sorted(state.managers.items())],
        origin=state.origin,
        plan_index=state.plan_index,
        controls=[(node_id, node.control) for node_id, node in sorted(state.nodes.items()) if node.control is not FREE],
        more=more if more != _NOTHING_MORE else None,
    )
    schedules = [schedule for _, schedule in sorted(state.schedules.items())]
    front = _Front(tuple(state.tombstones), tuple(state.tombstones.values()), schedules, deliveries, kept_ends, memos)
    return _encode_front(header, front)


class _Front(NamedTuple):
    submission_ids: Sequence[str]
    tombstones: Sequence[bytes]  # of these
    schedules: Sequence[Schedule]
    deliveries: Sequence[Delivery]
    kept_ends: Sequence[KeptEnd]
    memos: MemoRecords


def _encode_front(header: _Header, front: _Front) -> Iterator[bytes]:
    """Record by record, later: the call that fixes a state must be short, however many nodes and tombstones there are."""
    yield frame(_pack_header(header))
    yield from _tombstone_records(front.submission_ids, front.tombstones)
    schedules, deliveries = front.schedules, front.deliveries
    for start in range(0, len(schedules), _SCHEDULES_PER_RECORD):
        yield frame(_encoder.encode(schedules[start : start + _SCHEDULES_PER_RECORD]))
    for start in range(0, len(deliveries), _DELIVERIES_PER_RECORD):
        yield frame(_encoder.encode(deliveries[start : start + _DELIVERIES_PER_RECORD]))
    yield from sized_records(front.kept_ends, lambda kept: len(kept.phases))
    yield from sized_records(front.memos.kept, lambda memo: memo.size)
    yield from sized_records(front.memos.asked, lambda asked: asked.size)
    yield from sized_records(front.memos.recalled, lambda _: 0)


def _pack_header(header: _Header) -> bytes:
    """Canonical whatever number of fields it could have: few are counted in one byte, as if there were no more."""
    data = _encoder.encode(header)
    code, fields = _ARRAY.unpack_from(data)
    return bytes([_SMALL_MAP | fields]) + data[_ARRAY.size :] if code == _MAP_CODE and fields < 16 else data


def _tombstone_records(submission_ids: Sequence[str], packed: Sequence[bytes]) -> Iterator[bytes]:
    """They stand in the order of their times already; of equals, the name decides."""
    batch: list[tuple[str, Tombstone]] = []
    gone, same = 0, 0  # the time of the last, and where in the batch that time begins
    for submission_id, data in zip(submission_ids, packed, strict=True):
        tombstone = Tombstone.unpack(data)
        if tombstone.gone_ms != gone:
            if len(batch) - same > 1:
                batch[same:] = sorted(batch[same:])
            while len(batch) >= _TOMBSTONES_PER_RECORD:
                yield frame(_encoder.encode(batch[:_TOMBSTONES_PER_RECORD]))
                del batch[:_TOMBSTONES_PER_RECORD]
            gone, same = tombstone.gone_ms, len(batch)
        batch.append((submission_id, tombstone))
    batch[same:] = sorted(batch[same:])
    for start in range(0, len(batch), _TOMBSTONES_PER_RECORD):
        yield frame(_encoder.encode(batch[start : start + _TOMBSTONES_PER_RECORD]))


def _pack_job(job: Job) -> bytes:
    """Canonical too: tables of tasks are written in the order of their indices, and what a later version added is left out
    from where it says nothing. So a job that uses none of it is written as ever, and its digest stays true."""
    changes: dict[str, Any] = {
        name: dict(sorted(table.items()))
        for name in ("active_attempts", "histories", "outputs", "held_by_part", "choices", "yields", "checkpoints")
        if (table := getattr(job, name)) is not None and len(table) > 1
    }
    if job.counts_of_many is not None and not any(job.counts_of_many[_FIRST_STATES:]):
        changes["counts_of_many"] = job.counts_of_many[:_FIRST_STATES]
    data = _encoder.encode(msgspec.structs.replace(job, **changes) if changes else job)
    cut, left_out = 0, 0
    for name, default, size in _ADDED_FIELDS:
        if getattr(job, name) != default:
            break
        cut += size
        left_out += 1
    if not left_out:
        return data
    return _ARRAY.pack(_ARRAY_CODE, len(Job.__struct_fields__) - left_out) + data[_ARRAY.size : -cut]


def _end_record(jobs: int) -> bytes:
    return frame(_encoder.encode(_End(jobs)))


# ── Reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def restore(chunks: Iterable[bytes]) -> State:
    """The state that was captured. Raises SnapshotInvalid; what the iterable itself raises passes through."""
    documents = Records(chunks)
    try:
        return _restore(documents)
    except (msgspec.MsgspecError, LookupError, ValueError, OverflowError, RecursionError, struct.error) as error:
        raise SnapshotInvalid(f"the snapshot is damaged: {error}") from error


def _restore(documents: Records) -> State:
    header = _header_decoder.decode(next(documents))
    if header.format != FORMAT or header.version != VERSION:
        raise SnapshotInvalid(f"this is {header.format} version {header.version}; {FORMAT} version {VERSION} is known")
    state = State()
    state.index = header.index
    state.now_ms = header.now_ms
    state.next_job_id = header.next_job_id
    state.node_names = header.node_names
    state.watch_term = header.watch_term
    state.origin = header.origin
    state.plan_index = header.plan_index
    state.managers = {manager.manager_id: manager for manager in header.managers}
    expect(len(state.managers) == len(header.managers), "a manager stands twice")
    more = header.more or _NOTHING_MORE
    for policy in more.policies:
        state.policies[policy.kind][policy.name] = policy
    state.week = more.week
    state.usage.open(more.ledger, more.workflow_weeks, state.now_ms)
    expect(len(put_policies(state.policies)) == len(more.policies), "a policy stands twice")
    fair_shares.follow_policy(state)
    if state.shares is not None:
        state.shares.restore(more.share_epoch, more.shares)
    state.node_numbers = {name: number for number, name in enumerate(header.node_names) if number}
    for record in header.nodes:
        state.nodes[record.id] = Node(
            id=record.id,
            number=state.node_numbers[record.id],
            info=record.info,
            state=record.state,
            reason=record.reason,
            registered_ms=record.registered_ms,
            changed_ms=record.changed_ms,
            log_index=record.log_index,
        )
    for node_id, control in header.controls:
        node = state.nodes[node_id]
        node.control = control
        node.describe(node.info)
        state.time_node(node)
    while len(state.tombstones) < header.tombstones:
        batch = _tombstones_decoder.decode(next(documents))
        expect(bool(batch), "an empty record of tombstones")
        state.tombstones.update((submission_id, tombstone.pack()) for submission_id, tombstone in batch)
    while len(state.schedules) < more.schedules:
        for schedule in _schedules_decoder.decode(next(documents)):
            expect(schedule.name not in state.schedules and is_sound_ledger(schedule), "a schedule is damaged")
            state.take_in_schedule(schedule)
    state.outbox.open(more.next_delivery_id, more.lanes)
    taken, notices = 0, dict[str, Notice]()
    while taken < more.deliveries:
        some = _deliveries_decoder.decode(next(documents))
        expect(bool(some), "an empty record of deliveries")
        for delivery in some:
            state.outbox.take_in(delivery, notices)
        taken += len(some)
    _restore_following(state, more, documents)
    last_id = 0
    for _ in range(header.jobs):
        job = _job_decoder.decode(next(documents))
        if not last_id < job.id < state.next_job_id:
            raise SnapshotInvalid(f"job {job.id} is out of order")
        last_id = job.id
        _take_in(state, job)
    for job_id in state.kept_ends:
        expect(
            job_id not in state.jobs and state.dependants.is_awaited(job_id), f"nobody needs the end of job {job_id}"
        )
    _restore_executions(state, more, documents)
    end = _end_decoder.decode(next(documents))
    expect(end.jobs == header.jobs, "the end counts other jobs than the header")
    documents.finish()
    ended = [job for job in state.jobs.values() if job.ended]
    state.ended = dict.fromkeys(job.id for job in sorted(ended, key=lambda job: (job.ended_ms, job.id)))
    state.limit()
    renew_bounds(state)
    for job in state.jobs.values():
        if job.placement is not None and not job.ended:
            state.neighbours.expect(state, job)
    return state


def _restore_following(state: State, more: _More, documents: Records) -> None:
    following = more.following or _NOTHING_FOLLOWS
    last_id = 0
    for kept in take(documents, _kept_ends_decoder, following.kept_ends):
        expect(last_id < kept.job_id < state.next_job_id and kept.end.final, "an end is kept that can't be one")
        last_id = kept.job_id
        state.kept_ends[kept.job_id] = kept
    memos = MemoRecords(
        take(documents, _memos_decoder, following.memos),
        take(documents, _asked_decoder, following.asked),
        take(documents, _recalled_decoder, following.recalled),
    )
    state.memos.restore(more.memos or memos)


def _restore_executions(state: State, more: _More, documents: Records) -> None:
    for template in more.templates:
        state.templates[template.kind, template.name] = template
        state.template_bytes += template.size
    last_id = 0
    for _ in range(more.executions):
        execution = _execution_decoder.decode(next(documents))
        expect(last_id < execution.id < more.next_execution_id, f"execution {execution.id} is out of order")
        last_id = execution.id
        tasks = execution.plan.spec.tasks
        expect(len(execution.rows) == len(tasks), f"execution {execution.id} has other tasks than its workflow")
        for row, task in zip(execution.rows, tasks, strict=True):
            expect(len(row.phases) == len(row.jobs), f"execution {execution.id} lacks instances")
            expect(not row.phases or max(row.phases) <= max(Phase), f"{task.name} has a phase that is none")
        state.add_execution(execution)
        state.follow_execution(execution)
    state.next_execution_id = more.next_execution_id
    ended = [each for each in state.executions.values() if each.ended]
    state.ended_executions = dict.fromkeys(each.id for each in sorted(ended, key=lambda each: (each.ended_ms, each.id)))


def _take_in(state: State, job: Job) -> None:
    """Add a job that was read, with everything that follows from it."""
    if wrong := _find_wrong(state, job):
        raise SnapshotInvalid(f"job {job.id} {wrong}")
    job.actor, job.name, job.queue = state.intern(job.actor), state.intern(job.name), state.intern(job.queue)
    job.namespace = state.intern(job.namespace)
    job.tags = state.intern(job.tags) if job.tags else None
    job.semaphores = state.intern(job.semaphores) if job.semaphores else None
    job.priority_class = state.intern(job.priority_class)
    job.resources, job.success_exit_codes = state.intern(job.resources), state.intern(job.success_exit_codes)
    if job.placement is not None:
        job.placement = state.intern(job.placement)
    if job.gang is not None:
        job.gang = state.intern(job.gang)
    state.jobs[job.id] = job
    state.submissions[job.submission_id] = job.id
    state.usage.take_in(job, state.now_ms)
    state.job_counts[job.state] += 1
    if job.count == 1:
        state.task_counts[job.task_state(0)] += 1
    else:
        for task_state, tasks in enumerate(job.counts):
            state.task_counts[task_state] += tasks
    if job.outputs:
        state.output_bytes[job.id] = sum(map(len, job.outputs.values()))
    if job.active_attempts:
        for index, active in job.active_attempts.items():
            node = state.nodes[active.node_id]
            active.node_id = node.id
            node.attempts[job.id, index] = active.attempt
            node.allocate(job.request_of(index))
    if not job.ended:
        state.time_job(job)
        if job.parent:
            state.note_parent(job)
        state.dependants.names.add(job.name_key, job.id)
    if job.waits is not None:
        for wrong in dependencies.restore(state, job):
            raise SnapshotInvalid(f"job {job.id} {wrong}")
        releases.stir_if_due(state, job)
    if job.in_backoff and job.histories:
        for index, history in job.histories.items():
            if job.phases[index] == IN_BACKOFF:
                state.add_backoff(history.not_before_ms, job.id, index)


def _find_wrong(state: State, job: Job) -> str:
    """Why a job that was read can't be; empty if it can. There may be a million of them, most with one task that waits."""
    if not len(job.phases) == job.count > 0:
        return f"has {len(job.phases)} phases for {job.count} tasks"
    if job.count == 1 and job.counts_of_many is None:
        if job.phases[0] >= PHASES:
            return "has a phase that is none"
        counts, in_backoff = list(job.counts), int(job.phases[0] == IN_BACKOFF)
    else:
        counts, in_backoff = count_phases(job.phases)
        if sum(counts) != job.count:
            return "has a phase that is none"
        if job.counts_of_many is not None:
            job.counts_of_many += [0] * (PHASES - len(job.counts_of_many))
        if list(job.counts) != counts:
            return "counts wrongly"
    if job.in_backoff != in_backoff:
        return "counts its backoffs wrongly"
    if job.state is not derive_state(counts, job.count, job.cancelling):
        return f"is not {job.state.name}"
    if job.active != counts[TaskState.SCHEDULED] + counts[TaskState.RUNNING]:
        return "lacks attempts"
    if job.submission_id in state.submissions:
        return "shares its submission id"
    for table in (job.active_attempts, job.histories, job.outputs, job.choices, job.checkpoints):
        if table and not all(0 <= index < job.count for index in table):
            return "holds a task that it hasn't"
    if job.choices and not all(job.has_choice(choice) for choice in job.choices.values()):
        return "has a task with an alternative that it hasn't"
    if job.yields and not job.yields.keys() <= (job.active_attempts or {}).keys():
        return "has tasks that yield, and don't run"
    if job.finished is not None and not columns.are_whole(job.finished, job.count):
        return "lacks records"
    if job.active_attempts:
        for index, active in job.active_attempts.items():
            if job.task_state(index) is not active.state:
                return f"has a task {index} that is not {active.state.name}"
    return ""
