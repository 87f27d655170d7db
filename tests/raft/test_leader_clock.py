"""The leader's clock: one wall clock that was ahead, for one entry, must not stop the cluster's time."""

from __future__ import annotations

from hasched.raft.clock import LeaderClock
from tests.simulation.clocks import EPOCH_MS
from tests.simulation.scene import simulate  # noqa: F401 (a fixture)

HOUR_MS = 3_600_000


def test_time_follows_the_wall_clock_and_goes_on_where_that_falls_back():
    wall, monotonic = 5_000, 100.0
    clock = LeaderClock(lambda: wall, lambda: monotonic)
    assert clock.read(0) == 5_000
    wall = 9_000
    assert clock.read(5_000) == 9_000
    wall = 2_000
    assert clock.read(9_000) == 9_000
    monotonic += 0.25
    assert clock.read(9_000) == 9_250


def test_however_often_it_is_read_it_loses_no_time():
    monotonic = 0.0
    clock = LeaderClock(lambda: 0, lambda: monotonic)
    for _ in range(10_000):
        monotonic += 0.0001
        clock.read(7_000)
    assert 7_999 <= clock.read(7_000) <= 8_000


def test_what_another_leader_wrote_is_where_time_goes_on():
    monotonic = 0.0
    clock = LeaderClock(lambda: 1_000, lambda: monotonic)
    assert clock.read(50_000) == 50_000
    monotonic = 2.0
    assert clock.read(50_000) == 52_000
    assert clock.read(51_000) == 52_000


def test_one_entry_from_the_future_stops_no_clock_whoever_leads(simulate):  # noqa: F811
    simulation = simulate()
    simulation.run(3, simulation.agree)
    leader = simulation.leader()
    leader.clock.wall_ahead_ms = HOUR_MS
    simulation.submit(leader.name)
    simulation.run(0.1)
    leader.clock.wall_ahead_ms = 0
    ahead = leader.core.state.now_ms
    assert ahead > EPOCH_MS + HOUR_MS
    for _ in range(3):
        for name in simulation.names:
            simulation.submit(name)
        began, before = simulation.now, simulation.leader().clock_ms()
        simulation.run(2)
        passed_ms = (simulation.now - began) * 1000
        assert abs(simulation.leader().clock_ms() - before - passed_ms) < 10
        simulation.submit(simulation.leader().name)
        simulation.run(0.1)
        assert simulation.leader().core.state.now_ms - before >= 2000
        deposed = simulation.leader()
        deposed.cut_power()
        simulation.run(3, simulation.leader)
        deposed.start()
        simulation.run(3, simulation.agree)
    simulation.settle()
