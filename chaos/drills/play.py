"""Plays one drill on a cluster made for it, and says what came of it. Whatever happens, the cluster is taken down again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

from chaos.cluster.base import Cluster
from chaos.drills.base import Drill
from chaos.drills.props import until_whole
from chaos.drills.scene import Scene, Unmet
from chaos.errors import ConsentMissing, MachineLacks
from chaos.report.document import DrillPart
from chaos.stage import Skipped
from hasched.model.errors import HaschedError

PASSED, FAILED, LEFT_OUT = "passed", "failed", "left out"
LIMIT_S = 150.0

MakeCluster: TypeAlias = Callable[[], AbstractAsyncContextManager[Cluster]]
Consented: TypeAlias = Callable[[Cluster], Awaitable[None]]


async def play(
    drill: Drill, make_cluster: MakeCluster, consented: Consented | None = None, limit_s: float = LIMIT_S
) -> DrillPart:
    """`make_cluster` gives a cluster with the drill's managers, agents and settings, or one that is there already;
    `consented` raises ConsentMissing if that one must not be broken."""
    try:
        async with make_cluster() as cluster:
            if consented is not None:
                await consented(cluster)
            _require(drill, cluster)
            return await _play(drill, cluster, limit_s)
    except ConsentMissing:
        raise
    except (MachineLacks, Skipped) as error:
        return _part(drill, LEFT_OUT, str(error))
    except (HaschedError, OSError) as error:
        return _part(drill, FAILED, f"the cluster could not be made, or taken down: {_cause(error)}")


def _require(drill: Drill, cluster: Cluster) -> None:
    """Raises MachineLacks with what is missing. A cluster that runs already has the members that it has."""
    for role, wanted, there in (
        ("managers", drill.managers, cluster.managers),
        ("agents", drill.agents, cluster.agents),
    ):
        if len(there) < wanted:
            raise MachineLacks(
                f"it needs {wanted} {role}, and {cluster.name} has {len(there)}",
                "leave out --attach: the harness makes a cluster of the size that it needs",
            )
    cluster.require(drill.needs)


async def _play(drill: Drill, cluster: Cluster, limit_s: float) -> DrillPart:
    async with cluster.client() as client:
        scene = Scene(cluster, client)
        why = ""
        try:
            await until_whole(scene)
            scene = Scene(cluster, client)  # its time begins once the cluster is whole
            async with asyncio.timeout(limit_s):
                await drill.play(scene)
        except (MachineLacks, Skipped) as error:
            if not scene.evidence:
                raise
            why = f"it broke off: {error}"  # too late to be left out: something was done, or seen, and not judged
        except Unmet as unmet:
            why = str(unmet)
        except TimeoutError:
            why = f"it was not over after {limit_s:g} s"
        except (HaschedError, OSError) as error:
            why = _cause(error)
        return _part(drill, FAILED if why else PASSED, why, scene, cluster.logs() if why else {})


def _part(
    drill: Drill, verdict: str, why: str = "", scene: Scene | None = None, logs: dict[str, str] | None = None
) -> DrillPart:
    return DrillPart(
        name=drill.name,
        happened=drill.happened,
        expects=drill.expects,
        verdict=verdict,
        why=why,
        seconds=round(scene.now(), 3) if scene is not None else 0.0,
        evidence=[f"{each.at_s:.1f} s  {each.text}" for each in scene.evidence] if scene is not None else [],
        logs=logs or {},
    )


def _cause(error: HaschedError | OSError) -> str:
    """One sentence, and what to do where that is known."""
    if isinstance(error, HaschedError):
        return f"{error.code}: {error.cause}" + (f" ({error.hint})" if error.hint else "")
    return f"{type(error).__name__}: {error}"
