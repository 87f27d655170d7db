"""`hasched manager recover`: what a manager's directory holds, and going on from it alone (hasched/raft/recovery.py)."""

from __future__ import annotations

from pathlib import Path

from hasched.manager.config import ManagerConfig
from hasched.model.addresses import check_api_url
from hasched.raft.membership import Member
from hasched.raft.recovery import DiskState, Recovered, examine, recover

__all__ = ["DiskState", "Recovered", "examine_manager", "recover_manager"]


def examine_manager(config: ManagerConfig) -> DiskState:
    """Raises StorageFailed, RecoveryRefused: in use, damaged, somebody else's, or nothing to go on with."""
    return examine(Path(config.data_dir), config.cluster, config.name)


def recover_manager(config: ManagerConfig, *, accept_incomplete: bool = False) -> Recovered:
    """As `examine_manager`; afterwards this manager is the cluster's only member."""
    me = config.member
    member = Member(me.name, check_api_url(me.api), me.raft)
    return recover(Path(config.data_dir), config.cluster, member, accept_incomplete=accept_incomplete)
