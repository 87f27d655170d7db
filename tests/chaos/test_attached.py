"""A running cluster is known by its authority and addresses; what is its own can be hit, by its own user, and nobody else's."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from chaos.cluster.found import Daemon, Found, Sought, find, parse_command
from chaos.cluster.running import RunningProcesses
from chaos.cluster.shut_off import Reach, find_shut_off_obstacle, rules
from chaos.errors import MachineLacks
from chaos.safety.identity import born, is_alive, is_stopped
from chaos.safety.ledger import Ledger
from chaos.safety.undo import Namespace, Table
from chaos.stage import Skipped
from hasched.certs.issuing import create_ca
from tests.support.cluster import eventually

NOBODY = 65534
ROOT = Path(__file__).parents[2]


def test_who_was_stopped_by_somebody_else_is_not_frozen_and_so_not_let_go() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            process.send_signal(signal.SIGSTOP)
            stopped = eventually("it to stand still", lambda: (it := born(process.pid)) and is_stopped(it) and it)
            daemon = Daemon(process=stopped, kind="manager", name="m1", data_dir="", uid=os.geteuid())
            sought = Sought(cluster="c1", managers={}, agents=[], ca="")
            with pytest.raises(Skipped, match="stopped by somebody else"):
                RunningProcesses(sought, Found(daemons={"m1": daemon})).frozen("m1", 1.0)
        finally:
            process.kill()


def test_nobody_counts_the_restarts_of_a_daemon_that_is_elsewhere() -> None:
    here = Daemon(process=born(os.getpid()), kind="manager", name="m1", data_dir="", uid=os.geteuid())
    processes = RunningProcesses(Sought(cluster="c1", managers={}, agents=[], ca=""), Found(daemons={"m1": here}))
    assert (processes.restarts("m1"), processes.restarts("m2")) == (0, None)


async def test_a_daemon_is_killed_with_its_process_group_and_that_is_noted_before(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HASCHED_STATE_DIR", str(tmp_path))
    command = ["sh", "-c", "sleep 600 & echo $!; wait"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process,
        Ledger.open("c1", command="pytest") as ledger,
    ):
        assert process.stdout is not None
        child = born(int(process.stdout.readline()))
        daemon = Daemon(process=born(process.pid), kind="agent", name="n1", data_dir="", uid=os.geteuid())
        sought = Sought(cluster="c1", managers={}, agents=[], ca="")
        processes = RunningProcesses(sought, Found(daemons={"n1": daemon}))
        with pytest.raises(MachineLacks, match="only looked at"):
            await processes.kill_group("n1")
        assert process.poll() is None
        processes.ledger = ledger
        await processes.kill_group("n1")
        assert process.wait() == -signal.SIGKILL
        eventually("its child's end", lambda: not is_alive(child))
    assert f"kill n1, process {process.pid}, and its process group" in (tmp_path / "chaos" / "audit.jsonl").read_text()


# --- an ordinary user ---


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, Any]]:
    """What an ordinary user saw who broke their own `hasched dev`, while another one ran with the same names."""
    folder = Path(tempfile.mkdtemp(prefix="hasched-story-"))
    command = [sys.executable, "-B", str(ROOT / "tests" / "chaos" / "attached_story.py"), str(folder)]
    try:
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
            user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]
            command = ["unshare", "--mount", "sh", "-euc", opened() + shlex.join(["exec", *user])]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HASCHED_")}
        environment = {**kept, "HOME": str(folder), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, env=environment, cwd=folder, check=False, capture_output=True, text=True, timeout=110
        )
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout)
    finally:
        shutil.rmtree(folder)


def opened() -> str:
    """Shell commands for a mount namespace in which others may use this Python and this checkout, whoever owns the
    directories above: one that they may not pass is covered by one that they may, with what they need mounted in it."""
    needed = [Path(path).resolve() for path in (sys.base_prefix, sys.prefix, Path(yaml.__file__).parents[1], ROOT)]
    blocked = {
        path: next((each for each in reversed(path.parents) if not each.stat().st_mode & stat.S_IXOTH), None)
        for path in needed
    }
    hidden = [path for path in needed if blocked[path] is not None]
    lines = ["umask 022"]
    for number, path in enumerate(hidden):
        lines += [f"mkdir stash{number}", f"mount --bind {shlex.quote(str(path))} stash{number}"]
    for above in dict.fromkeys(blocked[path] for path in hidden):
        lines.append(f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(above))}")
    for number, path in enumerate(hidden):
        place = shlex.quote(str(path))
        lines += [
            f"mkdir -p {place}",
            f"mount --bind stash{number} {place}",
            f"umount stash{number}",
            f"rmdir stash{number}",
        ]
    return "\n".join([*lines, ""])


def test_the_daemons_of_the_context_are_found_and_no_others(seen: dict[str, Any]):
    assert seen["user"] != 0
    assert seen["name"] == "dev"
    assert seen["names"] == ["m1", "m2", "m3", "n1", "n2"]
    assert seen["found"] == seen["ours"]
    assert seen["left_out"] == []
    assert seen["strangers"] == [], "another cluster with the same names was hit"


def test_what_cannot_be_done_is_said(seen: dict[str, Any]):
    assert seen["missing"].keys() == {
        *("RESTARTS", "CUTS", "ISOLATION", "LINKS", "DISKS", "POWER", "SYNCS", "CLOCKS", "MEMBERSHIP")
    }
    assert "all of its managers run on this machine" in seen["missing"]["ISOLATION"]


def test_nothing_happens_before_the_name_is_typed(seen: dict[str, Any]):
    assert len(seen["refused"]) == 2
    acts = [act for act, _, _ in seen["audit"]]
    assert acts.index("consent") < acts.index("strike")
    assert ["consent", "dev", "its name was typed"] in seen["audit"]


def test_a_killed_leader_comes_back_and_its_cluster_works_on(seen: dict[str, Any]):
    leader, pid = seen["killed"]
    assert pid == seen["ours"][leader]
    assert seen["state"] == "SUCCEEDED"
    assert seen["note"] == "written by a task\n"
    assert seen["came_back"] == [True, 1]


def test_a_drill_is_refused_until_the_name_is_typed_and_leaves_its_report(seen: dict[str, Any]):
    refused = seen["refused drill"]
    assert (refused["code"], refused["verdicts"], refused["reports"]) == (76, [], [])
    assert '"consent_missing"' in refused["told"] and "--cluster dev" in refused["told"]
    played = seen["drill"]
    assert played["code"] == 0, played
    (drill,) = played["verdicts"]
    assert drill[:3] == ["leader-kill", "passed", ""] and drill[3] >= 3
    assert played["reports"] == ["report.html", "report.json"]


def test_a_freeze_ends(seen: dict[str, Any]):
    assert (seen["frozen"], seen["thawed"]) == (True, True)


def test_a_rebooted_node_loses_its_tasks_and_comes_back(seen: dict[str, Any]):
    assert seen["rebooted"] == [True, 1]


def test_nothing_is_left_and_everything_noted(seen: dict[str, Any]):
    assert seen["left"] == []
    assert not seen["scratch"]
    strikes = [what for act, cluster, what in seen["audit"] if act == "strike" and cluster == "dev"]
    assert len(strikes) == 2
    assert strikes[0].startswith(f"kill {seen['killed'][0]}, process {seen['killed'][1]}")
    armed, undone = ([what for each, _, what in seen["audit"] if each == act] for act in ("arm", "undo"))
    assert len(armed) == len(undone) == 3, "the scratch directory, a freeze, and the freeze of a rebooting agent"


def test_logs_are_read_where_they_are_files(seen: dict[str, Any]):
    assert seen["logs"] == seen["names"]


# --- who is a daemon ---


@pytest.mark.parametrize(
    ("line", "daemon"),
    [
        (
            "/opt/hasched/bin/python /opt/hasched/bin/hasched manager start --config /etc/m.yaml",
            ("manager", "/etc/m.yaml"),
        ),
        ("/usr/bin/python3.11 -P -m hasched agent start --config n1.yaml", ("agent", "n1.yaml")),
        ("python -X dev -m hasched manager start --json --config=m.yaml", ("manager", "m.yaml")),
        ("hasched manager start --config m.yaml", ("manager", "m.yaml")),
        ("strace -f python -m hasched manager start --config m.yaml", None),
        ("sudo -u hasched hasched manager start --config m.yaml", None),
        ("python -m hasched manager list --config m.yaml", None),
        ("python -m hasched.agent.supervisor /var/lib/hasched", None),
        ("python -m pytest hasched manager start --config m.yaml", None),
        ("vim hasched manager start --config m.yaml", None),
        ("python", None),
        ("", None),
    ],
)
def test_a_daemon_is_known_by_its_whole_command_line(line: str, daemon: tuple[str, str] | None):
    assert parse_command(line.split()) == daemon


MEMBERS = [
    {"name": f"m{n}", "api": f"https://127.0.0.1:{7410 + n}", "raft": f"127.0.0.1:{7420 + n}"} for n in (1, 2, 3)
]


class Stand:
    """Processes that were started like daemons, and only wait."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("ours", "theirs"):
            create_ca(folder / name, "c1")
        (folder / "hasched").write_text("import time; time.sleep(600)")
        self.sought = Sought(
            cluster="c1",
            managers={member["name"]: member["api"] for member in MEMBERS},
            agents=["n1"],
            ca=str(folder / "ours" / "ca.crt"),
        )
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, kind: str, config: dict[str, Any], **environment: str) -> int:
        path = self.folder / f"{len(self.processes)}.yaml"
        path.write_text(yaml.safe_dump(config))
        command = [sys.executable, str(self.folder / "hasched"), kind, "start", "--config", path.name]
        process = subprocess.Popen(command, cwd=self.folder, env={**os.environ, **environment})
        self.processes.append(process)
        return process.pid

    def manager(self, name: str, **changes: Any) -> dict[str, Any]:
        config = {"cluster": "c1", "name": name, "members": MEMBERS, "tls": {"ca": "ours/ca.crt"}, "data_dir": "/x"}
        return {**config, **changes}

    def agent(self, name: str, **changes: Any) -> dict[str, Any]:
        config = {"name": name, "managers": [MEMBERS[1]["api"]], "tls": {"ca": "ours/ca.crt"}, "data_dir": "/x"}
        return {**config, **changes}

    def pids(self) -> dict[str, int]:
        return {name: daemon.process.pid for name, daemon in find(self.sought).daemons.items()}


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    stand = Stand(tmp_path)
    yield stand
    for process in stand.processes:
        process.kill()
        process.wait()


def test_daemons_are_found_by_files_that_they_name_in_their_own_way(stand: Stand):
    pid = stand.start("manager", stand.manager("m1"))
    other = stand.start("manager", stand.manager("m1"), HASCHED_NAME="m2")
    agent = stand.start("agent", stand.agent("n1"))
    assert stand.pids() == {"m1": pid, "m2": other, "n1": agent}


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(
            lambda stand: stand.start("manager", stand.manager("m1", tls={"ca": "theirs/ca.crt"})),
            id="of another authority",
        ),
        pytest.param(lambda stand: stand.start("manager", stand.manager("m1", cluster="c2")), id="of another cluster"),
        pytest.param(
            lambda stand: stand.start(
                "manager", stand.manager("m1", members=[{**MEMBERS[0], "api": "https://127.0.0.1:9411"}])
            ),
            id="at another address",
        ),
        pytest.param(lambda stand: stand.start("manager", stand.manager("m4")), id="of a name that isn't there"),
        pytest.param(
            lambda stand: stand.start("agent", stand.agent("n1", managers=["https://127.0.0.1:9411"])),
            id="an agent of other managers",
        ),
        pytest.param(
            lambda stand: stand.start("agent", stand.agent("n1", tls={"ca": "theirs/ca.crt"})),
            id="an agent of another authority",
        ),
        pytest.param(lambda stand: stand.start("agent", stand.agent("n9")), id="an agent that isn't there"),
        pytest.param(lambda stand: stand.start("agent", {"tls": 1}), id="with a file that is none"),
    ],
)
def test_who_only_looks_alike_is_let_be(stand: Stand, start: Callable[[Stand], int]):
    pid = stand.start("manager", stand.manager("m2"))
    start(stand)
    assert stand.pids() == {"m2": pid}


def test_of_two_with_one_name_the_older_is_meant(stand: Stand):
    pid = stand.start("manager", stand.manager("m1"))
    stand.start("manager", stand.manager("m1"))
    assert stand.pids() == {"m1": pid}


@pytest.mark.skipif(os.geteuid() != 0, reason="somebody else's processes are root's, and we are nobody")
def test_daemons_of_another_user_are_not_ours(stand: Stand, tmp_path: Path):
    stand.start("manager", stand.manager("m1"))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # as another user, and never back into the tests
        try:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            found = find(stand.sought)
            os.write(writing, json.dumps([[*found.daemons], found.why_not("m1")]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        daemons, why = json.loads(pipe.read())
    os.waitpid(child, 0)
    assert daemons == []
    assert "is a manager of another user" in why


# --- cutting a manager off by this machine's own filter ---


def test_what_keeps_a_manager_from_being_cut_off_is_said():
    here = Found(not_ours={"m1": "", "m2": ""})
    assert "none of its managers" in find_shut_off_obstacle(["m1", "m2"], Found())
    assert "all of its managers" in find_shut_off_obstacle(["m1", "m2"], here)
    if os.geteuid() == 0:
        assert find_shut_off_obstacle(["m1", "m2", "m3"], here) == ""


OPEN = """
import socket, sys
def try_to_connect(source, target, port, seconds):
    listener = socket.create_server((target, port))
    with listener, socket.socket() as client:
        client.bind((source, 0))
        client.settimeout(seconds)
        try:
            client.connect((target, port))
        except OSError as error:
            return type(error).__name__
        return "connected"
print(*(try_to_connect(source, target, int(port), float(sys.argv[1])) for source, target, port in
        (word.split(",") for word in sys.argv[2:])))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="packet filters need root")
def test_a_manager_that_is_cut_off_hears_and_reaches_no_other_until_it_heals():
    """In a network namespace, whose addresses 127.0.0.1, .2 and .3 stand for three machines."""
    namespace = f"hasched-{os.getpid()}-shut"
    inside = ["nsenter", f"--net=/run/netns/{namespace}"]
    own = Reach(addresses=["127.0.0.1"], raft=7412, api=7411)
    others = [Reach(addresses=[f"127.0.0.{n}", f"fd00::{n}"], raft=7412, api=7411) for n in (2, 3)]
    beside = Reach(addresses=["127.0.0.1"], raft=7512, api=7511)

    def tries(seconds: float, *ways: str) -> list[str]:
        done = subprocess.run(
            [*inside, sys.executable, "-c", OPEN, str(seconds), *ways], check=True, capture_output=True, text=True
        )
        return done.stdout.split()

    def cut(seconds: float) -> None:
        script = rules("hasched_test_1", own, [*others, beside], seconds)
        subprocess.run([*inside, "nft", "-f", "-"], input=script, text=True, check=True)

    subprocess.run(["ip", "netns", "add", namespace], check=True)
    try:
        subprocess.run(["ip", "-n", namespace, "link", "set", "lo", "up"], check=True)
        cut(600)
        out = ["127.0.0.1,127.0.0.2,7412", "127.0.0.1,127.0.0.3,7412"]
        incoming = ["127.0.0.2,127.0.0.1,7412", "127.0.0.3,127.0.0.1,7411"]
        assert tries(0.2, *out, *incoming) == ["TimeoutError"] * 4
        clients = ["127.0.0.1,127.0.0.2,7411", "127.0.0.9,127.0.0.1,7411", "127.0.0.2,127.0.0.1,22"]
        assert tries(30, *clients, "127.0.0.1,127.0.0.1,7512") == ["connected"] * 4
        Table(namespace, "inet", "hasched_test_1").perform()
        assert tries(30, *out, *incoming) == ["connected"] * 4
        cut(0.5)
        assert tries(30, *out[:1], *incoming[:1]) == ["connected"] * 2, "it heals by itself"
    finally:
        Namespace(namespace).perform()
