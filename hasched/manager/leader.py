"""What a manager does only while it leads: planning, the clock, schedules, notifications, watching nodes, the agents' streams.

The duties start once the manager has applied an entry of its own term and stop when it stops to lead. None of them is
needed for safety: two managers that both think they lead do everything twice, and the state machine takes it once. A duty
that fails is logged and started again from the state; nothing stops scheduling for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from hasched.api.hub import AgentHub
from hasched.manager.grace import GraceWatch
from hasched.manager.launches import LaunchWatch
from hasched.manager.notifications.courier import Courier, Messenger
from hasched.manager.notifications.duty import NotificationDuty
from hasched.manager.planning import PlanningDuty
from hasched.manager.schedules import ScheduleDuty
from hasched.manager.settings import LeaderSettings
from hasched.manager.timer import ClockDuty
from hasched.model.errors import HaschedError
from hasched.raft.replica import Replica

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0

log = structlog.get_logger(__name__)


class LeaderDuties:
    """Follows the replica's role from `start` to `stop`. Start it before the replica, so that no change is missed."""

    def __init__(
        self,
        replica: Replica,
        hub: AgentHub,
        settings: LeaderSettings,
        make_messenger: Callable[[], Messenger] | None = None,
    ) -> None:
        make_messenger = make_messenger or (lambda: Courier(settings.notifier))
        self._replica = replica
        self._hub = hub
        self._duties: dict[str, Callable[[int], Awaitable[None]]] = {  # each for one term
            "planning": lambda _: PlanningDuty(replica, hub, settings.placement, settings.gang_ports).run(),
            "clock": lambda _: ClockDuty(replica).run(),
            "schedules": lambda _: ScheduleDuty(replica).run(),
            "notifications": lambda _: NotificationDuty(replica, make_messenger).run(),
            "launches": lambda _: LaunchWatch(replica, settings.quarantine).run(),
            "grace": lambda term: GraceWatch(replica, hub, settings, term).run(),
        }
        self._leading: asyncio.Task[None] | None = None
        self._forget: Callable[[], None] | None = None

    def start(self) -> None:
        self._forget = self._replica.on_role_change(self._change_role)

    async def stop(self) -> None:
        """Lay down every duty; the agents are sent away."""
        if self._forget is not None:
            self._forget()
        leading = self._leading
        self._change_role(False)
        if leading is not None:
            await asyncio.wait([leading])

    def _change_role(self, leads: bool) -> None:
        if leads == (self._leading is not None):
            return
        if leads:
            log.info("leading", manager=self._replica.manager_id, term=self._replica.term)
            self._hub.start_leading()
            self._leading = asyncio.create_task(self._lead(self._replica.term))
        elif self._leading is not None:
            log.info("following", manager=self._replica.manager_id, term=self._replica.term)
            self._leading.cancel()
            self._leading = None
            self._hub.stop_leading()

    async def _lead(self, term: int) -> None:
        async with asyncio.TaskGroup() as group:
            for name, duty in self._duties.items():
                group.create_task(keep_doing(name, partial(duty, term)), name=name)


async def keep_doing(name: str, duty: Callable[[], Awaitable[None]]) -> None:
    """Run a duty again whenever it fails, after a pause that grows while it keeps failing soon."""
    loop = asyncio.get_running_loop()
    pause_s = FIRST_PAUSE_S
    while True:
        started = loop.time()
        try:
            await duty()
        except HaschedError as error:
            log.warning("duty_interrupted", duty=name, code=error.code, cause=error.cause)
        except Exception:
            log.exception("duty_failed", duty=name)
        if loop.time() - started > LONGEST_PAUSE_S:
            pause_s = FIRST_PAUSE_S
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
