"""The engine's mends, each by the number that it has in the list of pysyncobj's faults (`hasched/raft/engine.py`)."""

from __future__ import annotations

import pytest
from pysyncobj.syncobj import SyncObj
from raft_bench import TUNING, Bench

from hasched.model.errors import StorageFailed
from hasched.raft.elections import ConsensusBroken
from hasched.raft.engine import Engine
from hasched.raft.messages import (
    Append,
    AppendRefused,
    AppendReply,
    Beat,
    BeatReply,
    Entry,
    Outdated,
    PreVote,
    PreVoteReply,
    RequestVote,
    SnapshotChunk,
    SnapshotReply,
    Vote,
)
from hasched.raft.snapshots import SnapshotStore
from hasched.raft.tuning import Tuning


@pytest.fixture
def bench(tmp_path, monkeypatch):
    return Bench(tmp_path, monkeypatch)


def snapshot(store: SnapshotStore, index: int, term: int) -> None:
    writer = store.write(index, term)
    writer.add(b"state")
    writer.finish()
    published = store.publish(writer.path)
    assert published is not None
    store.adopt(published)


def test_2_a_vote_is_on_disk_before_it_is_told(bench):
    bench.engine.receive("m2", RequestVote(3, 1, 0))
    assert bench.journal.dirty
    bench.journal.flush()
    assert bench.sent() == [("m2", Vote(3))]
    engine = bench.restart()
    assert bench.hear("m3", RequestVote(3, 9, 2)) == []
    assert engine.term == 3


@pytest.mark.parametrize(
    ("index", "term", "kept"),
    [
        pytest.param(4, 1, [5, 6], id="entries after the snapshot stay when the log agrees with it"),
        pytest.param(4, 2, [], id="a log that disagrees at the snapshot is replaced by it"),
        pytest.param(9, 1, [], id="a log that ends before the snapshot is replaced by it"),
    ],
)
def test_5_a_kill_between_snapshot_and_trim_loses_nothing(bench, index, term, kept):
    bench.follow(count=5)
    snapshot(bench.store, index, term)
    engine = bench.restart()
    assert engine.applied_index == engine.commit_index == index
    assert [entry.index for entry in bench.journal[1:] if entry.index > index] == kept


def test_5_a_log_whose_beginning_is_nowhere_is_refused(bench):
    bench.follow(count=5, commit=6)
    snapshot(bench.store, 4, 1)
    bench.engine.compact(4)
    bench.journal.flush()
    bench.journal.reset(5, 1)
    bench.journal.flush()
    assert bench.store.latest is not None
    bench.store.latest.path.unlink()
    with pytest.raises(StorageFailed, match="no snapshot"):
        bench.restart()


def test_7_entries_that_are_here_already_are_not_cut_by_an_older_append(bench):
    bench.follow(count=5)
    bench.hear("m2", Append(1, 1, 1, 0, [Entry(1, b"\x00entry 2")], 2))
    bench.hear("m2", Append(1, 1, 3, 1, [], 3))
    assert bench.engine.last_index == 6


def test_7_a_real_conflict_is_cut(bench):
    bench.follow(term=1, count=5)
    bench.hear("m3", Append(2, 1, 3, 1, [Entry(2, b"\x00other")], 1))
    assert [(entry.index, entry.term) for entry in bench.journal[1:]] == [(2, 1), (3, 1), (4, 2)]


def test_7_what_is_committed_is_never_cut(bench):
    bench.follow(term=1, count=5, commit=6)
    with pytest.raises(ConsensusBroken):
        bench.hear("m3", Append(2, 1, 3, 1, [Entry(2, b"\x00other")], 1))


def test_8_an_acknowledgement_says_exactly_what_matched(bench):
    bench.follow(count=5)
    assert bench.hear("m2", Append(1, 1, 1, 0, [Entry(1, b"\x00entry 2")], 9)) == [("m2", AppendReply(1, 2, 9, True))]


def test_8_an_acknowledgement_of_another_term_counts_for_nothing(bench):
    bench.elect()
    bench.engine.append(b"command")
    bench.hear("m2", AppendReply(bench.engine.term - 1, bench.engine.last_index, 1, True))
    assert bench.engine.commit_index == 1


def test_9_a_refusal_says_where_to_go_on(bench):
    bench.follow(term=1, count=5)
    assert bench.hear("m3", Append(3, 1, 40, 2, [], 1)) == [("m3", AppendRefused(3, 40, 7, 1, True))]
    assert bench.hear("m3", Append(3, 1, 6, 2, [], 2)) == [("m3", AppendRefused(3, 6, 2, 2, True))]


def test_9_the_leader_obeys_the_newest_refusal_only(bench):
    bench.follow(term=1, count=20)
    bench.elect()
    term, progress = bench.engine.term, bench.engine.progress["m2"]
    sent = bench.hear("m2", AppendRefused(term, 21, 7, 1, True))
    assert [message.prev_index for peer, message in sent if peer == "m2" and isinstance(message, Append)] == [6]
    bench.hear("m2", AppendRefused(term, 21, 3, 1, True))
    assert progress.next_index == 7


def test_25_a_follower_far_behind_is_brought_up_in_batches(bench):
    bench.follow(term=1, count=20)
    bench.elect()
    bench.hear("m2", AppendRefused(bench.engine.term, 21, 2, 1, True))
    sent = bench.hear("m2", AppendReply(bench.engine.term, 1, 2, True))
    batches = [message for peer, message in sent if peer == "m2" and isinstance(message, Append)]
    assert sum(len(message.entries) for message in batches) == 21
    assert len(batches) > 3


def test_10_the_commit_index_moves_only_to_what_matched(bench):
    bench.follow(term=1, count=5)
    bench.hear("m3", Append(2, 100, 3, 1, [], 1))
    assert bench.engine.commit_index == 3


def test_10_a_snapshot_at_or_below_the_commit_index_is_not_taken(bench):
    bench.follow(term=1, count=5, commit=6)
    assert bench.hear("m2", SnapshotChunk(1, 6, 1, 100, 0, b"x" * 100, 7)) == [
        ("m2", SnapshotReply(1, 6, 100, True, 7, True))
    ]
    assert bench.engine.incoming is None
    assert bench.engine.commit_index == 6


def test_10_snapshot_chunks_move_no_commit_index(bench):
    bench.follow(term=1, count=5)
    sent = bench.hear("m2", SnapshotChunk(1, 50, 1, 100, 0, b"x" * 60, 7))
    assert sent == [("m2", SnapshotReply(1, 50, 60, False, 7, True))]
    assert bench.engine.commit_index == 1


def test_11_a_leader_of_an_older_term_is_told_so(bench):
    bench.hear("m3", Append(5, 1, 1, 0, [], 1))
    assert bench.hear("m2", Append(4, 1, 1, 0, [], 1)) == [("m2", Outdated(5))]


def test_11_a_leader_that_is_told_so_steps_down(bench):
    bench.elect()
    bench.hear("m3", Outdated(bench.engine.term + 3))
    assert bench.engine.role == "follower"
    assert bench.engine.term == 4


def test_12_nobody_stands_without_the_promise_of_a_majority(bench):
    for _ in range(20):
        sent = bench.turn(1.0)
        assert {type(message) for _, message in sent} <= {PreVote}
    assert bench.engine.term == 0


@pytest.mark.parametrize("voter", [True, False])
def test_12_a_deadline_that_passes_within_a_turn_begins_no_term(tmp_path, monkeypatch, voter):
    bench = Bench(tmp_path, monkeypatch, voter)
    bench.clock_step = 0.01
    for _ in range(300):
        assert {type(message) for _, message in bench.turn()} <= {PreVote}
    assert bench.engine.term == 0
    assert bench.engine.is_blank


def test_12_no_promise_is_given_while_a_leader_is_heard(bench):
    bench.follow(term=1)
    assert bench.hear("m3", PreVote(2, 99, 1)) == [("m3", PreVoteReply(1, 2, False))]
    bench.now += TUNING.election_min_s + 0.01
    bench.engine.receive("m3", PreVote(2, 99, 1))
    assert bench.sent() == [("m3", PreVoteReply(1, 2, True))]


def test_12_a_leader_whose_connection_closed_is_not_waited_for(bench):
    bench.follow(term=1)
    bench.engine.lost("m2")
    bench.engine.receive("m3", PreVote(2, 99, 1))
    assert bench.sent() == [("m3", PreVoteReply(1, 2, True))]


def asked(sent: list[tuple[str, object]]) -> bool:
    return any(isinstance(message, PreVote) for _, message in sent)


def test_12_who_promised_its_vote_lets_the_other_try_first_but_only_once(bench):
    bench.follow(term=1)
    bench.engine.lost("m2")
    bench.hear("m3", PreVote(2, 99, 1))
    assert not asked(bench.turn(TUNING.election_min_s - 0.01))
    for _ in range(20):
        bench.hear("m3", PreVote(2, 99, 1))
        if asked(bench.turn(0.03)):
            break
    else:
        raise AssertionError("it is kept from asking for ever")


@pytest.mark.parametrize(("other", "gives_way"), [("m3", True), ("m0", False)])
def test_12_of_two_that_ask_at_once_one_gives_way(tmp_path, monkeypatch, other, gives_way):
    bench = Bench(tmp_path, monkeypatch, peers=("m0", "m3"))
    bench.follow(term=1, leader="m0" if other == "m3" else "m3")
    assert asked(bench.turn(1.0))
    bench.hear(other, PreVote(2, 99, 1))
    bench.hear(other, PreVoteReply(1, 2, True))
    assert (bench.engine.role == "follower") is gives_way


def test_12_who_has_more_than_a_manager_that_asks_asks_soon_itself(bench):
    bench.follow(term=1)
    bench.engine.lost("m2")
    bench.now += TUNING.election_min_s
    bench.turn()
    assert bench.hear("m3", PreVote(2, 1, 0)) == [("m3", PreVoteReply(1, 2, False))]
    assert asked(bench.turn(TUNING.orphaned_s / 4 + 0.001))


def test_13_a_leader_that_hears_no_majority_steps_down_within_an_election_timeout(bench):
    bench.elect()
    for _ in range(12):
        bench.turn(TUNING.election_max_s / 10)
    assert not bench.engine.is_leader


def test_13_a_leader_that_hears_one_follower_stays(bench):
    bench.elect()
    for number in range(30):
        bench.turn(TUNING.election_max_s / 10)
        bench.hear("m3", AppendReply(bench.engine.term, 1, number, True))
    assert bench.engine.is_leader


def test_15_an_exception_in_apply_stops_the_engine_and_is_not_tried_again(bench):
    def fail(entry):
        raise ZeroDivisionError

    bench.engine._apply = fail
    with pytest.raises(ZeroDivisionError):
        bench.follow(commit=4)
    assert bench.engine.applied_index == 1


def test_16_the_library_finds_no_replicated_methods_to_number(bench):
    assert bench.engine._methodToID == {}


def test_19_an_entry_is_never_sent_in_pieces(bench):
    bench.elect()
    bench.hear("m2", AppendReply(bench.engine.term, 1, 1, True))
    bench.engine.append(b"x" * 1000)
    sent = bench.turn()
    assert [len(message.entries[-1].data) for peer, message in sent if peer == "m2"] == [1001]


def test_a_heartbeat_passes_the_entries_that_are_under_way(bench):
    bench.elect()
    bench.hear("m2", AppendReply(bench.engine.term, 1, 1, True))
    bench.engine.append(b"huge")
    bench.turn()
    sent = bench.turn(TUNING.beat_s + 0.001)
    assert [name for name, message in sent if isinstance(message, Beat)] == ["m2"], "nothing is under way to m3"
    for _ in range(30):
        bench.turn(TUNING.election_max_s / 10)
        bench.hear("m2", BeatReply(bench.engine.term, bench.engine.round, True))
    assert bench.engine.is_leader, "what it answers shows that it follows"
    assert bench.engine.confirmed_round == bench.engine.round
    assert bench.engine.commit_index == 1, "and nothing else"


def test_who_hears_only_heartbeats_does_not_stand(bench):
    bench.follow(term=1)
    for number in range(30):
        bench.now += TUNING.election_min_s / 2
        assert bench.hear("m2", Beat(1, number)) == [("m2", BeatReply(1, number, True))]
    assert bench.hear("m2", Beat(0, 99)) == [("m2", Outdated(1))]


def test_20_21_the_library_never_writes_loads_or_forks_for_a_snapshot(bench):
    assert Engine._SyncObj__tryLogCompaction is not SyncObj._SyncObj__tryLogCompaction
    with pytest.raises(AssertionError):
        bench.engine._SyncObj__loadDumpFile(clearJournal=True)


def test_14_23_24_the_librarys_pickled_commands_are_closed(bench):
    with pytest.raises(AssertionError):
        bench.engine.setCodeVersion(0)
    with pytest.raises(Exception, match="dynamicMembershipChange is disabled"):
        bench.engine._addNodeToCluster(["m9"], None)


def test_a_vote_counts_once_however_often_it_comes(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch, peers=("m2", "m3", "m4", "m5"))
    bench.turn(1.0)
    bench.hear("m2", PreVoteReply(0, 1, True))
    bench.hear("m3", PreVoteReply(0, 1, True))
    assert bench.engine.term == 1
    bench.hear("m2", Vote(1))
    bench.hear("m2", Vote(1))
    assert not bench.engine.is_leader


def test_a_disk_that_may_have_been_wiped_has_no_vote_until_it_joins(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch, voter=False)
    assert bench.turn(5.0) == []
    assert bench.hear("m2", RequestVote(3, 9, 2)) == []
    assert bench.hear("m2", PreVote(3, 9, 2)) == [("m2", PreVoteReply(0, 3, False))]
    bench.hear("m2", Append(3, 1, 1, 0, [], 1))
    bench.hear("m2", Append(3, 9, 1, 0, [Entry(3, b"\x00a")], 2))
    assert bench.hear("m2", Append(3, 2, 2, 3, [], 3)) == [("m2", AppendReply(3, 2, 3, False))]
    bench.engine.join()
    assert bench.hear("m2", Append(3, 2, 2, 3, [], 4)) == [("m2", AppendReply(3, 2, 4, True))]


def test_what_a_member_acknowledged_before_its_disk_was_wiped_counts_no_more(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch, peers=("m2", "m3", "m4", "m5"))
    bench.turn(1.0)
    for peer in ("m2", "m3"):
        bench.hear(peer, PreVoteReply(0, 1, True))
    for peer in ("m2", "m3"):
        bench.hear(peer, Vote(1))
    term, index = bench.engine.term, bench.engine.append(b"command").index
    bench.hear("m2", AppendReply(term, index, 1, True))
    bench.engine.forget_match("m2")
    bench.hear("m3", AppendReply(term, index, 1, True))
    assert bench.engine.commit_index == 1


def test_a_follower_without_a_vote_commits_nothing(bench):
    bench.elect()
    bench.engine.append(b"command")
    bench.hear("m2", AppendReply(bench.engine.term, bench.engine.last_index, 1, False))
    assert bench.engine.commit_index == 1
    bench.hear("m3", AppendReply(bench.engine.term, bench.engine.last_index, 1, True))
    assert bench.engine.commit_index == bench.engine.last_index


def test_a_manager_that_was_held_up_does_not_take_its_own_absence_for_the_leaders(bench):
    bench.follow(term=1)
    bench.now += 30
    bench.engine.excuse(30)
    assert bench.turn() == []


@pytest.mark.parametrize("election_min_s", [0.05, 0.3, 5.0])
def test_a_follower_hears_several_heartbeats_in_any_election_timeout(election_min_s):
    tuning = Tuning(election_min_s=election_min_s, election_max_s=2 * election_min_s)
    assert tuning.beat_s * 4 <= election_min_s
