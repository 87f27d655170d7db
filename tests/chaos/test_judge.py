"""The judge: a record in which all is right holds every promise; each thing that is made wrong breaks the promise it is about,
and that one alone; what can't be known is undecided."""

from __future__ import annotations

import msgspec
import pytest

from chaos.checkers.models import Accepted, Done
from chaos.final import Final
from chaos.judge import judge
from chaos.record import Record
from chaos.report.document import BROKEN, HELD, UNDECIDED
from tests.chaos import mistakes
from tests.chaos.mistakes import TEN, find, gap, others_than, verdicts_of, without
from tests.chaos.records import GONE, KEPT, UNHEARD, Run, ended, event, job, scheduled, submitted


def test_where_all_is_right_every_promise_is_held():
    verdicts = verdicts_of(Run())
    assert list(verdicts) == TEN
    assert {name: (each.verdict, each.wrong, each.undecided) for name, each in verdicts.items()} == {
        name: (HELD, [], []) for name in TEN
    }
    assert verdicts["durability"].looked_at == "3 acknowledged submissions (1 deleted since), 1 refused"


@pytest.mark.parametrize(
    ("mistake", "broken", "told"),
    [
        (mistakes.lost, {"durability", "linearizability"}, "kept was acknowledged as job 1 and is lost"),
        (mistakes.lost_unheard, {"durability"}, "unheard was acknowledged as job 4 and is lost"),
        (mistakes.lost_though_nobody_deleted_it, {"durability", "linearizability"}, "is lost"),
        (
            mistakes.acknowledged_and_never_committed,
            {"durability", "linearizability"},
            "kept was acknowledged as job 1 and is lost",
        ),
        (mistakes.deleted_and_told_of_another, {"durability"}, "gone was acknowledged as job 3 and is job 9"),
        (mistakes.told_of_another_and_that_is_there, {"durability"}, "kept became the jobs 1, 9"),
        (mistakes.twice, {"durability"}, "kept became the jobs"),
        (
            mistakes.refused_and_there,
            {"durability", "linearizability", "one outcome"},
            "refused was refused and is job 9",
        ),
        (mistakes.refused_and_ran_for_a_while, {"durability"}, "refused was refused and is job 9"),
        (mistakes.two_submissions_of_one_job, {"durability"}, "job 1 stands for the submissions"),
        (mistakes.accepted_twice, {"linearizability"}, "kept is not linearizable"),
        (mistakes.a_duplicate_that_came_first, {"linearizability", "one outcome"}, "new is not linearizable"),
        (mistakes.a_read_that_saw_nothing, {"linearizability"}, "kept is not linearizable"),
        (mistakes.a_suspension_that_was_forgotten, {"linearizability"}, "kept is not linearizable"),
        (mistakes.an_end_that_was_undone, {"linearizability"}, "kept is not linearizable"),
        (mistakes.a_deleted_job_that_is_there, {"linearizability"}, "gone is not linearizable"),
        (mistakes.a_stale_read_of_another_job, {"linearizability"}, "shows kept as job 2, and it is job 1"),
        (mistakes.a_stale_read_of_another_end, {"linearizability"}, "as FAILED, and it is SUCCEEDED at the end"),
        (mistakes.a_stale_read_of_the_future, {"linearizability"}, "a suspend of job 1 that nobody had asked for"),
        (mistakes.two_outcomes, {"one outcome"}, "task 1.0 ended as SUCCEEDED and then as FAILED"),
        (
            mistakes.an_outcome_that_changed,
            {"one outcome"},
            "task 1.0 ended as SUCCEEDED, and the cluster now says FAILED",
        ),
        (mistakes.an_outcome_from_nowhere, {"one outcome"}, "nothing says how it came to that"),
        (mistakes.begun_after_its_end, {"one outcome"}, "attempt 2 began after that"),
        (mistakes.an_older_attempt_counted, {"one outcome", "fences"}, "recorded after that of attempt 2"),
        (mistakes.a_job_ended_twice, {"one outcome"}, "job 1 ended 2 times"),
        (mistakes.a_job_ended_otherwise, {"one outcome"}, "job 1 ended as FAILED, and the cluster now says SUCCEEDED"),
        (mistakes.a_cancelled_task_ran_on, {"one outcome"}, "task 3.0 ended as CANCELLED"),
        (mistakes.too_much_for_a_node, {"capacity"}, "n1 has 900 cpu_milli, and 1000 are granted"),
        (mistakes.a_node_that_got_smaller, {"capacity"}, "n2 has 400 cpu_milli, and 500 are granted"),
        (mistakes.others_fill_the_node_too, {"capacity"}, "n1 has 1000 cpu_milli, and 1100 are granted"),
        (mistakes.a_task_that_holds_for_ever, {"capacity", "one outcome"}, "task 4.0 holds n2, and its job has ended"),
        (mistakes.a_node_that_gives_nothing_back, {"capacity"}, "nothing is under way, and on n1"),
        (
            mistakes.two_at_once,
            {"no overlap"},
            "task 2.0: attempt 2 began on n2 at 9.000, while attempt 1 ran on n1 until 9.300",
        ),
        (mistakes.two_at_once_on_one_node, {"no overlap"}, "task 1.0: attempt 2 began on n1 at 2.500, while attempt 1"),
        (mistakes.begun_twice, {"fences"}, "attempt 2 of task 2.0 began 2 times"),
        (mistakes.begun_elsewhere, {"fences"}, "attempt 2 of task 2.0 began on n1, and was placed on n2"),
        (
            mistakes.begun_without_a_place,
            {"fences"},
            "attempt 3 of task 1.0 began, and nothing says that it was placed",
        ),
        (
            mistakes.succeeded_without_work,
            {"fences"},
            "attempt 2 of task 2.0 is recorded as SUCCEEDED, and never came to its end",
        ),
        (mistakes.two_leaders, {"terms"}, "term 4 has two leaders, m2 and m3"),
        (mistakes.a_term_that_was_forgotten, {"terms"}, "m2 was in term 4 and is in term 2"),
        (
            mistakes.a_term_that_was_forgotten_long_after_the_disk_was_lost,
            {"terms"},
            "m1 was in term 5 and is in term 2",
        ),
        (mistakes.a_term_that_was_forgotten_before_the_disk_was_lost, {"terms"}, "m1 was in term 9 and is in term 4"),
        (mistakes.an_index_that_fell, {"terms"}, "m2 had committed 12 and now 11"),
        (mistakes.an_index_that_fell_far_away, {"terms"}, "m3 had committed 12 and now 11"),
        (mistakes.an_index_that_fell_though_nothing_restarted, {"terms"}, "m2 had committed 12 and now 11"),
        (mistakes.a_term_that_was_forgotten_far_away, {"terms"}, "m3 was in term 4 and is in term 3"),
        (mistakes.another_state, {"replicas"}, "at entry 50 the state of m3 differs"),
        (mistakes.another_story, {"replicas"}, "m2 tells of JobEnded 11.0"),
        (mistakes.never_whole_again, {"liveness"}, "nobody leads"),
        (
            mistakes.suspended_by_nobody,
            {"every job ends", "one outcome", "linearizability"},
            "still RUNNING, suspended",
        ),
        (mistakes.a_job_without_end, {"every job ends", "one outcome"}, "job 2 (stopping) is still RUNNING"),
        (
            mistakes.a_cancelled_job_without_end,
            {"every job ends", "one outcome"},
            "job 2 (stopping) is still RUNNING, suspended, cancelled",
        ),
    ],
    ids=lambda value: value.__name__.replace("_", " ") if callable(value) else None,
)
def test_what_is_wrong_breaks_the_promise_that_it_is_about(mistake, broken, told):
    run = Run()
    mistake(run)
    verdicts = verdicts_of(run)
    found = others_than(HELD, verdicts)
    assert {name: each.verdict for name, each in found.items()} == dict.fromkeys(broken, BROKEN), found
    assert any(told in sentence for each in found.values() for sentence in each.wrong), found


# --- what is excused ---


def refused_at_first(run):
    run.failed_call(KEPT, "submit", 0.5)


def a_disk_that_nobody_saw_empty(run):
    run.record.sights[-1] = msgspec.structs.replace(run.record.sights[-1], role="follower")


def a_restart_that_nobody_could_count(run):
    run.sight(7, "m3", applied=12, life=None)
    run.sight(8, "m3", "silent", 0, 0, life=None)
    run.sight(9, "m3", applied=5, life=None)


def a_disk_that_was_lost_without_us(run):
    run.record.strikes.clear()


def deleted_perhaps(run):
    run.lost_call(KEPT, "delete", 20)
    without(run, KEPT)


def expired(run):
    run.events(event("JobExpired", 1))
    without(run, KEPT)


def deleted_by_somebody_else(run):
    run.events(event("JobDeleted", 1, actor="somebody"))
    without(run, KEPT)


def suspended_by_its_client(run):
    run.call(UNHEARD, "suspend", 13, Done())
    run.final.jobs[0] = job(4, UNHEARD, "RUNNING", suspended=True)
    del run.record.events[find(run, "AttemptEnded", 4) : find(run, "JobEnded", 4) + 1]


def suspended_perhaps(run):
    run.lost_call(UNHEARD, "suspend", 13)
    run.final.jobs[0] = job(4, UNHEARD, "RUNNING", suspended=True)
    del run.record.events[find(run, "AttemptEnded", 4) : find(run, "JobEnded", 4) + 1]


def other_peoples_jobs(run):
    run.final.amounts[77] = {"cpu_milli": 300}
    run.events(
        submitted(77, "theirs", actor="somebody"),
        scheduled(77, "n1", attempt=1),
        ended(77, "n1", 1, "SUCCEEDED"),
        event("JobEnded", 77, state="SUCCEEDED"),
    )


def the_last_line_of_who_was_killed(run):
    """Attempt 1 of job 2 says no end; that it may have lived on is no proof that it did."""
    run.effect(8.9, 2, 1, "n1", "alive")
    run.record.effects.sort(key=lambda each: each.at_s)


@pytest.mark.parametrize(
    ("excuse", "undecided"),
    [
        (refused_at_first, set()),
        (a_disk_that_nobody_saw_empty, set()),
        (a_restart_that_nobody_could_count, set()),
        (a_disk_that_was_lost_without_us, set()),
        (deleted_perhaps, set()),
        (expired, {"linearizability"}),
        (deleted_by_somebody_else, {"linearizability"}),
        (suspended_by_its_client, set()),
        (suspended_perhaps, set()),
        (other_peoples_jobs, set()),
        (the_last_line_of_who_was_killed, set()),
    ],
    ids=lambda value: value.__name__.replace("_", " ") if callable(value) else None,
)
def test_what_has_a_reason_breaks_nothing(excuse, undecided):
    run = Run()
    excuse(run)
    found = others_than(HELD, verdicts_of(run))
    assert {name: each.verdict for name, each in found.items()} == dict.fromkeys(undecided, UNDECIDED), found


# --- what can't be known ---


def test_where_events_are_missing_nothing_is_held_against_anybody_that_they_might_explain():
    run = Run()
    del run.record.events[4:14]
    gap(run, at=4)
    run.final.amounts[77] = {"cpu_milli": 5000}
    run.events(scheduled(77, "n1", attempt=1))
    run.final.jobs.append(job(5, "new", "SUCCEEDED"))
    run.record.asked["new"] = run.record.asked[GONE]
    run.call("new", "submit", 30, Accepted(5, False))
    found = others_than(HELD, verdicts_of(run))
    assert {name: each.verdict for name, each in found.items()} == dict.fromkeys(
        ["one outcome", "capacity", "fences"], UNDECIDED
    ), found


@pytest.mark.parametrize(
    ("mistake", "broken"),
    [
        (mistakes.two_outcomes, "one outcome"),
        (mistakes.an_outcome_that_changed, "one outcome"),
        (mistakes.too_much_for_a_node, "capacity"),
        (mistakes.begun_twice, "fences"),
        (mistakes.lost, "durability"),
    ],
)
def test_what_is_certain_counts_though_events_are_missing(mistake, broken):
    run = Run()
    mistake(run)
    gap(run, at=len(run.record.events))
    assert verdicts_of(run)[broken].verdict == BROKEN


def test_a_run_that_looked_at_nothing_holds_nothing():
    verdicts = {each.name: each for each in judge(Record(), None, None)}
    assert {name: each.verdict for name, each in verdicts.items()} == dict.fromkeys(TEN, UNDECIDED)


@pytest.mark.parametrize(
    ("unread", "undecided"),
    [
        ("jobs", {"durability", "linearizability", "one outcome", "every job ends"}),
        ("tasks", {"one outcome"}),
        ("nodes", {"capacity"}),
        ("check", {"replicas"}),
    ],
)
def test_what_the_cluster_did_not_say_at_the_end_is_undecided(unread, undecided):
    run = Run()
    setattr(run.final, unread, None if unread == "check" else [])
    run.final.obstacles[unread] = "nobody answers"
    found = others_than(HELD, verdicts_of(run))
    assert {name: each.verdict for name, each in found.items()} == dict.fromkeys(undecided, UNDECIDED), found
    assert all("nobody answers" in each.undecided for each in found.values())


def test_a_manager_that_did_not_compare_its_state_leaves_it_open():
    run = Run()
    run.final.check = msgspec.structs.replace(run.final.check, silent=["m3"])
    assert verdicts_of(run)["replicas"].verdict == UNDECIDED


def test_where_a_strike_failed_by_itself_a_cluster_that_is_not_whole_is_undecided():
    run = Run()
    run.record.strikes[0].outcome = "failed"
    assert verdicts_of(run)["liveness"].verdict == HELD
    mistakes.never_whole_again(run)
    found = verdicts_of(run)["liveness"]
    assert (found.verdict, found.wrong, found.undecided[1:]) == (UNDECIDED, [], ["nobody leads"])
    assert "strike 1, lost-disk, failed by itself" in found.undecided[0]


def test_managers_without_a_majority_for_any_state_leave_it_open():
    run = Run()
    run.final.check = msgspec.structs.replace(run.final.check, agreed=False)
    assert verdicts_of(run)["replicas"].verdict == UNDECIDED


def test_resources_that_nobody_knows_are_undecided():
    run = Run()
    run.events(scheduled(77, "n1", attempt=1))
    assert verdicts_of(run)["capacity"].verdict == UNDECIDED


def test_a_search_without_an_answer_is_undecided():
    run = Run()
    run.lost_call(KEPT, "suspend", 6)
    verdicts = {each.name: each for each in judge(run.record, run.final, run.settled, budget=1)}
    assert verdicts["linearizability"].verdict == UNDECIDED


def test_what_was_unfinished_is_told_where_the_cluster_said_no_more():
    run = Run()
    run.unfinished = ["job 2 (stopping) is RUNNING"]
    run.final = Final(obstacles={"jobs": "nobody answers"})
    assert "job 2 (stopping) is RUNNING" in verdicts_of(run)["every job ends"].undecided
