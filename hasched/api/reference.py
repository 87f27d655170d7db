"""docs/api.md, made from the OpenAPI document, which is made from the route table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hasched.api.auth import ACTOR_HEADER
from hasched.api.codes import REFUSALS
from hasched.api.openapi import openapi_document
from hasched.api.problem import PROBLEM_TYPE, MethodNotAllowed
from hasched.api.table import ROUTES
from hasched.model import errors
from hasched.model.errors import ClusterUnreachable, ConfigInvalid, FieldError, HaschedError

_INTRODUCTION = f"""\
# HTTP API

<!-- Made by scripts/reference from the routes themselves; change those. -->

Any manager takes any request, over HTTPS on port 7411. Send a token as `Authorization: Bearer TOKEN` (a `GET` also takes it as
the password of `Basic`, for programs that know no other way); verify the managers' certificates against the cluster's CA under
the name `manager.hasched.internal`. The same, for machines: `GET /v1/openapi.json`.

    curl --cacert ca.crt --connect-to manager.hasched.internal:7411:10.0.0.1:7411 \\
         -H "Authorization: Bearer $TOKEN" --json '{{"command": ["echo", "hi"]}}' \\
         https://manager.hasched.internal:7411/v1/jobs

**Writes** are answered once a majority of managers has them on disk. Submissions carry an id (`Idempotency-Key`, or
`submission_id` in a batch) and may be repeated with it after any failure; every other write names the end that it wants, so
it may be repeated too. **Reads** are linearizable: they see all that was answered before they began. `consistency=stale` reads
what this manager has, without asking the others; `Hasched-Applied-Index` says how far that goes and
`Hasched-Applied-Age-Ms` how long ago its last entry was written. Managers pass on to the leader what only it knows, and name
the user in `{ACTOR_HEADER}`, which counts from a manager's certificate alone.

Times are milliseconds since the epoch (0: not yet), sizes bytes, CPU thousandths of a core. Unknown keys and parameters are
errors. Errors are problem documents (RFC 9457, `{PROBLEM_TYPE}`) with a `code` that doesn't change between versions, a
`cause` and a `hint`; those of a job's document list every mistake in `errors`.
"""

_DOCUMENTS = {
    "JobDocument": "a job's document ([jobs.md](jobs.md))",
    "JobUpdate": "what to change of a job",
    "TemplateDocument": "the document of a job or a workflow ([workflows.md](workflows.md))",
    **dict.fromkeys(("JobTemplate", "Workflow"), "a document ([workflows.md](workflows.md))"),
    **dict.fromkeys(("WorkflowJob", "WorkflowJobPart", "WorkflowTask", "WorkflowTaskWithName"), "a part of a document"),
    "PolicyDocument": "a policy's document ([scheduling.md](scheduling.md))",
    "ScheduleDocument": "a schedule's document ([schedules.md](schedules.md))",
}
_ELSEWHERE = (ClusterUnreachable, ConfigInvalid, FieldError)  # no manager answers with these


def api_reference() -> str:
    """The whole page as Markdown."""
    document = openapi_document(ROUTES)
    schemas = document["components"]["schemas"]
    parts = [_INTRODUCTION, *_codes()]
    for route in ROUTES:
        operation = document["paths"][route.path][route.method.lower()]
        parts += _operation(route.method, route.path, route.aliases, operation)
    parts.append("## Structs\n")
    for name, schema in schemas.items():
        if name not in _DOCUMENTS:
            parts += _struct(name, schema)
    return "\n".join(parts).rstrip() + "\n"


def _codes() -> Iterator[str]:
    yield "## Codes\n"
    yield "Errors of one kind have codes of one form: `no_such_…` and `unknown_…` for names that nothing has, `invalid_…` for"
    yield "values that can't be used. A `plan` says what would be refused, and answers 200; a `what-if` whose change would be"
    yield "refused is refused with that change's code.\n"
    yield "| code | status | means |\n| --- | --- | --- |"
    shown: list[type[HaschedError]] = [HaschedError, MethodNotAllowed]
    shown += [kind for kind in _kinds(HaschedError) if kind.__module__ == errors.__name__ and kind not in _ELSEWHERE]
    codes = REFUSALS | {kind.code: (kind.status, kind.title) for kind in shown}
    for code, (status, meaning) in sorted(codes.items(), key=lambda item: (item[1][0], item[0])):
        yield f"| `{code}` | {status} | {meaning} |"
    yield ""


def _kinds(root: type[HaschedError]) -> list[type[HaschedError]]:
    return [found for child in root.__subclasses__() for found in (child, *_kinds(child))]


def _operation(method: str, path: str, aliases: tuple[str, ...], operation: dict[str, Any]) -> Iterator[str]:
    yield f"## {method} {path}\n"
    yield operation["description"] + "\n"
    if aliases:
        yield f"Also {' and '.join(f'`{method} {alias}`' for alias in aliases)}.\n"
    parameters = [each for each in operation["parameters"] if each["in"] != "path"]
    if parameters:
        yield "| parameter | | |\n| --- | --- | --- |"
        for each in parameters:
            place = " (header)" if each["in"] == "header" else ""
            default = each["schema"].get("default")
            note = each.get("description", "") + (
                f" Default: `{default}`." if default not in (None, "", [], False) else ""
            )
            yield f"| `{each['name']}`{place} | {_type(each['schema'])} | {note.strip()} |"
        yield ""
    if "requestBody" in operation:
        yield f"Body: {_type(operation['requestBody']['content']['application/json']['schema'])}.\n"
    for status, response in operation["responses"].items():
        if status != "default":
            schema = response.get("content", {}).get("application/json", {}).get("schema")
            yield f"{status}: {_type(schema) + '.' if schema else response['description']}\n"


def _struct(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"### {name}\n"
    if "description" in schema:
        yield schema["description"].replace("\n", " ") + "\n"
    if "enum" in schema:
        yield " ".join(f"`{value}`" for value in schema["enum"]) + "\n"
        return
    if "properties" not in schema:
        yield f"An array: {', '.join(_type(each) for each in schema.get('prefixItems', []))}.\n"
        return
    required = schema.get("required", [])
    yield "| field | |\n| --- | --- |"
    for field, each in schema["properties"].items():
        yield f"| `{field}`{'' if field in required else ' (optional)'} | {_type(each)} |"
    yield ""


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    match schema:
        case {"$ref": str(reference)}:
            name = reference.rpartition("/")[2]
            return _DOCUMENTS.get(name) or f"[{name}](#{name.lower()})"
        case {"anyOf": list(options)}:
            return " or ".join(_type(option) for option in options)
        case {"enum": list(values)}:
            return ", ".join(f"`{value}`" for value in values)
        case {"type": "array", "items": dict(items)}:
            return f"list of {_type(items)}"
        case {"type": "object", "additionalProperties": dict(values)}:
            return f"mapping to {_type(values)}"
        case {"type": str(kind)}:
            return kind
        case _:
            return "anything"
