"""Processes of other users: an unprivileged supervisor can't signal them, says so once, and goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOBODY = 65534
PROGRAM = """
import ctypes, os, signal, sys, time
from hasched.agent import supervised
from hasched.agent.executors.process import ProcessExecutor
from hasched.agent.processes import own_children
from hasched.agent.protocol import Configure, LaunchJob, LaunchTask
from hasched.agent.roster import Roster
from hasched.agent.supervisor import log
from hasched.model.wire import AttemptKey

def launch(job_id, script):
    job = LaunchJob(job_id, "job", 1, ("sh", "-c", script), "", {}, "", b"", 0, 0, 0, 0, False, ())
    here.launch(job, LaunchTask(0, 1))

def reap_until(ends):
    while len(here.ended()) < ends:
        here.reap()
        here.act()
        time.sleep(0.01)

data_dir, user = sys.argv[1], int(sys.argv[2])
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
here = supervised.Supervised(data_dir, Roster(data_dir + "/roster"), log)
settings = Configure("n1", "/usr/bin:/bin", 1 << 20, False, 0)
here.configure(settings, ProcessExecutor(settings), None)
launch(1, "sleep 300 & exit 3")
launch(2, "exec sleep 300")
os.setresuid(user, user, 0)
here.stop([AttemptKey(2, 0, 1)], "cancelled")
reap_until(1)
os.setresuid(0, 0, 0)
for pid in own_children():
    os.kill(pid, signal.SIGTERM)
reap_until(2)
print([(ended.kind.name, ended.code) for ended in here.ended()])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has processes that another user can't signal")
def test_an_orphan_of_another_user_does_not_end_the_supervisor(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(NOBODY)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    logged = [json.loads(line) for line in done.stderr.splitlines()]
    foreign = [each["pid"] for each in logged if each["event"] == "not_signalled"]
    assert foreign
    assert len(set(foreign)) == len(foreign), "each is said once"
    assert done.stdout == "[('EXITED', 3), ('STOPPED', 0)]\n"


HIDING = """
mount -t proc -o hidepid=1 proc /proc
setpriv --reuid 65534 --regid 65534 --clear-groups "$0" -c '
from hasched.agent.processes import scan
print(len(scan()))'
exit $?  # this shell stays, as the process that is hidden
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have processes hidden from others")
def test_processes_that_are_hidden_from_us_are_passed_over() -> None:
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-c", HIDING, sys.executable],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("1\n", "")
