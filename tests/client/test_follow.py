"""`hasched job run --wait` and the output that it shows: waited for while the job runs, and never lost in silence."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from scripted_manager import Answer, Handler, Scene, reply, stream

from hasched.cli.exits import Exit, exit_for_error
from hasched.cli.follow import OutputLost, follow_task
from hasched.cli.settings import Settings
from hasched.client import policy

EVENT = b'id: %d.0\ndata: {"id":"%d.0","log_index":%d,"time_ms":0,"type":"%s","job_id":1%s}\n\n'
JOB = {
    "id": 1,
    "name": "j",
    "state": "SUCCEEDED",
    "queue": "q",
    "priority": 0,
    "actor": "a",
    "submission_id": "s",
    "count": 1,
    "tasks": {"SUCCEEDED": 1},
}


def cluster_of_one_job(log: Answer, hold_end: Callable[[], object]) -> Answer:
    """A manager with one job, whose task starts at once and ends when `hold_end` returns."""
    end = stream(EVENT % (3, 3, 3, b"JobEnded", b""))

    def events(handler: Handler) -> None:
        def then() -> None:
            hold_end()
            handler.wfile.write(b"3\r\n:\n\n\r\n")  # a sign of life, and then it breaks off
            handler.wfile.flush()

        begun = EVENT % (2, 2, 2, b"AttemptStarted", b',"task_index":0,"attempt":1')
        stream(begun, then=then, whole=False)(handler)

    def answer(handler: Handler) -> None:
        if "/logs" in handler.path:
            (log if "stdout" in handler.path else stream(Hasched_Log_Offset="0"))(handler)
        elif handler.path.startswith("/v1/events"):
            (end if "after=2.0" in handler.path else events)(handler)
        else:
            reply(200, JOB)(handler)

    return answer


@pytest.fixture
def settings(scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path) -> Callable[[Answer], Settings]:
    def settings(answer: Answer) -> Settings:
        manager = scene.manager(answer)
        monkeypatch.setenv("HASCHED_CONFIG_DIR", str(tmp_path))
        monkeypatch.setenv("HASCHED_MANAGERS", manager.url)
        monkeypatch.setenv("HASCHED_CA", scene.context().ca)
        settings = Settings()
        settings.timeout_ms = 300
        return settings

    monkeypatch.setattr(policy, "NODE_PATIENCE_S", 0.0)
    return settings


@pytest.mark.parametrize("code", ["overloaded", "node_unreachable"])
def test_output_is_waited_for_as_long_as_the_job_runs(settings, capfdbinary, code):
    refusals, handed = 0, threading.Event()

    def log(handler: Handler) -> None:
        nonlocal refusals
        refusals += 1
        if refusals < 5:
            reply(503, code)(handler)
        else:
            stream(b"late", then=handed.set, Hasched_Log_Offset="0")(handler)

    def until_it_was_read() -> None:
        handed.wait(30)

    chosen = settings(cluster_of_one_job(log, until_it_was_read))
    with chosen.client() as client:
        assert follow_task(chosen, client, 1, "1.0").state == "SUCCEEDED"
    assert capfdbinary.readouterr().out == b"late"


def test_lost_output_is_told_and_is_no_success(settings, capfdbinary):
    chosen = settings(cluster_of_one_job(reply(404, "no_log"), lambda: None))
    with chosen.client() as client, pytest.raises(OutputLost) as lost:
        follow_task(chosen, client, 1, "1.0")
    assert exit_for_error(lost.value) == Exit.TEMPORARY
    assert b"stdout of attempt 1 can't be read" in capfdbinary.readouterr().err
