"""What tasks of workflows have left under the key of their inputs, so that they need not run again for the same ones.

A memo belongs to a task of a workflow in a namespace. It is kept when an instance with that key has succeeded, in the place of an
earlier one; where there are too many, those made first go.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

MAX_MEMOS = 20_000
MAX_MEMO_BYTES = 16 * 1024 * 1024
MAX_KEY_BYTES = 1024
_EACH_BYTES = 256  # besides its texts

MemoName = tuple[str, str, str, str]  # namespace, workflow, task, key


class Memo(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`job_id` of `execution_id` has left `output`; None: nothing."""

    name: MemoName
    output: bytes | None
    execution_id: int
    job_id: int
    made_ms: int

    @property
    def size(self) -> int:
        return _EACH_BYTES + sum(map(len, self.name)) + len(self.output or b"")


class Asked(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An instance that runs, or has failed, and the name of what will be kept of it."""

    execution_id: int
    row: int
    instance: int
    name: MemoName

    @property
    def size(self) -> int:
        return sum(map(len, self.name))


class Recalled(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An instance that did not run: `by_execution` has made what it left."""

    execution_id: int
    row: int
    instance: int
    by_execution: int


class MemoRecords(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All of it as a snapshot has it."""

    kept: list[Memo]
    asked: list[Asked]
    recalled: list[Recalled]


class Memos:
    """Read it freely; only `evolve` writes."""

    def __init__(self) -> None:
        self.kept: dict[MemoName, Memo] = {}  # those made first come first
        self.size_bytes = 0
        self.asked: dict[int, dict[tuple[int, int], Asked]] = {}  # by execution, row and instance
        self.recalled: dict[int, dict[tuple[int, int], Recalled]] = {}  # likewise

    def ask(self, asked: Asked) -> None:
        self.asked.setdefault(asked.execution_id, {})[asked.row, asked.instance] = asked

    def recall(self, recalled: Recalled) -> None:
        self.recalled.setdefault(recalled.execution_id, {})[recalled.row, recalled.instance] = recalled

    def take_asked(self, execution_id: int, row: int, instance: int) -> Asked | None:
        """What was asked for an instance that has succeeded; it is answered then."""
        return self.asked.get(execution_id, {}).pop((row, instance), None)

    def put(self, memo: Memo) -> None:
        self.drop(memo.name)
        self.kept[memo.name] = memo
        self.size_bytes += memo.size
        while len(self.kept) > MAX_MEMOS or self.size_bytes > MAX_MEMO_BYTES:
            self.drop(next(iter(self.kept)))

    def drop(self, name: MemoName) -> None:
        if (memo := self.kept.pop(name, None)) is not None:
            self.size_bytes -= memo.size

    def select(self, namespace: str, workflow: str, task: str = "", key: str = "") -> Iterator[Memo]:
        """Those of a workflow, or of a task of it, or with this key."""
        for memo in self.kept.values():
            of = memo.name
            if of[:2] == (namespace, workflow) and task in ("", of[2]) and key in ("", of[3]):
                yield memo

    def end(self, execution_id: int) -> None:
        """Nothing more will be kept of it, unless it begins again."""
        self.asked.pop(execution_id, None)

    def begin_anew(self, execution_id: int, rows: list[int]) -> None:
        kept = {place: each for place, each in self.recalled.get(execution_id, {}).items() if place[0] not in rows}
        self.recalled.pop(execution_id, None)
        if kept:
            self.recalled[execution_id] = kept

    def forget_execution(self, execution_id: int) -> None:
        self.asked.pop(execution_id, None)
        self.recalled.pop(execution_id, None)

    def records(self) -> MemoRecords:
        asked = [each for _, of_one in sorted(self.asked.items()) for _, each in sorted(of_one.items())]
        recalled = [each for _, of_one in sorted(self.recalled.items()) for _, each in sorted(of_one.items())]
        return MemoRecords(list(self.kept.values()), asked, recalled)

    def restore(self, records: MemoRecords) -> None:
        for memo in records.kept:
            self.put(memo)
        for asked in records.asked:
            self.ask(asked)
        for recalled in records.recalled:
            self.recall(recalled)
