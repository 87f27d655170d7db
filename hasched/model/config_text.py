"""Configuration files: YAML text and environment overrides to a typed struct, or every error with its line.

A configuration is a `msgspec.Struct`. Quantities are annotated `Duration`, `Size` or `Cpu` and become integers. A
variable `HASCHED_` + the upper-case path, levels joined by `__`, replaces a value: `HASCHED_API__LISTEN=0.0.0.0:7411`.
The environment comes in as a mapping: nothing here reads the process or the disk.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from hasched.model.errors import ConfigInvalid, FieldError
from hasched.model.kinds import describe, suggest
from hasched.model.units import parse_bytes, parse_cpu_milli, parse_duration_ms
from hasched.model.yaml_text import Document, read_documents

ENV_PREFIX = "HASCHED_"

Duration: TypeAlias = Annotated[int, msgspec.Meta(ge=0, extra={"unit": "duration"})]  # milliseconds
Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0, extra={"unit": "size"})]  # bytes
Cpu: TypeAlias = Annotated[int, msgspec.Meta(ge=0, extra={"unit": "cpu"})]  # thousandths of a core

Config = TypeVar("Config", bound=msgspec.Struct)
Check: TypeAlias = Callable[[Config], Iterable[FieldError]]

_PARSERS: dict[str, Callable[[Any], int]] = {"duration": parse_duration_ms, "size": parse_bytes, "cpu": parse_cpu_milli}
_BAD = object()  # stands for a value whose error is already noted


def load_config(
    text: str,
    source: str,
    kind: type[Config],
    env: Mapping[str, str] | None = None,
    check: Check[Config] | None = None,
) -> Config:
    """`text` as a `kind`. `check` looks at what the types can't say; its errors get the lines of their paths.

    Raises ConfigInvalid with every error found. An error in an override names the variable and has line 0.
    """
    documents = read_documents(text, source)
    if len(documents) > 1:
        line = documents[1].line_of("")
        raise ConfigInvalid(source, [FieldError("", "a configuration is one document, not several", line=line)])
    document = documents[0] if documents else Document({}, {"": 1})
    reader = _Reader(document, env or {})
    plain = reader.read_struct(document.value, kind, "")
    if not reader.errors:
        config = msgspec.convert(plain, kind)
        reader.errors += [
            FieldError(error.path, error.cause, error.hint, error.line or document.line_of(error.path))
            for error in (check(config) if check else ())
        ]
        if not reader.errors:
            return config
    raise ConfigInvalid(source, sorted(reader.errors, key=lambda error: error.line))


class _Reader:
    """Walks a document along a type, and collects errors instead of stopping at the first."""

    def __init__(self, document: Document, env: Mapping[str, str]) -> None:
        self.document = document
        self.env = env
        self.errors: list[FieldError] = []

    def read_struct(self, value: Any, kind: type[msgspec.Struct], path: str, variable: str = "") -> Any:
        """A mapping as the fields of `kind`. Overrides are looked up here, so they can fill what the file lacks."""
        if not isinstance(value, dict):
            return self._complain(path, f"must be a mapping, not {describe(value)}", variable=variable)
        hints = typing.get_type_hints(kind, include_extras=True)
        fields = {field.encode_name: (field, hints[field.name]) for field in msgspec.structs.fields(kind)}
        for key in value:
            if key not in fields:
                self._complain(_join(path, key), "unknown key", suggest(key, fields), variable)
        plain: dict[str, Any] = {}
        for key, (field, hint) in fields.items():
            place = _join(path, key)
            given, origin = value.get(key, _BAD), variable
            if not variable:
                given, origin = self._override(given, place, hint)
            if given is not _BAD:
                plain[key] = self.read(given, hint, place, origin)
            elif field.required:
                self._complain(place, "is missing", variable=variable)
        return plain

    def read(self, value: Any, hint: Any, path: str, variable: str = "") -> Any:
        """A value as the type `hint`, quantities as integers."""
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            if value is None and types.NoneType in arguments:
                return None
            (hint,) = (argument for argument in arguments if argument is not types.NoneType)
            return self.read(value, hint, path, variable)
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            return self.read_struct(value, hint, path, variable)
        if origin in (list, tuple):
            if not isinstance(value, list):
                return self._complain(path, f"must be a list, not {describe(value)}", variable=variable)
            return [self.read(item, arguments[0], f"{path}[{number}]", variable) for number, item in enumerate(value)]
        if origin is dict:
            if not isinstance(value, dict):
                return self._complain(path, f"must be a mapping, not {describe(value)}", variable=variable)
            return {key: self.read(item, arguments[1], _join(path, key), variable) for key, item in value.items()}
        return self._scalar(value, hint, path, variable)

    def _scalar(self, value: Any, hint: Any, path: str, variable: str) -> Any:
        unit = next((meta.extra["unit"] for meta in getattr(hint, "__metadata__", ()) if meta.extra), None)
        try:
            if unit is not None:
                if not isinstance(value, str | int | float):
                    raise ValueError(f"must be a {unit}, not {describe(value)}")
                value = _PARSERS[unit](value)
            msgspec.convert(value, hint)
        except msgspec.ValidationError as error:
            if isinstance(hint, type) and issubclass(hint, Enum):
                choices = [str(member.value) for member in hint]
                cause = f"must be one of {', '.join(choices)}, not {value!r}"
                return self._complain(path, cause, suggest(str(value), choices), variable)
            return self._complain(path, _humanize(str(error), value), variable=variable)
        except ValueError as error:
            return self._complain(path, str(error), variable=variable)
        return value

    def _override(self, given: Any, path: str, hint: Any) -> tuple[Any, str]:
        """The value of the variable for `path` and its name, else what the file gives."""
        variable = ENV_PREFIX + path.replace(".", "__").upper()
        text = self.env.get(variable)
        if text is None:
            prefix = f"{variable}__"
            if given is _BAD and any(name.startswith(prefix) for name in self.env) and _is_section(hint):
                return {}, ""
            return given, ""
        if hint is str:
            return text, variable
        try:
            documents = read_documents(text, variable)
        except ConfigInvalid as error:
            return self._complain(path, error.errors[0].cause, variable=variable), variable
        value = documents[0].value if documents else None
        if typing.get_origin(hint) in (list, tuple) and isinstance(value, str):
            value = [part.strip() for part in value.split(",")]
        return value, variable

    def _complain(self, path: str, cause: str, hint: str = "", variable: str = "") -> Any:
        text = f"{cause}; {hint}" if hint else cause
        if variable:
            self.errors.append(FieldError(variable, text, hint))
        else:
            self.errors.append(FieldError(path, text, hint, self.document.line_of(path)))
        return _BAD


def _is_section(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _humanize(message: str, value: Any) -> str:
    """msgspec's message without its backquotes, and with the value that it speaks of."""
    message = message.split(" - at ", maxsplit=1)[0].split(", got", maxsplit=1)[0].replace("`", "")
    return f"{message[0].lower()}{message[1:]}, not {describe(value)}"
