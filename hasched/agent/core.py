"""The agent's decisions: events in, instructions out, and nothing else.

What it promises, whatever dies in between:

- An attempt is started at most once: its row is on disk before the supervisor hears of it.
- An attempt's end is reported until a manager acknowledges it, and its row is kept until then.
- Two attempts of one task never run here at once: the older one is stopped first, and its end awaited.
- No device is bound to two attempts at once; one that has lost a device ends with that as its reason.

It has no clock: the driver passes `Now` in with every event.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import assert_never

from hasched.agent.attempts import Attempt, Attempts, Phase
from hasched.agent.devices import Device, Devices, gone
from hasched.agent.events import (
    CheckDevices,
    Connected,
    DevicesSeen,
    Disconnected,
    Event,
    Happened,
    HeartbeatSent,
    Instruction,
    Now,
    Received,
    Reconnect,
    Recovered,
    Row,
    Saved,
    SaveFailed,
    Send,
    SupervisorDown,
    SupervisorUp,
    Tick,
)
from hasched.agent.losses import explain_end, is_doubtful, note_losses
from hasched.agent.outbox import Outbox, key_of
from hasched.agent.protocol import (
    Forget,
    FreezeAttempts,
    Inventory,
    Launch,
    LaunchTask,
    Lease,
    RunningAttempt,
    StopAttempts,
    cut,
)
from hasched.agent.reunion import compare, reminders
from hasched.agent.saves import Saves
from hasched.agent.specs import SpecCache, launch_job, spec_of_task
from hasched.agent.variables import GangVariables, resume_environment
from hasched.model.ids import AttemptId, TaskId
from hasched.model.spec import JobSpec, Resources
from hasched.model.states import EndKind
from hasched.model.wire import (
    Assign,
    AttemptCheckpointed,
    AttemptEnded,
    AttemptKey,
    AttemptReport,
    AttemptStarted,
    Freeze,
    HeartbeatAck,
    ReportsAck,
    Stop,
)

SAVE_END_DELAY_MS = 100  # the supervisor keeps an end; it is written down here only if no manager takes it soon
MAX_LAUNCH_JOBS = 64  # in one message: 64 of the largest specs fit into a frame

RESTARTED = "the supervisor of this attempt is gone (it died, or the machine restarted), so its end can't be known"


class AgentCore:
    """Feed it events with `handle`, obey the instructions, and call again with `Tick` at `wake_at_ms`."""

    def __init__(self, devices: Iterable[Device] = (), node_id: str = "") -> None:
        self._node_id = node_id
        self._devices = Devices(devices)
        self._doubted: list[Attempt] = []
        self._specs = SpecCache()
        self._attempts = Attempts()
        self._supervisor = ""  # the instance that is connected
        self._saves = Saves()
        self._ready: dict[AttemptId, None] = {}
        self._outbox = Outbox()
        self._unsaved: dict[AttemptId, None] = {}  # ends that are not in the table, oldest first
        self._lease_ms = 0
        self._lease: Lease | None = None
        self._heartbeats: dict[int, int] = {}
        self._out: list[Instruction] = []

    # What others may ask.

    def attempts(self) -> tuple[AttemptKey, ...]:
        """Everything that no manager has acknowledged as ended, for `Hello`."""
        return tuple(AttemptKey(*key) for key in self._attempts)

    def is_active(self, key: AttemptId) -> bool:
        """Whether more may still come from the attempt."""
        attempt = self._attempts.get(key)
        return attempt is not None and attempt.phase is not Phase.ENDED

    def latest_attempt(self, task: TaskId) -> int:
        """The number of the newest attempt of a task that is known here, 0 if there is none."""
        key = self._attempts.latest(task)
        return key.attempt if key else 0

    @property
    def running(self) -> int:
        return sum(attempt.phase is not Phase.ENDED for attempt in self._attempts.values())

    @property
    def wake_at_ms(self) -> int | None:
        """When to send a `Tick`, if nothing else happens before."""
        times = [self._outbox.wake_at_ms]
        if self._unsaved:
            times.append(self._attempts[next(iter(self._unsaved))].ended_at_ms + SAVE_END_DELAY_MS)
        return min((time for time in times if time is not None), default=None)

    # Events.

    def handle(self, event: Event) -> list[Instruction]:
        """Advance by one event, and say what to do, in this order."""
        match event:
            case Received(message=message, now=now):
                self._receive(message, now)
            case Happened(observed=observed, now=now):
                self._observe(observed.reports, now)
            case Saved(number=number, now=now):
                self._saved(number)
                self._go_on(now)
            case Tick(now=now):
                self._save_ends(now)
                self._go_on(now)
            case HeartbeatSent(number=number, at_ms=at_ms):
                self._heartbeats[number] = at_ms
            case Connected(now=now):
                self._connect(event)
                self._go_on(now)
            case Disconnected():
                self._outbox.close()
                self._heartbeats.clear()
            case SaveFailed(number=number, reason=reason, now=now):
                self._save_failed(number, reason, now)
                self._go_on(now)
            case SupervisorUp(inventory=inventory, now=now):
                self._meet_supervisor(inventory, now)
                self._go_on(now)
            case SupervisorDown():
                self._supervisor = ""
            case DevicesSeen(devices=devices, now=now):
                self._see_devices(devices, now)
                self._go_on(now)
            case Recovered(rows=rows):
                self._recover(rows)
            case _:
                assert_never(event)
        instructions, self._out = self._out, []
        return instructions

    def _receive(self, message: Assign | Stop | Freeze | ReportsAck | HeartbeatAck, now: Now) -> None:
        match message:
            case Assign():
                self._assign(message, now)
            case ReportsAck(number=number):
                self._acknowledge(number)
            case HeartbeatAck(number=number):
                sent_ms = self._heartbeats.pop(number, None)
                if sent_ms is not None:
                    self._heartbeats = {later: at for later, at in self._heartbeats.items() if later > number}
                    self._renew_lease(sent_ms)
            case Stop(attempts=keys, reason=reason):
                there = [AttemptId(key.job_id, key.index, key.attempt) for key in keys]
                self._stop(there, reason, now, message.signal, message.warning_ms)
            case Freeze(attempts=keys, frozen=frozen):
                self._freeze([AttemptId(key.job_id, key.index, key.attempt) for key in keys], frozen)
            case _:
                assert_never(message)
        self._go_on(now)

    def _go_on(self, now: Now) -> None:
        """Whatever may start or be told now, after anything that has happened."""
        self._launch(now)
        self._report(now)

    # Starting.

    def _assign(self, assign: Assign, now: Now) -> None:
        """Take new attempts: rows first. Older attempts of the same task are stopped, and awaited by `_launch`."""
        added: list[Row] = []
        older: list[AttemptId] = []
        for assignment in assign.assignments:
            if assignment.spec is not None:
                self._specs.put(assignment.job_id, assignment.spec)
            spec = self._specs.get(assignment.job_id)
            if spec is None:
                self._out.append(Reconnect(f"the spec of job {assignment.job_id} is not held here any more"))
                continue
            choices = dict(assignment.choices)
            resumes = {resume.index: resume for resume in assignment.resumes}
            gang = GangVariables(assignment.gang, spec, self._node_id) if assignment.gang is not None else None
            for index, number in assignment.tasks:
                key = AttemptId(assignment.job_id, index, number)
                known = self._attempts.latest(TaskId(assignment.job_id, index))
                if known is not None and known.attempt >= number:
                    continue
                attempt = Attempt(key, Phase.SAVING, spec=spec_of_task(spec, index, choices.get(index, 0)))
                if gang is not None:
                    attempt.env, attempt.hostfile = gang.of(index), gang.hostfile
                if (resume := resumes.get(index)) is not None:
                    attempt.env |= resume_environment(resume)
                if known is not None:
                    older.append(known)
                self._attempts.learn(attempt)
                added.append(Row(key, self._supervisor))
        if added:
            self._save(added=added)
        self._stop(older, "a newer attempt of the task was assigned", now)

    def _launch(self, now: Now) -> None:
        """Tell the supervisor of every attempt that may start now. One that would wait for devices in vain is given back."""
        if not self._ready or not self._supervisor:
            return
        jobs: dict[tuple[int, Resources], tuple[JobSpec, list[LaunchTask]]] = {}
        for key in list(self._ready):
            attempt = self._attempts[key]
            spec = attempt.spec
            assert spec is not None, "a ready attempt has its spec"
            if attempt.frozen or any(self.is_active(older) for older in attempt.older):
                continue
            units = self._devices.take(spec.resources, spec.placement.gpu_locality)
            if units is None:
                if lacking := self._devices.lacking(spec.resources, self._staying_units()):
                    self._end_here(attempt, EndKind.LOST, lacking, now)
                continue
            del self._ready[key]
            attempt.units = units
            attempt.phase = Phase.LAUNCHED
            attempt.supervisor = self._supervisor
            attempt.spec = None
            devices = self._devices
            env = {**attempt.env, **devices.environment(units)}
            task = LaunchTask(
                key.index, key.attempt, devices.visible(units), devices.known_as(units), env, attempt.hostfile
            )
            attempt.env, attempt.hostfile = {}, ""
            jobs.setdefault((key.job_id, spec.resources), (spec, []))[1].append(task)
        launches = [launch_job(job_id, spec, tasks) for (job_id, _), (spec, tasks) in jobs.items()]
        for first in range(0, len(launches), MAX_LAUNCH_JOBS):
            self._out.append(Launch(tuple(launches[first : first + MAX_LAUNCH_JOBS])))

    def _staying_units(self) -> list[str]:
        """What is bound to attempts that nobody has told to stop: the managers count those here, too."""
        return [unit for attempt in self._attempts.values() if not attempt.stop for unit in attempt.units]

    # Devices.

    def _see_devices(self, devices: Iterable[Device], now: Now) -> None:
        """Stop what has lost a device, and believe the ends that waited for this look."""
        missing = self._devices.update(devices)
        for attempt in note_losses(self._attempts.values(), missing) if missing else ():
            self._out.append(StopAttempts((AttemptKey(*attempt.key),), attempt.stop))
        doubted, self._doubted = self._doubted, []
        for attempt in doubted:
            if attempt.doubted is not None:
                self._end(attempt, attempt.doubted, now)

    def _doubt(self, attempt: Attempt, ended: AttemptEnded) -> None:
        """Believe the end once the devices have been looked at."""
        if attempt.doubted is None:
            attempt.doubted = ended
            self._doubted.append(attempt)
            self._out.append(CheckDevices())

    # The table.

    def _save(
        self,
        added: Sequence[Row] = (),
        ended: Sequence[AttemptEnded] = (),
        removed: Sequence[AttemptId] = (),
        forget: Sequence[AttemptId] | None = None,
    ) -> None:
        self._out.append(self._saves.make(self._attempts, added=added, ended=ended, removed=removed, forget=forget))

    def _saved(self, number: int) -> None:
        added, forget = self._saves.written(number)
        for key in added:
            attempt = self._attempts.get(key)
            if attempt is not None and attempt.phase is Phase.SAVING:
                attempt.phase = Phase.READY
                self._ready[key] = None
        self._forget(forget)

    def _save_failed(self, number: int, reason: str, now: Now) -> None:
        """Without a row nothing is started. An end stays with the supervisor."""
        added, forget = self._saves.failed(number)
        for key in added:
            attempt = self._attempts.get(key)
            if attempt is not None and attempt.phase is Phase.SAVING:
                self._end_here(attempt, EndKind.LOST, f"the agent can't write its table: {reason}", now)
        self._forget([key for key in forget if key not in self._attempts])

    def _save_ends(self, now: Now) -> None:
        """Write down the ends that no manager has taken for a while."""
        due: list[Attempt] = []
        for key in self._unsaved:
            attempt = self._attempts[key]
            if attempt.ended_at_ms + SAVE_END_DELAY_MS > now.boot_ms:
                break
            due.append(attempt)
        if due:
            for attempt in due:
                del self._unsaved[attempt.key]
            self._save(
                ended=[attempt.ended for attempt in due if attempt.ended is not None],
                forget=[attempt.key for attempt in due if attempt.held],
            )

    def _forget(self, keys: Sequence[AttemptId]) -> None:
        for key in keys:
            attempt = self._attempts.get(key)
            if attempt is not None:
                attempt.held = False
        if keys:
            self._out.append(Forget(tuple(AttemptKey(*key) for key in keys)))

    # What happens to attempts.

    def _observe(self, reports: Iterable[AttemptReport], now: Now) -> None:
        stray: list[AttemptId] = []
        for report in reports:
            key = key_of(report)
            attempt = self._attempts.get(key)
            if isinstance(report, AttemptEnded):
                if attempt is None:
                    stray.append(key)
                elif attempt.phase is not Phase.ENDED:
                    attempt.held = True
                    if is_doubtful(attempt, report):
                        self._doubt(attempt, report)
                    else:
                        self._end(attempt, report, now)
            elif isinstance(report, AttemptCheckpointed):
                if attempt is not None and attempt.phase is Phase.RUNNING:
                    self._checkpointed(attempt, report.checkpoint_ms)
            elif attempt is not None and attempt.phase is Phase.LAUNCHED:
                attempt.phase = Phase.RUNNING
                attempt.started = report
                self._outbox.add_start(report, now.boot_ms)
        self._forget(stray)
        self._go_on(now)

    def _checkpointed(self, attempt: Attempt, checkpoint_ms: int) -> None:
        attempt.checkpoint = AttemptCheckpointed(*attempt.key, checkpoint_ms)
        self._outbox.add_checkpoint(attempt.checkpoint)

    def _end(self, attempt: Attempt, ended: AttemptEnded, now: Now) -> None:
        ended = explain_end(attempt, ended)
        attempt.phase = Phase.ENDED
        attempt.ended = ended
        attempt.ended_at_ms = now.boot_ms
        attempt.spec = None
        self._devices.release(attempt.units)
        attempt.units = ()
        attempt.doubted = None
        self._ready.pop(attempt.key, None)
        self._outbox.add_end(ended)
        self._unsaved[attempt.key] = None

    def _end_here(self, attempt: Attempt, kind: EndKind, reason: str, now: Now) -> None:
        """End an attempt of which the supervisor has nothing to say."""
        started_ms = attempt.started.started_ms if attempt.started else 0
        self._end(attempt, AttemptEnded(*attempt.key, started_ms, now.wall_ms, kind, reason=cut(reason)), now)

    def _stop(self, keys: Sequence[AttemptId], reason: str, now: Now, signal: str = "", warning_ms: int = 0) -> None:
        """With a warning, or at once. What is to stop at once already is not warned any more."""
        running: list[AttemptKey] = []
        for key in keys:
            attempt = self._attempts.get(key)
            if attempt is None:  # it never came here, and now never will
                attempt = self._attempts[key] = Attempt(key, Phase.READY)
            if attempt.phase in (Phase.SAVING, Phase.READY):
                self._end_here(attempt, EndKind.STOPPED, f"stopped before it started: {reason}", now)
            elif attempt.phase is not Phase.ENDED and not (warning_ms and attempt.stop):
                attempt.stop, attempt.stop_signal, attempt.stop_warning_ms = reason, signal, warning_ms
                running.append(AttemptKey(*key))
        if running:
            self._out.append(StopAttempts(tuple(running), reason, signal, warning_ms))

    def _freeze(self, keys: Sequence[AttemptId], frozen: bool) -> None:
        launched: list[AttemptKey] = []
        for key in keys:
            attempt = self._attempts.get(key)
            if attempt is not None:
                attempt.frozen = frozen
                if attempt.phase in (Phase.LAUNCHED, Phase.RUNNING):
                    launched.append(AttemptKey(*key))
        if launched:
            self._out.append(FreezeAttempts(tuple(launched), frozen))

    # Talking to the managers.

    def _connect(self, connected: Connected) -> None:
        """Begin a session: everything that is not known to be committed is reported again."""
        self._heartbeats.clear()
        self._specs.clear()
        self._lease_ms = connected.welcome.lease_ms
        self._renew_lease(connected.hello_ms)
        attempts = self._attempts.values()
        ends = [attempt.ended for attempt in attempts if attempt.ended is not None]
        starts = [
            attempt.started
            for attempt in attempts
            if attempt.phase is Phase.RUNNING and attempt.started is not None and not attempt.start_known
        ]
        checkpoints = [each.checkpoint for each in attempts if each.checkpoint is not None and each.ended is None]
        self._outbox.open(ends, starts, checkpoints, connected.now.boot_ms)

    def _renew_lease(self, from_ms: int) -> None:
        """A lease counts from when we asked for it: the managers can only have counted from later."""
        self._lease = Lease(from_ms + self._lease_ms, self._lease_ms)
        self._out.append(self._lease)

    def _report(self, now: Now) -> None:
        self._out += [Send(reports) for reports in self._outbox.take(now.boot_ms)]

    def _acknowledge(self, number: int) -> None:
        """These reports are committed, or refused for good: either way they need no repeating."""
        removed: list[AttemptId] = []
        held: list[AttemptId] = []
        for report in self._outbox.acknowledge(number):
            key = key_of(report)
            attempt = self._attempts.get(key)
            if attempt is None:
                continue
            if isinstance(report, AttemptStarted):
                attempt.start_known = True
                continue
            if isinstance(report, AttemptCheckpointed):
                if attempt.checkpoint == report:
                    attempt.checkpoint = None
                continue
            removed.append(key)
            if attempt.held:
                held.append(key)
            self._attempts.unlearn(attempt)
            self._unsaved.pop(key, None)
        if removed:
            self._save(removed=removed, forget=held)

    # Beginning again.

    def _recover(self, rows: Iterable[Row]) -> None:
        for row in rows:
            attempt = Attempt(row.key, Phase.LAUNCHED, row.supervisor)
            self._attempts.learn(attempt)
            if row.ended is not None:
                attempt.phase, attempt.ended = Phase.ENDED, row.ended

    def _meet_supervisor(self, inventory: Inventory, now: Now) -> None:
        """Compare what should run with what does."""
        self._supervisor = inventory.instance
        found = compare(self._attempts, self._saves.waiting, inventory)
        for ended in found.unknown:
            self._attempts.learn(Attempt(key_of(ended), Phase.LAUNCHED, inventory.instance))
        for ended in (*found.ended, *found.unknown):
            self._end(self._attempts[key_of(ended)], ended, now)
        for key in found.held:
            self._attempts[key].held = True
        for key in found.lost:
            self._end_here(self._attempts[key], EndKind.LOST, RESTARTED, now)
        self._drop(found.vanished)
        self._adopt(inventory.running, now)
        self._out += reminders(self._attempts.values())
        if self._lease is not None:
            self._out.append(self._lease)

    def _drop(self, keys: Sequence[AttemptId]) -> None:
        """Forget attempts that certainly never started: the supervisor is the one they were meant for, and lacks them."""
        for key in keys:
            attempt = self._attempts[key]
            self._attempts.unlearn(attempt)
            self._devices.release(attempt.units)
            self._outbox.discard(key)
        if keys:
            self._save(removed=keys)
            self._out.append(Reconnect("attempts never reached the supervisor; a manager will assign them again"))

    def _adopt(self, running: Iterable[RunningAttempt], now: Now) -> None:
        """Take the supervisor's word for what runs. An attempt without a row gets one: its table was lost."""
        added: list[Row] = []
        for each in running:
            key = AttemptId(each.job_id, each.index, each.attempt)
            attempt = self._attempts.get(key)
            if attempt is None:
                attempt = Attempt(key, Phase.LAUNCHED, self._supervisor)
                self._attempts.learn(attempt)
                added.append(Row(key, self._supervisor))
            if attempt.phase is Phase.LAUNCHED:
                attempt.phase = Phase.RUNNING
                attempt.started = AttemptStarted(*key, each.started_ms)
                self._outbox.add_start(attempt.started, now.boot_ms)
                if each.checkpoint_ms:
                    self._checkpointed(attempt, each.checkpoint_ms)
                if not attempt.units:
                    attempt.units, lacking = self._devices.claim(each.gpus, each.gpu_uuids)
                    if lacking:
                        attempt.lost_device = gone(lacking)
                        attempt.stop = attempt.stop or attempt.lost_device
        if added:
            self._save(added=added)
