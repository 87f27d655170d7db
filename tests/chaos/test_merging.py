"""One record out of many streams: nothing twice, nothing missing unsaid, and whoever tells another story is named."""

from __future__ import annotations

import pytest

from chaos.effects import EffectReader
from chaos.merging import Merge
from chaos.record import Record
from hasched.model.views import EventView


def event(text, kind="JobSubmitted"):
    index = int(text.partition(".")[0])
    return EventView(id=text, log_index=index, time_ms=index, type=kind)


@pytest.fixture
def record():
    return Record()


@pytest.fixture
def merge(record):
    merge = Merge(record, "9.2147483647")
    for manager in ("m1", "m2"):
        merge.opened(manager)
    return merge


def ids(record):
    return [each.id for each in record.events]


def tell(merge, manager, *texts):
    for text in texts:
        merge.take(manager, event(text))


def test_whoever_is_ahead_tells_what_is_next_and_the_others_confirm_it(record, merge):
    tell(merge, "m1", "10.0", "10.1", "12.0")
    tell(merge, "m2", "10.0", "10.1", "12.0", "100.0")
    tell(merge, "m1", "100.0")
    assert ids(record) == ["10.0", "10.1", "12.0", "100.0"]
    assert merge.last_id == "100.0" and record.contradictions == [] and record.event_gaps == []


def test_a_stream_that_is_opened_anew_goes_on_where_the_record_ends(record, merge):
    tell(merge, "m1", "10.0", "11.0")
    tell(merge, "m2", "10.0")
    merge.opened("m2")
    tell(merge, "m2", "12.0")
    tell(merge, "m1", "12.0")
    assert ids(record) == ["10.0", "11.0", "12.0"] and record.contradictions == []


@pytest.mark.parametrize(
    ("told", "complaint"),
    [
        pytest.param([event("10.0"), event("11.0", "JobEnded")], "m2 tells of JobEnded 11.0", id="another event"),
        pytest.param([event("10.0"), event("12.0")], "m2 tells of JobSubmitted 12.0", id="one is left out"),
        pytest.param([event("10.0"), event("10.5")], "m2 tells of JobSubmitted 10.5", id="one too many"),
        pytest.param(
            [event("10.0"), EventView(id="11.0", log_index=11, time_ms=7, type="JobSubmitted")],
            "m2 tells of JobSubmitted 11.0 otherwise",
            id="the same at another time",
        ),
    ],
)
def test_a_manager_that_tells_another_story_is_named_once(record, merge, told, complaint):
    tell(merge, "m1", "10.0", "11.0", "12.0", "13.0")
    for each in told:
        merge.take("m2", each)
    tell(merge, "m2", *[text for text in ("11.0", "12.0", "13.0") if float(text) > told[-1].log_index])
    if told[-1].id == "10.5":
        tell(merge, "m2", "14.0")
    assert complaint in record.contradictions[0] and len(record.contradictions) == 1
    assert ids(record)[:4] == ["10.0", "11.0", "12.0", "13.0"]


def test_a_gap_is_said_and_what_lies_in_it_is_not_told_in_part(record, merge):
    tell(merge, "m1", "10.0")
    merge.gap("20.2147483647", "nobody holds them")
    merge.opened("m1")
    tell(merge, "m2", "10.0", "15.0")
    tell(merge, "m1", "21.0")
    tell(merge, "m2", "16.0", "21.0", "22.0")
    assert ids(record) == ["10.0", "21.0", "22.0"] and record.contradictions == []
    assert record.whole_events == 1
    assert record.event_gaps == ["between 10.0 and 20.2147483647: nobody holds them"]


def test_no_file_is_made_where_somebody_else_put_a_link(record, tmp_path):
    precious = tmp_path / "precious"
    precious.touch(mode=0o600)
    (tmp_path / "effects").symlink_to(precious)
    with pytest.raises(FileExistsError):
        EffectReader(tmp_path / "effects", record).make()
    assert precious.stat().st_mode & 0o777 == 0o600


def test_lines_of_attempts_are_read_as_they_come_in_their_order(record, tmp_path):
    path = tmp_path / "effects"
    reader = EffectReader(path, record)
    reader.make()
    reader.read()
    path.write_text("began 7 0 1 n1 100.00\nalive 7 0 1 n1 1")
    reader.read()
    assert [each.what for each in record.effects] == ["began"]
    with path.open("a") as file:
        file.write("00.20\nrubbish\nbegan 7 0 2 n2 100.10\n")
    reader.close()
    assert [(each.what, each.attempt, each.node_id) for each in record.effects] == [
        ("began", 1, "n1"),
        ("alive", 1, "n1"),
        ("began", 2, "n2"),
    ]
    times = [each.at_s for each in record.effects]
    assert times == sorted(times) and times[2] > times[1], (
        "who writes later is later, whatever clock it looked at before"
    )
    assert len(record.notes) == 1 and not path.exists()
