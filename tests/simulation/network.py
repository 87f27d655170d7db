"""The network between simulated hosts: connections as TCP makes them, and all that can happen to them.

Within a connection nothing is lost, doubled or reordered; connections themselves are slow, break, and are broken at one end
before the other hears of it. What is sent into a cut waits, as what is retransmitted does: it arrives late if the cut
heals, and is lost with the connection if either end gives up first.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

from hasched.model.identity import MANAGER_HOSTNAME, ORGANIZATION, manager_hostname
from tests.simulation.loop import HostLoop

if TYPE_CHECKING:
    from tests.simulation.world import World

RETRY_S = 0.5  # between two tries to open a connection that nobody answers


@dataclass(frozen=True)
class Certificate:
    """Stands for a TLS context: who shows it."""

    role: str
    name: str

    @property
    def subject(self) -> dict[str, Any]:
        """As `SSLSocket.getpeercert` gives it."""
        fields = (("organizationName", ORGANIZATION), ("organizationalUnitName", self.role), ("commonName", self.name))
        return {"subject": tuple((each,) for each in fields)}

    def names(self, hostname: str) -> bool:
        return self.role == "manager" and hostname in (MANAGER_HOSTNAME, manager_hostname(self.name))


@dataclass
class Weather:
    """How messages travel. Delays in seconds; `spikes` is how often one takes up to `spike_s` instead."""

    delay_s: tuple[float, float] = (0.0005, 0.01)
    spikes: float = 0.02
    spike_s: float = 0.5
    give_up_s: tuple[float, float] = (0.8, 2.5)  # an end whose data isn't acknowledged breaks its connection
    bytes_per_s: float = inf  # that a connection carries in one direction
    slow: dict[tuple[str, str], float] = field(default_factory=dict)  # by source and target: that many times the delay
    rate: dict[tuple[str, str], float] = field(
        default_factory=dict
    )  # bytes a second that a connection takes, if not all


class End:
    """One end of a connection. Its owner sets `on_data` and `on_lost`, which are called on its loop."""

    on_data: Callable[[Any], None]
    on_lost: Callable[[Exception | None], None]
    other: End

    def __init__(self, network: Network, loop: HostLoop, certificate: Certificate | None) -> None:
        self.network = network
        self.loop = loop
        self.host = loop.name
        self.certificate = certificate
        self.dialled = False  # from here
        self.open = True
        self._last_arrival = 0.0
        self._under_way: deque[tuple[str, Any]] = deque()
        self._held = 0  # of what is under way, how much has arrived at a cut

    @property
    def behind_s(self) -> float:
        """How long the latest that was sent here is still on its way."""
        return self._last_arrival - self.network.world.now if self.open else 0.0

    def send(self, data: Any) -> None:
        """To the other end, in order."""
        if self.open:
            self._transmit("data", data)

    def close(self) -> None:
        """Everything that was sent still arrives, and then the end."""
        if self.open:
            self.open = False
            self._transmit("end", None)
            self.loop.call_soon(self.on_lost, None)
            self.network.forget(self)

    def abort(self) -> None:
        """At once; what is under way may be lost with it."""
        if self.open:
            self.loop.call_soon(self.on_lost, None)
            self.vanish(reset=True)

    def vanish(self, *, reset: bool) -> None:
        """The process, or its machine, is gone. Its kernel says so (`reset`), or nobody does."""
        if not self.open:
            return
        self.open = False
        self.network.forget(self)
        if self.network.random.random() < 0.5:
            self._under_way.clear()
            self._held = 0
        if reset:
            self._transmit("end", None)

    def give_up(self) -> None:
        """Nothing comes back: this end calls the connection broken, and says so to whoever may hear it."""
        if self.open:
            self.vanish(reset=True)
            self.loop.deliver(self.on_lost, TimeoutError("the other end doesn't answer"))

    def _transmit(self, kind: str, data: Any) -> None:
        self._under_way.append((kind, data))
        self._schedule(data)

    def _schedule(self, data: Any) -> None:
        network = self.network
        arrival = network.world.now + network.delay(self.host, self.other.host)
        takes_s = network.size_of(data) / network.weather.bytes_per_s
        self._last_arrival = max(self._last_arrival + takes_s, arrival)
        network.world.at(self._last_arrival, self._arrive)

    def _arrive(self) -> None:
        network, other = self.network, self.other
        if self._held or network.is_cut(self.host, other.host):
            self._held += 1
            network.holding[self] = None
            return
        if not self._under_way:
            return  # it was lost
        kind, data = self._under_way.popleft()
        if not other.open:
            if kind == "data" and self.open and network.world.is_on(other.host):
                other._transmit("end", None)  # a reset, from whoever has forgotten the connection
            return
        if kind == "data":
            network.delivered += 1
            network.world.note("data", self.host, other.host, network.size_of(data))
            other.loop.deliver(other._take, data)
        else:
            other.open = False
            network.forget(other)
            other.loop.deliver(other.on_lost, None)

    def _take(self, data: Any) -> None:
        if self.open:
            self.on_data(data)

    def release(self) -> None:
        """The cut has healed: what was held back is sent once more."""
        held, self._held = self._held, 0
        for _, data in list(self._under_way)[:held]:
            self._schedule(data)


class Network:
    """All listeners and connections of a world, by the names of its hosts."""

    def __init__(self, world: World, weather: Weather) -> None:
        self.world = world
        self.weather = weather
        self.random = world.stream("network")
        self.delivered = 0
        self._cut: dict[tuple[str, str], int] = {}  # with the number of the cut
        self._listeners: dict[tuple[str, int], tuple[HostLoop, Callable[[End], None], Any]] = {}
        self.holding: dict[End, None] = {}  # those with data that waits for a cut to heal
        self._ends: dict[int, End] = {}
        self._numbers: dict[End, int] = {}

    # --- faults ---

    def cut(self, source: str, target: str) -> None:
        """From now on nothing that `source` sends reaches `target`."""
        if (source, target) in self._cut:
            return
        number = self._cut[source, target] = self.world.next_number()
        for end in list(self._ends.values()):
            if (end.host, end.other.host) in ((source, target), (target, source)):
                self.world.after(
                    self.random.uniform(*self.weather.give_up_s), self._give_up, end, source, target, number
                )

    def heal(self, source: str, target: str) -> None:
        if self._cut.pop((source, target), None) is not None:
            for end in [end for end in self.holding if (end.host, end.other.host) == (source, target)]:
                del self.holding[end]
                end.release()

    def heal_all(self) -> None:
        for source, target in list(self._cut):
            self.heal(source, target)

    def is_cut(self, source: str, target: str) -> bool:
        return (source, target) in self._cut

    @property
    def cuts(self) -> int:
        """How many there are now."""
        return len(self._cut)

    def cut_number(self, source: str, target: str) -> int | None:
        """Another one for every cut."""
        return self._cut.get((source, target))

    def reset(self, one: str, other: str) -> None:
        """Break every connection between two hosts; both ends hear of it."""
        for end in list(self._ends.values()):
            if (end.host, end.other.host) == (one, other) and end.open:
                end.vanish(reset=True)
                end.loop.deliver(end.on_lost, ConnectionResetError("reset"))

    def break_stuck(self) -> None:
        """Break what is so far behind that its kernel would have given it up: nothing of a slow link outlives it."""
        patience_s = self.weather.give_up_s[0]
        for end in list(self._ends.values()):
            if end.behind_s > patience_s:
                end.other.give_up()
                end.give_up()

    def break_dialled(self, source: str, target: str) -> None:
        """Break the connections that `source` has dialled to `target`, and not those the other way round."""
        for end in list(self._ends.values()):
            if (end.host, end.other.host, end.dialled) == (source, target, True):
                end.give_up()

    def _give_up(self, end: End, source: str, target: str, number: int) -> None:
        if self._cut.get((source, target)) == number:
            end.give_up()

    def delay(self, source: str, target: str) -> float:
        weather, random = self.weather, self.random
        longest = weather.spike_s if random.random() < weather.spikes else weather.delay_s[1]
        return random.uniform(weather.delay_s[0], longest) * weather.slow.get((source, target), 1.0)

    # --- hosts that go ---

    def drop_process(self, loop: HostLoop) -> None:
        """A process has ended; its kernel closes what it had open."""
        self._drop(loop, reset=True)

    def drop_machine(self, loop: HostLoop) -> None:
        """A machine has lost its power: nobody hears of it, unless by silence."""
        self._drop(loop, reset=False)

    def _drop(self, loop: HostLoop, *, reset: bool) -> None:
        for address in [address for address, listener in self._listeners.items() if listener[0] is loop]:
            del self._listeners[address]
        for end in [end for end in self._ends.values() if end.loop is loop]:
            end.vanish(reset=reset)
            if not reset:
                self.world.after(self.random.uniform(*self.weather.give_up_s), end.other.give_up)

    # --- connections ---

    def listen_for(self, loop: HostLoop, port: int, accept: Callable[[End], None], certificate: Any) -> None:
        """`accept` gets this side's end of each new connection."""
        if (loop.name, port) in self._listeners:
            raise OSError(f"port {port} is in use")
        self._listeners[loop.name, port] = (loop, accept, certificate)

    def unlisten(self, loop: HostLoop, port: int) -> None:
        if self._listeners.get((loop.name, port), (None,))[0] is loop:
            del self._listeners[loop.name, port]

    async def dial(
        self,
        loop: HostLoop,
        host: str,
        port: int,
        certificate: Certificate,
        on_data: Callable[[Any], None] | None = None,
        on_lost: Callable[[Exception | None], None] | None = None,
    ) -> End:
        """A connection from this process to a host's port. Raises OSError. Without an answer it tries until it is cancelled."""
        while True:
            await asyncio.sleep(self.delay(loop.name, host) + self.delay(host, loop.name))
            if self.world.is_on(host) and not (self.is_cut(loop.name, host) or self.is_cut(host, loop.name)):
                break
            await asyncio.sleep(RETRY_S)
        listener = self._listeners.get((host, port))
        if listener is None:
            raise ConnectionRefusedError(f"{host}:{port} refuses")
        far_loop, accept, far_certificate = listener
        near, far = End(self, loop, certificate), End(self, far_loop, far_certificate)
        near.other, far.other, near.dialled = far, near, True
        for end in (near, far):
            number = self._numbers[end] = self.world.next_number()
            self._ends[number] = end
        near.on_data, near.on_lost = on_data or _nobody, on_lost or _nobody
        far.on_data, far.on_lost = _nobody, _nobody
        self.world.after(0, far_loop.deliver, accept, far)
        return near

    def forget(self, end: End) -> None:
        number = self._numbers.pop(end, None)
        if number is not None:
            del self._ends[number]

    @staticmethod
    def size_of(data: Any) -> int:
        if isinstance(data, bytes):
            return len(data)
        data = getattr(data, "data", None)
        return len(data) if isinstance(data, bytes) else 0

    # --- asyncio's transports ---

    def listen(self, loop: HostLoop, port: int, factory: Callable[[], Any], certificate: Certificate) -> _Server:
        def accept(end: End) -> None:
            ByteStream(end, factory())

        self.listen_for(loop, port, accept, certificate)
        return _Server(self, loop, port)

    async def connect(
        self, loop: HostLoop, host: str, port: int, factory: Callable[[], Any], certificate: Certificate, hostname: str
    ) -> tuple[ByteStream, Any]:
        end = await self.dial(loop, host, port, certificate)
        shown = end.other.certificate
        if shown is None or not shown.names(hostname):
            end.abort()
            raise ssl.CertificateError(f"{host}:{port} is not {hostname}")
        stream = ByteStream(end, factory())
        return stream, stream.protocol


def _nobody(_: Any) -> None:
    """Takes what nobody waits for."""


class _Server:
    def __init__(self, network: Network, loop: HostLoop, port: int) -> None:
        self._network, self._loop, self._port = network, loop, port

    def close(self) -> None:
        self._network.unlisten(self._loop, self._port)

    async def wait_closed(self) -> None:
        pass


class _Socket:
    def setsockopt(self, *_: Any) -> None:
        pass


class ByteStream(asyncio.Transport):
    """An end as asyncio shows it to a protocol."""

    def __init__(self, end: End, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._end = end
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._most_unsent = 2**16
        self._full = False
        self.protocol = protocol
        end.on_data, end.on_lost = protocol.data_received, protocol.connection_lost
        protocol.connection_made(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "peercert":
            certificate = self._end.other.certificate
            return None if certificate is None else certificate.subject
        return _Socket() if name == "socket" else default

    def write(self, data: bytes) -> None:
        if self._unsent or self._rate() is not None:
            self._unsent.append(bytes(data))
            self._unsent_bytes += len(data)
            if len(self._unsent) == 1:
                self._send_next()
            if self._unsent_bytes > self._most_unsent and not self._full:
                self._full = True
                self.protocol.pause_writing()
        else:
            self._end.send(bytes(data))

    def _rate(self) -> float | None:
        """Bytes a second, where there is a limit."""
        return self._end.network.weather.rate.get((self._end.host, self._end.other.host))

    def _send_next(self) -> None:
        duration = len(self._unsent[0]) / (self._rate() or inf)
        self._end.network.world.after(duration, self._end.loop.deliver, self._sent)

    def _sent(self) -> None:
        data = self._unsent.popleft()
        self._unsent_bytes -= len(data)
        self._end.send(data)
        if self._unsent:
            self._send_next()
        if self._full and self._unsent_bytes <= self._most_unsent // 4:
            self._full = False
            self.protocol.resume_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._most_unsent = 2**16 if high is None else high

    def get_write_buffer_size(self) -> int:
        return self._unsent_bytes

    def is_closing(self) -> bool:
        return not self._end.open

    def close(self) -> None:
        self._end.close()

    def abort(self) -> None:
        self._end.abort()
