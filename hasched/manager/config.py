"""A manager's configuration file: who it is, where it listens, who votes with it, and what jobs get by default.

The same `members` list goes into every manager's file; once the cluster is formed, its log says who is a member, and the
file only where they are reached. Relative paths count from the file's own directory. Nothing is
guessed that two managers could guess differently.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from hasched.client.files import read_config
from hasched.client.tls import PeerIdentity, find_tls_problems
from hasched.manager.notifications.settings import NotifierSettings, SmtpSecurity, SmtpSettings
from hasched.manager.settings import LeaderSettings, QuarantineSettings
from hasched.model.addresses import API_PORT, RAFT_PORT, check_api_url, split_address
from hasched.model.config_text import Cpu, Duration, Size, load_config
from hasched.model.errors import FieldError
from hasched.model.ids import NAME_PATTERN
from hasched.model.spec import Backoff, Resources, Retries
from hasched.model.states import BackoffKind, PlacementPolicy
from hasched.model.tokens import decode_tokens
from hasched.raft.tuning import Tuning
from hasched.scheduler.searches import GANG_PORTS
from hasched.statemachine.manager import MAX_MANAGERS
from hasched.statemachine.rules.gangs import MAX_PORT
from hasched.statemachine.rules.node_control import MAX_WAIT_MS

CLUSTER_SIZES = (1, 3, 5, 7)
RETAINED_BYTES = 4 * 2**20  # of log before a snapshot, and no more than a quarter of what one covers

_HOST = re.compile(r"(?:\*|(?:\*\.)?[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:]+\]?)(?::[0-9]{1,5})?")

Name = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN, max_length=128)]


class ApiConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`listen` is an address of this machine; the address that others use stands in `members`."""

    listen: str = f"0.0.0.0:{API_PORT}"


class RaftConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Elections start between the two timeouts after the last word of a leader."""

    listen: str = f"0.0.0.0:{RAFT_PORT}"
    election_timeout_min: Duration = 300
    election_timeout_max: Duration = 600
    snapshot_every: Annotated[int, msgspec.Meta(ge=100)] = 50_000  # log entries
    snapshot_bytes: Size = 64 * 2**20  # or this much log, whichever comes first
    segment_bytes: Annotated[int, msgspec.Meta(ge=4096, extra={"unit": "size"})] = 8 * 2**20  # of one file of the log
    check_every: Annotated[int, msgspec.Meta(ge=100)] = (
        50_000  # log entries, between comparisons of the managers' states
    )


class MemberConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A manager as the others, the agents and the clients reach it."""

    name: Name
    api: str  # https://HOST:PORT
    raft: str  # HOST:PORT


class TlsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Files that `hasched certs` writes."""

    ca: str
    cert: str
    key: str


class BackoffConfig(msgspec.Struct, frozen=True, kw_only=True):
    kind: BackoffKind = BackoffKind.EXPONENTIAL
    initial: Duration = 10_000
    max: Duration = 300_000
    multiplier: Annotated[float, msgspec.Meta(ge=1, le=100)] = 2.0


class JobDefaultsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a job gets where its spec is silent."""

    timeout: Duration = 0  # 0: none
    retries: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    node_lost_retries: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 3
    backoff: BackoffConfig = BackoffConfig()
    cpu: Cpu = 1000
    memory: Size = 0

    @property
    def resources(self) -> Resources:
        return Resources(cpu_milli=self.cpu, memory_bytes=self.memory)

    @property
    def retry_policy(self) -> Retries:
        backoff = Backoff(
            kind=self.backoff.kind,
            initial_ms=self.backoff.initial,
            max_ms=self.backoff.max,
            multiplier_milli=round(self.backoff.multiplier * 1000),
        )
        return Retries(max=self.retries, node_lost=self.node_lost_retries, backoff=backoff)


class SchedulerConfig(msgspec.Struct, frozen=True, kw_only=True):
    placement: PlacementPolicy = PlacementPolicy.BIN_PACK
    gang_ports: str = f"{GANG_PORTS[0]}-{GANG_PORTS[-1]}"  # FIRST-LAST, at which rank 0 of a gang is met

    @property
    def ports(self) -> range:
        """Raises ValueError."""
        first, last = map(int, self.gang_ports.split("-"))
        if not 0 < first <= last <= MAX_PORT:
            raise ValueError(f"{self.gang_ports} are no ports")
        return range(first, last + 1)


class QuarantineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """When a node whose launches fail gets no more work, and for how long: `initial`, then twice as long each time."""

    launch_failures: Annotated[int, msgspec.Meta(ge=0)] = 5  # of different jobs in a row; 0: no node is quarantined
    window: Duration = 600_000  # within which they count
    initial: Duration = 300_000
    max: Duration = 3_600_000
    max_share_percent: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20  # of the healthy nodes at once, but at least one

    @property
    def settings(self) -> QuarantineSettings:
        return QuarantineSettings(
            launch_failures=self.launch_failures,
            window_ms=self.window,
            initial_ms=self.initial,
            max_ms=self.max,
            max_share_percent=self.max_share_percent,
        )


class SmtpConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The relay that takes e-mail. `password_file` is a name in `secrets_dir`."""

    host: str = ""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 587
    security: SmtpSecurity = SmtpSecurity.STARTTLS
    sender: str = ""
    username: str = ""
    password_file: str = ""


class NotificationsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What may leave the cluster, and with which secrets. The same in every manager's file: any of them may lead."""

    secrets_dir: str = ""
    allow: list[str] = []  # hosts: HOST, *.DOMAIN, HOST:PORT, or *; none: no webhook and nothing to Slack
    timeout: Duration = 10_000
    ca: str = ""  # certificates to trust beside the system's
    apprise: bool = False
    smtp: SmtpConfig = SmtpConfig()


class ManagerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file. A node is unhealthy, then disconnected, after so long without a heartbeat."""

    cluster: Name
    name: Name
    data_dir: str
    members: list[MemberConfig]
    tls: TlsConfig
    tokens: str  # file that `hasched token create` writes
    api: ApiConfig = ApiConfig()
    raft: RaftConfig = RaftConfig()
    heartbeat: Duration = 1_000
    unhealthy_after: Duration = 10_000
    node_grace: Duration = 30_000
    job_defaults: JobDefaultsConfig = JobDefaultsConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    quarantine: QuarantineConfig = QuarantineConfig()
    notifications: NotificationsConfig = NotificationsConfig()
    join: bool = False  # it forms no cluster: it waits until it is added to one
    test_cluster: bool = False  # whether faults may be injected without being asked twice

    @property
    def member(self) -> MemberConfig:
        """This manager's own entry."""
        return next(member for member in self.members if member.name == self.name)

    @property
    def leader_settings(self) -> LeaderSettings:
        return LeaderSettings(
            heartbeat_ms=self.heartbeat,
            unhealthy_after_ms=self.unhealthy_after,
            node_grace_ms=self.node_grace,
            placement=self.scheduler.placement,
            gang_ports=self.scheduler.ports,
            quarantine=self.quarantine.settings,
            notifier=self.notifier,
        )

    @property
    def notifier(self) -> NotifierSettings:
        given, smtp = self.notifications, self.notifications.smtp
        return NotifierSettings(
            cluster=self.cluster,
            secrets_dir=given.secrets_dir,
            allow=tuple(given.allow),
            timeout_ms=given.timeout,
            ca=given.ca,
            apprise=given.apprise,
            smtp=SmtpSettings(**msgspec.structs.asdict(smtp)),
        )

    @property
    def tuning(self) -> Tuning:
        return Tuning(
            election_min_s=self.raft.election_timeout_min / 1000,
            election_max_s=self.raft.election_timeout_max / 1000,
            snapshot_entries=self.raft.snapshot_every,
            snapshot_bytes=self.raft.snapshot_bytes,
            retained_bytes=min(RETAINED_BYTES, self.raft.snapshot_bytes // 4),
            segment_bytes=self.raft.segment_bytes,
            check_entries=self.raft.check_every,
        )


def load_manager_config(path: Path, env: Mapping[str, str]) -> ManagerConfig:
    """The file at `path` under the overrides in `env`, its paths made absolute. Raises ConfigInvalid."""
    return resolve_paths(parse_manager_config(read_config(path), str(path), env), path.parent)


def find_file_problems(config: ManagerConfig) -> Iterator[FieldError]:
    """What keeps the files that `config` names from serving this manager."""
    tls = config.tls
    yield from find_tls_problems(tls.ca, tls.cert, tls.key, PeerIdentity("manager", config.name))
    try:
        decode_tokens(Path(config.tokens).read_bytes())
    except OSError as error:
        yield FieldError("tokens", f"{config.tokens} can't be read: {error.strerror}")
    except ValueError as error:
        yield FieldError("tokens", f"{config.tokens} is not a tokens file: {error}")
    told = config.notifications
    if told.secrets_dir and not Path(told.secrets_dir).is_dir():
        yield FieldError("notifications.secrets_dir", f"{told.secrets_dir} is no directory")
    if told.ca and not Path(told.ca).is_file():
        yield FieldError("notifications.ca", f"{told.ca} is no file")


def parse_manager_config(text: str, source: str, env: Mapping[str, str] | None = None) -> ManagerConfig:
    """As `load_manager_config`, from text; paths stay as they are written."""
    return load_config(text, source, ManagerConfig, env, find_problems)


def resolve_paths(config: ManagerConfig, directory: Path) -> ManagerConfig:
    base = directory.absolute()
    tls = TlsConfig(ca=str(base / config.tls.ca), cert=str(base / config.tls.cert), key=str(base / config.tls.key))
    told = config.notifications
    told = msgspec.structs.replace(
        told,
        secrets_dir=str(base / told.secrets_dir) if told.secrets_dir else "",
        ca=str(base / told.ca) if told.ca else "",
    )
    return msgspec.structs.replace(
        config,
        data_dir=str(base / config.data_dir),
        tokens=str(base / config.tokens),
        tls=tls,
        notifications=told,
    )


def find_problems(config: ManagerConfig) -> Iterator[FieldError]:
    """What the types can't say."""
    yield from _address("api.listen", config.api.listen)
    yield from _address("raft.listen", config.raft.listen)
    yield from _member_problems(config)
    if not config.heartbeat >= 100:
        yield FieldError("heartbeat", "must be at least 100ms")
    if not config.heartbeat * 2 <= config.unhealthy_after:
        yield FieldError("unhealthy_after", "must be at least two heartbeats")
    if not config.unhealthy_after < config.node_grace:
        yield FieldError("node_grace", "must be longer than unhealthy_after")
    if not config.raft.election_timeout_min >= 50:
        yield FieldError("raft.election_timeout_min", "must be at least 50ms")
    if not config.raft.election_timeout_min * 1.2 <= config.raft.election_timeout_max:
        yield FieldError("raft.election_timeout_max", "must be at least 1.2 times election_timeout_min")
    if not config.job_defaults.backoff.initial <= config.job_defaults.backoff.max:
        yield FieldError("job_defaults.backoff.max", "must not be shorter than initial")
    if not 1000 <= config.quarantine.initial <= config.quarantine.max:
        yield FieldError("quarantine.initial", "must be at least 1s, and not longer than max")
    try:
        _ = config.scheduler.ports
    except ValueError:
        yield FieldError("scheduler.gang_ports", "must be the first and the last of some ports", "29400-29999")
    told = config.notifications
    if not 100 <= told.timeout <= 300_000:
        yield FieldError("notifications.timeout", "must be from 100ms to 5m")
    for number, host in enumerate(told.allow):
        if not _HOST.fullmatch(host):
            yield FieldError(f"notifications.allow[{number}]", f"{host[:80]!r} is no host", "HOST, *.DOMAIN, HOST:PORT")
    if told.smtp.host and "@" not in told.smtp.sender:
        yield FieldError("notifications.smtp.sender", "must be an e-mail address")
    if bool(told.smtp.username) != bool(told.smtp.password_file):
        yield FieldError("notifications.smtp.username", "and `password_file` go together")
    if not config.quarantine.max <= MAX_WAIT_MS:
        yield FieldError("quarantine.max", "must not be longer than a year")


def _member_problems(config: ManagerConfig) -> Iterator[FieldError]:
    if config.join:
        if not 2 <= len(config.members) <= MAX_MANAGERS + 1:  # who is replaced may stand beside who replaces it
            yield FieldError("members", "name the managers of the cluster to join, and this one")
    elif len(config.members) not in CLUSTER_SIZES:
        yield FieldError("members", f"a cluster begins with 1, 3, 5 or 7 managers, not {len(config.members)}")
    if config.name not in (member.name for member in config.members):
        yield FieldError("name", f"{config.name!r} is not among the members")
    seen: dict[str, str] = {}
    for number, member in enumerate(config.members):
        place = f"members[{number}]"
        yield from _address(f"{place}.raft", member.raft)
        yield from _url(f"{place}.api", member.api)
        for key, value in (("name", member.name), ("api", member.api), ("raft", member.raft)):
            first = seen.setdefault(f"{key} {value}", place)
            if first != place:
                yield FieldError(f"{place}.{key}", f"{value!r} is already that of {first}")


def _address(path: str, text: str) -> Iterator[FieldError]:
    try:
        split_address(text)
    except ValueError as error:
        yield FieldError(path, str(error))


def _url(path: str, text: str) -> Iterator[FieldError]:
    try:
        check_api_url(text)
    except ValueError as error:
        yield FieldError(path, str(error))
