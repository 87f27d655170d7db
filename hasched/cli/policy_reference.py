"""docs/policies.md, made from the tables that read policies and the structs that hold them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import msgspec

from hasched.model.policy import TYPES, Charges, PolicyKind
from hasched.model.policy_tables import CHARGES, READERS, TABLES
from hasched.model.units import MAX_INTEGER

_INTRODUCTION = """\
# Policies, key by key

<!-- Made by scripts/reference from the tables that read them; change those. -->

What operators decide about work stands in documents of a `kind` and a `name` (1 to 128 letters and digits, with `.`, `_` and `-`
between them). `hasched policy apply FILE` puts them, `hasched policy get KIND NAME` shows one; what they are for is in
[scheduling.md](scheduling.md#policies). Each takes these keys beside `kind` and `name`, and any other is an error.
"""


def policy_reference() -> str:
    """The whole page as Markdown."""
    return "\n".join([_INTRODUCTION, *(line for kind in PolicyKind for line in _section(kind))]).rstrip() + "\n"


def _section(kind: PolicyKind) -> Iterator[str]:
    struct = TYPES[kind]
    yield f"## {kind}\n"
    yield (inspect.getdoc(struct) or "").partition("\n\n")[0].replace("\n", " ") + "\n"
    yield "| key | takes | default | |\n| --- | --- | --- | --- |"
    fields = {field.name: field for field in msgspec.structs.fields(struct)}
    shown: dict[str, str] = {}  # mappings whose keys stand here already
    for key, schema in READERS[kind].schema["properties"].items():
        item = TABLES[kind][key]
        field = fields[item.attribute]
        usual = field.default
        default = "needed" if field.required else "by what runs" if usual is None else _default(item.write(usual))
        text = repr(schema.get("properties"))
        alike = shown.setdefault(text, key) if schema.get("properties") else key
        yield _row(key, schema, default, f"as `{alike}`" if alike != key else "")
        if schema.get("properties") and alike == key:
            for name, inner in schema["properties"].items():
                usual = CHARGES[name].write(getattr(Charges(), CHARGES[name].attribute)) if key == "charge" else ""
                yield _row(f"{key}.{name}", inner, _default(usual), "")
    yield ""


def _row(key: str, schema: dict[str, Any], default: str, takes: str) -> str:
    return f"| `{key}` | {takes or _takes(schema)} | {default} | {schema.get('description', '')} |"


def _takes(schema: dict[str, Any]) -> str:
    match schema:
        case {"enum": list(words)}:
            return ", ".join(f"`{word}`" for word in words)
        case {"type": "integer", "minimum": int(low), "maximum": int(high)}:
            return f"a whole number from {low:,}" + (f" to {high:,}" if high < MAX_INTEGER // 10**9 else "")
        case {"type": "number", "minimum": low, "maximum": high}:
            return f"a number from {low:,} to {high:,}"
        case {"type": "string", "pattern": _}:
            return "a name"
        case {"type": "string", "format": "date-time"}:
            return "a time such as `2026-12-24T18:00:00Z`"
        case {"type": "string"}:
            return "text"
        case {"type": "boolean"}:
            return "`true`, `false`"
        case {"type": "array", "items": dict(items)}:
            return f"a list: {_takes(items)} each"
        case {"type": "object", "additionalProperties": dict(values)}:
            return f"a mapping: for each name {_takes(values)}"
        case {"type": "object"}:
            return "a mapping of the keys below"
        case {"anyOf": [{"type": "string", "examples": [example]}, {"type": "number"}]}:
            return f"an amount such as `{example}`"
        case {"anyOf": [dict(one), {"type": "array"}]}:
            return f"{_takes(one)}, or a list"
        case _:
            raise AssertionError(f"say what {schema} takes")


def _default(value: Any) -> str:
    if value in ("", None, [], {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
