"""A fault has its way back on disk before it begins, and somebody walks it, whoever dies, hangs or runs out of disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from chaos.errors import MachineLacks
from chaos.safety import places, traces
from chaos.safety.book import Book, Owner
from chaos.safety.healing import Healed, heal
from chaos.safety.identity import Born, born, is_alive, is_stopped, send, wait_until_gone
from chaos.safety.ledger import Ledger
from chaos.safety.traces import processes_of
from chaos.safety.undo import (
    Interface,
    Kill,
    KillMarked,
    Namespace,
    RemoveFile,
    RemoveFolder,
    Table,
    Thaw,
    Undo,
    Unmount,
)
from tests.support.cluster import eventually

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mounts and packet filters need root")
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]

# A harness that freezes a process, makes a file, says so, and waits for what comes.
HARNESS = """
import json, signal, subprocess, sys
from chaos.safety.identity import born, send
from chaos.safety.ledger import Ledger
from chaos.safety.undo import RemoveFile, Thaw

victim, file, seconds = born(int(sys.argv[1])), sys.argv[2], float(sys.argv[3]) or None
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever whoever started the tests ignored
with Ledger.open("c1", command="hasched chaos run") as ledger:
    ledger.arm(RemoveFile(file), "a file")
    open(file, "w").close()
    with ledger.armed(Thaw(victim), "a freeze", seconds):
        send(victim, signal.SIGSTOP)
        print(json.dumps({"run": ledger.run_id, "ledger": str(ledger.path), "guard": ledger.guard.pid}), flush=True)
        sys.stdin.readline()
    print("ended", flush=True)
"""


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A folder that the harness could have made: elsewhere it removes and unmounts nothing."""
    folder = tmp_path / "hasched-chaos-test"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HASCHED_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Processes that are gone at the end of the test."""
    with ExitStack() as stack:

        def spawn(*command: str, **options: object) -> subprocess.Popen[str]:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            process = subprocess.Popen(command or SLEEP, text=True, **{**pipes, **options})  # type: ignore[call-overload]
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process  # type: ignore[no-any-return]

        yield spawn


@pytest.fixture
def victim(spawn: Callable[..., subprocess.Popen[str]]) -> Born:
    return known(spawn().pid)


def known(pid: int) -> Born:
    process = born(pid)
    assert process is not None
    return process


def audited(state: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (state / "chaos" / "audit.jsonl").read_text().splitlines()]


# --- where it is kept ---


@pytest.mark.parametrize(
    ("uid", "variables", "folder"),
    [
        pytest.param(0, {}, "/var/lib/hasched-chaos", id="root's is not the managers' /var/lib/hasched"),
        pytest.param(7, {}, "/home/u/.local/state/hasched-chaos", id="an ordinary user's"),
        pytest.param(7, {"XDG_STATE_HOME": "/s"}, "/s/hasched-chaos", id="where the user keeps such things"),
        pytest.param(7, {"XDG_STATE_HOME": "s"}, "/home/u/.local/state/hasched-chaos", id="not where we just stand"),
        pytest.param(0, {"HASCHED_STATE_DIR": "/x"}, "/x/chaos", id="as was asked for"),
    ],
)
def test_the_ledgers_and_the_audit_log_lie_together(uid, variables, folder, monkeypatch: pytest.MonkeyPatch):
    for name in ("HASCHED_STATE_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/u", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    assert (places.ledgers_dir(), places.audit_path()) == (Path(folder, "ledgers"), Path(folder, "audit.jsonl"))
    for name, value in places.variables().items():  # a guard's, which stands elsewhere
        monkeypatch.setenv(name, value)
    assert places.ledgers_dir() == Path(folder, "ledgers")


def test_every_folder_that_is_made_for_them_is_the_users_alone(tmp_path: Path):
    before = os.umask(0)
    try:
        places.make_private(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(before)
    made = [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"]
    assert [path.stat().st_mode & 0o777 for path in made] == [0o700] * 3


# --- who is meant ---


def test_a_process_id_that_another_process_got_is_not_signalled(victim: Born):
    stranger = msgspec.structs.replace(victim, started=victim.started + 1)
    assert not is_alive(stranger)
    assert not send(stranger, signal.SIGKILL)
    Kill(stranger).perform()
    Thaw(stranger).perform()
    assert is_alive(victim)


def test_a_process_that_nobody_collected_is_gone(spawn: Callable[..., subprocess.Popen[str]]):
    child = spawn()
    process = known(child.pid)
    assert send(process, signal.SIGKILL)
    assert wait_until_gone(process, 10)
    assert born(child.pid) is None


# --- the ways back ---


@contextmanager
def started(*command: str, **options: object) -> Iterator[Born]:
    """A process that is gone at the end, whatever became of it meanwhile."""
    process = subprocess.Popen(command or SLEEP, **options)  # type: ignore[call-overload]
    try:
        yield known(process.pid)
    finally:
        process.kill()
        process.wait()


@contextmanager
def frozen(folder: Path) -> Iterator[tuple[Undo, Callable[[], bool]]]:
    with started() as process:
        send(process, signal.SIGSTOP)
        eventually("it to stand still", lambda: is_stopped(process))
        yield Thaw(process), lambda: not is_stopped(process)


@contextmanager
def running(folder: Path) -> Iterator[tuple[Undo, Callable[[], bool]]]:
    with started() as process:
        yield Kill(process), lambda: not is_alive(process)


@contextmanager
def working(folder: Path) -> Iterator[tuple[Undo, Callable[[], bool]]]:
    """A daemon, a supervisor, a task that has a child in a session of its own; and somebody who only reads a log."""
    home = folder / "hasched-chaos-x"
    home.mkdir()
    (home / "m1.log").touch()
    (home / "supervisor.log").touch()
    child = f"import subprocess, time; subprocess.Popen({SLEEP!r}, start_new_session=True, env={{}}); time.sleep(600)"
    output = {**os.environ, "HASCHED_OUTPUT": f"{home}/n1/logs/output"}
    with (
        started(sys.executable, "-c", child, env=output) as task,
        started(*SLEEP, "manager", "start", "--config", f"{home}/m1.yaml") as daemon,
        started(*SLEEP, "hasched.agent.supervisor", f"{home}/n1") as supervisor,
        started(*SLEEP, "hasched.agent.supervisor", f"{home}-2/n1") as stranger,
        started("tail", "-f", f"{home}/m1.log", f"{home}/supervisor.log", stdout=subprocess.DEVNULL) as reader,
    ):
        (grandchild,) = eventually("the task's child", lambda: children(task.pid))
        orphan = known(grandchild)
        try:
            ours = [task, daemon, supervisor, orphan]
            yield (
                KillMarked(str(home)),
                lambda: not any(map(is_alive, ours)) and is_alive(stranger) and is_alive(reader),
            )
        finally:
            send(orphan, signal.SIGKILL)


def test_a_folder_is_the_same_however_it_is_written(tmp_path: Path):
    with started(*SLEEP, "hasched.agent.supervisor", str(tmp_path)) as supervisor:
        assert processes_of(f"{tmp_path}/") == [supervisor]


def test_who_got_the_number_of_a_process_meanwhile_is_not_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with started(*SLEEP, "hasched.agent.supervisor", str(tmp_path)) as stranger:
        before = msgspec.structs.replace(stranger, started=stranger.started - 1)
        monkeypatch.setattr(traces, "born", lambda pid: before if pid == stranger.pid else born(pid))
        for process in processes_of(str(tmp_path)):
            assert not send(process, signal.SIGKILL)
        assert is_alive(stranger)


def test_of_a_process_group_nobody_else_is_meant(victim: Born):
    pair = "import subprocess, time; subprocess.Popen(['sleep', '600']); time.sleep(600)"
    with started(sys.executable, "-c", pair, start_new_session=True) as leader:
        eventually("its child", lambda: children(leader.pid))
        (child,) = map(known, children(leader.pid))
        assert traces.group_of(leader) == [leader, child]
        assert traces.group_of(child) == [child], "it is in a group and leads none"
        assert traces.group_of(victim) == [victim], "as the tests are in ours"
        send(child, signal.SIGKILL)


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def a_file(folder: Path) -> Iterator[tuple[Undo, Callable[[], bool]]]:
    path = folder / "control"
    path.touch()
    yield RemoveFile(str(path)), lambda: not path.exists()


@contextmanager
def a_folder(folder: Path) -> Iterator[tuple[Undo, Callable[[], bool]]]:
    path = folder / "hasched-chaos-x"
    (path / "m1" / "journal").mkdir(parents=True)
    yield RemoveFolder(str(path)), lambda: not path.exists()


@contextmanager
def a_namespace(folder: Path) -> Iterator[tuple[Undo, Callable[[], bool]]]:
    name = f"hasched-{os.getpid()}-safety"
    subprocess.run(["ip", "netns", "add", name], check=True)
    with ExitStack() as stack:
        stack.callback(tidy, "ip", "netns", "delete", name)
        process = stack.enter_context(started("nsenter", f"--net=/run/netns/{name}", *SLEEP))
        eventually(
            "it to be inside", lambda: Path(f"/proc/{process.pid}/cmdline").read_text().startswith(sys.executable)
        )
        yield Namespace(name), lambda: not Path(f"/run/netns/{name}").exists() and not is_alive(process)


@contextmanager
def an_interface(folder: Path) -> Iterator[tuple[Undo, Callable[[], bool]]]:
    name = f"hasched{os.getpid() % 10**8}"
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    try:
        yield Interface(name), lambda: not Path(f"/sys/class/net/{name}").exists()
    finally:
        tidy("ip", "link", "delete", name)


@contextmanager
def a_table(folder: Path) -> Iterator[tuple[Undo, Callable[[], bool]]]:
    name = f"hasched_{os.getpid()}"
    subprocess.run(["nft", "add", "table", "inet", name], check=True)
    try:
        yield Table("", "inet", name), lambda: name not in run("nft", "list", "tables")
    finally:
        tidy("nft", "delete", "table", "inet", name)


@contextmanager
def a_table_inside(folder: Path) -> Iterator[tuple[Undo, Callable[[], bool]]]:
    name = f"hasched-{os.getpid()}-safety"
    subprocess.run(["ip", "netns", "add", name], check=True)
    inside = ["nsenter", f"--net=/run/netns/{name}"]
    subprocess.run([*inside, "nft", "add", "table", "bridge", "cuts"], check=True)
    try:
        yield Table(name, "bridge", "cuts"), lambda: run(*inside, "nft", "list", "tables") == ""
    finally:
        tidy("ip", "netns", "delete", name)
    Table(name, "bridge", "cuts").perform()  # gone with its namespace


@contextmanager
def a_mount(folder: Path) -> Iterator[tuple[Undo, Callable[[], bool]]]:
    """In two layers, in use, on a path with a space."""
    image, path = folder / "image", folder / "a disk"
    with image.open("wb") as file:
        file.truncate(16 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    path.mkdir()
    subprocess.run(["mount", "-o", "loop", image, path], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], check=True)
    with ExitStack() as stack:
        stack.callback(tidy, "umount", "--lazy", str(path))
        stack.callback(tidy, "umount", "--lazy", str(path))
        stack.enter_context(started(cwd=path))
        yield Unmount(str(path)), lambda: "a\\040disk" not in Path("/proc/self/mountinfo").read_text()
    eventually("the loop device to be free", lambda: not run("losetup", "-j", str(image)))


def tidy(*command: str) -> None:
    """What a failed test would leave; there is nothing to do after one that passed."""
    subprocess.run(command, check=False, capture_output=True)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    "harm",
    [
        frozen,
        running,
        working,
        a_file,
        a_folder,
        *(
            pytest.param(each, marks=needs_root)
            for each in (a_namespace, an_interface, a_table, a_table_inside, a_mount)
        ),
    ],
    ids=lambda harm: harm.__name__,
)
def test_a_way_back_leads_back_and_can_be_walked_twice(harm: Callable[[Path], object], tmp_path: Path):
    with harm(tmp_path) as (undo, is_undone):  # type: ignore[attr-defined]
        assert not is_undone()
        written = msgspec.json.decode(msgspec.json.encode(undo), type=Undo)
        written.perform()
        assert is_undone(), str(undo)
        written.perform()


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        pytest.param(RemoveFolder, ["{tmp}/precious"], id="a folder of another name"),
        pytest.param(RemoveFolder, ["{tmp}/precious/../hasched-chaos-x"], id="a folder by a detour"),
        pytest.param(RemoveFolder, ["hasched-chaos-x"], id="a folder that depends on where we are"),
        pytest.param(RemoveFile, ["/tmp/precious"], id="a file elsewhere"),
        pytest.param(RemoveFile, ["{tmp}/../precious"], id="a file by a detour"),
        pytest.param(Unmount, ["/"], id="a mount elsewhere"),
        pytest.param(Unmount, ["{tmp}/../precious"], id="a mount by a detour"),
        pytest.param(KillMarked, ["{tmp}/precious"], id="what works in a folder of another name"),
        pytest.param(Namespace, ["production"], id="a namespace of another name"),
        pytest.param(Namespace, ["hasched/../production"], id="a namespace by a detour"),
        pytest.param(Interface, ["production"], id="an interface of another name"),
        pytest.param(Table, ["", "inet", "production"], id="a table of another name"),
        pytest.param(Table, ["production", "inet", "hasched"], id="a table in a namespace of another name"),
    ],
)
def test_what_no_harness_made_is_not_taken_away(kind: type[Undo], arguments: list[str], tmp_path: Path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "hasched-chaos-x").mkdir()
    undo = kind(*(each.format(tmp=tmp_path) for each in arguments))  # type: ignore[operator]
    with pytest.raises(OSError, match=r"is not (a name|a folder|in a folder) that the harness"):
        undo.perform()
    assert (tmp_path / "precious").exists()
    assert (tmp_path / "hasched-chaos-x").exists()


def test_a_folder_is_not_removed_as_a_file(tmp_path: Path):
    with pytest.raises(OSError):
        RemoveFile(str(tmp_path)).perform()
    assert tmp_path.exists()


def test_a_folder_that_became_a_link_is_not_followed(tmp_path: Path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (tmp_path / "hasched-chaos-x").symlink_to(precious)
    with pytest.raises(OSError, match="become a link"):
        RemoveFolder(str(tmp_path / "hasched-chaos-x")).perform()
    assert precious.exists()


IP = """\
#!/bin/sh
[ "$2" = pids ] && exec echo {stranger}
exec {ip} "$@"
"""


@needs_root
def test_who_is_said_to_be_in_a_namespace_and_is_not_lives_on(tmp_path: Path, victim: Born, monkeypatch):
    """As if a resident's number had gone to somebody else since it was listed."""
    (tmp_path / "ip").write_text(IP.format(stranger=victim.pid, ip=shutil.which("ip")))
    (tmp_path / "ip").chmod(0o755)
    with a_namespace(tmp_path) as (undo, is_undone):
        name = undo.name
        (resident,) = traces.residents_of(name)
        assert resident != victim
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        undo.perform()
        assert is_undone()
    assert is_alive(victim)
    assert traces.residents_of(name) == []


@needs_root
def test_a_folder_is_not_removed_across_a_mount(tmp_path: Path):
    (tmp_path / "hasched-chaos-x" / "disk").mkdir(parents=True)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "data").touch()
    place = tmp_path / "hasched-chaos-x" / "disk"
    subprocess.run(["mount", "--bind", tmp_path / "precious", place], check=True)
    try:
        with pytest.raises(OSError, match="still mounted"):
            RemoveFolder(str(tmp_path / "hasched-chaos-x")).perform()
        assert (tmp_path / "precious" / "data").exists()
    finally:
        Unmount(str(place)).perform()


# --- the ledger of a run that goes well ---


def test_the_way_back_is_on_disk_before_the_harm(tmp_path: Path, state: Path):
    with Ledger.open("c1", command="hasched chaos run --seed 1") as ledger:
        armed = ledger.arm(RemoveFile(str(tmp_path / "x")), "a file", 60)
        book = Book(ledger.path)
        assert book.owner is not None
        assert (book.owner.cluster, book.owner.command) == ("c1", "hasched chaos run --seed 1")
        assert [(each.undo, each.what) for each in book.open.values()] == [(RemoveFile(str(tmp_path / "x")), "a file")]
        armed.undo()
        book.refresh()
        assert not book.open
    assert list((state / "chaos" / "ledgers").iterdir()) == []


def test_a_run_undoes_what_is_left_the_latest_first(tmp_path: Path, state: Path):
    folder = tmp_path / "hasched-chaos-x"
    folder.mkdir()
    with Ledger.open("c1", command="") as ledger:
        ledger.arm(RemoveFolder(str(folder)), "first")
        ledger.arm(RemoveFile(str(folder / "x")), "second")
        ledger.arm(RemoveFile(str(folder / "y")), "third").strike_off()
    assert ledger.left == []
    undone = [line["what"].partition("(")[2].rstrip(")") for line in audited(state) if line["act"] == "undo"]
    assert undone == ["second", "first"]


def test_what_cannot_be_undone_stays_with_its_reason_and_hinders_nothing_else(tmp_path: Path):
    (tmp_path / "control").mkdir()
    (tmp_path / "other").touch()
    with Ledger.open("c1", command="") as ledger:
        ledger.arm(RemoveFile(str(tmp_path / "other")), "another file")
        ledger.arm(RemoveFile(str(tmp_path / "control")), "a file")
    assert not (tmp_path / "other").exists()
    assert len(ledger.left) == 1
    assert "Is a directory" in ledger.left[0]
    first = heal(all_of_them=False, dry_run=False)
    assert first.done == []
    assert "Is a directory" in first.failed[0]
    (tmp_path / "control").rmdir()
    assert len(heal(all_of_them=False, dry_run=False).done) == 1
    assert heal(all_of_them=False, dry_run=False) == Healed()


def test_everything_is_noted(tmp_path: Path, state: Path):
    with (
        Ledger.open("c1", command="") as ledger,
        ledger.armed(RemoveFile(str(tmp_path / "x")), "a file", 5),
    ):
        pass
    arm, undo = audited(state)
    assert (arm["act"], undo["act"]) == ("arm", "undo")
    for line in (arm, undo):
        assert line["run"] == ledger.run_id
        assert line["cluster"] == "c1"
        assert "a file" in line["what"]
        assert line["user"]
        assert line["host"]
        assert line["time"].endswith("+00:00")
    assert (state / "chaos" / "audit.jsonl").stat().st_mode & 0o777 == 0o600


def test_without_an_audit_log_nothing_is_harmed(tmp_path: Path, state: Path):
    with Ledger.open("c1", command="") as ledger:
        (state / "chaos" / "audit.jsonl").mkdir(parents=True)
        with (
            pytest.raises(MachineLacks, match="audit log can't be written"),
            ledger.armed(RemoveFile(str(tmp_path / "x")), "a file"),
        ):
            pytest.fail("the harm would be done here")
        assert Book(ledger.path).open == {}


@needs_root
def test_on_a_full_disk_nothing_is_harmed_and_everything_undone(tmp_path: Path, state: Path):
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", state], check=True)
    try:
        (tmp_path / "x").touch()
        with Ledger.open("c1", command="") as ledger:
            ledger.arm(RemoveFile(str(tmp_path / "x")), "a file")
            with pytest.raises(OSError), (state / "filler").open("wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))
            refused = 0
            while not refused:  # until the last pages of the files themselves are full
                try:
                    ledger.arm(RemoveFile(str(tmp_path / "y")), "x" * 500)
                except MachineLacks:
                    refused += 1
        assert ledger.left == []
        assert not (tmp_path / "x").exists()
        (state / "filler").unlink()
        assert heal(all_of_them=False, dry_run=False) == Healed()
    finally:
        Unmount(str(state)).perform()


# --- a harness that dies, or hangs ---


class Harness:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        self.born = known(process.pid)
        self.guard = known(said["guard"])
        self.ledger = Path(said["ledger"])
        self.run: str = said["run"]

    def kill(self, *, guard: bool) -> None:
        if guard:
            send(self.guard, signal.SIGKILL)
            wait_until_gone(self.guard, 10)
        self.process.kill()
        self.process.wait()

    def end(self) -> str:
        assert self.process.stdin is not None
        return self.process.communicate("go on\n", timeout=60)[0]


@pytest.fixture
def start(spawn: Callable[..., subprocess.Popen[str]], victim: Born, tmp_path: Path) -> Callable[..., Harness]:
    def start(seconds: float = 600) -> Harness:
        harness = Harness(spawn(sys.executable, "-c", HARNESS, str(victim.pid), str(tmp_path / "made"), str(seconds)))
        eventually("the freeze", lambda: seconds < 1 or is_stopped(victim))
        return harness

    return start


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_harness_that_ends_leaves_nothing(start: Callable[..., Harness], victim: Born, number: signal.Signals):
    """Killed, its guard heals; interrupted, it does so itself."""
    harness = start()
    harness.process.send_signal(number)
    harness.process.wait()
    eventually("the guard to heal", lambda: not harness.ledger.exists())
    eventually("the guard to end", lambda: not is_alive(harness.guard))
    assert not is_stopped(victim)


def test_a_guard_does_not_end_when_the_terminal_does(start: Callable[..., Harness], victim: Born):
    harness = start()
    assert os.getsid(harness.guard.pid) == harness.guard.pid
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        assert send(harness.guard, number)
    harness.kill(guard=False)
    eventually("the guard to heal", lambda: not harness.ledger.exists())
    assert not is_stopped(victim)


def test_a_harness_that_hangs_does_not_keep_a_fault_beyond_its_deadline(
    start: Callable[..., Harness], victim: Born, state: Path
):
    harness = start(seconds=0.1)  # the guard gives it a while more
    send(harness.born, signal.SIGSTOP)
    eventually("the guard to end the freeze", lambda: [line for line in audited(state) if line["act"] == "heal"])
    assert not is_stopped(victim)
    made = harness.ledger.parents[3] / "made"
    assert made.exists(), "what is for the life of the run stays"
    send(harness.born, signal.SIGCONT)
    assert harness.end() == "ended\n"
    assert not made.exists()
    assert not harness.ledger.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_nothing_is_harmed_without_a_guard(tmp_path: Path, number: signal.Signals):
    with Ledger.open("c1", command="") as ledger:
        first = ledger.guard
        assert first is not None
        send(first, number)
        eventually("it to be down", lambda: is_stopped(first) or not is_alive(first))
        ledger.arm(RemoveFile(str(tmp_path / "x")), "a file")
        second = ledger.guard
        assert second is not None
        assert second != first
        assert is_alive(second)
        assert not is_alive(first)
    assert not is_alive(second)


def test_a_guard_keeps_the_audit_log_of_its_run_though_it_stands_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HASCHED_STATE_DIR", "state")
    with Ledger.open("c1", command="") as ledger:
        assert ledger.guard is not None
        variables = Path(f"/proc/{ledger.guard.pid}/environ").read_text().split("\0")
    assert f"HASCHED_STATE_DIR={tmp_path}/state" in variables


# --- healing what nobody healed ---


def test_healing_undoes_what_a_dead_harness_and_guard_left(start: Callable[..., Harness], victim: Born, state: Path):
    harness = start()
    harness.kill(guard=True)
    assert is_stopped(victim)
    with harness.ledger.open("a") as file:
        file.write('{"type":"armed","number":3,"wh')  # the harness died in the middle of a line
    planned = heal(all_of_them=False, dry_run=True)
    assert is_stopped(victim), "a dry run changes nothing"
    done = heal(all_of_them=False, dry_run=False)
    assert done == planned
    assert [f"run {harness.run} on c1: {what}" for what in (f"let {victim} go on (a freeze)",)] == done.done[:1]
    assert len(done.done) == 2
    assert not is_stopped(victim)
    assert not harness.ledger.exists()
    assert [line["act"] for line in audited(state)] == ["arm", "arm", "heal", "heal"]


def test_a_reason_is_legible_after_half_a_line(start: Callable[..., Harness], state: Path, tmp_path: Path):
    harness = start()
    harness.kill(guard=True)
    (tmp_path / "made").unlink()
    (tmp_path / "made").mkdir()  # now it can't be removed as a file
    with harness.ledger.open("a") as file:
        file.write('{"type":"armed","number":3,"wh')
    assert len(heal(all_of_them=False, dry_run=False).failed) == 1
    assert "Is a directory" in Book(harness.ledger).left()[0]


def test_a_run_under_way_is_left_alone_unless_all_are_meant(start: Callable[..., Harness], victim: Born):
    harness = start()
    healed = heal(all_of_them=False, dry_run=False)
    assert (healed.done, healed.failed) == ([], [])
    assert "under way" in healed.left[0]
    assert is_stopped(victim)
    healed = heal(all_of_them=True, dry_run=False)
    assert (healed.left, healed.failed) == ([], [])
    assert "told process" in healed.done[0]
    assert not is_alive(harness.born)
    assert not is_stopped(victim)
    assert not harness.ledger.exists()


def test_a_ledger_that_is_finished_while_we_look_hinders_no_healing(tmp_path: Path, state: Path):
    path = _ledger_of_the_dead(tmp_path, RemoveFile(str(tmp_path / "x")))
    path.with_name(".new.jsonl").symlink_to("gone by now")
    healed = heal(all_of_them=False, dry_run=False)
    assert (len(healed.done), healed.failed) == (1, [])


def test_healing_at_the_same_time_heals_once(spawn: Callable[..., subprocess.Popen[str]], tmp_path: Path, state: Path):
    path = _ledger_of_the_dead(tmp_path, *(RemoveFile(str(tmp_path / str(n))) for n in range(50)))
    program = "from chaos.safety.healing import heal; import sys; input(); print(len(heal(False, False).done))"
    healers = [spawn(sys.executable, "-c", program) for _ in range(3)]
    for healer in healers:
        assert healer.stdin is not None
        healer.stdin.write("now\n")
        healer.stdin.flush()
    done = [int(healer.communicate()[0]) for healer in healers]
    assert sum(done) == 50
    assert len(audited(state)) == 50
    assert not path.exists()


def test_nobody_undoes_what_somebody_else_is_just_undoing(spawn: Callable[..., subprocess.Popen[str]], tmp_path: Path):
    """The lock is held by whoever is at it; who waited finds it struck off, and leaves alone what may be new by then."""
    (tmp_path / "made anew").touch()
    book = Book(_ledger_of_the_dead(tmp_path, RemoveFile(str(tmp_path / "made anew"))))
    with book.locked():
        program = "from chaos.safety.healing import heal; print(len(heal(False, False).done))"
        healer = spawn(sys.executable, "-c", program)
        eventually("the healer to read the ledger", lambda: _has_open(healer.pid, book.path))
        book.strike_off(1)
    assert healer.communicate()[0] == "0\n"
    assert (tmp_path / "made anew").exists()


def _has_open(pid: int, path: Path) -> bool:
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if entry.readlink() == path:
                return True
    return False


def test_after_a_restart_of_the_machine_processes_are_not_mistaken(victim: Born, tmp_path: Path):
    (tmp_path / "hasched-chaos-x").mkdir()
    _ledger_of_the_dead(tmp_path, RemoveFolder(str(tmp_path / "hasched-chaos-x")), Kill(victim), boot="another")
    healed = heal(all_of_them=False, dry_run=False)
    assert (healed.failed, healed.left) == ([], [])
    assert is_alive(victim)
    assert not (tmp_path / "hasched-chaos-x").exists()


@needs_root
def test_ledgers_of_others_are_left_with_a_word(victim: Born, tmp_path: Path):
    away = _ledger_of_the_dead(tmp_path, Kill(victim), host="elsewhere", run="r1")
    theirs = _ledger_of_the_dead(tmp_path, Kill(victim), run="r2")
    os.chown(theirs, 65534, -1)
    healed = heal(all_of_them=True, dry_run=False)
    assert (healed.done, healed.failed) == ([], [])
    assert len(healed.left) == 2
    assert "of the machine elsewhere" in healed.left[0]
    assert "belongs to nobody" in healed.left[1]
    assert is_alive(victim)
    assert away.exists()
    assert theirs.exists()


def test_what_a_newer_version_armed_is_not_forgotten(tmp_path: Path):
    path = _ledger_of_the_dead(tmp_path)
    with path.open("a") as file:
        file.write('{"type":"armed","number":9,"what":"a spell","undo":{"type":"Unspell"},"until_ms":0}\n')
    healed = heal(all_of_them=False, dry_run=False)
    assert len(healed.failed) == 1
    assert "Unspell" in healed.failed[0]
    assert path.exists()


def _ledger_of_the_dead(folder: Path, *undos: Undo, boot: str = "", host: str = "", run: str = "r") -> Path:
    """As a harness left it that is gone by now."""
    from chaos.safety.book import Entry
    from chaos.safety.identity import boot_id

    ledgers = folder / "state" / "chaos" / "ledgers"
    ledgers.mkdir(parents=True, exist_ok=True)
    gone = Born(os.getpid(), 1)
    owner = Owner(
        run=run,
        cluster="c1",
        command="",
        harness=gone,
        boot=boot or boot_id(),
        host=host or os.uname().nodename,
        uid=os.geteuid(),
        at_ms=0,
    )
    book = Book.create(ledgers / f"{run}.jsonl", owner)
    for number, undo in enumerate(undos, 1):
        book.add(Entry(number=number, what="x", undo=undo))
    book.close()
    return book.path
