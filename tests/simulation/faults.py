"""Faults: what goes wrong in a run, how often, for how long, and with whom.

Each fault heals itself after a while, and `stop` ends the making of new ones. Several may be under way at once; only what
no cluster survives is kept apart: a disk is lost only while every other manager holds all there is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from itertools import pairwise, permutations, product
from random import Random
from typing import TYPE_CHECKING, Any

from hasched.model.errors import HaschedError, StorageFailed
from hasched.raft import segments as segments_module
from tests.simulation.disk import SimulatedDisk
from tests.simulation.manager import DATA_DIR
from tests.simulation.operator import Operator

if TYPE_CHECKING:
    from tests.simulation.checks import Checks
    from tests.simulation.options import Options
    from tests.simulation.world import World

Pair = tuple[str, str]


class Faults:
    """Makes faults from `start` to `stop`. `made` counts them by name."""

    def __init__(self, world: World, options: Options, checks: Checks, others: Iterable[str] = ()) -> None:
        self.made: dict[str, int] = {}
        self._world = world
        self._options = options
        self._checks = checks
        self._others = [*world.agents, *others]  # who talks to managers, and may be cut off from them
        self._random: Random = world.stream("faults")
        self._stopped = False
        self.operator = Operator(world)
        self._spoilt: Any = None  # the manager that may be about to begin anew

    def start(self) -> None:
        if self._options.faults:
            self._later(self._random.expovariate(1 / self._options.calm_s), self._make_one)

    def stop(self) -> None:
        """Nothing goes wrong from now on; what has gone wrong is for `World.heal`, and for the ends of faults."""
        self._stopped = True
        self._checks.on_leader = None

    def _make_one(self) -> None:
        if self._stopped:
            return
        weights = self._options.faults
        name = self._random.choices(list(weights), list(weights.values()))[0]
        self._world.note("fault", name)
        if getattr(self, f"_{name}")() is not False:
            self.made[name] = self.made.get(name, 0) + 1
        self._later(self._random.expovariate(1 / self._options.calm_s), self._make_one)

    # --- what they have in common ---

    def _later(self, delay: float, action: Callable[..., object], *args: Any) -> None:
        self._world.after(delay, action, *args)

    def _a_while(self) -> float:
        return self._random.expovariate(1 / self._options.fault_s) + 0.01

    def _make_later(self, delay: float, action: Callable[..., object], *args: Any) -> None:
        """A part of a fault that is yet to come."""
        self._later(delay, lambda: None if self._stopped else action(*args))

    def _heal_later(self, action: Callable[..., object], *args: Any) -> None:
        """The end of a fault. If all was healed meanwhile, that changes nothing."""
        self._later(self._a_while(), action, *args)

    def _a_manager(self) -> Any:
        """Any, but the leader more often than its share."""
        leader = self._world.leader()
        if leader is not None and self._random.random() < 0.4:
            return leader
        return self._random.choice(list(self._world.managers.values()))

    def _an_agent(self) -> Any:
        agents = list(self._world.agents.values())
        return self._random.choice(agents) if agents else None

    def _names(self) -> list[str]:
        names = list(self._world.managers)
        self._random.shuffle(names)
        return names

    # --- processes and machines ---

    def _kill(self) -> None:
        manager = self._a_manager()
        manager.kill()
        self._heal_later(manager.start)

    def _power_cut(self) -> None:
        """At once, or in the middle of what its disk does next."""
        manager = self._a_manager()
        if self._random.random() < 0.3:
            manager.cut_power()
        else:
            manager.cut_power_at(self._random.choice((1, 1, 2, 3, 5, 8, 13)), self._a_while())
        self._heal_later(manager.start)

    def _power_cut_all(self) -> None:
        for manager in self._world.managers.values():
            manager.cut_power()
            self._heal_later(manager.start)

    def _pause(self) -> None:
        manager = self._a_manager()
        manager.pause()
        self._heal_later(manager.go_on)

    def _rolling_restart(self) -> None:
        """As the service manager does it: SIGTERM, SIGKILL to one that takes too long, and up again."""
        delay = 0.0
        for manager in list(self._world.managers.values()):
            self._make_later(delay, self._restart, manager)
            delay += self._random.uniform(0.5, 4) * self._options.election_s

    def _restart(self, manager: Any) -> None:
        manager.stop()
        self._later(0.1, self._start_when_gone, manager, manager.lives, self._world.now + 2 * self._options.election_s)

    def _start_when_gone(self, manager: Any, life: int, deadline: float) -> None:
        if manager.alive and manager.lives == life:
            if self._world.now < deadline:
                self._later(0.1, self._start_when_gone, manager, life, deadline)
                return
            manager.kill()
        manager.start()

    def _transfer(self) -> bool | None:
        """Somebody wants another leader, and asks any manager for it."""
        manager = self._a_manager()
        if not manager.running:
            return False
        manager.run(self._hand_over)
        return None

    async def _hand_over(self, manager: Any) -> None:
        target = self._random.choice([None, *self._world.managers])
        with contextlib.suppress(HaschedError):
            await manager.replica.transfer(target)

    # --- the network ---

    def _cut(self, pairs: Iterable[Pair], seconds: float | None = None) -> None:
        pairs = list(pairs)
        for source, target in pairs:
            self._world.network.cut(source, target)
        self._later(self._a_while() if seconds is None else seconds, self._mend, pairs)

    def _mend(self, pairs: list[Pair]) -> None:
        for source, target in pairs:
            self._world.network.heal(source, target)

    def _isolate(self) -> None:
        """From the other managers; clients and agents may still reach it."""
        name = self._a_manager().name
        self._cut(pair for pair in permutations(self._names(), 2) if name in pair)

    def _isolate_follower(self) -> bool | None:
        """One at a time: the others are a majority."""
        leader = self._world.leader()
        if leader is None or self._world.network.cuts:
            return False
        followers = [name for name in self._world.managers if name != leader.name]
        name = self._random.choice(followers)
        self._cut(pair for pair in permutations(self._names(), 2) if name in pair)
        return None

    def _isolate_leader(self) -> bool | None:
        """For long enough to see that it stops to call itself leader: a majority must answer it within an election timeout."""
        leader = self._world.leader()
        if leader is None:
            return False
        patience_s = 2 * self._options.election_s + 1
        pairs = [pair for pair in permutations(self._names(), 2) if leader.name in pair]
        self._cut(pairs, patience_s + self._a_while())
        cuts = self._cuts(pairs)
        life = (leader.lives, leader.pauses)
        self._later(patience_s, self._expect_abdication, leader, life, leader.replica.term, pairs, cuts)
        return None

    def _cuts(self, pairs: list[Pair]) -> list[int | None]:
        return [self._world.network.cut_number(*pair) for pair in pairs]

    def _expect_abdication(
        self, leader: Any, life: tuple[int, int], term: int, pairs: list[Pair], cuts: list[int | None]
    ) -> None:
        """Unless it was killed, stopped, or healed meanwhile."""
        same = leader.running and (leader.lives, leader.pauses) == life and self._cuts(pairs) == cuts
        if same and leader.replica.is_leader and leader.replica.term == term:
            self._world.complain(leader.name, "is cut off from everybody and goes on to call itself leader")

    def _figure_8(self) -> bool | None:
        """Of the Raft paper: what a leader has in part replicated, another's entries may still replace.

        The leader and one follower are cut off with entries that nobody else has; the leader of the others is cut off at
        once; the first two come back, spread those entries, and are cut off again while they do; the other leader
        returns.
        """
        leader, names = self._world.leader(), self._names()
        if leader is None or len(names) < 5 or self._world.network.cuts or self._checks.on_leader is not None:
            return False
        names.remove(leader.name)
        first, second = [leader.name, names[0]], names[1:]
        self._cut_between(first, second)
        self._checks.on_leader = lambda name: self._cut_second_leader(name, first, second)
        self._later(6 * self._options.election_s, self._end_figure_8)
        return None

    def _cut_second_leader(self, name: str, first: list[str], second: list[str]) -> None:
        if name in second:
            rest = [each for each in second if each != name]
            self._cut_between([name], rest)
            self._mend_between(first, rest)
            self._checks.on_leader = lambda again: self._cut_first_again(again, name, first, rest)

    def _cut_first_again(self, again: str, second_leader: str, first: list[str], rest: list[str]) -> None:
        if again in first:
            self._checks.on_leader = None
            self._later(
                self._random.random() * self._options.election_s, self._turn_figure_8, second_leader, first, rest
            )

    def _turn_figure_8(self, second_leader: str, first: list[str], rest: list[str]) -> None:
        if not self._stopped:
            self._cut_between(first, rest)
            self._mend_between([second_leader], rest)

    def _end_figure_8(self) -> None:
        self._checks.on_leader = None
        self._world.network.heal_all()

    def _cut_between(self, some: list[str], others: list[str]) -> None:
        for one, other in product(some, others):
            self._world.network.cut(one, other)
            self._world.network.cut(other, one)

    def _mend_between(self, some: list[str], others: list[str]) -> None:
        for one, other in product(some, others):
            self._mend([(one, other), (other, one)])

    def _halves(self) -> None:
        """Everybody, clients and agents too, is on one side or on the other."""
        hosts = [*self._world.managers, *self._others]
        side = {host: self._random.random() < 0.5 for host in hosts}
        self._cut((a, b) for a, b in permutations(hosts, 2) if side[a] is not side[b])

    def _one_way(self) -> None:
        """A manager hears nobody any more, or nobody hears it, or one pair hears in one direction only."""
        names, name = self._names(), self._a_manager().name
        kind = self._random.randrange(3)
        if kind == 2:
            self._cut([(names[0], names[1])])
        else:
            self._cut((a, b) for a, b in permutations(names, 2) if (a, b)[kind] == name)

    def _chain(self) -> None:
        names = self._names()
        joined = list(pairwise(names))
        self._cut((a, b) for a, b in permutations(names, 2) if (a, b) not in joined and (b, a) not in joined)

    def _star(self) -> None:
        names = self._names()
        self._cut((a, b) for a, b in permutations(names, 2) if names[0] not in (a, b))

    def _mesh(self) -> None:
        hosts = [*self._names(), *self._others]
        self._cut(pair for pair in permutations(hosts, 2) if self._random.random() < 0.25)

    def _flapping(self) -> None:
        names, delay = self._names(), 0.0
        pairs = [(names[0], names[1]), (names[1], names[0])][: self._random.choice((1, 2))]
        for _ in range(self._random.randint(2, 8)):
            self._make_later(delay, self._cut, pairs, self._options.election_s * self._random.uniform(0.05, 0.5))
            delay += self._options.election_s * self._random.uniform(0.3, 1.0)

    def _slow_link(self) -> None:
        """In one direction: what comes late then meets what came after it on other ways."""
        names = self._names()
        slow, pair = self._world.network.weather.slow, (names[0], names[1])
        slow[pair] = self._random.choice((5.0, 30.0, 100.0))
        self._heal_later(slow.pop, pair, None)

    def _reset(self) -> None:
        names = self._names()
        self._world.network.reset(names[0], names[1])

    # --- disks ---

    def _sync_error(self) -> None:
        """The manager ends itself; whatever supervises it starts it again."""
        self._a_manager().disk.fail_sync(self._random.choice((1, 1, 2, 4)))

    def _full_disk(self) -> None:
        manager = self._a_manager()
        manager.disk.capacity = manager.disk.used + self._random.choice((0, 100, 2000))
        self._heal_later(self._make_room, manager)

    def _make_room(self, manager: Any) -> None:
        manager.disk.capacity = None
        manager.start()

    def _slow_disk(self) -> None:
        manager = self._a_manager()
        manager.slow_disk = self._random.choice((10.0, 100.0, 500.0))
        self._heal_later(setattr, manager, "slow_disk", 1.0)

    def _wiped_disk(self) -> bool | None:
        """Only while no other manager waits for its vote."""
        manager = self._a_manager()
        if not self._may_lose_a_disk():
            return False
        manager.wipe()
        self._heal_later(manager.start)
        return None

    def _worst_wipe(self) -> bool | None:
        """One manager falls behind, one that has all loses its disk, and the leader, which is left with all, dies too."""
        leader = self._world.leader()
        if leader is None or self._world.network.cuts or not self._may_lose_a_disk():
            return False
        behind, lost = self._random.sample([each for each in self._world.managers.values() if each is not leader], 2)
        behind_s = self._options.election_s * self._random.uniform(1, 3)
        self._cut([pair for pair in permutations(self._names(), 2) if behind.name in pair], behind_s)
        self._make_later(behind_s - 0.01, self._wipe_and_kill, lost, leader)
        return None

    def _wipe_and_kill(self, lost: Any, leader: Any) -> None:
        if self._may_lose_a_disk():
            lost.wipe()
            leader.kill()
            self._later(self._random.uniform(0, 1) * self._options.election_s, lost.start)
            self._later(self._random.uniform(2, 5) * self._options.election_s, leader.start)

    def _may_lose_a_disk(self) -> bool:
        managers = self._world.managers.values()
        return self._spoilt is None and all(manager.has_vote for manager in managers)

    def _bit_rot(self) -> bool | None:
        """One bit of a machine that is off changes. Its manager refuses to start, or the bit made no difference.

        The last frame of the journal is spared: a bit in it can't be told from a write that the power cut tore.
        """
        manager = self._a_manager()
        if not self._may_lose_a_disk():
            return False
        manager.kill()
        manager.disk.start()
        self._world.note("rotten", manager.name, rot(manager.disk, self._random))
        manager.start()
        self._spoilt = manager
        self._heal_later(self._replace_rotten, manager)
        return None

    def _replace_rotten(self, manager: Any) -> None:
        """What people do about a disk that its manager refuses to work with, once it has read it."""
        refused = not manager.alive and isinstance(manager.failure, StorageFailed)
        if refused:
            manager.wipe()
        manager.start()
        if refused or manager.running or self._world.managers.get(manager.name) is not manager:
            self._spoilt = None
        else:
            self._later(0.1, self._replace_rotten, manager)

    def _memory_flip(self) -> bool | None:
        """It is found by comparison, and the manager is filled again."""
        manager = self._a_manager()
        if not self._may_lose_a_disk() or not manager.flip_state():
            return False
        self._spoilt = manager
        self._await_blank(manager, manager.lives)
        return None

    def _await_blank(self, manager: Any, life: int) -> None:
        if manager.lives > life and manager.running and not manager.core.engine.voter:
            self._spoilt = None  # it begins anew; until it has its vote, no other disk is lost
        elif not self._stopped:
            self._later(0.5, self._await_blank, manager, life)

    # --- managers come and go ---

    def _membership(self) -> bool | None:
        """Two more, or two less; in a run in which nothing may depose the leader, it stays."""
        operator, names = self.operator, self._names()
        if operator.busy:
            return False
        if len(names) < 5:
            operator.grow(2)
            return None
        leader = self._world.leader()
        if self._options.steady and leader is not None:
            names.remove(leader.name)
        operator.shrink(names[:2])
        return None

    def _split_removal(self) -> bool | None:
        """Two are to go. As soon as the leader knows, it is left with the fewer of those who voted before."""
        operator, leader, names = self.operator, self._world.leader(), self._names()
        if operator.busy or leader is None or len(names) < 5 or self._world.network.cuts:
            return False
        names.remove(leader.name)
        operator.shrink(names[:2])
        self._await_removal(leader, leader.lives, names[:2], [leader.name, names[2]], names[:2] + names[3:], 3000)
        return None

    def _await_removal(
        self, leader: Any, life: int, leaving: list[str], some: list[str], others: list[str], patience: int
    ) -> None:
        if self._stopped or not patience or leader.lives != life or not leader.leads:
            return
        if any(name in leader.replica.state.managers for name in leaving):
            self._later(0.002, self._await_removal, leader, life, leaving, some, others, patience - 1)
            return
        self._cut_between(some, others)
        self._later(6 * self._options.election_s, self._mend_between, some, others)

    # --- clocks ---

    def _clock_jump(self) -> None:
        clock = self._a_manager().clock
        jump_ms = int(self._random.choice((-1, 1)) * self._random.choice((500, 5000, 3_600_000)))
        clock.wall_ahead_ms += jump_ms

    def _clock_drift(self) -> None:
        clock = self._a_manager().clock
        clock.drift(1 + self._random.uniform(-0.05, 0.05))

    # --- agents and their nodes ---

    def _agent_kill(self) -> bool | None:
        agent = self._an_agent()
        if agent is None:
            return False
        self._random.choice((agent.kill, agent.kill, agent.kill_supervisor, agent.pause))()
        self._heal_later(agent.heal)
        return None

    def _agent_cut(self) -> bool | None:
        """From all managers, for longer than its lease or not."""
        agent = self._an_agent()
        if agent is None:
            return False
        grace_s = self._options.settings.leading.node_grace_ms / 1000
        pairs = [pair for name in self._world.managers for pair in ((name, agent.name), (agent.name, name))]
        self._cut(pairs, self._random.uniform(0.05, 2) * grace_s)
        return None

    def _node_reboot(self) -> bool | None:
        agent = self._an_agent()
        if agent is None:
            return False
        agent.cut_power()
        self._heal_later(agent.start)
        return None


def rot(disk: SimulatedDisk, random: Random) -> tuple[str, int] | None:
    """Flip a bit of any file, but not in the journal's last frame."""
    files = [(path, len(inode.durable)) for path, inode in disk.files(DATA_DIR) if inode.durable]
    segments = [path for path, _ in files if path.suffix == segments_module.SUFFIX]
    if segments:
        reader = segments_module.SegmentReader(disk, segments[-1])
        for _ in reader.frames(True):
            pass
        files = [(path, reader.last_frame[0] if path == segments[-1] else size) for path, size in files]
    path, size = random.choice([(path, size) for path, size in files if size])
    offset = random.randrange(size)
    disk.flip(path, offset, 1 << random.randrange(8))
    return str(path), offset
