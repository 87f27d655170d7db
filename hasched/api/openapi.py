"""The OpenAPI 3.1 document, made from the route table and the types of its handlers."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from typing import Any

import msgspec
from aiohttp import web

from hasched import __version__
from hasched.api.jobs import BatchResults, submit_job
from hasched.api.routing import Route
from hasched.model.parse import spec_schema, update_schema
from hasched.model.policy_text import policy_schema
from hasched.model.views import EventView, Problem, Submitted
from hasched.model.workflow_keys import template_schema, workflow_schema
from hasched.timetable.text import schedule_schema

_REFERENCE = "#/components/schemas/{name}"
_CREDENTIALS: dict[str, list[dict[str, list[str]]]] = {
    "user": [{"token": []}, {"certificate": []}],
    "agent": [{"certificate": []}],
    "open": [],
}


def openapi_document(routes: Iterable[Route]) -> dict[str, Any]:
    """The whole document, aliases included."""
    table = list(routes)
    types = [kind for route in table for kind in (_answer_of(route), _body_of(route)) if kind is not None]
    _, components = msgspec.json.schema_components([*types, Submitted, Problem, EventView], ref_template=_REFERENCE)
    components["JobDocument"] = spec_schema()
    components["JobUpdate"] = update_schema()
    components["PolicyDocument"] = policy_schema()
    components["JobTemplate"] = template_schema()
    _add_with_parts(components, "Workflow", workflow_schema())
    kinds = [{"$ref": _REFERENCE.format(name=kind)} for kind in ("JobTemplate", "Workflow")]
    components["TemplateDocument"] = {"anyOf": kinds}
    components["ScheduleDocument"] = _with_component(schedule_schema(), "workflow", "Workflow")
    _refine(components)
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        for number, path in enumerate((route.path, *route.aliases)):
            operation = _operation(route)
            if number:
                operation["operationId"] += f"_{number}"
                operation["summary"] = f"The same as {route.path}"
            paths.setdefault(path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hasched",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "certificate": {"type": "mutualTLS", "description": "A certificate of the cluster's own CA."},
            },
        },
    }


def _add_with_parts(components: dict[str, Any], name: str, schema: dict[str, Any]) -> None:
    """A schema whose own definitions become components beside it."""
    names = {part: name + part.title().replace("_", "") for part in schema["$defs"]}

    def point(value: Any) -> Any:
        match value:
            case {"$ref": str(reference)}:
                return {"$ref": _REFERENCE.format(name=names[reference.removeprefix("#/$defs/")])}
            case dict():
                return {key: point(each) for key, each in value.items()}
            case list():
                return [point(each) for each in value]
            case _:
                return value

    components[name] = point({key: value for key, value in schema.items() if key != "$defs"})
    components.update({names[part]: point(definition) for part, definition in schema["$defs"].items()})


def _with_component(schema: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    """A schema whose own definition of a key is the component of that name."""
    outside = {"anyOf": [{"type": "string"}, {"$ref": _REFERENCE.format(name=name)}]}
    properties = {**schema["properties"], key: {**schema["properties"][key], **outside}}
    return {**{word: value for word, value in schema.items() if word != "$defs"}, "properties": properties}


def _refine(components: dict[str, Any]) -> None:
    """What the types alone don't say."""
    document = {"$ref": _REFERENCE.format(name="JobDocument")}
    components["BatchItem"]["properties"]["spec"] = document
    components["PlanRequest"]["properties"]["jobs"]["items"] = document
    components["WhatIfRequest"]["properties"]["add_jobs"]["items"] = document
    either = [{"$ref": _REFERENCE.format(name=kind.__name__)} for kind in (Submitted, Problem)]
    components[BatchResults.__name__]["properties"]["results"]["items"] = {"anyOf": either}


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "tags": [route.tag],
        "summary": route.summary,
        "description": route.description,
        "parameters": [*_path_parameters(route), *_query_parameters(route), *_headers(route)],
        "security": _CREDENTIALS[route.access],
        "responses": {
            str(route.status): _success(route),
            "default": {
                "description": "A problem (RFC 9457); `code` is stable.",
                "content": {"application/problem+json": {"schema": {"$ref": _REFERENCE.format(name="Problem")}}},
            },
        },
    }
    if route.handler is submit_job:
        operation["responses"]["200"] = {
            **_success(route),
            "description": "The submission id was known: its first job.",
        }
    if route.body_type is not None:
        operation["requestBody"] = _request_body(route)
    return operation


def _success(route: Route) -> dict[str, Any]:
    kind = _answer_of(route)
    if kind is not None:
        schema = {"$ref": _REFERENCE.format(name=kind.__name__)}
        return {"description": "Done.", "content": {"application/json": {"schema": schema}}}
    if route.returns is type(None):
        return {"description": "Done; the answer is empty."}
    return {"description": "A stream, see the description."}


def _answer_of(route: Route) -> type[msgspec.Struct] | None:
    kind = route.returns
    if isinstance(kind, type) and issubclass(kind, web.StreamResponse | type(None)):
        return None
    return typing.cast(type[msgspec.Struct], kind)


def _body_of(route: Route) -> type[msgspec.Struct] | None:
    return None if route.body_type in (None, bytes) else route.body_type


def _request_body(route: Route) -> dict[str, Any]:
    kind = _body_of(route)
    schema = {"$ref": _REFERENCE.format(name=kind.__name__ if kind is not None else route.document)}
    content = {"application/json": {"schema": schema}}
    if route.handler is submit_job:
        content["application/yaml"] = {"schema": schema}
    return {"required": kind is None, "content": content}


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "integer" if kind is int else "string"}}
        for name, kind in route.path_types.items()
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.query_type is None:
        return []
    _, components = msgspec.json.schema_components([route.query_type], ref_template=_REFERENCE)
    schema = components[route.query_type.__name__]
    parameters = []
    for name, each in schema["properties"].items():
        shown = _without_null(each)
        text = shown.pop("description", "")
        parameter = {"name": name, "in": "query", "required": name in schema.get("required", []), "schema": shown}
        parameters.append({**parameter, "description": text} if text else parameter)
    return parameters


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is left out rather than null."""
    shown = dict(schema)
    if shown.get("default", "") is None:
        (inner,) = (each for each in shown.pop("anyOf") if each != {"type": "null"})
        del shown["default"]
        shown |= inner
    return shown


def _headers(route: Route) -> list[dict[str, Any]]:
    if route.handler is not submit_job:
        return []
    schema = {"type": "string", "pattern": "^[!-~]{1,128}$"}
    text = "The submission id; made here where it is missing."
    return [{"name": "Idempotency-Key", "in": "header", "required": False, "schema": schema, "description": text}]
