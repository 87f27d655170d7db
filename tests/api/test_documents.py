"""The API's own description is whole, true, and fresh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from api_server import Manager

from hasched.api.openapi import openapi_document
from hasched.api.reference import api_reference
from hasched.api.table import ROUTES

ROOT = Path(__file__).parent.parent.parent


async def test_every_route_is_in_the_document(manager: Manager) -> None:
    document = (await manager.get("/v1/openapi.json")).json
    assert document == msgspec.json.decode(msgspec.json.encode(openapi_document(ROUTES)))
    assert document["openapi"] == "3.1.0"
    listed = {(method.upper(), path) for path, each in document["paths"].items() for method in each}
    assert listed == {(route.method, path) for route in ROUTES for path in (route.path, *route.aliases)}


def operations() -> list[Any]:
    return [operation for path in openapi_document(ROUTES)["paths"].values() for operation in path.values()]


def test_operations_have_names_of_their_own_and_a_sentence() -> None:
    names = [operation["operationId"] for operation in operations()]
    assert len(names) == len(set(names))
    assert all(operation["summary"].rstrip(".`:") for operation in operations())


def references(value: Any) -> set[str]:
    match value:
        case {"$ref": str(reference)}:
            return {reference}
        case dict():
            return {found for each in value.values() for found in references(each)}
        case list():
            return {found for each in value for found in references(each)}
        case _:
            return set()


def test_every_reference_leads_somewhere() -> None:
    document = openapi_document(ROUTES)
    schemas = document["components"]["schemas"]
    assert {reference.removeprefix("#/components/schemas/") for reference in references(document)} <= set(schemas)


def test_only_health_is_open() -> None:
    paths = openapi_document(ROUTES)["paths"]
    assert {path for path, each in paths.items() if each.get("get", {}).get("security") == []} == {"/livez", "/readyz"}


def test_the_reference_is_fresh() -> None:
    assert (ROOT / "docs" / "api.md").read_text() == api_reference(), "run scripts/reference"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_the_reference_has_every_route(route: Any) -> None:
    assert f"## {route.method} {route.path}\n" in api_reference()
