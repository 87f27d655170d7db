"""Fair share over HTTP."""

from __future__ import annotations

from hasched.api.call import Call
from hasched.api.jobs import ReadOne
from hasched.api.routing import Routes
from hasched.model.views import FairShareView
from hasched.statemachine import queries

routes = Routes("fair share")


@routes.add("GET", "/v1/fairshare")
async def show_fair_share(call: Call, query: ReadOne) -> FairShareView:
    """Show what queues, namespaces and users are due, and what they have used, with its half-life.

    Siblings stand in the order in which their work would start now, were all else equal.
    """
    return queries.show_shares(await call.read_state(query.consistency))
