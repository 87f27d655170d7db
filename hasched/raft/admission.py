"""Admission: whom a manager talks to.

That is the members, and who knows of a later membership than this manager does: it may be a member by then, and may
need this manager's vote (Raft thesis, section 4.2.2; its certificate says that it is a manager of this cluster). Anybody
else is refused: a stranger, a manager that was removed, one whose data is of another life of the cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import structlog

from hasched.model.ids import ManagerId
from hasched.raft.engine import Engine
from hasched.raft.journal import FIRST_INDEX
from hasched.raft.membership import Member, split_address
from hasched.raft.messages import PROTOCOL_VERSION, Hello, Refusal

NOT_A_MEMBER = "not_a_member"

log = structlog.get_logger(__name__)


class _Guest(msgspec.Struct, frozen=True):
    member: Member
    stamp: tuple[int, int]


class Admission:
    """`named` are the managers that the configuration file names: their addresses there go before those in the log.

    `rebuilding`: this disk is blank, but not that of a manager who never took part.
    `incarnation` is the cluster's life that this manager's data belongs to; `adopt` makes another one durable.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        me: Member,
        cluster_id: str,
        named: Mapping[ManagerId, Member],
        rebuilding: bool,
        incarnation: str,
        adopt: Callable[[str], None],
    ) -> None:
        self.adopted = False  # links of before are of another life
        self._engine = engine
        self._me = me
        self._cluster_id = cluster_id
        self._named = named
        self._rebuilding = rebuilding
        self._incarnation = incarnation
        self._adopt = adopt
        self._guests: dict[ManagerId, _Guest] = {}
        self._new_guests = 0
        self._version: object = None
        self._refused_at = (0, 0)  # the membership by which others refuse this manager
        self._told: dict[ManagerId, str] = {}

    # --- what is said when a link opens ---

    def hello(self) -> Hello:
        term, index = self._engine.membership.stamp
        return Hello(
            version=PROTOCOL_VERSION,
            cluster_id=self._cluster_id,
            manager_id=self._me.manager_id,
            blank=self._engine.is_blank and not self._rebuilding,
            incarnation=self._incarnation,
            api_url=self._me.api_url,
            raft_address=self._me.raft_address,
            members_term=term,
            members_index=index,
        )

    def judge(self, hello: Hello) -> str:
        """Why the manager that says `hello` is refused, or nothing. Its certificate and cluster were checked before."""
        name, engine = hello.manager_id, self._engine
        if hello.incarnation != self._incarnation and not self._reconcile(hello):
            return (
                f"its data is of another life of this cluster ({hello.incarnation or 'the first'}, "
                f"not {self._incarnation or 'the first'}): one of the two must begin with an empty data directory"
            )
        if engine.membership.get(name) is not None or engine.committed_membership.get(name) is not None:
            return ""
        stamp = hello.members_term, hello.members_index
        if stamp > engine.committed_membership.stamp:
            if name not in self._guests:
                self._new_guests += 1
            self._guests[name] = _Guest(Member(name, hello.api_url, hello.raft_address), stamp)
            return ""
        return NOT_A_MEMBER

    def _reconcile(self, hello: Hello) -> bool:
        """After a recovery of a lost quorum, a disk that holds nothing takes the new life of the cluster as its own."""
        engine = self._engine
        if not self._incarnation and not engine.voter and engine.last_index == FIRST_INDEX:
            log.warning("incarnation_adopted", peer=hello.manager_id, incarnation=hello.incarnation)
            self._adopt(hello.incarnation)
            self._incarnation, self.adopted, self._version = hello.incarnation, True, None
            return True
        return hello.blank and not hello.incarnation

    def refusal(self, cause: str) -> Refusal:
        """What is told to whom `judge` refused."""
        term, index = self._engine.committed_membership.stamp
        return Refusal(cause, term, index)

    def refused(self, peer: ManagerId, refusal: Refusal) -> None:
        """`peer` refused us. If that is by a later membership than ours, we were removed: nobody sends us that entry."""
        stamp, was_removed = (refusal.members_term, refusal.members_index), self.removed
        if refusal.cause == NOT_A_MEMBER and stamp > self._engine.membership.stamp and not self._is_new:
            self._refused_at = max(self._refused_at, stamp)
            if self.removed and not was_removed:
                log.warning("removed", by=peer, hint="this manager is not part of the cluster any more; stop it")
        elif self._told.get(peer) != refusal.cause:
            self._told[peer] = refusal.cause
            hint = "add it with `hasched manager add`" if refusal.cause == NOT_A_MEMBER else ""
            log.warning("refused_by_peer", peer=peer, cause=refusal.cause, hint=hint)

    # --- what follows ---

    @property
    def _is_new(self) -> bool:
        return self._engine.last_index == FIRST_INDEX

    @property
    def removed(self) -> bool:
        """This manager took part, and does not any more. One that hears a leader was only refused by who lags behind."""
        return self._engine.leader_id is None and self._refused_at > self._engine.membership.stamp

    @property
    def role(self) -> str:
        if self.removed:
            return "removed"
        member = self._engine.membership.get(self._me.manager_id)
        return self._engine.role if member is not None and member.voter else "learner"

    def members(self) -> list[Member]:
        """The members in force, each with its address as this manager knows it."""
        return [self._resolve(member) for member in self._engine.membership.members]

    def find(self, name: ManagerId) -> Member | None:
        """A member, or a guest."""
        for membership in (self._engine.membership, self._engine.committed_membership):
            member = membership.get(name)
            if member is not None:
                return self._resolve(member)
        guest = self._guests.get(name)
        return self._resolve(guest.member) if guest is not None else None

    def links(self) -> dict[ManagerId, tuple[str, int]] | None:
        """Whom to talk to, and where, if that has changed. One who is to go is among them until that is committed."""
        engine = self._engine
        committed = engine.committed_membership
        version = engine.membership.stamp, committed.stamp, self._new_guests
        if version == self._version:
            return None
        self._version = version
        self._guests = {name: guest for name, guest in self._guests.items() if guest.stamp > committed.stamp}
        known = [guest.member for guest in self._guests.values()] + [*committed.members, *engine.membership.members]
        found = {}
        for member in known:
            if member.manager_id != self._me.manager_id:
                address = self._resolve(member).raft_address
                try:
                    found[member.manager_id] = split_address(address)
                except ValueError:  # it can't be dialled, which must not stop those who can
                    log.error("address_unusable", manager=member.manager_id, address=address)
        return found

    def _resolve(self, member: Member) -> Member:
        named = self._named.get(member.manager_id)
        if named is None:
            return member
        return Member(member.manager_id, named.api_url, named.raft_address, member.voter)
