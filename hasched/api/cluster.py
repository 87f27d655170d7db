"""The cluster as a whole."""

from __future__ import annotations

from hasched.api.call import Call
from hasched.api.jobs import ReadOne
from hasched.api.routing import Routes
from hasched.model.views import ClusterView
from hasched.statemachine import queries

routes = Routes("cluster")


@routes.add("GET", "/v1/cluster")
async def show_cluster(call: Call, query: ReadOne) -> ClusterView:
    """Count everything: jobs, tasks, nodes, and their resources."""
    replica = call.context.replica
    state = await call.read_state(query.consistency)
    leader = replica.leader
    return queries.cluster_view(
        state,
        cluster=call.context.cluster,
        leader=leader.manager_id if leader is not None else None,
        term=replica.term,
        test_cluster=call.context.test_cluster,
    )
