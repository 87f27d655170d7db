"""Runs in which one thing is wrong, for the judge to find; each by a function that spoils a run in which all is right."""

from __future__ import annotations

import msgspec

from chaos.checkers.models import Accepted, Done, Refused, Seen
from chaos.judge import judge
from hasched.model.spec import Resources
from tests.chaos.records import (
    GONE,
    KEPT,
    REFUSED,
    STOPPING,
    UNHEARD,
    ended,
    event,
    job,
    node,
    scheduled,
    submitted,
)

TEN = [
    "durability",
    "linearizability",
    "one outcome",
    "capacity",
    "no overlap",
    "fences",
    "terms",
    "replicas",
    "liveness",
    "every job ends",
]


def verdicts_of(run):
    return {each.name: each for each in judge(run.record, run.final, run.settled, run.unfinished)}


def others_than(verdict, verdicts):
    return {name: each for name, each in verdicts.items() if each.verdict != verdict}


def without(run, key):
    run.final.jobs = [each for each in run.final.jobs if each.submission_id != key]


def change_event(run, place, **changes):
    run.record.events[place] = msgspec.structs.replace(run.record.events[place], **changes)


def find(run, kind, job_id):
    return next(n for n, each in enumerate(run.record.events) if (each.type, each.job_id) == (kind, job_id))


def gap(run, at):
    run.record.event_gaps.append("between 1.0 and 2.0: nobody held them")
    run.record.whole_events = at


def lost(run):
    without(run, KEPT)


def lost_unheard(run):
    without(run, UNHEARD)


def lost_though_nobody_deleted_it(run):
    run.call(KEPT, "delete", 20, Refused("job_active"))
    without(run, KEPT)


def acknowledged_and_never_committed(run):
    run.record.events = [each for each in run.record.events if each.job_id != 1]
    run.record.effects = [each for each in run.record.effects if each.job_id != 1]
    without(run, KEPT)


def told_of_another_job(run, key):
    at = next(n for n, each in enumerate(run.record.events) if each.data.get("submission_id") == key)
    run.events(msgspec.structs.replace(run.record.events.pop(at), job_id=9))


def deleted_and_told_of_another(run):
    told_of_another_job(run, GONE)


def told_of_another_and_that_is_there(run):
    told_of_another_job(run, KEPT)


def twice(run):
    run.final.jobs.append(job(9, KEPT, "SUCCEEDED"))


def refused_and_there(run):
    run.final.jobs.append(job(9, REFUSED, "SUCCEEDED"))


def refused_and_ran_for_a_while(run):
    run.events(submitted(9, REFUSED), event("JobEnded", 9, state="CANCELLED"), event("JobDeleted", 9, actor="tester"))


def two_submissions_of_one_job(run):
    run.record.asked["new"] = run.record.asked[KEPT]
    run.call("new", "submit", 30, Accepted(1, False))
    run.final.jobs.append(job(1, "new", "SUCCEEDED"))


def accepted_twice(run):
    run.call(KEPT, "submit", 30, Accepted(1, False))


def a_duplicate_that_came_first(run):
    run.record.asked["new"] = run.record.asked[GONE]
    run.call("new", "submit", 30, Accepted(5, True))
    run.final.jobs.insert(0, job(5, "new", "SUCCEEDED"))


def a_read_that_saw_nothing(run):
    run.call(KEPT, "read", 30, None)


def a_suspension_that_was_forgotten(run):
    run.record.history.returned(run.record.history.begin("c2", KEPT, "suspend", 20), 20.1, Done())


def an_end_that_was_undone(run):
    run.call(KEPT, "read", 20, Seen(1, None, False, "SUCCEEDED"))
    run.call(KEPT, "read", 21, Seen(1, False, False, ""))


def a_deleted_job_that_is_there(run):
    run.final.jobs.append(job(3, GONE, "CANCELLED", suspended=True))


def a_stale_read_of_another_job(run):
    run.call(KEPT, "stale read", 20, Seen(2, False, False, ""))


def a_stale_read_of_another_end(run):
    run.call(KEPT, "stale read", 20, Seen(1, None, False, "FAILED"))


def a_stale_read_of_the_future(run):
    run.call(KEPT, "stale read", 20, Seen(1, False, True, ""))


def two_outcomes(run):
    run.events(ended(1, "n1", 3, "FAILED"))


def an_outcome_that_changed(run):
    run.final.jobs[-1] = job(1, KEPT, "FAILED")


def an_outcome_from_nowhere(run):
    run.record.asked["new"] = run.record.asked[GONE]
    run.call("new", "submit", 30, Accepted(5, False))
    run.final.jobs.insert(0, job(5, "new", "SUCCEEDED"))


def begun_after_its_end(run):
    run.events(scheduled(4, "n2", attempt=2), ended(4, "n2", 2, "SUCCEEDED"))


def an_older_attempt_counted(run):
    run.events(ended(1, "n1", 1, "SUCCEEDED"))


def a_job_ended_twice(run):
    run.events(event("JobEnded", 1, state="SUCCEEDED"))


def a_job_ended_otherwise(run):
    change_event(run, find(run, "JobEnded", 1), data={"state": "FAILED"})


def a_cancelled_task_ran_on(run):
    run.events(scheduled(3, "n2", attempt=1), ended(3, "n2", 1, "SUCCEEDED"))


def too_much_for_a_node(run):
    run.record.offers["n1"] = {"cpu_milli": 900}


def a_node_that_got_smaller(run):
    smaller = event("NodeRegistered", None, node_id="n2", info={"resources": {"cpu_milli": 400}})
    run.record.events.insert(0, smaller)


def others_fill_the_node_too(run):
    run.final.amounts[77] = {"cpu_milli": 600}
    run.record.events.insert(0, scheduled(77, "n1", attempt=1))


def a_task_that_holds_for_ever(run):
    place = find(run, "AttemptEnded", 4)
    run.record.events[place] = event("AttemptStarted", 4, task_index=0, attempt=1, node_id="n2")
    without(run, UNHEARD)
    run.final.jobs.insert(0, job(4, UNHEARD, "SUCCEEDED"))


def a_node_that_gives_nothing_back(run):
    run.final.nodes[0] = node("n1", Resources(cpu_milli=500))


def two_at_once(run):
    run.effect(9.3, 2, 1, "n1", "alive")
    run.record.effects.sort(key=lambda each: each.at_s)


def two_at_once_on_one_node(run):
    run.effect(2.7, 1, 1, "n1", "alive")
    run.record.effects.sort(key=lambda each: each.at_s)


def begun_twice(run):
    run.effect(20.0, 2, 2, "n2", "began")
    run.effect(21.0, 2, 2, "n2", "ended")


def begun_elsewhere(run):
    run.record.effects[-2:] = []
    run.effect(9.0, 2, 2, "n1", "began")
    run.effect(9.5, 2, 2, "n1", "ended")


def begun_without_a_place(run):
    run.effect(20.0, 1, 3, "n1", "began")


def succeeded_without_work(run):
    run.record.effects.pop()


def two_leaders(run):
    run.sight(7, "m3", "leader", 4)


def a_term_that_was_forgotten(run):
    run.sight(7, "m2", term=2, applied=12, life=1)


def a_term_that_was_forgotten_long_after_the_disk_was_lost(run):
    run.sight(7, "m1", term=5, life=2)
    run.sight(9, "m1", term=2, life=3)


def a_term_that_was_forgotten_before_the_disk_was_lost(run):
    run.sight(1.5, "m1", term=9)
    run.record.sights.sort(key=lambda each: each.at_s)


def an_index_that_fell(run):
    run.sight(7, "m2", term=4, applied=11)


def an_index_that_fell_far_away(run):
    run.sight(7, "m3", applied=12, life=None)
    run.sight(8, "m3", applied=11, life=None)


def a_term_that_was_forgotten_far_away(run):
    run.sight(7, "m3", term=4, life=None)
    run.sight(8, "m3", "silent", 0, 0, life=None)
    run.sight(9, "m3", term=3, life=None)


def an_index_that_fell_though_nothing_restarted(run):
    run.sight(7, "m2", "silent", 0, 0)
    run.sight(8, "m2", term=4, applied=11)


def another_state(run):
    run.final.check = msgspec.structs.replace(run.final.check, differing=["m3"])


def another_story(run):
    run.record.contradictions.append("m2 tells of JobEnded 11.0 where another manager told of JobDeleted 11.0")


def never_whole_again(run):
    run.settled = msgspec.structs.replace(run.settled, obstacles=["nobody leads"])


def a_job_without_end(run):
    run.final.jobs[1] = job(2, STOPPING, "RUNNING")


def a_cancelled_job_without_end(run):
    run.call(STOPPING, "suspend", 20, Done())
    run.call(STOPPING, "cancel", 21, Done())
    run.final.jobs[1] = job(2, STOPPING, "RUNNING", suspended=True, cancelling=True)


def suspended_by_nobody(run):
    run.final.jobs[1] = job(2, STOPPING, "RUNNING", suspended=True)
