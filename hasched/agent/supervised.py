"""The attempts that a supervisor owns: their processes, clocks and ends.

What it promises: every attempt that was launched ends in exactly one `AttemptEnded`, kept until it is forgotten; nothing
of an attempt runs on after its end; a timeout, a stop and the end of a lease work without an agent.
"""

# Plain strings, not pathlib: this is the path of every start and end.
# ruff: noqa: PTH102, PTH103, PTH112

from __future__ import annotations

import heapq
import os
import resource
import shutil
import signal
from collections.abc import Callable, Sequence

import msgspec

from hasched.agent import holes, processes
from hasched.agent.cgroups import Cgroup, Cgroups, Limits
from hasched.agent.executors import CHECKPOINT, Executor, LaunchFailed, NodeFailed
from hasched.agent.processes import Families, boot_ms, wall_ms
from hasched.agent.protocol import MAX_REASON, Configure, LaunchJob, LaunchTask, Lease, RunningAttempt, cut
from hasched.agent.roster import Roster, RosterFull
from hasched.agent.running import Running, read_output
from hasched.model.ids import AttemptId
from hasched.model.states import EndKind
from hasched.model.wire import AttemptCheckpointed, AttemptEnded, AttemptKey, AttemptReport, AttemptStarted, Usage

LEASE_MARGIN_MS = 250  # a leased task is dead this long before its lease ends
MARK_STEP_MS = 30_000  # a checkpoint so soon after the last that was told waits for the next look, or for the end
CHECK_INTERVAL_MS = 2_000  # how often logs are kept within their bound and memory is sampled
FINISHED_SESSIONS = 4096  # how many ended sessions are remembered, to recognise their orphans


class Supervised:
    """Everything that runs here. Not thread-safe: the supervisor has one thread."""

    def __init__(self, data_dir: str, roster: Roster, log: Callable[..., None]) -> None:
        self._data_dir = data_dir
        self._roster = roster
        self._log = log
        self._executor: Executor | None = None
        self._cgroups: Cgroups | None = None
        self._settings: Configure | None = None
        self._by_pid: dict[int, Running] = {}
        self._by_key: dict[AttemptId, Running] = {}
        self._ended: dict[AttemptId, AttemptEnded] = {}
        self._news: dict[AttemptId, AttemptStarted | AttemptEnded] = {}
        self._checkpoints: dict[AttemptId, AttemptCheckpointed] = {}  # that are news too
        self._node_failure = ""
        self._alarms: list[tuple[int, int]] = []  # (boot ms, pid): look at it then
        self._lease: Lease | None = None
        self._leased: dict[int, Running] = {}
        self._lease_due_ms: int | None = None
        self._finished: dict[int, None] = {}  # sessions, oldest first
        self._foreign: dict[int, None] = {}
        self._unremoved: list[Cgroup] = []
        self._check_at_ms = 0
        self._job_directory = ""
        self._holes = True

    def configure(self, settings: Configure, executor: Executor, cgroups: Cgroups | None) -> None:
        self._settings, self._executor, self._cgroups = settings, executor, cgroups

    # What is here.

    def __len__(self) -> int:
        return len(self._by_pid)

    def running(self) -> tuple[RunningAttempt, ...]:
        return tuple(
            RunningAttempt(*each.key, each.started_ms, each.task.gpus, each.task.gpu_uuids, each.checkpoint_ms)
            for each in self._by_pid.values()
        )

    def ended(self) -> tuple[AttemptEnded, ...]:
        return tuple(self._ended.values())

    def take_news(self) -> tuple[AttemptReport, ...]:
        """What happened since the last call; an attempt that has started and ended meanwhile is one report."""
        news = (*self._news.values(), *self._checkpoints.values())
        self._news, self._checkpoints = {}, {}
        return news

    def take_node_failure(self) -> str:
        """Why this node could not start a task since the last call, empty if it could."""
        failure, self._node_failure = self._node_failure, ""
        return failure

    @property
    def has_news(self) -> bool:
        return bool(self._news or self._checkpoints)

    # Starting.

    def launch(self, job: LaunchJob, task: LaunchTask) -> None:
        key = AttemptId(job.job_id, task.index, task.attempt)
        if key in self._by_key or key in self._ended:
            return
        if job.stop_at_lease and (self._lease is None or boot_ms() >= self._lease_term_ms(job.kill_grace_ms)):
            self._finish(
                AttemptEnded(*key, 0, wall_ms(), EndKind.STOPPED, reason="the lease had ended before the start")
            )
            return
        try:
            self._start(key, job, task)
        except LaunchFailed as error:
            self._finish(AttemptEnded(*key, 0, wall_ms(), EndKind.LAUNCH_FAILED, reason=str(error)))
        except (NodeFailed, RosterFull) as error:
            self._node_failure = cut(str(error))
            self._finish(AttemptEnded(*key, 0, wall_ms(), EndKind.LOST, reason=str(error)))

    def _start(self, key: AttemptId, job: LaunchJob, task: LaunchTask) -> None:
        assert self._executor is not None, "an agent configures before it launches"
        self._roster.check()
        directory = self._make_directory(key)
        cgroup = self._make_cgroup(key, job)
        running = Running(key, job, task, directory, cgroup)
        try:
            running.pid = pid = self._executor.start(job, task, directory, cgroup)
        except (LaunchFailed, NodeFailed):
            if cgroup is not None:
                self._remove_cgroup(cgroup)
            raise
        now_ms = boot_ms()
        running.started_ms = wall_ms()
        running.slot = self._roster.add(pid, now_ms)
        self._by_pid[pid] = running
        self._by_key[key] = running
        if running.timeout_ms:
            running.timeout_at_ms = now_ms + running.timeout_ms
            heapq.heappush(self._alarms, (running.timeout_at_ms, pid))
        if running.leased:
            self._leased[pid] = running
            self._set_lease_due()
        self._news[key] = AttemptStarted(*key, running.started_ms)

    def _make_directory(self, key: AttemptId) -> str:
        job_directory = f"{self._data_dir}/attempts/{key.job_id}"
        directory = f"{job_directory}/{key.index}.{key.attempt}"
        try:
            if job_directory != self._job_directory or not os.path.isdir(job_directory):
                os.makedirs(job_directory, 0o750, exist_ok=True)
                self._job_directory = job_directory
            try:
                os.mkdir(directory, 0o750)
            except FileExistsError:  # of another cluster, which used the same number
                shutil.rmtree(directory)
                os.mkdir(directory, 0o750)
        except OSError as error:
            raise NodeFailed(f"{directory} can't be made: {error.strerror}") from error
        return directory

    def _make_cgroup(self, key: AttemptId, job: LaunchJob) -> Cgroup | None:
        """Groups cost a few milliseconds, so only jobs with a limit that they must enforce get them."""
        assert self._settings is not None
        if self._cgroups is None or not (job.memory_bytes or self._settings.pids_max):
            return None
        try:
            limits = Limits(job.memory_bytes, job.cpu_milli, self._settings.pids_max)
            return self._cgroups.create(f"{key.job_id}.{key.index}.{key.attempt}", limits)
        except OSError as error:
            raise NodeFailed(f"the control group can't be made: {error.strerror} ({error.filename})") from error

    # Ending.

    def stop(self, keys: Sequence[AttemptKey], reason: str, warning: str = "", warning_ms: int = 0) -> None:
        """TERM now, KILL after the job's grace. What has ended already keeps its own end.

        With a warning, that signal now and TERM so much later: until then nothing is decided, and an end is the task's own.
        """
        self.reap()
        found = [self._by_key.get(AttemptId(key.job_id, key.index, key.attempt)) for key in keys]
        attempts = [running for running in found if running is not None]
        if warning_ms > 0:
            self._warn(attempts, reason, warning, warning_ms)
        else:
            self._end_all(attempts, EndKind.STOPPED, reason)

    def _warn(self, attempts: Sequence[Running], reason: str, warning: str, warning_ms: int) -> None:
        """Once each. A frozen one goes on, since a task that stands still can't make ready for its end."""
        attempts = [running for running in attempts if running.kind is None and not running.term_at_ms]
        if not attempts:
            return
        number = getattr(signal, f"SIG{warning}", signal.SIGTERM)
        families = Families()
        now_ms = boot_ms()
        for running in attempts:
            running.reason = reason
            running.term_at_ms = now_ms + warning_ms
            heapq.heappush(self._alarms, (running.term_at_ms, running.pid))
            self._signal(running, number, families)
            if running.frozen:
                self._thaw(running, now_ms, families)

    def stop_everything(self, kind: EndKind, reason: str) -> None:
        self.reap()
        self._end_all(list(self._by_pid.values()), kind, reason)

    def _end_all(self, attempts: Sequence[Running], kind: EndKind, reason: str) -> None:
        attempts = [running for running in attempts if running.kind is None]
        if not attempts:
            return
        families = Families()
        now_ms = boot_ms()
        for running in attempts:
            running.kind, running.reason = kind, reason
            running.kill_at_ms = now_ms + running.grace_ms
            heapq.heappush(self._alarms, (running.kill_at_ms, running.pid))
            self._signal(running, signal.SIGTERM, families)
            if running.frozen:
                self._signal(running, signal.SIGCONT, families)

    def _kill(self, attempts: Sequence[Running]) -> None:
        families = Families()
        for running in attempts:
            running.killed = True
            self._signal(running, signal.SIGKILL, families)
            if running.cgroup is not None:
                running.cgroup.kill()

    def _signal(self, running: Running, number: signal.Signals, families: Families) -> None:
        self._note(running.pid, processes.send_group(running.pid, number))
        members = dict.fromkeys(families.of(running.pid))
        if running.cgroup is not None:
            members.update(dict.fromkeys(running.cgroup.pids()))
        for member in members:
            if member != running.pid and processes.group_of(member) != running.pid:
                self._note(member, processes.send(member, number))

    def _note(self, pid: int, allowed: bool) -> None:
        """Say once of each process that it isn't ours to signal: a program with the setuid bit makes such."""
        if not allowed and pid not in self._foreign:
            if len(self._foreign) >= FINISHED_SESSIONS:
                self._foreign.clear()
            self._foreign[pid] = None
            self._log("not_signalled", pid=pid, cause="it belongs to another user")

    def freeze(self, keys: Sequence[AttemptKey], frozen: bool) -> None:
        """Stop or continue all processes of these attempts, and their timeouts with them."""
        now_ms = boot_ms()
        families = Families()
        for key in keys:
            running = self._by_key.get(AttemptId(key.job_id, key.index, key.attempt))
            if running is None or running.frozen == frozen or running.kind is not None or running.term_at_ms:
                continue
            if frozen:
                running.frozen = True
                running.left_ms = max(1, running.timeout_at_ms - now_ms)
                running.timeout_at_ms = 0
                self._signal(running, signal.SIGSTOP, families)
            else:
                self._thaw(running, now_ms, families)

    def _thaw(self, running: Running, now_ms: int, families: Families) -> None:
        running.frozen = False
        if running.timeout_ms:
            running.timeout_at_ms = now_ms + running.left_ms
            heapq.heappush(self._alarms, (running.timeout_at_ms, running.pid))
        self._signal(running, signal.SIGCONT, families)

    def renew(self, lease: Lease) -> None:
        self._lease = lease
        self._set_lease_due()

    def forget(self, keys: Sequence[AttemptKey]) -> None:
        for key in keys:
            self._ended.pop(AttemptId(key.job_id, key.index, key.attempt), None)

    # Time.

    def next_due_ms(self) -> int | None:
        """When `act` has something to do, on CLOCK_BOOTTIME."""
        times = []
        if self._alarms:
            times.append(self._alarms[0][0])
        if self._lease_due_ms is not None:
            times.append(self._lease_due_ms)
        if self._by_pid or self._unremoved:
            times.append(self._check_at_ms)
        return min(times, default=None)

    def act(self) -> None:
        """Do what has come due."""
        now_ms = boot_ms()
        timed_out: list[Running] = []
        warned: list[Running] = []
        overdue: list[Running] = []
        while self._alarms and self._alarms[0][0] <= now_ms:
            _, pid = heapq.heappop(self._alarms)
            running = self._by_pid.get(pid)
            if running is None:
                continue
            if running.kind is None and 0 < running.timeout_at_ms <= now_ms:
                timed_out.append(running)
            elif running.kind is None and 0 < running.term_at_ms <= now_ms:
                warned.append(running)
            elif running.kind is not None and not running.killed and running.kill_at_ms <= now_ms:
                overdue.append(running)
        for running in timed_out:
            self._end_all([running], EndKind.TIMED_OUT, f"ran longer than its timeout of {running.timeout_ms} ms")
        for running in warned:
            self._end_all([running], EndKind.STOPPED, running.reason)
        if self._lease_due_ms is not None and now_ms >= self._lease_due_ms:
            self._end_leases(now_ms)
        if overdue:
            self._kill(overdue)
        if now_ms >= self._check_at_ms:
            self._check_at_ms = now_ms + CHECK_INTERVAL_MS
            self._check()

    def _lease_kill_ms(self) -> int:
        assert self._lease is not None
        return self._lease.deadline_ms - LEASE_MARGIN_MS

    def _lease_term_ms(self, grace_ms: int) -> int:
        """When a leased task gets its TERM: early enough for its KILL to come before the lease ends."""
        assert self._lease is not None
        return self._lease_kill_ms() - min(grace_ms, self._lease.lease_ms // 3)

    def _set_lease_due(self) -> None:
        """When `_end_leases` must look again. What is being ended soon enough anyway needs no look."""
        waiting = [
            each for each in self._leased.values() if each.kind is None or each.kill_at_ms > self._lease_kill_ms()
        ]
        self._lease_due_ms = min((self._lease_term_ms(each.grace_ms) for each in waiting), default=None)

    def _end_leases(self, now_ms: int) -> None:
        due = [each for each in self._leased.values() if now_ms >= self._lease_term_ms(each.grace_ms)]
        self._end_all(due, EndKind.STOPPED, "no manager renewed the node's lease, and the job stops on disconnect")
        for running in due:
            if running.kill_at_ms > self._lease_kill_ms():
                running.kill_at_ms = self._lease_kill_ms()
                heapq.heappush(self._alarms, (running.kill_at_ms, running.pid))
        self._set_lease_due()

    def _check(self) -> None:
        for running in self._by_pid.values():
            running.peak_bytes = max(running.peak_bytes, processes.peak_memory_bytes(running.pid))
            self._bound_logs(running)
            if self._look_for_checkpoint(running, MARK_STEP_MS):
                self._checkpoints[running.key] = AttemptCheckpointed(*running.key, running.checkpoint_ms)
        self._unremoved = [cgroup for cgroup in self._unremoved if not cgroup.remove()]

    def _look_for_checkpoint(self, running: Running, least_ms: int = 1) -> bool:
        """Whether the task has written to its checkpoint file so long after the last mark; when, is what the file says."""
        try:
            status = os.lstat(f"{running.directory}/{CHECKPOINT}")
        except OSError:
            return False
        written_ms = min(status.st_mtime_ns // 1_000_000, wall_ms())
        if written_ms < running.checkpoint_ms + least_ms:
            return False
        running.checkpoint_ms = written_ms
        return True

    def _bound_logs(self, running: Running) -> None:
        assert self._settings is not None
        if not self._holes:
            return
        for stream in ("stdout", "stderr"):
            try:
                if not holes.bound(f"{running.directory}/{stream}", self._settings.log_max_bytes):
                    self._holes = False
                    self._log("logs_unbounded", cause="the filesystem can't punch holes", directory=self._data_dir)
                    return
            except OSError as error:
                self._log("log_not_bounded", attempt=str(running.key), stream=stream, cause=error.strerror)

    # Reaping.

    def reap(self) -> None:
        """Collect every process that has ended, and end whatever it left behind."""
        collected = False
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if found is None:
                break
            pid = found.si_pid
            running = self._by_pid.pop(pid, None)
            if running is not None:
                # Its number can't be used again before we collect it, so this group is surely its own.
                self._note(pid, processes.send_group(pid, signal.SIGKILL))
            _, status, usage = os.wait4(pid, 0)
            collected = True
            if running is not None:
                self._ended_by_itself(running, os.waitstatus_to_exitcode(status), usage)
        if collected:
            self._end_strays()

    def _ended_by_itself(self, running: Running, code: int, usage: resource.struct_rusage) -> None:
        del self._by_key[running.key]
        self._leased.pop(running.pid, None)
        self._roster.remove(running.slot)
        self._finished[running.pid] = None
        if len(self._finished) > FINISHED_SESSIONS:
            del self._finished[next(iter(self._finished))]
        kind, reason = running.judge(code)
        peak_bytes = running.peak_of(usage)
        if running.cgroup is not None:
            running.cgroup.kill()
            self._remove_cgroup(running.cgroup)
        self._bound_logs(running)
        self._checkpoints.pop(running.key, None)
        self._look_for_checkpoint(running)
        output, complaint = read_output(f"{running.directory}/output")
        self._finish(
            AttemptEnded(
                *running.key,
                running.started_ms,
                wall_ms(),
                kind,
                abs(code) if kind in (EndKind.EXITED, EndKind.SIGNALED) else 0,
                Usage(round((usage.ru_utime + usage.ru_stime) * 1000), peak_bytes),
                output,
                "; ".join(filter(None, (reason, complaint))),
                running.checkpoint_ms,
            )
        )

    def _finish(self, ended: AttemptEnded) -> None:
        if len(ended.reason) > MAX_REASON:
            ended = msgspec.structs.replace(ended, reason=cut(ended.reason))
        key = AttemptId(ended.job_id, ended.index, ended.attempt)
        self._ended[key] = ended
        self._news[key] = ended

    def _remove_cgroup(self, cgroup: Cgroup) -> None:
        if not cgroup.remove():
            self._unremoved.append(cgroup)

    def _end_strays(self) -> None:
        """KILL the orphans of attempts that have ended, also those in sessions of their own.

        The orphans of all tasks become our children (we are a subreaper), so none is overlooked, and one that is
        killed hands us its own children. An orphan of an attempt that still runs is left alone.
        """
        children = processes.own_children()
        if len(children) == len(self._by_pid):
            return
        for pid in children:
            if pid in self._by_pid:
                continue
            session = processes.session_of(pid)
            if session in self._by_pid:
                continue
            owner = processes.attempt_of(pid)
            if session in self._finished or (owner is not None and owner not in self._by_key):
                self._note(pid, processes.send(pid, signal.SIGKILL))
