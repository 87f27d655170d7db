"""Records of runs by hand: one in which everything is right, for tests that make one thing wrong."""

from __future__ import annotations

import msgspec

from chaos.checkers.models import Accepted, Done, Refused, Seen
from chaos.final import Final
from chaos.record import Asked, Effect, Record, Sight, Struck
from chaos.settle import Settled
from hasched.model.spec import Resources
from hasched.model.views import CheckView, EventView, JobView, NodeView

KEPT, STOPPING, GONE, UNHEARD, REFUSED = "kept", "stopping", "gone", "unheard", "refused"  # submission ids


class Run:
    """Five submissions. Job 1 (`kept`) runs, fails once, and succeeds. Job 2 (`stopping`) says on_disconnect: stop, loses its
    node and succeeds elsewhere. Job 3 (`gone`) is cancelled and deleted. Job 4 (`unheard`) was accepted without its client
    hearing of it. `refused` was refused by every manager."""

    def __init__(self) -> None:
        self.record = Record()
        self.settled = Settled(seconds=1.5, obstacles=[])
        self.unfinished: list[str] = []
        self._submissions()
        self._log()
        self._effects()
        self._sights()
        self.final = Final(
            from_s=90.0,
            until_s=91.0,
            jobs=[job(4, UNHEARD, "SUCCEEDED"), job(2, STOPPING, "SUCCEEDED"), job(1, KEPT, "SUCCEEDED")],
            nodes=[node("n1"), node("n2")],
            check=CheckView(log_index=50, time_ms=1, agreed=True, differing=[], silent=[]),
        )

    def call(self, key, kind, at, result):
        """A call that returned, 0.1 s after it began."""
        number = self.record.history.begin("c1", key, kind, at)
        self.record.history.returned(number, at + 0.1, result)

    def lost_call(self, key, kind, at):
        self.record.history.unknown(self.record.history.begin("c1", key, kind, at))

    def failed_call(self, key, kind, at):
        self.record.history.failed(self.record.history.begin("c1", key, kind, at), at + 0.1)

    def _submissions(self):
        record = self.record
        for number, key in enumerate((KEPT, STOPPING, GONE, UNHEARD, REFUSED)):
            stops = key == STOPPING
            record.asked[key] = Asked(amounts={"cpu_milli": 500}, stops=stops, tells=key in (KEPT, STOPPING))
            if key in (KEPT, STOPPING, GONE):
                self.call(key, "submit", 1 + number, Accepted(number + 1, False))
                record.jobs[key] = number + 1
        self.call(KEPT, "submit", 6, Accepted(1, True))
        self.call(KEPT, "read", 7, Seen(1, False, False, ""))
        self.call(KEPT, "stale read", 8, Seen(1, False, False, ""))
        self.call(GONE, "suspend", 8, Done())
        self.call(GONE, "cancel", 9, Done())
        self.call(GONE, "delete", 10, Done())
        self.call(GONE, "resume", 11, Refused("no_such_job"))
        self.lost_call(UNHEARD, "submit", 12)
        self.failed_call(REFUSED, "submit", 13)
        self.failed_call(REFUSED, "submit", 14)

    def _log(self):
        self.record.anchor = 9
        self.record.offers = {"n1": {"cpu_milli": 1000}, "n2": {"cpu_milli": 1000}}
        self.events(
            submitted(1, KEPT),
            submitted(2, STOPPING),
            submitted(3, GONE),
            scheduled(1, "n1", attempt=1),
            scheduled(2, "n1", attempt=1),
            ended(1, "n1", 1, "FAILED", "PENDING"),
            scheduled(1, "n1", attempt=2),
            event("JobSuspended", 3, actor="tester"),
            event("JobCancelRequested", 3, actor="tester", reason="", indices=[], cancelled=1, stopping=[]),
            event("JobEnded", 3, state="CANCELLED"),
            event("JobDeleted", 3, actor="tester"),
            submitted(4, UNHEARD),
            scheduled(4, "n2", attempt=1),
            ended(4, "n2", 1, "SUCCEEDED"),
            event("JobEnded", 4, state="SUCCEEDED"),
            ended(1, "n1", 2, "SUCCEEDED"),
            event("JobEnded", 1, state="SUCCEEDED"),
            ended(2, "n1", 1, "NODE_LOST", "PENDING", reported=False),
            scheduled(2, "n2", attempt=2),
            ended(2, "n2", 2, "SUCCEEDED"),
            event("JobEnded", 2, state="SUCCEEDED"),
        )

    def events(self, *more):
        """These come last in the log."""
        for each in more:
            index = 10 + len(self.record.events)
            self.record.events.append(msgspec.structs.replace(each, id=f"{index}.0", log_index=index))

    def effect(self, at, job_id, attempt, node_id, what):
        self.record.effects.append(Effect(at_s=at, job_id=job_id, index=0, attempt=attempt, node_id=node_id, what=what))

    def _effects(self):
        self.effect(1.0, 1, 1, "n1", "began")
        self.effect(2.0, 2, 1, "n1", "began")
        self.effect(2.2, 2, 1, "n1", "alive")
        self.effect(2.5, 1, 2, "n1", "began")
        self.effect(3.0, 1, 2, "n1", "ended")
        self.effect(9.0, 2, 2, "n2", "began")
        self.effect(9.5, 2, 2, "n2", "ended")

    def sight(self, at, manager, role="follower", term=3, applied=10, life=0):
        self.record.sights.append(
            Sight(
                at_s=at,
                manager=manager,
                role=role,
                term=term,
                commit_index=applied,
                applied_index=applied,
                life=life,
            )
        )

    def _sights(self):
        self.sight(1, "m1", "leader")
        self.sight(1, "m2")
        self.sight(2, "m1", "silent", 0, 0)
        self.sight(3, "m2", "leader", 4, 12)
        self.sight(3, "m1", term=4, applied=5, life=1)  # restarted: what is committed it learns anew
        self.record.strikes.append(
            Struck(
                number=1,
                nemesis="lost-disk",
                family="disk",
                at_s=4.0,
                until_s=6.0,
                targets=["m1"],
                endangered=["m1"],
                outcome="done",
            )
        )
        self.sight(6, "m1", "learner", 1, 0, life=2)  # and even its term, after its disk was lost


def event(kind, job_id, **data):
    fields = {name: data.pop(name) for name in ("task_index", "attempt", "node_id") if name in data}
    return EventView(id="0.0", log_index=0, time_ms=1, type=kind, job_id=job_id, data=data, **fields)


def submitted(job_id, key, count=1, actor="tester"):
    return event("JobSubmitted", job_id, submission_id=key, actor=actor, count=count)


def scheduled(job_id, node_id, *, attempt, index=0):
    return event("TasksScheduled", job_id, node_id=node_id, indices=[index], attempts=[attempt])


def ended(job_id, node_id, attempt, state, task_state="", index=0, *, reported=True):
    return event(
        "AttemptEnded",
        job_id,
        task_index=index,
        attempt=attempt,
        node_id=node_id,
        state=state,
        task_state=task_state or state,
        reported=reported,
    )


def job(job_id, key, state, **more):
    return JobView(
        id=job_id,
        name="job",
        state=state,
        queue="default",
        priority=0,
        actor="tester",
        submission_id=key,
        count=1,
        tasks={state: 1},
        **more,
    )


def node(node_id, allocated=Resources()):  # noqa: B008 - it is frozen
    return NodeView(
        id=node_id,
        state="healthy",
        reason=None,
        hostname=node_id,
        agent_version="",
        isolation="rlimit",
        labels={},
        total=Resources(cpu_milli=1000),
        allocated=allocated,
        gpus=[],
        running=0,
        connected=True,
        registered_ms=1,
        changed_ms=1,
        log_index=1,
    )
