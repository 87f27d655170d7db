"""Links that are slow, lossy or disordered: what a link switch makes of packets, in numbers and on real hosts."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from chaos.cluster import links
from chaos.cluster.base import Link
from chaos.cluster.bridge import BridgeNetwork
from chaos.cluster.forwarder import OVERTAKEN_S, QUEUE_BYTES, Line
from chaos.cluster.network import OUTSIDE, HostNetwork, find_obstacle
from chaos.cluster.topology import both_ways
from chaos.safety.identity import born
from chaos.safety.ledger import Ledger
from chaos.safety.undo import Kill
from tests.support.packets import reach, send

OBSTACLE = find_obstacle() or links.find_obstacle()
needs_links = pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))
LONG_S = 600.0
SIZE = 1000


def carry(line: Line, count: int, every_s: float = 0.001) -> list[list[float]]:
    """When each of `count` packets arrives, sent one after the other."""
    return [line.take(SIZE, number * every_s) for number in range(count)]


# --- what a link does, on a virtual clock ---


def test_a_link_that_is_as_it_should_be_changes_nothing() -> None:
    assert carry(Line(random.Random(1)), 3) == [[0.0], [0.001], [0.002]]


def test_delay_is_for_every_packet() -> None:
    arrivals = [at for each in carry(Line(random.Random(1), delay_ms=50), 3) for at in each]
    assert arrivals == pytest.approx([0.05, 0.051, 0.052])


def test_jitter_varies_the_delay_and_keeps_the_order() -> None:
    arrivals = [at for each in carry(Line(random.Random(1), delay_ms=20, jitter_ms=10), 500) for at in each]
    delays = [at - number * 0.001 for number, at in enumerate(arrivals)]
    assert arrivals == sorted(arrivals)
    assert min(delays) >= 0.01
    assert max(delays) <= 0.03 + 1e-9
    assert max(delays) - min(delays) > 0.005


def test_jitter_above_the_delay_takes_no_packet_back_in_time() -> None:
    arrivals = carry(Line(random.Random(1), delay_ms=1, jitter_ms=50), 200)
    assert all(at >= number * 0.001 for number, each in enumerate(arrivals) for at in each)


def test_a_share_is_lost_and_another_doubled() -> None:
    line = Line(random.Random(1), loss=0.3, duplicated=0.2)
    copies = [len(each) for each in carry(line, 2000)]
    assert 500 < copies.count(0) < 700
    assert 220 < copies.count(2) < 340
    assert (line.counts["seen"], line.counts["lost"], line.counts["duplicated"]) == (
        2000,
        copies.count(0),
        copies.count(2),
    )


def test_a_packet_that_loses_its_place_is_overtaken() -> None:
    arrivals = [each[0] for each in carry(Line(random.Random(1), reordered=0.1), 1000)]
    late = [number for number, at in enumerate(arrivals) if at >= number * 0.001 + OVERTAKEN_S]
    assert 60 < len(late) < 140
    assert all(arrivals[number] > arrivals[number + 1] for number in late[:-1] if number + 1 not in late)


def test_a_slow_link_lets_through_what_it_can_and_drops_what_does_not_fit_in_its_queue() -> None:
    line = Line(random.Random(1), bytes_per_s=100_000)
    arrivals = [line.take(SIZE, 0.0) for _ in range(1000)]
    through = [at for each in arrivals for at in each]
    assert len(through) == QUEUE_BYTES // SIZE
    assert through[0] == pytest.approx(0.01)
    assert through[-1] == pytest.approx(len(through) * 0.01)
    assert line.take(SIZE, 100.0) == [pytest.approx(100.01)], "once the queue is empty there is room again"


def test_the_same_seed_has_the_same_luck() -> None:
    bad = {"delay_ms": 5, "jitter_ms": 5, "loss": 0.2, "duplicated": 0.2, "reordered": 0.2}
    assert carry(Line(random.Random(7), **bad), 200) == carry(Line(random.Random(7), **bad), 200)
    assert carry(Line(random.Random(7), **bad), 200) != carry(Line(random.Random(8), **bad), 200)


# --- on hosts ---


@pytest.fixture
def network(ledger: Ledger, hosts: HostNetwork) -> BridgeNetwork:
    return BridgeNetwork(ledger, hosts, seed=1)


def switches(hosts: HostNetwork) -> list[str]:
    """The link switches that run, by their processes."""
    return [
        str(each.pid)
        for each in hosts.residents("switch")
        if "forwarder" in Path(f"/proc/{each.pid}/cmdline").read_text(errors="replace")
    ]


@needs_links
async def test_packets_of_a_slow_link_are_late_and_all_there(network: BridgeNetwork, hosts: HostNetwork) -> None:
    async with network.shaped([("a", "b")], Link(delay_ms=80), LONG_S):
        heard = send(hosts, "a", "b", 50)
    assert heard.numbers == [*range(50)]
    assert min(heard.seconds) >= 0.08


@needs_links
@pytest.mark.parametrize("pair", [("a", "b"), (OUTSIDE, "b"), ("b", OUTSIDE)], ids=" to ".join)
async def test_a_link_that_loses_all_is_one_way_and_of_its_pair_alone(
    network: BridgeNetwork, hosts: HostNetwork, pair: tuple[str, str]
) -> None:
    async with network.shaped([pair], Link(loss=1), LONG_S):
        assert not reach(hosts, *pair, teller="c")
        assert reach(hosts, pair[1], pair[0], teller="c")
        assert reach(hosts, pair[0], "c", teller=pair[1])
    assert reach(hosts, *pair, teller="c")


@needs_links
async def test_packets_are_lost_doubled_and_overtaken(network: BridgeNetwork, hosts: HostNetwork) -> None:
    bad = Link(delay_ms=5, jitter_ms=2, loss=0.2, duplicated=0.2, reordered=0.1)
    async with network.shaped(both_ways([("a", "b")]), bad, LONG_S):
        heard = send(hosts, "a", "b", 400)
    there = set(heard.numbers)
    assert 250 < len(there) < 380
    assert 30 < len(heard.numbers) - len(there) < 140
    assert heard.overtaken > 20


@needs_links
async def test_a_link_with_little_room_takes_its_time(network: BridgeNetwork, hosts: HostNetwork) -> None:
    async with network.shaped([("a", "b")], Link(bytes_per_s=50_000), LONG_S):
        heard = send(hosts, "a", "b", 100)  # of 200 bytes and more, within a tenth of a second or later
    assert heard.numbers == [*range(100)]
    assert max(heard.seconds) >= 0.1


@needs_links
async def test_a_cut_holds_for_packets_of_a_slow_link_too(network: BridgeNetwork, hosts: HostNetwork) -> None:
    async with network.shaped([("a", "b")], Link(delay_ms=1), LONG_S):
        async with network.cut([("a", "b")], LONG_S):
            assert not reach(hosts, "a", "b", teller="c")
        assert reach(hosts, "a", "b", teller="c")


@needs_links
async def test_at_its_deadline_packets_go_straight_whatever_became_of_the_switch(
    network: BridgeNetwork, hosts: HostNetwork
) -> None:
    async with network.shaped([("a", "b")], Link(loss=1), 0.5):
        while not reach(hosts, "a", "b", teller="c"):
            pass
        assert len(switches(hosts)) == 1, "it is the kernel that sends them straight"


@needs_links
async def test_nothing_of_a_switch_is_left_even_if_it_died(network: BridgeNetwork, hosts: HostNetwork) -> None:
    async with network.shaped([("a", "b")], Link(delay_ms=1), LONG_S):
        switch = born(int(switches(hosts)[0]))
        assert switch is not None
        Kill(switch).perform()
        assert not reach(hosts, "a", "b", teller="c"), "they are led to nowhere"
        assert reach(hosts, "b", "a", teller="c")
    assert switches(hosts) == []
    assert reach(hosts, "a", "b", teller="c")


@needs_links
async def test_a_link_that_can_not_be_made_leaves_nothing(network: BridgeNetwork, hosts: HostNetwork) -> None:
    with pytest.raises(ValueError, match="nobody"):
        async with network.shaped([("a", "b"), ("nobody", "b")], Link(loss=1), LONG_S):
            pass
    assert switches(hosts) == []
    assert reach(hosts, "a", "b", teller="c")
