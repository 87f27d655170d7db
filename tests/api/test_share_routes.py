"""Fair share over HTTP."""

from __future__ import annotations

from api_server import Manager

from hasched.model.spec import Resources
from hasched.model.wire import NodeInfo
from hasched.statemachine.commands import Placement, PlacePlan, RegisterNode


async def test_the_tree_of_shares(manager: Manager) -> None:
    off = (await manager.get("/v1/fairshare")).json
    assert (off["enabled"], off["namespaces"]) == (False, [])
    await manager.request("PUT", "/v1/policies/namespace/red", data=b"{}")
    document = {"half_life": "1d", "ageing": "10m", "weights": {"red": 3, "red/ada": 2, "default": 1}}
    await manager.request("PUT", "/v1/policies/fair_share/default", json=document)
    job_id = await manager.submit()
    info = NodeInfo(hostname="n1", agent_version="1", resources=Resources(cpu_milli=4000))
    await manager.replica.propose(RegisterNode(node_id="n1", info=info))
    await manager.replica.propose(PlacePlan(placements=(Placement(job_id, "n1", (0,)),)))

    shown = (await manager.get("/v1/fairshare")).json
    assert (shown["half_life_ms"], shown["ageing_ms"]) == (86_400_000, 600_000)
    default, red = sorted(shown["namespaces"], key=lambda view: str(view["name"]))
    assert (red["due"], red["factor"], red["running_milli"]) == (0.75, 1.0, 0)
    assert [(user["name"], user["weight_milli"], user["due"]) for user in red["users"]] == [("ada", 2000, 1.0)]
    assert (default["due"], default["running_milli"]) == (0.25, 1000)
    assert [(user["name"], user["running_milli"]) for user in default["users"]] == [("alice", 1000)]
    assert [(queue["name"], queue["running_milli"]) for queue in shown["queues"]] == [("default", 1000)]
