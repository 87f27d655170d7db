"""A harness of a test's own, and processes that it freezes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from chaos.safety.identity import Born, born, send, wait_until_gone

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


def known(pid: int) -> Born:
    process = born(pid)
    assert process is not None
    return process


def audited(state: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (state / "chaos" / "audit.jsonl").read_text().splitlines()]
