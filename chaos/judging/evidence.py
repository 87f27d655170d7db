"""What several verdicts need to know of a run, worked out once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from chaos.checkers.history import Ending, Operation
from chaos.checkers.models import DELETE, SUBMIT, SUSPEND, Accepted, Done, Seen
from chaos.final import Final
from chaos.record import Asked, Record
from chaos.report.document import BROKEN, HELD, UNDECIDED, Verdict
from chaos.settle import Settled
from chaos.workloads.desk import STALE_READ
from hasched.model.views import EventView, JobView

MOST_SENTENCES = 50
NOT_READ = "the run did not come to its end, so nobody asked the cluster"
EXPIRED = "its retention ended"


class Evidence:
    """`settled` and `final` are None where the run did not come so far."""

    def __init__(
        self, record: Record, final: Final | None, settled: Settled | None = None, unfinished: Sequence[str] = ()
    ) -> None:
        self.record = record
        self.final = final or Final(obstacles=dict.fromkeys(["jobs", "tasks", "amounts", "nodes", "check"], NOT_READ))
        self.settled = settled
        self.unfinished = unfinished
        self.operations = record.history.operations()

    @property
    def has_gaps(self) -> bool:
        return self.record.whole_events is not None

    @property
    def whole_events(self) -> list[EventView]:
        """The events up to the first gap."""
        return self.record.events[: self.record.whole_events]

    @property
    def gaps(self) -> list[str]:
        return [f"events may be missing {gap}" for gap in self.record.event_gaps]

    # --- the jobs of this run ---

    @cached_property
    def submits(self) -> dict[str, list[Operation]]:
        """By submission id: what is in here is this run's, and nothing else is."""
        found: dict[str, list[Operation]] = {}
        for operation in self.operations:
            if operation.kind == SUBMIT:
                found.setdefault(operation.key, []).append(operation)
        return found

    @cached_property
    def acknowledged(self) -> dict[str, int]:
        """Job ids by submission id, of all submissions that anybody was told to be accepted."""
        found: dict[str, int] = {}
        for operation in self.operations:
            if operation.kind == STALE_READ or operation.key not in self.submits:
                continue
            if operation.ending is Ending.RETURNED and isinstance(operation.result, Accepted | Seen):
                found.setdefault(operation.key, operation.result.job_id)
        return found

    @cached_property
    def refused(self) -> list[str]:
        """Submissions of which every try failed: nothing may have come of them."""
        return [key for key, tries in self.submits.items() if all(each.ending is Ending.FAILED for each in tries)]

    @cached_property
    def committed(self) -> dict[str, list[int]]:
        """Job ids by submission id, as the events tell of them."""
        found: dict[str, list[int]] = {}
        for event in self.record.events:
            if event.type == "JobSubmitted" and event.job_id is not None:
                submission_id = str(event.data.get("submission_id"))
                if submission_id in self.submits:
                    found.setdefault(submission_id, []).append(event.job_id)
        return found

    @cached_property
    def job_ids(self) -> dict[str, int]:
        """The job of each submission of this run that anything is known of."""
        found = {key: ids[0] for key, ids in self.committed.items()}
        found |= {job.submission_id: job.id for job in self.jobs.values()}
        return found | self.acknowledged

    @cached_property
    def mine(self) -> dict[int, str]:
        """Submission ids by job id."""
        return {job_id: key for key, job_id in self.job_ids.items()}

    @cached_property
    def jobs(self) -> dict[str, JobView]:
        """As they are at the end, by submission id. Of several jobs for one id, the first."""
        return {job.submission_id: job for job in reversed(self.final.jobs) if job.submission_id in self.submits}

    @cached_property
    def asked(self) -> dict[int, Asked]:
        """By job id."""
        return {job_id: self.record.asked[key] for job_id, key in self.mine.items() if key in self.record.asked}

    @cached_property
    def _changes(self) -> dict[tuple[str, str], list[Operation]]:
        """By kind and submission id."""
        found: dict[tuple[str, str], list[Operation]] = {}
        for operation in self.operations:
            if operation.kind in (DELETE, SUSPEND):
                found.setdefault((operation.kind, operation.key), []).append(operation)
        return found

    def may_have(self, kind: str, key: str) -> bool:
        """Whether a call of this kind (delete, suspend) took effect, or ended without saying that it did not."""
        return any(
            each.ending is Ending.UNKNOWN or isinstance(each.result, Done)
            for each in self._changes.get((kind, key), [])
        )

    # --- what others did to them ---

    @cached_property
    def meddled(self) -> dict[str, str]:
        """Submissions whose jobs somebody else changed, and how: clients of this run can't know of it."""
        owners: dict[int, object] = {}
        found: dict[str, str] = {}
        for event in self.record.events:
            if event.job_id not in self.mine:
                continue
            actor = event.data.get("actor")
            if event.type == "JobSubmitted":
                owners[event.job_id] = actor
            elif event.type == "JobExpired":
                found[self.mine[event.job_id]] = EXPIRED
            elif actor is not None and event.job_id in owners and actor != owners[event.job_id]:
                found[self.mine[event.job_id]] = f"{event.type} by {actor}"
        return found

    def may_be_gone(self, key: str) -> bool:
        """Whether somebody deleted the job, or may have."""
        return self.may_have(DELETE, key) or self.meddled.get(key, "").startswith(("JobDeleted", EXPIRED))

    def may_be_suspended(self, key: str) -> bool:
        return self.may_have(SUSPEND, key) or self.meddled.get(key, "").startswith("JobSuspended")


def decide(
    name: str,
    promise: str,
    looked_at: str,
    *,
    looked: int,
    wrong: Sequence[str],
    undecided: Sequence[str] = (),
) -> Verdict:
    """Broken if anything is wrong; held only if there was something to look at, and all of it could be decided."""
    doubts = list(undecided)
    if not looked:
        doubts.append("there was nothing to look at")
    verdict = BROKEN if wrong else UNDECIDED if doubts else HELD
    return Verdict(
        name=name,
        promise=promise,
        verdict=verdict,
        looked_at=looked_at,
        wrong=_shortened(wrong),
        undecided=_shortened(doubts),
    )


def _shortened(sentences: Sequence[str]) -> list[str]:
    more = len(sentences) - MOST_SENTENCES
    return [*sentences[:MOST_SENTENCES], *([f"… and {more:,} more"] if more > 0 else [])]
