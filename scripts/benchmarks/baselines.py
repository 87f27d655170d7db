"""What the week is compared with: first come, first served, as strict as it can be, and plain bin-packing in that order."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.trace import NodeKind, TraceJob


class Node:
    """What is free on one node."""

    __slots__ = ("cpus", "gpus", "memory_gib", "number")

    def __init__(self, number: int, kind: NodeKind) -> None:
        self.number = number
        self.cpus, self.memory_gib, self.gpus = kind.cpus, kind.memory_gib, kind.gpus

    def fits(self, job: TraceJob) -> bool:
        return self.cpus >= job.cpus and self.memory_gib >= job.memory_gib and self.gpus >= job.gpus

    def take(self, job: TraceJob, times: int = 1) -> None:
        self.cpus -= job.cpus * times
        self.memory_gib -= job.memory_gib * times
        self.gpus -= job.gpus * times


class Waiting:
    """A job of which tasks wait; they start in their order."""

    __slots__ = ("job", "next", "number")

    def __init__(self, number: int, job: TraceJob) -> None:
        self.number, self.job, self.next = number, job, 0

    @property
    def left(self) -> int:
        return len(self.job.runs_s) - self.next


class Baseline:
    """Looks at every job in the order of arrival. `strict`: none passes one that waits; otherwise all that fit may."""

    def __init__(self, kinds: list[NodeKind], strict: bool) -> None:
        self._strict = strict
        self._nodes = [Node(number, kind) for number, kind in enumerate(k for k in kinds for _ in range(k.nodes))]
        self._queue: list[Waiting] = []
        self._places: dict[tuple[int, int], Node] = {}

    def submit(self, number: int, job: TraceJob, now_s: int) -> None:
        self._queue.append(Waiting(number, job))

    def ended(self, number: int, index: int, job: TraceJob, now_s: int) -> None:
        self._places.pop((number, index)).take(job, -1)

    def start(self, now_s: int) -> Iterator[tuple[int, int]]:
        full: dict[tuple[int, int, int], None] = {}  # requests that fit nowhere in this pass
        kept: list[Waiting] = []
        for at, waiting in enumerate(self._queue):
            job = waiting.job
            request = (job.cpus, job.memory_gib, job.gpus)
            if request not in full:
                yield from self._place(waiting)
            if waiting.left:
                kept.append(waiting)
                if self._strict:
                    kept += self._queue[at + 1 :]
                    break
                if not job.gang:
                    full[request] = None
        self._queue = kept

    def _place(self, waiting: Waiting) -> Iterator[tuple[int, int]]:
        """The fullest node first: of what is left free, GPUs count most."""
        job = waiting.job
        chosen: list[Node] = []
        nodes = sorted((node for node in self._nodes if node.fits(job)), key=lambda node: (node.gpus, node.cpus))
        for node in nodes:
            while node.fits(job) and len(chosen) < waiting.left:
                node.take(job)
                chosen.append(node)
        if job.gang and len(chosen) < waiting.left:
            for node in chosen:
                node.take(job, -1)
            return
        for node in chosen:
            self._places[waiting.number, waiting.next] = node
            yield waiting.number, waiting.next
            waiting.next += 1
