"""Cuts, isolation and resets between hosts in network namespaces: what is cut, what is not, and that it heals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.cluster import network as network_module
from chaos.cluster.bridge import BridgeNetwork
from chaos.cluster.network import OUTSIDE, HostNetwork, find_obstacle
from chaos.cluster.topology import between, both_ways
from chaos.safety.ledger import Ledger
from chaos.safety.undo import Namespace, Table
from tests.support.packets import reach

pytestmark = pytest.mark.skipif(find_obstacle() is not None, reason=str(find_obstacle()))
LONG_S = 600.0


@pytest.fixture
def network(ledger: Ledger, hosts: HostNetwork) -> Iterator[BridgeNetwork]:
    yield BridgeNetwork(ledger, hosts)
    assert hosts.cuts() == []
    assert "netdev" not in _ruleset(hosts)


def _ruleset(hosts: HostNetwork) -> str:
    command = [*hosts.command("switch"), "nft", "list", "ruleset"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


async def test_a_cut_is_one_way_and_of_its_pair_alone(network: BridgeNetwork, hosts: HostNetwork) -> None:
    assert reach(hosts, "a", "b", teller=OUTSIDE)
    async with network.cut([("a", "b")], LONG_S):
        assert not reach(hosts, "a", "b", teller=OUTSIDE)
        assert reach(hosts, "b", "a", teller=OUTSIDE)
        assert reach(hosts, "a", "c", teller=OUTSIDE)
        assert reach(hosts, OUTSIDE, "b", teller="c")
    assert reach(hosts, "a", "b", teller=OUTSIDE)


async def test_clients_can_be_cut_off_too(network: BridgeNetwork, hosts: HostNetwork) -> None:
    async with network.cut([(OUTSIDE, "b")], LONG_S):
        assert not reach(hosts, OUTSIDE, "b", teller="c")
        assert reach(hosts, "b", OUTSIDE, teller="c")
    async with network.cut([("b", OUTSIDE)], LONG_S):
        assert not reach(hosts, "b", OUTSIDE, teller="c")
        assert reach(hosts, OUTSIDE, "b", teller="c")


async def test_an_isolated_host_is_reached_from_outside_alone(network: BridgeNetwork, hosts: HostNetwork) -> None:
    async with network.isolated("a", LONG_S):
        assert sorted(hosts.cuts()) == sorted(both_ways([("a", "b"), ("a", "c")]))
        assert not reach(hosts, "b", "a", teller=OUTSIDE)
        assert reach(hosts, "b", "c", teller=OUTSIDE)
        assert reach(hosts, OUTSIDE, "a", teller="c")


async def test_the_end_of_one_cut_does_not_end_another_of_the_same_pair(
    network: BridgeNetwork, hosts: HostNetwork
) -> None:
    async with network.cut([("a", "b")], LONG_S):
        async with network.cut([("a", "b"), ("a", "c")], LONG_S):
            pass
        assert hosts.cuts() == [("a", "b")]
        assert not reach(hosts, "a", "b", teller=OUTSIDE)


async def test_a_cut_heals_by_itself_at_its_deadline(network: BridgeNetwork, hosts: HostNetwork) -> None:
    async with network.cut(between(["a"], ["b", "c"]), 0.2):
        while hosts.cuts():  # by the kernel: nobody else does anything
            pass
        assert reach(hosts, "a", "b", teller=OUTSIDE)


async def test_the_way_back_is_in_the_ledger_first(network: BridgeNetwork, hosts: HostNetwork, ledger: Ledger) -> None:
    armed: list[object] = []
    cut = hosts.cut

    def look(*arguments: object) -> None:
        armed.append(ledger.path.read_text())
        assert hosts.cuts() == []
        cut(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hosts, "cut", look)
        async with network.cut([("a", "b")], LONG_S):
            assert hosts.cuts() == [("a", "b")]
    assert "cut a → b" in str(armed)


async def test_a_cut_that_can_not_be_made_leaves_nothing(network: BridgeNetwork, hosts: HostNetwork) -> None:
    with pytest.raises(ValueError, match="nobody"):
        async with network.cut([("a", "b"), ("nobody", "b")], LONG_S):
            pass
    assert _ruleset(hosts).count("table") == 1


async def test_whoever_heals_needs_no_more_than_the_name(
    network: BridgeNetwork, hosts: HostNetwork, ledger: Ledger
) -> None:
    async with network.cut([("a", "b")], LONG_S):
        tables = [line.split()[2] for line in _ruleset(hosts).splitlines() if line.startswith("table bridge cut")]
        mine = next(name for name in tables if name != "cuts")
        Table(hosts.namespace("switch"), "bridge", mine).perform()
        assert hosts.cuts() == []


WAITING = textwrap.dedent("""
    import socket, sys
    with socket.create_server((sys.argv[1], 5006)) as server:
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            print("taken", flush=True)
            try:
                print("heard", connection.recv(1), flush=True)
            except OSError as error:
                print(type(error).__name__, flush=True)
""")


@pytest.mark.parametrize("pair", [(OUTSIDE, "a"), ("a", OUTSIDE)], ids=["from here to a host", "from a host to here"])
async def test_a_reset_breaks_both_ends_of_a_connection_and_no_others(
    network: BridgeNetwork, hosts: HostNetwork, pair: tuple[str, str]
) -> None:
    command = [*hosts.command("a"), sys.executable, "-I", "-c", WAITING, hosts.address("a")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            with socket.create_connection((hosts.address("a"), 5006)) as connection:
                assert server.stdout.readline() == "taken\n"
                await network.reset(both_ways([("a", "b")]))  # others
                await network.reset([pair])
                assert server.stdout.readline() in ("ConnectionResetError\n", "ConnectionAbortedError\n")
                with pytest.raises(OSError, match=r"reset|abort"):
                    connection.recv(1)
            with socket.create_connection((hosts.address("a"), 5006)) as connection:  # new ones are possible at once
                assert server.stdout.readline() == "taken\n"
                await network.reset([("b", "a"), ("c", OUTSIDE)])
                connection.send(b"x")
                assert server.stdout.readline() == "heard b'x'\n"
        finally:
            server.kill()


def test_a_host_can_come_while_the_others_run(hosts: HostNetwork) -> None:
    hosts.add_host("d")
    assert reach(hosts, "a", "d", teller=OUTSIDE)
    assert reach(hosts, "d", OUTSIDE, teller="c")


def test_hosts_of_two_networks_do_not_meet(hosts: HostNetwork) -> None:
    with HostNetwork(["a"], tag=f"hasched-{os.getpid()}-other-") as other:
        assert other.address("a") != hosts.address("a")
        assert not {*other.namespaces()} & {*hosts.namespaces()}
        outside = Path("/sys/class/net") / other.outside
        assert outside.exists()
    assert not outside.exists()
    assert reach(hosts, OUTSIDE, "a", teller="c")


def test_a_probe_that_is_killed_leaves_no_namespace_behind() -> None:
    harness = "from chaos.cluster import network; network.PROBE += 'kill -KILL $PPID'; network.find_obstacle()"
    done = subprocess.run([sys.executable, "-c", harness], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -signal.SIGKILL
    assert "probe" not in network_module.run("ip", "netns", "list")


def test_a_probe_says_what_the_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_module, "PROBE", "echo made; echo no such rule >&2; false")
    assert find_obstacle() == "nftables can't filter bridges here: no such rule"
    monkeypatch.setattr(network_module, "PROBE", "echo not for you >&2; false")
    assert find_obstacle() == "this machine gives no network namespaces: not for you"


def test_the_hosts_of_a_dead_run_are_taken_away_and_those_that_cannot_be_hinder_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subprocess.Popen(["true"]) as dead:
        pass
    stubborn, left = sorted(f"hasched-{dead.pid}-{name}" for name in ("a", "b"))
    perform = Namespace.perform

    def refuse(self: Namespace) -> None:
        if self.name == stubborn:
            raise OSError("it is somebody else's")
        perform(self)

    for name in (stubborn, left):
        network_module.run("ip", "netns", "add", name)
    try:
        with (
            subprocess.Popen([*network_module.enter(left), "sleep", "600"]) as resident,
            monkeypatch.context() as patch,
        ):
            patch.setattr(Namespace, "perform", refuse)
            network_module.remove_leftovers()
            assert resident.wait() == -signal.SIGKILL
        assert Path("/run/netns", stubborn).exists()
        assert not Path("/run/netns", left).exists()
    finally:
        network_module.remove_leftovers()
    assert not Path("/run/netns", stubborn).exists()


def test_a_free_port_is_for_who_was_told_of_it():
    (port,) = network_module.free_ports(1)
    address = (network_module.LOOPBACK, port)
    for _ in range(2):  # a daemon that is killed and comes back
        with socket.create_server(address), socket.create_connection(address):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(address)
