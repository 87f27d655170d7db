"""What a workflow means, said again in the plainest way: everything is looked at over and over until nothing changes."""

from __future__ import annotations

from hasched.model.workflow import OnFailure, Role, WorkflowSpec
from hasched.statemachine.rules.workflows import SKIPPED_BY_CONDITION

FINAL = ("succeeded", "failed", "skipped", "cancelled")


class Reference:
    """`ends` are the instances that have ended, in order, with their outcome: True, False, or None where they were stopped."""

    def __init__(self, spec: WorkflowSpec) -> None:
        self.spec, self.stage, self.stopped, self.whole, self.ended = spec, 0, "", False, False
        self.fits = not any(task.job is not None and task.job.resources.gpus for task in spec.tasks)
        self.state = {task.name: "waiting" for task in spec.tasks}
        self.reason = dict.fromkeys(self.state, "")
        self.ends: dict[str, dict[int, bool | None]] = {name: {} for name in self.state}
        self.running: dict[tuple[str, int], None] = {}
        self.order: list[str] = []
        self.told: list[str] = []  # by webhooks that had their turn
        self.settle()

    def settle(self) -> None:
        while not self.ended and any([self._look(row) for row in range(len(self.spec.tasks))] + [self._move_on()]):
            pass

    def end(self, name: str, instance: int, outcome: bool | None) -> None:
        del self.running[name, instance]
        self.ends[name][instance] = outcome
        self.settle()

    def cancel(self) -> None:
        self.stopped, self.whole = self.stopped or "cancelled", bool(self.stopped)
        self.settle()

    @property
    def result(self) -> str:
        return self.stopped or ("failed" if "failed" in self.state.values() else "succeeded")

    @property
    def refused(self) -> bool:
        return any(task.validates and self.state[task.name] == "failed" for task in self.spec.tasks)

    def _finish(self, name: str, state: str, reason: str = "") -> bool:
        self.state[name], self.reason[name] = state, reason
        self.order.append(name)
        return True

    def _look(self, row: int) -> bool:
        task = self.spec.tasks[row]
        name, state = task.name, self.state[task.name]
        if task.role != self.stage or state in FINAL:
            return False
        halted = self.stopped and (not self.stage or self.whole)
        failed = "failed" in self.state.values() and self.spec.on_failure is OnFailure.STOP and not self.stage
        failed = failed and all(each.when.value == "ok" for each in task.after)
        if state == "waiting":
            if halted:
                return self._finish(name, "cancelled")
            before = [(self.state[self.spec.tasks[each.row].name], each.when.value) for each in task.after]
            if any(one not in FINAL for one, _ in before) or (self.stage == Role.UNDO and name != self._next_undo()):
                return False
            if self.refused:
                return self._finish(name, "skipped")
            if task.validates:
                return self._finish(name, "succeeded" if self.fits else "failed")
            meets = {"ok": ("succeeded",), "failed": ("failed", "cancelled"), "any": FINAL}
            if not all(one in meets[when] for one, when in before) or failed:
                return self._finish(name, "skipped")
            if task.condition == "false":
                return self._finish(name, "skipped", SKIPPED_BY_CONDITION)
            if task.enough > len(task.items):
                return self._finish(name, "failed")
            if task.tells:
                self.told.append(name)
                return self._finish(name, "succeeded")
            self.state[name] = "running"
            self._look(row)
            return True
        count = len(task.items) if task.fans_out else 1
        ends = self.ends[name]
        runs = sum(each == name for each, _ in self.running)
        good, bad = list(ends.values()).count(True), len(ends) - list(ends.values()).count(True)
        if task.enough and (good >= task.enough or count - bad < task.enough):
            return self._finish(name, "succeeded" if good >= task.enough else "failed")
        if len(ends) == count:
            return self._finish(name, "failed" if bad else "succeeded")
        no_more = halted or failed or (bad and not task.enough and self.spec.on_failure is OnFailure.STOP)
        if no_more and runs:
            return False
        if no_more:
            stopped = "skipped" if not ends and not halted else "cancelled"
            return self._finish(name, stopped if halted or failed else "failed")
        unmade = [each for each in range(count) if each not in ends and (name, each) not in self.running]
        room = (task.parallelism or count) - runs
        self.running.update({(name, each): None for each in unmade[:room]})
        return bool(unmade[:room])

    def _next_undo(self) -> str:
        tasks = self.spec.tasks
        waiting = [task for task in tasks if task.role is Role.UNDO and self.state[task.name] == "waiting"]
        if any(task.role is Role.UNDO and self.state[task.name] == "running" for task in tasks):
            return ""
        return max(waiting, key=lambda task: self.order.index(tasks[task.of].name)).name

    def _move_on(self) -> bool:
        of_stage = [task for task in self.spec.tasks if task.role == self.stage]
        if self.ended or self.running or any(self.state[task.name] not in FINAL for task in of_stage):
            return False
        self.stage = Role.FINAL + 1 if self.refused else self.stage + 1
        for task in self.spec.tasks:
            undone = self.state[self.spec.tasks[task.of].name] == "succeeded" and self.result != "succeeded"
            if task.role is Role.UNDO and self.stage == Role.UNDO and (not undone or self.whole):
                self.state[task.name] = "skipped"
        self.ended = self.stage > Role.FINAL or (self.stage == Role.FINAL and self.whole)
        if self.ended:
            self.state = {name: "skipped" if state == "waiting" else state for name, state in self.state.items()}
        return not self.ended

    def retry(self) -> None:
        tasks = self.spec.tasks
        undone = {
            tasks[task.of].name for task in tasks if task.role is Role.UNDO and self.state[task.name] != "skipped"
        }
        again = {
            task.name
            for task in tasks
            if task.role is Role.MAIN
            and (
                self.state[task.name] in ("failed", "cancelled")
                or (self.state[task.name] == "skipped" and self.reason[task.name] != SKIPPED_BY_CONDITION)
                or task.name in undone
            )
        }
        whole = set(undone)
        for _ in tasks:
            whole |= {task.name for task in tasks for each in task.after if tasks[each.row].name in again | whole}
        for task in tasks:
            if task.role is not Role.MAIN or task.name in again | whole:
                good = {at: True for at, outcome in self.ends[task.name].items() if outcome}
                part = task.fans_out and good and task.name not in whole and task.role is Role.MAIN
                self.ends[task.name] = good if part else {}
                self.state[task.name] = "running" if part else "waiting"
                self.order = [name for name in self.order if name != task.name]
        self.stage, self.stopped, self.whole, self.ended = 0, "", False, False
        self.settle()
