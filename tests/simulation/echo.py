"""Echoes: messages of consensus that arrive more than once.

The transport promises that within a connection nothing is doubled or reordered, and Raft needs no such promise. So where a
run has echoes, what was delivered is sometimes delivered again, up to a few election timeouts later, as long as its
connection lasts. Proposals and reads are left alone: those do rest on the transport.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, get_args

from hasched.raft.driver import Driver
from hasched.raft.messages import Consensus
from tests.simulation.patches import Patches

CONSENSUS = get_args(Consensus)


def echo_messages(patches: Patches, share: float, election_s: float) -> None:
    random = Random("echoes")

    def with_echoes(deliver: Any) -> Any:
        def deliver_more_than_once(self: Driver, link: Any, message: Any) -> None:
            deliver(self, link, message)
            if isinstance(message, CONSENSUS) and random.random() < share:
                later_s = random.choice((0.1, 1.0, 3.0)) * random.random() * election_s
                asyncio.get_running_loop().call_later(later_s, self.on_message, link, message)

        return deliver_more_than_once

    patches.wrap(Driver, "_deliver", with_echoes)
