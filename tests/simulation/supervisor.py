"""A simulated supervisor process: the product's `Supervised` behind a socket that keeps its order, on the node's clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import hasched
from hasched.agent.orders import Orders
from hasched.agent.protocol import (
    Configure,
    FromSupervisor,
    Inventory,
    Observed,
    ToSupervisor,
)
from hasched.agent.supervised import Supervised
from hasched.agent.supervisor import LOOK_INTERVAL_MS
from hasched.model.states import EndKind
from tests.simulation.loop import HostLoop
from tests.simulation.tasks import Roster

if TYPE_CHECKING:
    from tests.simulation.agent import SimulatedAgent

HOP_S = (0.00005, 0.002)  # a message over the Unix socket
_T = TypeVar("_T")


class SimulatedSupervisor:
    """As `hasched.agent.supervisor`, whose loop it stands for. It lives until it is killed; agents come and go."""

    def __init__(self, node: SimulatedAgent) -> None:
        self.node = node
        self.alive = True
        self._world = node.world
        self._random = node.random
        self._instance = f"{self._random.getrandbits(64):016x}"
        self._supervised = Supervised("", Roster(), lambda *_, **__: None)  # type: ignore[arg-type]
        self._connection: Connection | None = None
        self._configured: Configure | None = None
        self._orders = Orders(self._supervised, self._configure)
        self._turn_at = float("inf")

    def die(self) -> None:
        self.alive = False
        if self._connection is not None:
            self._connection.lose()

    def forsake(self) -> None:
        """Its data directory is lost; it soon notices, and ends its tasks."""
        if self._connection is not None:
            self._connection.lose()
        self._connection = None
        self._world.after(self._random.uniform(0, LOOK_INTERVAL_MS / 1000), self._within, self._end_all)

    def _end_all(self) -> None:
        if self.alive:
            self._supervised.stop_everything(EndKind.LOST, "the data directory was lost")
            self._turn_soon(0.0)

    def accept(self, connection: Connection) -> None:
        """A new agent replaces the old one."""
        if self._connection is not None:
            self._connection.lose()
        self._connection = connection

    def obey(self, connection: Connection, messages: Sequence[ToSupervisor]) -> None:
        if self.alive and connection is self._connection:
            self._within(self._obey_all, messages)

    def wake(self) -> None:
        """A child has ended."""
        self._turn_soon(0.0)

    def _within(self, work: Callable[..., _T], *args: Any) -> _T:
        """In this process, on this node."""
        world = self._world
        outer, world.node = world.node, self.node
        try:
            return work(*args)
        finally:
            world.node = outer

    def _turn_soon(self, delay_s: float) -> None:
        when = self._world.now + delay_s
        if when < self._turn_at:
            self._turn_at = when
            self._world.at(when, self._turn_if, when)

    def _turn_if(self, when: float) -> None:
        if self.alive and when == self._turn_at:
            self._turn_at = float("inf")
            self._within(self._turn)

    def _turn(self) -> None:
        supervised = self._supervised
        self._orders.launch(self._orders.waiting)
        supervised.reap()
        supervised.act()
        self._send_news()
        due_ms = supervised.next_due_ms()
        if due_ms is not None:
            clock = self.node.clock
            self._turn_soon(max(0.0, clock.due(due_ms / 1000 + 0.001) - self._world.now))

    def _obey_all(self, messages: Sequence[ToSupervisor]) -> None:
        for message in messages:
            self._orders.obey(message)
        self._turn_soon(0.0)

    def _configure(self, settings: Configure) -> None:
        if settings != self._configured:
            self._supervised.configure(settings, self.node.kernel, None)
            self._configured = settings
        self._supervised.take_news()
        running, ended = self._supervised.running(), self._supervised.ended()
        self._send(Inventory(hasched.__version__, self._instance, 1, "rlimit", running, ended))

    def _send_news(self) -> None:
        news = self._supervised.take_news()
        if news and self._connection is not None and self._configured is not None:
            self._send(Observed(news, self._supervised.take_node_failure()))

    def _send(self, message: FromSupervisor) -> None:
        if self._connection is not None:
            self._connection.tell(message)


class Connection:
    """The agent's end. What either side sends arrives in order, unless the receiver has gone."""

    def __init__(
        self,
        loop: HostLoop,
        supervisor: SimulatedSupervisor,
        on_messages: Callable[[list[FromSupervisor]], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._supervisor = supervisor
        self._on_messages = on_messages
        self._on_lost = on_lost
        self._world = loop.world
        self._down_at = self._up_at = 0.0
        self._open = True
        supervisor.accept(self)

    def send(self, messages: Sequence[ToSupervisor]) -> None:
        if self._open:
            self._down_at = self._arrival(self._down_at)
            self._world.at(self._down_at, self._supervisor.obey, self, tuple(messages))

    def tell(self, message: FromSupervisor) -> None:
        self._up_at = self._arrival(self._up_at)
        self._world.at(self._up_at, self._loop.deliver, self._take, message)

    def lose(self) -> None:
        self._up_at = self._arrival(self._up_at)
        self._world.at(self._up_at, self._loop.deliver, self.abort)

    def abort(self) -> None:
        if self._open:
            self._open = False
            self._loop.call_soon(self._on_lost)

    close = abort

    def _arrival(self, last: float) -> float:
        return max(last, self._world.now + self._supervisor.node.random.uniform(*HOP_S))

    def _take(self, message: FromSupervisor) -> None:
        if self._open:
            self._on_messages([message])
