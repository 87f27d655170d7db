"""Membership: the single steps, when one is in force, who counts for what, and who is let in."""

from __future__ import annotations

import pytest
from raft_bench import Bench, members

from hasched.raft.admission import Admission
from hasched.raft.membership import MEMBERS, Change, HandOver, Member, Membership, Standing, encode_body, next_step
from hasched.raft.messages import Append, AppendReply, Entry, Hello, PreVote, PreVoteReply, RequestVote, Vote

# --- one step at a time: the pure part ---

FINE = Standing(answers=True, filled=True, caught_up=True, match_index=9)
BEHIND = Standing(answers=True, filled=True, caught_up=False)
EMPTY = Standing(answers=True, filled=False, caught_up=True)
SILENT = Standing(answers=False, filled=True, caught_up=True)


def step(wanted: str, voters: str, learners: str = "", **standings: Standing) -> str | None:
    """Of managers with one letter; `a` leads, and who isn't named in `standings` is fine."""
    actual = Membership(members(*voters, learners=tuple(learners)).members, term=1, index=5)
    wishes = {member.manager_id: member for member in members(*wanted).members}
    known = {name: standings.get(name, FINE) for name in voters + learners if name != "a"}
    match next_step(wishes, actual, "a", known):
        case Change(changed):
            return "".join(each.manager_id if each.voter else f"({each.manager_id})" for each in changed)
        case HandOver(target):
            return f"to {target}"
        case None:
            return None


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        pytest.param(step("abc", "abc"), None, id="nothing to do"),
        pytest.param(step("", "abc"), None, id="nobody has said yet who is wanted"),
        pytest.param(step("abcde", "abc"), "abc(d)", id="who is new begins as a learner"),
        pytest.param(step("abcde", "abc", "d", d=EMPTY), "abc(d)(e)", id="learners may be many"),
        pytest.param(step("abcd", "abc", "d"), "abcd", id="a learner that has all gets its vote"),
        pytest.param(step("abcd", "abc", "d", d=BEHIND), None, id="not one that is behind"),
        pytest.param(step("abcd", "abc", "d", d=EMPTY), None, id="not one whose disk isn't filled"),
        pytest.param(step("abcd", "abc", "d", d=SILENT), None, id="not one that doesn't answer"),
        pytest.param(
            step("abcd", "abc", "d", b=SILENT, c=SILENT), None, id="not where that makes a majority of the silent"
        ),
        pytest.param(step("abc", "abcd"), "abc", id="one too many goes"),
        pytest.param(step("abc", "abcd", b=SILENT), "abc", id="also while another is down"),
        pytest.param(step("ab", "abc", b=SILENT), None, id="but not when the rest couldn't commit that"),
        pytest.param(step("abd", "abc", "d", d=EMPTY), None, id="who is replaced stays until the next is filled"),
        pytest.param(
            step("abd", "abc", c=SILENT), "abc(d)", id="also if it is down: it may come back, and the next not"
        ),
        pytest.param(step("abd", "abc", "d", c=SILENT), "abcd", id="the next may be needed to commit its own vote"),
        pytest.param(step("abde", "abcd", c=SILENT), "abd", id="one that is down makes majorities larger"),
        pytest.param(step("abde", "abcd", c=EMPTY), "abd", id="and so does one with an empty disk"),
        pytest.param(step("abef", "abcd", c=SILENT), "abd", id="so it goes first"),
        pytest.param(step("abc", "abc", "d", d=SILENT), "abc", id="a learner that isn't wanted any more goes"),
        pytest.param(step("bcd", "abc"), "abc(d)", id="a leader that is to go does the rest first"),
        pytest.param(step("bcd", "abcd"), "to b", id="and then hands over"),
        pytest.param(step("bcd", "abcd", b=SILENT, d=EMPTY), "to c", id="to one that can lead"),
        pytest.param(step("bcd", "abcd", b=SILENT, c=SILENT, d=SILENT), None, id="if there is one"),
    ],
)
def test_the_next_step(asked, answer):
    assert asked == answer


def test_the_first_step_puts_the_file_s_members_into_the_log():
    founding = members("a", "b", "c")
    assert next_step({}, founding, "a", {}) == Change(founding.members, "the members of the configuration file")


def test_a_manager_that_was_added_elsewhere_is_moved():
    actual = Membership(members("a", "b").members, term=1, index=5)
    wanted = {each.manager_id: each for each in actual.members}
    wanted["b"] = Member("b", "https://new:1", "new:1")
    moved = next_step(wanted, actual, "a", {"b": FINE})
    assert isinstance(moved, Change) and moved.members[1] == wanted["b"]


# --- the engine ---


@pytest.fixture
def bench(tmp_path, monkeypatch):
    return Bench(tmp_path, monkeypatch)


def entry(term: int, *voters: str, learners: tuple[str, ...] = ()) -> Entry:
    return Entry(term, bytes((MEMBERS,)) + encode_body(members(*voters, learners=learners).members))


def test_a_membership_is_in_force_when_it_is_appended_and_not_when_it_is_cut(bench):
    bench.hear("m2", Append(1, 1, 1, 0, [entry(1, "m1", "m2", "m3", "m4")], 1))
    assert bench.engine.membership.voters == ["m1", "m2", "m3", "m4"]
    assert bench.restart().membership.voters == ["m1", "m2", "m3", "m4"]
    assert bench.engine.committed_membership.voters == ["m1", "m2", "m3"]
    bench.hear("m3", Append(2, 1, 1, 0, [Entry(2, b"\x00other")], 1))
    assert bench.engine.membership.voters == ["m1", "m2", "m3"]
    assert bench.restart().membership.voters == ["m1", "m2", "m3"]


def test_a_snapshot_remembers_the_membership_that_its_log_lost(bench):
    bench.hear("m2", Append(1, 3, 1, 0, [entry(1, "m1", "m2", learners=("m4",)), Entry(1, b"\x00x")], 1))
    writer = bench.store.write(3, 1, bench.engine.membership_at(3))
    writer.finish()
    bench.store.adopt(bench.store.publish(writer.path))
    bench.journal.reset(3, 1)
    bench.journal.flush()
    engine = bench.restart()
    assert len(bench.journal) == 1
    assert (engine.membership.voters, engine.membership.stamp) == (["m1", "m2"], (1, 2))
    assert engine.membership.get("m4") is not None


def test_23_no_change_before_an_entry_of_the_own_term_is_committed_and_one_at_a_time(bench):
    bench.follow(term=1, count=3)
    bench.elect()
    engine = bench.engine
    assert not engine.may_change_members
    with pytest.raises(AssertionError):
        engine.change_members(members("m1", "m2").members)
    bench.hear("m2", AppendReply(engine.term, engine.last_index, engine.round, True))
    assert engine.may_change_members
    engine.change_members(members("m1", "m2", "m3", learners=("m4",)).members)
    assert not engine.may_change_members
    bench.turn()
    bench.hear("m2", AppendReply(engine.term, engine.last_index, engine.round, True))
    assert engine.may_change_members


def test_what_a_learner_acknowledges_counts_once_it_votes(bench):
    bench.elect()
    engine = bench.engine
    bench.hear("m2", AppendReply(engine.term, engine.last_index, engine.round, True))
    engine.change_members(members("m1", "m2", "m3", learners=("m4",)).members)
    engine.connected("m4")
    bench.turn()
    committed, last = engine.commit_index, engine.last_index
    asked = engine.begin_round()
    bench.hear("m4", AppendReply(engine.term, last, asked, True))
    assert engine.commit_index == committed
    assert engine.confirmed_round < asked
    bench.hear("m2", AppendReply(engine.term, last, engine.round, True))
    engine.change_members(members("m1", "m2", "m3", "m4").members)
    bench.turn()
    bench.hear("m2", AppendReply(engine.term, engine.last_index, engine.round, True))
    assert engine.commit_index == last  # two of four
    bench.hear("m4", AppendReply(engine.term, engine.last_index, engine.round, True))
    assert engine.commit_index == engine.last_index


def test_what_was_acknowledged_to_an_earlier_leadership_counts_for_nothing(bench):
    """m4 voted then, is a learner now, and gets its vote again with an empty disk."""
    bench.hear("m2", Append(1, 1, 1, 0, [entry(1, "m1", "m2", "m4")], 1))
    bench.elect()
    engine = bench.engine
    engine.connected("m4")
    bench.turn()
    bench.hear("m4", AppendReply(engine.term, engine.last_index, engine.round, True))
    learning = entry(9, "m1", "m2", learners=("m4",))
    bench.hear("m2", Append(9, 1, engine.last_index, engine.term_at(engine.last_index), [learning], 1))
    bench.elect()
    bench.hear("m2", AppendReply(engine.term, engine.last_index, engine.round, True))
    engine.change_members(members("m1", "m2", "m4").members)
    assert engine._SyncObj__raftMatchIndex[engine._electors["m4"]] == 0


def test_who_has_no_vote_by_the_membership_grants_and_does_not_stand(bench):
    bench.hear("m2", Append(1, 1, 1, 0, [entry(1, "m2", "m3", learners=("m1",))], 1))
    assert not any(isinstance(message, PreVote) for _, message in bench.turn(5.0))
    assert bench.hear("m3", RequestVote(2, 9, 1)) == [("m3", Vote(2))]


def test_votes_of_who_does_not_vote_elect_nobody(bench):
    bench.hear("m2", Append(1, 1, 1, 0, [entry(1, "m1", "m2", "m3", learners=("m4", "m5"))], 1))
    bench.turn(5.0)
    for name in ("m4", "m5", "stranger"):
        bench.hear(name, PreVoteReply(1, 2, True))
    assert bench.engine.term == 1
    bench.hear("m2", PreVoteReply(1, 2, True))
    for name in ("m4", "m5", "stranger"):
        bench.hear(name, Vote(2))
    assert bench.engine.role == "candidate"
    bench.hear("m3", Vote(2))
    assert bench.engine.role == "leader"


def test_a_candidate_that_we_do_not_know_gets_our_vote_if_its_log_is_as_long(bench):
    """It may have been added while we were away."""
    bench.follow(term=1, count=3)
    assert bench.hear("m9", RequestVote(2, 4, 1)) == [("m9", Vote(2))]


# --- who is let in ---


def admission(bench: Bench, **changes: object) -> Admission:
    given = {"me": members("m1").members[0], "cluster_id": "c", "named": {}, "rebuilding": False, "incarnation": ""}
    return Admission(bench.engine, **(given | {"adopt": lambda incarnation: None} | changes))


def hello(name: str, **changes: object) -> Hello:
    return Hello(2, "c", name, False, raft_address=f"{name}:1", api_url=f"https://{name}:1", **changes)


def test_who_knows_of_a_later_membership_is_let_in_and_dialled(bench):
    admitted = admission(bench)
    assert admitted.judge(hello("m9")) == "not_a_member"
    assert admitted.judge(hello("m9", members_term=1, members_index=7)) == ""
    assert admitted.links() == {"m2": ("m2", 1), "m3": ("m3", 1), "m9": ("m9", 1)}
    bench.hear("m2", Append(2, 2, 1, 0, [entry(2, "m1", "m2", "m3")], 1))
    assert admitted.links() == {"m2": ("m2", 1), "m3": ("m3", 1)}
    assert admitted.judge(hello("m9", members_term=1, members_index=7)) == "not_a_member"


def test_who_is_to_go_is_let_in_until_that_is_committed(bench):
    """Else the only manager that has the longest log might be shut out by an entry that is never committed."""
    admitted = admission(bench)
    bench.hear("m2", Append(1, 1, 1, 0, [entry(1, "m1", "m2")], 1))
    assert admitted.judge(hello("m3")) == ""
    bench.hear("m2", Append(1, 2, 2, 1, [], 2))
    assert admitted.judge(hello("m3")) == "not_a_member"
    assert admitted.links() == {"m2": ("m2", 1)}


def test_an_address_that_is_none_keeps_nobody_from_the_others(bench):
    admitted = admission(bench)
    strange = Member("m9", "https://m9", "no address")
    body = encode_body((*members("m1", "m2", "m3").members, strange))
    bench.hear("m2", Append(1, 1, 1, 0, [Entry(1, bytes((MEMBERS,)) + body)], 1))
    assert admitted.links() == {"m2": ("m2", 1), "m3": ("m3", 1)}


def test_the_file_s_address_goes_before_the_log_s(bench):
    admitted = admission(bench, named={"m2": Member("m2", "https://here:1", "here:7")})
    bench.hear("m2", Append(1, 1, 1, 0, [entry(1, "m1", "m2", "m3")], 1))
    assert admitted.links() == {"m2": ("here", 7), "m3": ("m3", 1)}


@pytest.mark.parametrize(
    ("own", "blank", "theirs", "their_disk_blank", "welcome", "adopted"),
    [
        pytest.param("", False, "", False, True, "", id="one life"),
        pytest.param("x", False, "x", False, True, "", id="one later life"),
        pytest.param("x", False, "", False, False, "", id="their life is over"),
        pytest.param("", False, "x", False, False, "", id="our life is over"),
        pytest.param("x", False, "", True, True, "", id="they begin with an empty disk"),
        pytest.param("", True, "x", False, True, "x", id="we begin with an empty disk"),
        pytest.param("x", False, "y", True, False, "", id="an empty disk that has chosen another life"),
    ],
)
def test_data_of_two_lives_never_mix(tmp_path, monkeypatch, own, blank, theirs, their_disk_blank, welcome, adopted):
    bench = Bench(tmp_path, monkeypatch, voter=not blank)
    if not blank:
        bench.follow(count=2)
    took: list[str] = []
    admitted = admission(bench, incarnation=own, adopt=took.append)
    said = Hello(2, "c", "m2", their_disk_blank, incarnation=theirs)
    assert (admitted.judge(said) == "") is welcome
    assert took == ([adopted] if adopted else [])
