"""Notifications in a simulated cluster: somebody wants to be told of every end of a job, and what arrives is compared with them.

The receiver is at times down, and at times takes a notice and is not heard to say so.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hasched.manager import leader
from hasched.manager.notifications.courier import Sent
from hasched.manager.notifications.messages import message_id, payload_of
from hasched.model.notices import Channel, Notice, Topic
from hasched.model.policy import Notification, PolicyKind
from hasched.raft.replica import Applied
from hasched.statemachine import events as e
from hasched.statemachine.commands import PutPolicy
from tests.simulation.manager import CLUSTER
from tests.simulation.patches import Patches
from tests.simulation.schedules import tell

if TYPE_CHECKING:
    from tests.simulation.manager import SimulatedManager
    from tests.simulation.world import World

TARGET = "ends"
POLICY = Notification(
    to=Channel.EMAIL,
    recipients=("ada@example.com",),
    events=tuple(sorted((Topic.JOB_CANCELLED, Topic.JOB_FAILED, Topic.JOB_SUCCEEDED))),
    retry_after_ms=200,
    retry_at_most_ms=2000,
    give_up_after_ms=30 * 86_400_000,
)


class Notices:
    """Who is told, and what of."""

    def __init__(self, world: World, patches: Patches) -> None:
        self._world = world
        self._random = world.stream("notices")
        self._loop = world.client("subscriber")
        self._put = False
        self._seen: dict[int, None] = {}
        self._ended: dict[str, None] = {}  # events of which it is to be told
        self._told: dict[str, bytes] = {}  # by event, what it was told
        self._wrong: list[str] = []
        self._healed = False
        world.on_applied.append(self._applied)
        patches.set(leader, "Courier", lambda _settings: self)

    def start(self) -> None:
        put = PutPolicy(kind=PolicyKind.NOTIFICATION, name=TARGET, body=POLICY, actor="subscriber")
        self._loop.create_task(tell(self._world, self._loop, self._random, "subscriber", [put]))

    def stop(self) -> None:
        """The receiver is well from now on."""
        self._healed = True

    @property
    def finished(self) -> bool:
        manager = self._world.leader()
        return manager is not None and not manager.replica.state.outbox.waiting(TARGET)

    async def send(self, _target: Notification, origin: str, notice: Notice) -> Sent:
        """What a leader has to tell arrives, now or never, and it hears of that or not."""
        await asyncio.sleep(self._random.uniform(0.005, 0.3))
        fate = 1.0 if self._healed else self._random.random()
        if fate < 0.3:
            return Sent(False, "the receiver is down")
        body = payload_of(CLUSTER, notice)
        if self._told.setdefault(message_id(origin, notice), body) != body:
            self._wrong.append(f"event {notice.event} was told in two ways")
        await asyncio.sleep(self._random.uniform(0.005, 0.3))
        return Sent(fate >= 0.4, "" if fate >= 0.4 else "the answer was lost")

    async def close(self) -> None:
        pass

    def _applied(self, manager: SimulatedManager, applied: Applied) -> None:
        if applied.index in self._seen:
            return
        self._seen[applied.index] = None
        for number, event in enumerate(applied.events):
            if isinstance(event, e.PolicyChanged) and event.kind is PolicyKind.NOTIFICATION:
                self._put = True
            elif isinstance(event, e.JobEnded) and self._put:
                about = Notice(topic="", event=f"{applied.index}.{number}", time_ms=0)
                self._ended[message_id(manager.replica.state.origin, about)] = None

    def verdict(self) -> list[str]:
        """Everything is healed, and the managers agree."""
        wrong = list(self._wrong)
        if lost := [event for event in self._ended if event not in self._told]:
            wrong.append(f"of {len(self._ended)} ends of jobs {len(lost)} were never told, {lost[0]} for one")
        if invented := [event for event in self._told if event not in self._ended]:
            wrong.append(f"{len(invented)} were told of that never were, {invented[0]} for one")
        return wrong
