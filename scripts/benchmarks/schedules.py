"""How late slots are fired: schedules that are due every second, on a cluster of real processes."""

from __future__ import annotations

import time

from benchmarks.cluster import dev_cluster
from benchmarks.figures import percentile

SCHEDULES = 10
SECONDS = 30


def figures(scale: int) -> dict[str, object]:
    """In ms after the slot: `fired` is the time of the log entry that fired it, `started` when its task ran."""
    seconds = max(5, SECONDS // scale)
    document = {"cron": "* * * * * *", "job": {"command": ["true"], "resources": {"cpu": "10m"}}}
    fired: list[float] = []
    started: list[float] = []
    with dev_cluster(managers=3, agents=1) as cluster, cluster.client() as client:
        for number in range(SCHEDULES):
            client.put_schedule(f"s{number}", {**document, "name": f"s{number}"})
        time.sleep(seconds + 2)
        jobs = {job.id: job.started_ms for job in client.jobs()}
        for number in range(SCHEDULES):
            rows = [row for row in client.slots(f"s{number}", 400).slots if row.job_id]
            assert len(rows) >= seconds, "a slot is missing"
            fired += [row.settled_ms - row.slot_ms for row in rows]
            started += [begun - row.slot_ms for row in rows if row.job_id and (begun := jobs.get(row.job_id, 0))]
    found: dict[str, object] = {"schedules": SCHEDULES, "slots": len(fired)}
    for name, delays in (("fired", fired), ("started", started)):
        found |= {f"{name}_ms_p{percent}": percentile(delays, percent) for percent in (50, 99, 100)}
    return found
