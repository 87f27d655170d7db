"""The job specs of a session: a manager sends each once, and many tasks use it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from hasched.agent.protocol import LaunchJob, LaunchTask
from hasched.model.spec import JobSpec
from hasched.model.states import OnDisconnect

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
    return len(spec.input) + len(spec.script) + sum(len(word) for word in (*spec.command, *spec.args))


def spec_of_task(spec: JobSpec, index: int, choice: int = 0) -> JobSpec:
    """The spec with what this task asks for: tasks of a gang's groups differ in it, and those of a job with alternatives."""
    if choice:
        return msgspec.structs.replace(spec, resources=spec.placement.any_of[choice])
    terms = spec.gang_terms
    grouped = terms.group_of(index) if terms is not None else None
    return spec if grouped is None else msgspec.structs.replace(spec, resources=grouped[0].resources)


def launch_job(job_id: int, spec: JobSpec, tasks: Sequence[LaunchTask]) -> LaunchJob:
    """What the supervisor needs of a spec to start these tasks."""
    return LaunchJob(
        job_id=job_id,
        name=spec.name,
        count=spec.count,
        command=spec.command,
        script=spec.script,
        env=spec.env,
        working_dir=spec.working_dir,
        input=spec.input,
        cpu_milli=spec.resources.cpu_milli,
        memory_bytes=spec.resources.memory_bytes,
        timeout_ms=spec.timeout_ms,
        kill_grace_ms=spec.kill_grace_ms,
        stop_at_lease=spec.on_disconnect is OnDisconnect.STOP,
        tasks=tuple(tasks),
        args=spec.args,
    )
