"""Stories, told as transcripts: what is asked, then everything that happened. `pytest --rewrite`, then read the diff.

A transcript is a row of paragraphs. Its lines up to `----` are commands (`#` begins a comment), those after it the answer:

    node ID [cpu=N] [gpus=N]            an agent registers
    submit NAME [count=N] [retries=N] [node_lost=N] [backoff=10s] [max_running=N] [cpu=1.5]
           [not_before=5s] [deadline=10s]
    place JOB[.INDEX]… on NODE          the planner proposes
    started|ended TASK/ATTEMPT [on NODE] [exit=N] [kind=signaled] [output=TEXT]
    lost|unhealthy|remove NODE          the leader judges, an operator removes
    cancel|suspend|resume|delete JOB[.INDEX]…
    record-managers NAME…               the leader records those that it has
    add-manager NAME [at=HOST], remove-manager NAME, managers
    wait 10s                            time passes, and the clock is stepped
    show JOB                            the job and its tasks as people see them

Jobs go by their names. One paragraph's commands are one log entry each.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.statemachine.storyteller import Storyteller

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"


@pytest.mark.parametrize("path", sorted(TRANSCRIPTS.glob("*.txt")), ids=lambda path: path.stem)
def test_the_story_goes_as_told(path: Path, request: pytest.FixtureRequest) -> None:
    told = path.read_text()
    happened = Storyteller().retell(told)
    if request.config.getoption("--rewrite"):
        path.write_text(happened)
    else:
        assert happened == told


def test_there_are_stories() -> None:
    assert list(TRANSCRIPTS.glob("*.txt"))
