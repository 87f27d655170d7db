"""Every route of the API, in the order in which the documents list them."""

from __future__ import annotations

import functools

import msgspec
from aiohttp import web

from hasched.api import (
    answers,
    cluster,
    events,
    health,
    jobs,
    logs,
    managers,
    nodes,
    notifications,
    policies,
    schedules,
    shares,
    tasks,
    usage,
    workflows,
)
from hasched.api.agents import AGENT_STREAM_PATH
from hasched.api.call import Call
from hasched.api.openapi import openapi_document
from hasched.api.routing import Route, Routes

_agents = Routes("agents")
_documents = Routes("documents")


@_agents.add("GET", AGENT_STREAM_PATH, access="agent")
async def serve_agent(call: Call) -> web.StreamResponse:
    """The agents' stream: a WebSocket, for the certificate of an agent (hasched/model/wire.py)."""
    return await call.context.agents.handle(call.request)


@_documents.add("GET", "/v1/openapi.json")
async def show_openapi(call: Call) -> web.Response:
    """This API as an OpenAPI 3.1 document."""
    return web.Response(body=_openapi_text(), content_type="application/json")


@functools.cache
def _openapi_text() -> bytes:
    return msgspec.json.encode(openapi_document(ROUTES))


ROUTES: list[Route] = [
    *jobs.routes.table,
    *tasks.routes.table,
    *logs.routes.table,
    *answers.routes.table,
    *nodes.routes.table,
    *managers.routes.table,
    *policies.routes.table,
    *schedules.routes.table,
    *notifications.routes.table,
    *shares.routes.table,
    *usage.routes.table,
    *workflows.routes.table,
    *cluster.routes.table,
    *events.routes.table,
    *health.routes.table,
    *_documents.table,
    *_agents.table,
]
