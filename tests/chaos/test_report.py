"""The report's document, its text and its files."""

from __future__ import annotations

import json
from pathlib import Path

import click
import msgspec
import pytest
import sample_run

from chaos.checkers.models import READ, SUBMIT, Accepted, Done, Refused, Seen
from chaos.record import Record, Sight, Struck
from chaos.report import build, files, summary, text
from chaos.report.document import Bucket, Call, ClusterPart, Document, DrillPart, Gap, Lead, Totals, Verdict
from chaos.report.histories import choose, find_suspects
from hasched.model.errors import BadRequest, NotFound


def held(name: str = "durability", looked_at: str = "12 submissions", **more: list[str]) -> Verdict:
    return Verdict(name=name, promise="What was acknowledged is there.", verdict="held", looked_at=looked_at, **more)


def sight(at_s: float, manager: str, role: str, term: int = 1) -> Sight:
    return Sight(at_s=at_s, manager=manager, role=role, term=term)


def submit(record: Record, key: str, at_s: float, until_s: float | None, job_id: int = 1) -> None:
    """Accepted, or without an answer."""
    number = record.history.begin("c1", key, SUBMIT, at_s)
    if until_s is None:
        record.history.unknown(number)
    else:
        record.history.returned(number, until_s, Accepted(job_id, False))


# --- who led ---


def test_a_lead_lasts_from_the_first_to_the_last_time_it_was_seen() -> None:
    sights = [sight(1.0, "m1", "leader", 3), sight(1.5, "m1", "leader", 3), sight(2.0, "m1", "follower", 4)]
    assert build.find_leads(sights) == [Lead(manager="m1", term=3, from_s=1.0, until_s=1.5)]


def test_silence_ends_a_lead_since_nobody_saw_what_it_was_meanwhile() -> None:
    sights = [sight(1.0, "m1", "leader", 3), sight(2.0, "m1", "silent"), sight(9.0, "m1", "leader", 3)]
    assert [(each.from_s, each.until_s) for each in build.find_leads(sights)] == [(1.0, 1.0), (9.0, 9.0)]


def test_two_that_lead_at_once_are_both_seen_to() -> None:
    sights = [sight(at, name, "leader", term) for at in (1.0, 2.0) for name, term in (("m1", 3), ("m2", 4))]
    assert build.find_leads(sights) == [
        Lead(manager="m1", term=3, from_s=1.0, until_s=2.0),
        Lead(manager="m2", term=4, from_s=1.0, until_s=2.0),
    ]


def test_a_new_term_is_a_new_lead() -> None:
    sights = [sight(1.0, "m1", "leader", 3), sight(2.0, "m1", "leader", 5)]
    assert [each.term for each in build.find_leads(sights)] == [3, 5]


# --- calls ---


def test_calls_are_counted_in_the_second_in_which_they_began_and_empty_seconds_are_there() -> None:
    record = Record()
    for key, at_s, until_s in (("a", 1.2, 1.3), ("b", 1.9, 4.9), ("c", 4.0, None)):
        submit(record, key, at_s, until_s)
    first, second, third, fourth = build.count_calls(record.history.operations())
    assert (first.at_s, first.returned, first.p50_ms, first.max_ms) == (1, 2, 100.0, 3000.0)
    assert [second, third] == [Bucket(at_s=at_s, returned=0, failed=0, unknown=0) for at_s in (2, 3)]
    assert (fourth.at_s, fourth.returned, fourth.unknown) == (4, 0, 1)


def test_percentiles_are_waits_that_somebody_had() -> None:
    record = Record()
    for number in range(1, 201):
        submit(record, str(number), 1.0, 1.0 + number / 1000)
    (bucket,) = build.count_calls(record.history.operations())
    assert (bucket.p50_ms, bucket.p99_ms, bucket.max_ms) == (100.0, 198.0, 200.0)


def test_totals_are_by_kind_the_most_frequent_first() -> None:
    record = Record()
    record.history.failed(record.history.begin("c1", "a", READ, 1.0), 1.1)
    submit(record, "a", 1.0, 1.1)
    submit(record, "b", 1.0, None)
    assert build.sum_up(record.history.operations()) == [
        Totals(kind=SUBMIT, returned=1, failed=0, unknown=1),
        Totals(kind=READ, returned=0, failed=1, unknown=0),
    ]


def test_gaps_lie_between_accepted_submissions_and_name_the_strikes_of_their_time() -> None:
    record = Record()
    for key, at_s, until_s in (("a", 1.0, 1.1), ("b", 2.0, 8.0), ("c", 8.1, 8.5), ("d", 9.0, None)):
        submit(record, key, at_s, until_s)
    strikes = [
        Struck(number=1, nemesis="kill", family="process", at_s=2.0, until_s=4.0, targets=["m1"], outcome="done"),
        Struck(number=2, nemesis="cut", family="network", at_s=8.1, until_s=8.2, targets=["m2"], outcome="done"),
        Struck(number=3, nemesis="wipe", family="disk", at_s=3.0, until_s=3.1, outcome="skipped"),
    ]
    longest, second, *_ = build.find_gaps(record.history.operations(), strikes)
    assert longest == Gap(from_s=1.1, until_s=8.0, during=["kill m1"])
    assert second == Gap(from_s=8.0, until_s=8.5, during=["cut m2"])


def test_a_run_in_which_no_submission_was_accepted_is_one_gap() -> None:
    record = Record()
    for at_s in (1.0, 30.0):
        submit(record, f"at {at_s}", at_s, None)
    assert build.find_gaps(record.history.operations(), []) == [Gap(from_s=1.0, until_s=30.0)]


# --- histories ---


def test_a_call_reads_as_a_person_says_it() -> None:
    record = Record()
    results = [
        Accepted(3, True),
        Seen(3, True, False, ""),
        Seen(3, False, False, "FAILED"),
        Refused("job_ended"),
        Done(),
        None,
    ]
    for result in results:
        record.history.returned(record.history.begin("c1", "a", READ, 1.0), 1.5, result)
    submit(record, "a", 2.0, None)
    calls = build.build(record, [], sample_run.head()).histories["a"]
    assert [each.result for each in calls] == [
        "job 3, known already",
        "job 3: not ended, cancelling",
        "job 3: FAILED",
        "refused: job_ended",
        "done",
        "no such job",
        "",
    ]
    assert calls[-1] == Call(client="c1", kind=SUBMIT, from_s=2.0, until_s=None, ending="unknown")


@pytest.mark.parametrize(
    "sentence",
    [
        pytest.param("submission 17-b-1 was acknowledged as job 9 and is lost", id="by its submission id"),
        pytest.param("17-b-1: 31 calls, no order found", id="in front of a colon"),
        pytest.param("task 2.0 ended as FAILED and then as SUCCEEDED", id="by its job"),
    ],
)
def test_the_histories_that_a_broken_verdict_speaks_of_come_first(sentence: str) -> None:
    record = Record()
    for number, key in enumerate(("17-b-10", "17-b-1", "17-c-1"), 1):
        submit(record, key, number, number + 0.1, job_id=number)
    broken = Verdict(name="durability", promise="", verdict="broken", looked_at="3 jobs", wrong=[sentence])
    document = build.build(record, [held(), broken], sample_run.head())
    assert document.suspects == ["17-b-1"]
    assert list(document.histories) == ["17-b-1", "17-b-10", "17-c-1"]


def test_a_held_verdict_makes_no_suspects() -> None:
    record = Record()
    submit(record, "a", 1.0, 1.1)
    assert find_suspects([held(wrong=["a is fine"])], record.history.by_key()) == []


def test_what_is_too_much_is_left_out_whole_and_said_so_and_suspects_stay() -> None:
    histories = sample_run.record(seconds=20).history.by_key()
    suspect = list(histories)[-1]
    chosen, told = choose(histories, [suspect], room_bytes=2_000)
    assert suspect in chosen and 0 < len(chosen) < len(histories)
    assert all(len(calls) == len(histories[key]) for key, calls in chosen.items())
    assert told == [
        f"the histories of {len(histories) - len(chosen)} of {len(histories)} submissions are left out of the report: "
        "too much for a page"
    ]


def test_ten_minutes_with_fifty_thousand_calls_stay_below_ten_megabytes() -> None:
    record = sample_run.record(seconds=600, calls_a_second=85)
    assert len(record.history) > 50_000
    document = build.build(record, sample_run.verdicts(record), sample_run.head(), sample_run.logs())
    assert len(document.histories) == len(record.history.by_key()), "nothing had to be left out"
    assert len(msgspec.json.encode(document)) < 10_000_000


# --- verdicts ---


def test_a_verdict_that_looked_at_nothing_is_not_held() -> None:
    document = build.build(Record(), [held(looked_at="")], sample_run.head())
    assert document.verdicts[0].verdict == "undecided" and not document.all_held


def test_of_ten_thousand_sentences_the_first_are_kept_and_the_others_counted() -> None:
    broken = Verdict(name="x", promise="", verdict="broken", looked_at="jobs", wrong=["lost"] * 10_000)
    (verdict,) = build.build(Record(), [broken], sample_run.head()).verdicts
    assert len(verdict.wrong) == build.SENTENCES + 1 and verdict.wrong[-1] == "and 9,800 more like these"


BROKEN = Verdict(name="b", promise="", verdict="broken", looked_at="jobs", wrong=["lost"])
OPEN = Verdict(name="u", promise="", verdict="undecided", looked_at="jobs")
BLIND = Verdict(name="n", promise="", verdict="undecided")
PASSED, FAILED, LEFT_OUT = (
    DrillPart(name=verdict, happened="", expects="", verdict=verdict) for verdict in ("passed", "failed", "left out")
)


@pytest.mark.parametrize(
    ("verdicts", "drills", "word", "sentence"),
    [
        pytest.param([held(), held()], [], "held", "2 promises were kept", id="all were kept"),
        pytest.param([held(), OPEN, BROKEN], [], "broken", "1 promise is broken", id="one broken outweighs all"),
        pytest.param(
            [held(), OPEN], [], "undecided", "1 of 2 promises could not be decided", id="one open is not held"
        ),
        pytest.param([OPEN], [], "undecided", "1 of 1 promise could not be decided", id="nothing but an open one"),
        pytest.param([], [], "nothing", "nothing was looked at", id="no verdict at all"),
        pytest.param([BLIND, BLIND], [], "nothing", "nothing was looked at", id="verdicts on nothing"),
        pytest.param([], [PASSED, LEFT_OUT], "held", "1 drill passed", id="those left out don't count"),
        pytest.param([], [PASSED, FAILED], "broken", "1 drill failed", id="a failed drill"),
        pytest.param([], [LEFT_OUT], "nothing", "nothing was looked at", id="every drill left out"),
    ],
)
def test_the_summary_is_the_worst_of_all(
    verdicts: list[Verdict], drills: list[DrillPart], word: str, sentence: str
) -> None:
    document = Document(head=sample_run.head(), verdicts=verdicts, drills=drills)
    summed = summary.sum_up(document)
    assert (summed.word, summed.sentence) == (word, sentence)
    assert document.all_held == (word == "held"), "the exit code says the same"


# --- heads and notes ---


def test_the_head_says_what_somebody_needs_to_see_the_same() -> None:
    head = build.head_of_drills(build.begin(), seed=4, command="hasched chaos drill --all --seed 4")
    assert set(head.versions) == {"hasched", "Python", "pysyncobj", "kernel", "machine"}
    assert all(head.versions.values()) and head.host and head.seed == 4
    assert "cores" in head.versions["machine"] and "GiB" in head.versions["machine"]


def test_notes_and_gaps_in_the_events_reach_the_head_once() -> None:
    record = Record()
    record.note("n1 was slow")
    record.event_gaps = ["some events may be missing"]
    head = sample_run.head(notes=[record.notes[0], "asked for by hand"])
    told = build.build(record, [], head).head.notes
    assert told == [record.notes[0], "asked for by hand", "some events may be missing"]


# --- the terminal ---


def test_the_text_says_everything_that_matters() -> None:
    told = text.render(sample_run.document(), [Path("/r/report.json"), Path("/r/report.html")], colour=False)
    lines = told.splitlines()
    assert "  ✗ durability       broken: 3,390 acknowledged submissions" in lines
    assert "  ? fences           undecided: 3,604 attempts" in lines
    assert "  ✓ terms            1,980 sights of 3 managers" in lines
    assert "✗ 2 promises are broken." in lines
    assert any("was acknowledged as job 4 and is lost" in line for line in lines)
    assert any(line.startswith("  submit ") and "returned" in line for line in lines)
    assert any(line.startswith("  network ") and "one-way-cut ×" in line and "skipped" in line for line in lines)
    assert any(" s  from " in line and ", during " in line for line in lines)
    assert {"  /r/report.json", "  /r/report.html"} < set(lines)
    assert "  hasched chaos run --minutes 5 --managers 3 --agents 2 --seed 20417" in lines


def test_the_text_of_a_run_without_verdicts_is_no_good_news() -> None:
    told = text.render(Document(head=sample_run.head()))
    assert "– Nothing was looked at." in click.unstyle(told)
    assert click.style("✓", "green")[:5] not in told


def test_a_thousand_sentences_do_not_flood_the_terminal() -> None:
    broken = msgspec.structs.replace(BROKEN, wrong=[f"job {number} is lost" for number in range(1000)])
    told = text.render(Document(head=sample_run.head(), verdicts=[broken]), colour=False)
    assert "job 4 is lost" in told and "job 5 is lost" not in told and "and 995 more: see the page" in told


def test_nothing_in_a_report_steers_the_terminal() -> None:
    evil = "\x1b]0;owned\x07\x1b[2J"
    bad = msgspec.structs.replace(BROKEN, name=evil, wrong=[evil])
    drill = msgspec.structs.replace(FAILED, name=evil, why=evil)
    cluster = ClusterPart(name=evil, kind=evil, managers=[evil], agents=[])
    head = sample_run.head(command=evil, left_out=[evil], notes=[evil], cluster=cluster)
    strikes = [Struck(number=1, nemesis=evil, family=evil, at_s=1, outcome=evil)]
    told = text.render(Document(head=head, verdicts=[bad], drills=[drill], strikes=strikes), colour=False)
    assert told.count("owned") > 6
    assert all(char.isprintable() or char == "\n" for char in told)


# --- files ---


def test_a_report_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    document = msgspec.structs.replace(sample_run.document(), drills=sample_run.drills())
    written, page = files.write(document, tmp_path / "new" / "folder")
    assert files.read(written) == document
    assert page.read_text().startswith("<!doctype html>")
    assert sorted(each.name for each in written.parent.iterdir()) == ["report.html", "report.json"]


def test_a_second_run_does_not_cost_the_report_of_the_first(tmp_path: Path) -> None:
    first, second = (Document(head=sample_run.head(seed=seed)) for seed in (1, 2))
    files.write(first, tmp_path)
    written, _ = files.write(second, tmp_path)
    assert files.read(written) == second
    (earlier,) = tmp_path.glob("report-*.json")
    assert files.read(earlier) == first and earlier.with_suffix(".html").exists()


def test_the_json_is_for_other_programs_too(tmp_path: Path) -> None:
    written, _ = files.write(sample_run.document(), tmp_path)
    told = json.loads(written.read_text())
    assert told["format"] == 1 and told["head"]["seed"] == 20417
    client, kind, from_s, until_s, ending, result = next(iter(told["histories"].values()))[0]
    assert (kind, ending) == ("submit", "returned") and from_s < until_s and client and result.startswith("job ")


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        pytest.param(b"\xff\x00", "is no report", id="no text"),
        pytest.param(b"{}", "is no report", id="another document"),
        pytest.param(b'{"format": 1, "head": 3}', "is no report", id="a head that is none"),
        pytest.param(b'{"format": 2}', "of format 2", id="of a later version"),
    ],
)
def test_what_is_no_report_is_refused_with_its_cause(content: bytes, cause: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(BadRequest, match=cause):
        files.read(path)


def test_a_report_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nowhere\.json"):
        files.read(tmp_path / "nowhere.json")


def test_bytes_in_a_log_that_are_no_text_do_not_cost_the_report(tmp_path: Path) -> None:
    log = b"caf\xe9".decode(errors="surrogateescape")
    drill = msgspec.structs.replace(FAILED, logs={"m1": log})
    run = build.build(Record(), [held()], sample_run.head(), {"m1": log})
    for document in (run, build.build_drills([drill], sample_run.head())):
        assert files.read(files.write(document, tmp_path)[0]) == document
