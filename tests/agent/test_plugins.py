"""Device plugins: what is taken from them, and what is refused without harm."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path

import pytest

from hasched.agent import plugins
from hasched.agent.plugins import PluginResult, Plugins

GOOD = {"version": 1, "resource": "fpga", "env": "FPGA_DEVICES", "devices": [{"id": "card0"}, {"id": "card1"}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir(mode=0o755)
    return folder


def write(folder: Path, text: str, name: str = "fpga", mode: int = 0o755) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{textwrap.dedent(text)}")
    path.chmod(mode)


def answer(folder: Path, document: object, name: str = "fpga") -> None:
    write(folder, f"cat <<'END'\n{json.dumps(document)}\nEND\n", name)


def opened(folder: Path, timeout_ms: int = 5_000) -> Plugins:
    return Plugins(str(folder), os.defpath, timeout_ms, taken=("licence",))


async def ask(folder: Path, timeout_ms: int = 5_000) -> PluginResult:
    (result,) = await opened(folder, timeout_ms).ask()
    return result


async def test_a_plugins_devices_are_offered(folder: Path) -> None:
    devices = [{"id": "card0", "model": "U250", "memory_bytes": 64, "numa_node": 1}, {"id": "card1", "units": 4}]
    answer(folder, {**GOOD, "devices": [*devices, {"id": "card2", "health": "too hot"}]})
    first, second, third = (await ask(folder)).devices
    assert (first.id, first.kind, first.name, first.variable) == ("fpga:card0", "fpga", "card0", "FPGA_DEVICES")
    assert (first.model, first.memory_bytes, first.numa_node, first.health) == ("U250", 64, 1, "")
    assert second.names == ("fpga:card1/0", "fpga:card1/1", "fpga:card1/2", "fpga:card1/3")
    assert third.health == "too hot"


async def test_a_plugin_is_run_with_next_to_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    write(
        folder,
        """\
        [ -z "$SECRET" ] && [ $# = 0 ] && [ "$PWD" = / ] && ! read line || exit 9
        echo '{"version": 1, "resource": "fpga", "devices": []}'
        """,
    )
    assert (await ask(folder)).error == ""


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({**GOOD, "version": 2}, "it speaks version 2; 1 is known here"),
        ({"devices": []}, "its answer can't be understood: Object missing required field version"),
        ([], "its answer can't be understood: Expected object, got array"),
        ({**GOOD, "colour": "red"}, "its answer can't be understood: Object contains unknown field colour"),
        ({**GOOD, "devices": [{"id": 7}]}, "its answer can't be understood: Expected str, got int"),
        ({**GOOD, "resource": "gpu"}, "'gpu' can't be the name of a resource"),
        ({**GOOD, "resource": "mig-1g.10gb"}, "'mig-1g.10gb' can't be the name of a resource"),
        ({**GOOD, "resource": "a b"}, "'a b' can't be the name of a resource"),
        ({**GOOD, "resource": "licence"}, "licence is a countable of the agent's configuration already"),
        ({**GOOD, "env": "LD_PRELOAD"}, "'LD_PRELOAD' can't be its environment variable"),
        ({**GOOD, "env": "HASCHED_JOB_ID"}, "'HASCHED_JOB_ID' can't be its environment variable"),
        ({**GOOD, "env": "PATH"}, "'PATH' can't be its environment variable"),
        ({**GOOD, "devices": [{"id": "a"}, {"id": "a"}]}, "it names a device twice"),
        ({**GOOD, "devices": [{"id": "a,b"}]}, "'a,b' can't be the id of a device"),
        ({**GOOD, "devices": [{"id": "a", "units": 0}]}, "device a has an impossible amount"),
        ({**GOOD, "devices": [{"id": str(n)} for n in range(1025)]}, "1025 devices are too many; 1024 are taken"),
    ],
)
async def test_an_answer_that_can_not_be_is_refused(folder: Path, document: object, error: str) -> None:
    answer(folder, document)
    result = await ask(folder)
    assert (result.devices, result.error.startswith(error)) == ((), True), result.error


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("echo nonsense", "its answer can't be understood"),
        ("exit 3", "it ended with code 3"),
        ("echo trouble >&2; echo 'the card is locked' >&2; exit 1", "it ended with code 1: the card is locked"),
        ("exec sleep 60", "it gave no answer within 0.3 s"),
        ("(sleep 60) & sleep 60", "it gave no answer within 0.3 s"),
        ("yes", "it writes more than 65536 bytes on its standard output"),
        ("kill -9 $$", "it ended with code -9"),
    ],
)
async def test_a_plugin_that_misbehaves_is_refused(
    folder: Path, script: str, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "MAX_OUTPUT_BYTES", 65536)
    write(folder, script)
    assert (await ask(folder, timeout_ms=300)).error.startswith(error)


async def test_what_others_may_change_is_not_run(folder: Path) -> None:
    write(folder, "touch ran", mode=0o777)
    assert "others than root and the agent's user may change" in (await ask(folder)).error
    write(folder, "touch ran", mode=0o755)
    folder.chmod(0o777)
    assert "others than root and the agent's user may change" in (await ask(folder)).error


async def test_what_can_not_be_executed_is_no_plugin(folder: Path) -> None:
    write(folder, "", mode=0o644)
    assert (await ask(folder)).error == "it is not an executable file"
    (folder / "fpga").unlink()
    (folder / ".hidden").touch()
    assert await opened(folder).ask() == []


async def test_a_directory_that_is_not_there_is_told_of(folder: Path) -> None:
    (result,) = await opened(folder / "none").ask()
    assert result.error == "the directory can't be read: No such file or directory"
    assert await Plugins("", os.defpath, 1_000).ask() == [], "none is configured"


async def test_the_devices_of_a_plugin_that_fails_are_known_and_not_offered_until_it_is_well(folder: Path) -> None:
    answer(folder, GOOD)
    asked = opened(folder)
    await asked.ask()
    write(folder, "exit 3")
    (failed,) = await asked.ask()
    assert failed.error == "it ended with code 3"
    assert {device.health for device in failed.devices} == {"its plugin failed: it ended with code 3"}
    assert [device.name for device in failed.devices] == ["card0", "card1"]
    answer(folder, GOOD)
    (well,) = await asked.ask()
    assert {device.health for device in well.devices} == {""}
    (folder / "fpga").unlink()
    assert await asked.ask() == [], "a plugin that was taken away offers nothing"


async def test_two_plugins_do_not_offer_the_same(folder: Path) -> None:
    answer(folder, GOOD, "a-first")
    answer(folder, GOOD, "b-second")
    first, second = await opened(folder).ask()
    assert (len(first.devices), first.error) == (2, "")
    assert (second.devices, second.error) == ((), "fpga is what a-first offers")
