"""Golden logs: logs as some version wrote them, with the digest that replaying them gives. They must replay for ever.

`python -m tests.statemachine.golden NAME` records a new one (never over an old one), `… --replay FILE` prints the digest.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from random import Random

from hasched.statemachine.apply import apply
from hasched.statemachine.commands import decode_batch
from hasched.statemachine.digest import digest
from hasched.statemachine.state import State
from tests.statemachine.life import live
from tests.statemachine.machine import Machine

GOLDEN = Path(__file__).parent.parent / "golden"
_LENGTH = struct.Struct(">I")


def read_log(path: Path) -> list[bytes]:
    data = path.read_bytes()
    entries, place = [], 0
    while place < len(data):
        (length,) = _LENGTH.unpack_from(data, place)
        place += _LENGTH.size
        entries.append(data[place : place + length])
        place += length
    return entries


def replay(entries: list[bytes]) -> State:
    state = State()
    for index, entry in enumerate(entries, start=1):
        assert apply(state, index, decode_batch(entry)).faults == []
    return state


def record(name: str) -> None:
    machine = Machine()
    live(machine, Random(name), 500)
    with (GOLDEN / f"{name}.log").open("xb") as file:
        for entry in machine.log:
            file.write(_LENGTH.pack(len(entry)) + entry)
    (GOLDEN / f"{name}.digest").write_text(digest(machine.state) + "\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--replay", path]:
            print(digest(replay(read_log(Path(path)))))
        case [name]:
            record(name)
