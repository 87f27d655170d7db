"""Changes: which nodes have changed, in what they are or in what is allocated there, so that whoever keeps sums of them need not
look at all.

Nothing of it is part of the state: a state that was read from a snapshot begins with none.
"""

from __future__ import annotations

from collections.abc import Iterator

from hasched.model.ids import NodeId


class NodeChanges:
    """Nodes in the order of their last change, and how many changes there were before it."""

    __slots__ = ("_versions", "version")

    def __init__(self) -> None:
        self.version = 0
        self._versions: dict[NodeId, int] = {}

    def note(self, node_id: NodeId) -> None:
        self.version += 1
        self._versions.pop(node_id, None)
        self._versions[node_id] = self.version

    def forget(self, node_id: NodeId) -> None:
        """The node is gone."""
        self.version += 1
        self._versions.pop(node_id, None)

    def since(self, version: int) -> Iterator[NodeId]:
        """Those that changed after `version` and are still there, the latest first."""
        for node_id, changed in reversed(self._versions.items()):
            if changed <= version:
                return
            yield node_id
