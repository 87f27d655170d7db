"""The ways back are real, lead to nobody else, and can be walked twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest

from chaos.safety import traces
from chaos.safety.identity import Born, born, is_alive, is_stopped, send, wait_until_gone
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
from tests.chaos.safety.harness import SLEEP, known
from tests.support.cluster import eventually

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, mounts and packet filters need root")

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
