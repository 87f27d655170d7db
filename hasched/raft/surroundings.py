"""What the library finds around it instead of sockets: peers with names, a letterbox, and nothing to poll."""

from __future__ import annotations

from typing import Any

import pysyncobj.version
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from hasched.model.ids import ManagerId
from hasched.raft.messages import Message, RequestVote, Vote

if pysyncobj.version.VERSION != "0.3.17":
    raise ImportError(f"the engine overrides private methods of pysyncobj 0.3.17; this is {pysyncobj.version.VERSION}")


class Peer(Node):  # type: ignore[misc]
    """A manager as the library sees it. Its hash is its place, so that sets of peers have one order in every process."""

    def __init__(self, manager_id: ManagerId, place: int) -> None:
        super().__init__(manager_id)
        self.place = place

    def __hash__(self) -> int:
        return self.place


class Letterbox(Transport):  # type: ignore[misc]
    """Takes the two messages that the library itself sends, as dicts, and puts them into the outbox, typed."""

    def __init__(self, outbox: list[tuple[ManagerId, Message]]) -> None:
        super().__init__(None, None, ())
        self._outbox = outbox

    def send(self, node: Peer, message: dict[str, Any]) -> bool:
        match message["type"]:
            case "request_vote":
                asked = RequestVote(message["term"], message["last_log_index"], message["last_log_term"])
                self._outbox.append((node.id, asked))
            case "response_vote":
                self._outbox.append((node.id, Vote(message["term"])))
            case other:
                raise AssertionError(f"the library sends {other!r} past its overrides")
        return True


class NoPoller:
    """The library polls sockets at the end of each tick; the engine has none."""

    def poll(self, _timeout: float) -> None:
        pass
