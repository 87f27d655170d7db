"""Commands that other packages bring by entry points, in a process of its own that finds them as if they were installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hasched.cli.exits import Exit

Run = Callable[..., "subprocess.CompletedProcess[str]"]

GREET = """\
import click


@click.command()
def greet():
    \"\"\"Say hello.\"\"\"
    click.echo("hello")
"""


@pytest.fixture
def install(tmp_path: Path) -> Callable[..., None]:
    def install(distribution: str, entry_point: str, **modules: str) -> None:
        """Put a distribution with one entry point on the path; `modules` are its files, `pkg__name` for pkg/name.py."""
        info = tmp_path / "site" / f"{distribution}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[hasched.commands]\n{entry_point}\n")
        for name, source in modules.items():
            package, _, module = name.partition("__")
            path = tmp_path / "site" / package / f"{module or '__init__'}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(source)

    return install


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": f"{tmp_path / 'site'}:{Path(__file__).parents[2]}",
            "HASCHED_CONFIG_DIR": str(tmp_path / "config"),
        }
        return subprocess.run(
            [sys.executable, "-m", "hasched", *arguments],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
        )

    return run


def test_a_package_brings_a_command(install: Callable[..., None], run: Run) -> None:
    install("greeter", "greet = greeter.commands:greet", greeter="SUMMARY = 'Say hello.'", greeter__commands=GREET)
    assert run("greet").stdout == "hello\n"


def test_help_tells_the_summary_of_the_package_and_imports_no_more_of_it(
    install: Callable[..., None], run: Run
) -> None:
    install("greeter", "greet = greeter.commands:greet", greeter="SUMMARY = 'Say hello.'", greeter__commands="1 / 0")
    install("silent", "hush = silent.commands:hush", silent="", silent__commands="1 / 0")
    lines = [" ".join(line.split()) for line in run("--help").stdout.splitlines()]
    names = [line.split()[0] for line in lines[lines.index("Commands:") + 1 : lines.index("Exit codes:") - 1]]
    assert "greet Say hello." in lines
    assert "hush From silent." in lines
    assert names == sorted(names)
    assert len(names) > 10


@pytest.mark.parametrize(
    ("target", "modules", "complaint"),
    [
        ("bad.commands:greet", {"bad": "", "bad__commands": "1 / 0"}, "ZeroDivisionError"),
        ("bad.commands:nobody", {"bad": "", "bad__commands": GREET}, "nobody"),
        ("bad.commands:click", {"bad": "", "bad__commands": GREET}, "is no command"),
        ("gone.commands:greet", {}, "No module named 'gone'"),
        ("bad.commands:greet", {"bad": "1 / 0", "bad__commands": GREET}, "ZeroDivisionError"),
    ],
)
def test_a_command_that_can_not_be_loaded_says_so_when_it_is_used(
    install: Callable[..., None], run: Run, target: str, modules: dict[str, str], complaint: str
) -> None:
    install("broken", f"greet = {target}", **modules)
    for arguments in (["greet", "--loud", "x"], ["greet", "--help"]):
        used = run(*arguments)
        assert (used.returncode, complaint in used.stderr, "Traceback" in used.stderr) == (Exit.INTERNAL, True, False)
        assert "broken" in used.stderr
    assert json.loads(run("greet", "--json").stderr)["code"] == "command_unusable"
    shown = run("--help")
    assert (shown.returncode, "greet" in shown.stdout) == (Exit.OK, True)
    assert run("version").returncode == Exit.OK


def test_two_packages_with_one_name_are_both_refused(install: Callable[..., None], run: Run) -> None:
    install("greeter", "greet = greeter.commands:greet", greeter="SUMMARY = 'Say hello.'", greeter__commands=GREET)
    install("polite", "greet = polite.commands:greet", polite="SUMMARY = 'Say hello.'", polite__commands=GREET)
    used = run("greet")
    assert (used.returncode, used.stdout) == (Exit.INTERNAL, "")
    assert "greeter and polite both bring a command of this name" in used.stderr


def test_a_name_of_ours_stays_ours(install: Callable[..., None], run: Run) -> None:
    install("greeter", "version = greeter.commands:greet", greeter="SUMMARY = 'Hi.'", greeter__commands=GREET)
    assert run("version").stdout.startswith("hasched ")
    assert "Hi." not in run("--help").stdout


def test_a_command_of_ours_does_not_look_for_others(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom hasched.cli.main import cli\ntry: cli.main(['job', 'list', '--help'])\n"
        "except SystemExit: pass\nprint('hasched.cli.extensions' in sys.modules, 'importlib.metadata' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "False False"
