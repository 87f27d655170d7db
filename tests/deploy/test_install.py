"""docs/install.md works as it is written: its files and commands make a cluster that runs a job.

The five machines are directories. `/etc`, `/var/lib` and the like become paths below them, each address a port on loopback,
`scp` a copy between directories, and `systemctl enable --now` starts what the installed unit's ExecStart says. The commands,
the configuration files and the units are those of the page and of deploy/.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.cluster.network import free_ports
from hasched.cli.dev.processes import kill_work
from tests.support.cluster import eventually

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "install.md"
HOSTS = ("admin", "m1", "m2", "m3", "n1", "n2")
STEP = re.compile(r"<!-- (on|file): (.*?) -->\n```(?:sh|yaml)\n(.*?)```\n", re.DOTALL)
DAY_TWO = re.compile(r" *<!-- day two: (.*?) -->\n *```sh\n(.*?) *```\n", re.DOTALL)

# The outside world of a command on `$HOST`.
PRELUDE = r"""
set -euo pipefail
cd "$LAB/$HOST"
scp() {
  local target="${@: -1}"
  local machine="${target%%:*}" path="${target#*:}"
  [[ "$path" == /* ]] || return 1
  mkdir -p "$LAB/$machine$(dirname "$path"x)"
  cp -p "${@:1:$#-1}" "$LAB/$machine$path"
}
chown() { :; }
systemd-sysusers() { test -f "$1"; }
systemctl() {
  if [[ "$1" == stop ]]; then
    local pid="$(cat "$LAB/$HOST/$2.pid")"
    kill "$pid"
    while grep -q . "/proc/$pid/cmdline" 2>/dev/null; do sleep 0.05; done
    return 0
  fi
  [[ "$1" == enable ]] || return 0
  local unit="$LAB/$HOST/etc/systemd/system/$3.service"
  local start="$(sed -n 's/^ExecStart=//p' "$unit")"
  start="${start/\/opt\/hasched\/bin/$PROGRAMS}"
  start="${start/\/etc\/hasched/$LAB/$HOST/etc/hasched}"
  setsid $start >>"$LAB/$HOST/$3.log" 2>&1 </dev/null &
  echo $! | tee "$LAB/$HOST/$3.pid" >>"$LAB/pids"
}
"""


class Lab:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = free_ports(6)
        self.environment = {
            "LAB": str(folder),
            "PROGRAMS": str(Path(sys.executable).parent),
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "admin"),
        }
        for host in HOSTS:
            (folder / host / "etc" / "hasched").mkdir(parents=True)
        (folder / "admin" / "deploy").symlink_to(ROOT / "deploy")

    def translate(self, text: str, host: str) -> str:
        """The page's text with paths of this machine's directory and addresses of loopback."""
        for path in ("/etc/hasched", "/etc/sysusers.d", "/var/lib/hasched"):
            # A path behind `machine:` is scp's to place.
            text = re.sub(rf"(?<![\w:]){path}", f"{self.folder / host}{path}", text)
        text = text.replace("/opt/hasched/bin", self.environment["PROGRAMS"])
        for number in (1, 2, 3):
            for offset, port in ((0, 7411), (1, 7412)):
                own = self.ports[2 * (number - 1) + offset]
                text = text.replace(f"10.0.0.1{number}:{port}", f"127.0.0.1:{own}")
        return text

    def run(self, host: str, script: str) -> str:
        done = subprocess.run(
            ["bash", "-c", PRELUDE + self.translate(script, host)],
            env=self.environment | {"HOST": host},
            check=False,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, f"on {host}:\n{script}\n{done.stdout}{done.stderr}\n{self.logs()}"
        return done.stdout

    def logs(self) -> str:
        return "\n".join(f"==== {path}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*/*.log")))

    def stop(self) -> None:
        pids = (self.folder / "pids").read_text().split() if (self.folder / "pids").exists() else []
        for pid in map(int, pids):
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        kill_work(self.folder)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.stop()


def has_vote(lab: Lab, host: str) -> bool:
    identity = lab.folder / host / "var/lib/hasched/identity.json"
    return identity.exists() and bool(json.loads(identity.read_text())["voter"])


def test_the_page_sets_up_a_cluster_that_runs_a_job(lab: Lab):
    steps = STEP.findall(PAGE.read_text())
    assert [kind for kind, _, _ in steps].count("file") == 2
    *setup, (_, _, use) = steps
    for kind, where, text in setup:
        *hosts, path = where.split() if kind == "file" else [*where.split(), ""]
        for host in hosts:
            if kind == "file":
                (lab.folder / host / path.lstrip("/")).write_text(lab.translate(text, host))
            else:
                lab.run(host, text)

    *commands, job = use.strip().splitlines()
    add, managers, nodes = commands
    lab.run("admin", add)
    eventually("a leader", lambda: "leader" in lab.run("admin", managers))
    eventually("two nodes", lambda: lab.run("admin", nodes).count("healthy") == 2)
    output = lab.run("admin", job)
    assert re.fullmatch(r"hello from n[12]\n", output)
    assert shlex.split(job)[1:4] == ["job", "run", "--wait"]

    eventually("every manager's vote", lambda: all(has_vote(lab, name) for name in ("m1", "m2", "m3")))
    ((host, rebuild),) = DAY_TWO.findall(PAGE.read_text())
    lab.run(host, textwrap.dedent(rebuild))
    eventually("its vote", lambda: has_vote(lab, host))
    lab.run("m1", "systemctl stop hasched-manager")
    assert re.fullmatch(r"hello from n[12]\n", lab.run("admin", job))
