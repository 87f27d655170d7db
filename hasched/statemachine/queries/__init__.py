"""What the API shows of the state: pure functions from state to views.

Why a waiting job waits is the scheduler's to explain, so it is left out here, except that the job is suspended.
"""

from __future__ import annotations

from hasched.statemachine.queries.attempts import resumed_tasks
from hasched.statemachine.queries.gangs import show_gang
from hasched.statemachine.queries.jobs import job_view, list_jobs, show_job
from hasched.statemachine.queries.limits import limits_in_use
from hasched.statemachine.queries.managers import is_wanted, wanted_managers
from hasched.statemachine.queries.nodes import (
    cluster_view,
    desired_attempts,
    forgotten_attempts,
    list_nodes,
    node_view,
)
from hasched.statemachine.queries.pages import MAX_PAGE, BadCursor
from hasched.statemachine.queries.policies import list_policies, policy_view
from hasched.statemachine.queries.shares import show_shares
from hasched.statemachine.queries.tasks import list_tasks, show_task, task_view
from hasched.statemachine.queries.usage import SUMMED_BY, estimate, usage_by, usage_of_job, usage_of_jobs

__all__ = [
    "MAX_PAGE",
    "SUMMED_BY",
    "BadCursor",
    "cluster_view",
    "desired_attempts",
    "estimate",
    "forgotten_attempts",
    "is_wanted",
    "job_view",
    "limits_in_use",
    "list_jobs",
    "list_nodes",
    "list_policies",
    "list_tasks",
    "node_view",
    "policy_view",
    "resumed_tasks",
    "show_gang",
    "show_job",
    "show_shares",
    "show_task",
    "task_view",
    "usage_by",
    "usage_of_job",
    "usage_of_jobs",
    "wanted_managers",
]
