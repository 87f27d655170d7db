"""The environment variables that a task has for itself alone, beside those of its job. Pure."""

from __future__ import annotations

from hasched.model.wire import Resume


def resume_environment(resume: Resume) -> dict[str, str]:
    """For a task that has run before: where it may go on."""
    variables: dict[str, str] = {}
    if resume.checkpoint_ms:
        variables["HASCHED_CHECKPOINT_MS"] = str(resume.checkpoint_ms)
    if resume.preempted_from:
        variables["HASCHED_PREEMPTED_FROM"] = resume.preempted_from
    return variables
