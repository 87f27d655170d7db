"""The job specs of a session: a manager sends each once, and many tasks use it."""

from __future__ import annotations

from collections import OrderedDict

from hasched.model.spec import JobSpec

MAX_SPECS = 4096
MAX_SPEC_CACHE_BYTES = 64 * 1024 * 1024


class SpecCache:
    """Keeps the specs used last, bounded in number and in bytes. One that is missed costs a reconnect."""

    def __init__(self) -> None:
        self._specs: OrderedDict[int, JobSpec] = OrderedDict()
        self._bytes = 0

    def put(self, job_id: int, spec: JobSpec) -> None:
        self._discard(job_id)
        self._specs[job_id] = spec
        self._bytes += _weight(spec)
        while len(self._specs) > 1 and (len(self._specs) > MAX_SPECS or self._bytes > MAX_SPEC_CACHE_BYTES):
            self._discard(next(iter(self._specs)))

    def get(self, job_id: int) -> JobSpec | None:
        spec = self._specs.get(job_id)
        if spec is not None:
            self._specs.move_to_end(job_id)
        return spec

    def clear(self) -> None:
        self._specs.clear()
        self._bytes = 0

    def _discard(self, job_id: int) -> None:
        spec = self._specs.pop(job_id, None)
        if spec is not None:
            self._bytes -= _weight(spec)


def _weight(spec: JobSpec) -> int:
    """The bytes of the parts that can be large."""
    return len(spec.input) + len(spec.script) + sum(len(word) for word in spec.command)
