"""From the document that a user wrote to the canonical `JobSpec`, or every reason why not.

A valid JSON document is decoded and checked in one pass, because submissions are many. Anything else is read again field
by field, so that all that is wrong is said at once, each with its path and, for a mistyped key, what was probably meant.
Both ways run the same checks.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import re
import types
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, UnsetType

from hasched.model.document import (
    BackoffDocument,
    InputDocument,
    JobDocument,
    ResourcesDocument,
    RetriesDocument,
    spec_schema,
)
from hasched.model.errors import FieldError, MalformedBody, SpecInvalid
from hasched.model.ids import is_name
from hasched.model.spec import (
    MAX_INPUT_BYTES,
    MAX_PRIORITY,
    MAX_SPEC_BYTES,
    MAX_TASKS,
    JobSpec,
    Resources,
    Retries,
)
from hasched.model.units import MAX_CHARS, MAX_INTEGER, parse_bytes, parse_cpu_milli, parse_duration_ms

__all__ = ["JobDefaults", "parse_spec", "spec_schema"]

MAX_ARGUMENT_BYTES = 128 * 1024 - 1  # Linux takes no longer one (MAX_ARG_STRLEN)
MAX_RETRIES = 1000
MAX_GPUS = 1024
MAX_LABELS = 64
MAX_LABEL_CHARS = 256
MAX_COUNTABLES = 32
MAX_DURATION_MS = 10 * 366 * 86_400_000
MAX_KILL_GRACE_MS = 3_600_000
MAX_MULTIPLIER = 1000
_MARGIN_BYTES = 4096  # of defaults that a document leaves out
_RESOURCE_NAMES = ("cpu", "memory", "gpus")


class JobDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """What a job gets where its document is silent."""

    timeout_ms: int = 0
    retries: Retries = Retries()
    resources: Resources = Resources(cpu_milli=1000)


_NO_DEFAULTS = JobDefaults()


def parse_spec(document: bytes | Mapping[str, Any], defaults: JobDefaults | None = None) -> JobSpec:
    """The spec that `document` (JSON, or what YAML was decoded to) asks for, what it leaves out taken from `defaults`.

    Raises MalformedBody if the bytes are not JSON, and SpecInvalid with every error for everything else.
    """
    defaults = defaults or _NO_DEFAULTS
    if not isinstance(document, bytes):
        return _parse_slowly(document, defaults)
    try:
        spec = _assemble(_take(_decode(document), _JOB), defaults)
        if len(document) > MAX_SPEC_BYTES - _MARGIN_BYTES:
            _check_size(spec)
        return spec
    except (msgspec.DecodeError, RecursionError, _Refused):
        pass
    try:
        plain = msgspec.json.decode(document)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedBody(f"the body is not JSON: {error}", "send a JSON object") from None
    return _parse_slowly(plain, defaults)


def _parse_slowly(document: Any, defaults: JobDefaults) -> JobSpec:
    """As `parse_spec` from plain values. Raises SpecInvalid."""
    reader = _Reader()
    values = reader.read(document, _JOB, "")
    try:
        if isinstance(document, Mapping) and not reader.unknown_keys:
            _check_program("command" in document, "script" in document)
        if not reader.errors:
            spec = _assemble(values, defaults)
            _check_size(spec)
            return spec
    except _Refused as refused:
        reader.note(refused, "")
    raise SpecInvalid(reader.errors)


# ── From checked values to the spec ─────────────────────────────────────────────────────────────────────────────────


def _assemble(values: dict[str, Any], defaults: JobDefaults) -> JobSpec:
    """A spec of values that have been checked one by one. Raises _Refused for what they say together."""
    command = values.get("command")
    _check_program(command is not None, "script" in values)
    resources = values.get("resources")
    values["resources"] = (
        defaults.resources if resources is None else msgspec.structs.replace(defaults.resources, **resources)
    )
    retries = values.get("retries")
    values["retries"] = defaults.retries if retries is None else _merge_retries(retries, defaults.retries)
    if defaults.timeout_ms:
        values.setdefault("timeout_ms", defaults.timeout_ms)
    if "name" not in values:
        values["name"] = _default_name(command)
    return JobSpec(**values)


def _merge_retries(given: dict[str, Any], defaults: Retries) -> Retries:
    backoff = given.get("backoff")
    if backoff is not None:
        merged = msgspec.structs.replace(defaults.backoff, **backoff)
        if "initial_ms" in backoff and "max_ms" not in backoff:
            merged = msgspec.structs.replace(merged, max_ms=max(merged.max_ms, merged.initial_ms))
        if merged.initial_ms > merged.max_ms:
            raise _Refused("the longest wait is shorter than the first", path="retries.backoff.max")
        given = {**given, "backoff": merged}
    return msgspec.structs.replace(defaults, **given)


def _default_name(command: tuple[str, ...] | None) -> str:
    if command is None:
        return "job"
    base = command[0].rpartition("/")[2]
    if is_name(base):
        return base
    return re.sub(r"[^A-Za-z0-9._-]+", "-", base)[:128].strip("._-") or "job"


def _check_program(has_command: bool, has_script: bool) -> None:
    if not has_command and not has_script:
        raise _Refused("there is nothing to run", "give a command (a list) or a script (text)", "command")
    if has_command and has_script:
        raise _Refused("a job has a command or a script, not both", "leave one out", "script")


def _check_size(spec: JobSpec) -> None:
    size = len(_encoder.encode(spec))
    if size > MAX_SPEC_BYTES:
        raise _Refused(
            f"the spec takes {size} bytes, and {MAX_SPEC_BYTES} are allowed", "put data in files that tasks can reach"
        )


# ── Checks: a value of the right type in, its canonical form out, or _Refused ───────────────────────────────────────


class _Refused(ValueError):
    """A value that can't be accepted; `path` is where in it, below the field."""

    def __init__(self, cause: str, hint: str = "", path: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.hint = hint
        self.path = path


def _name(value: str) -> str:
    if not is_name(value):
        raise _Refused(
            f"{_shown(value)} is not a name",
            "use up to 128 letters, digits, '.', '_' and '-', with a letter or digit at both ends",
        )
    return value


def _command(value: list[str]) -> tuple[str, ...]:
    if not value or not value[0]:
        raise _Refused("the program's name is missing", 'write it as ["program", "argument"]')
    joined = "\0".join(value)
    if joined.count("\0") >= len(value) or len(joined) * 4 > MAX_ARGUMENT_BYTES:
        for number, argument in enumerate(value):
            _argument(argument, f"[{number}]")
    return tuple(value)


def _argument(value: str, path: str, overhead: int = 0) -> None:
    if "\0" in value:
        raise _Refused("contains a NUL character, which no program can be given", path=path)
    if len(value) * 4 + overhead > MAX_ARGUMENT_BYTES and _size(value) + overhead > MAX_ARGUMENT_BYTES:
        raise _Refused(f"is longer than {MAX_ARGUMENT_BYTES} bytes", "hand it over as input", path)


def _script(value: str) -> str:
    if not value.strip():
        raise _Refused("the script is empty")
    if "\0" in value:
        raise _Refused("contains a NUL character")
    return value


def _env(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not name or "=" in name or "\0" in name:
            raise _Refused(f"{_shown(name)} can't be the name of a variable", path=name.replace("\0", "\\0"))
        _argument(text, name, len(name) * 4 + 1)
    return value


def _working_dir(value: str) -> str:
    if value and not value.startswith("/"):
        raise _Refused(f"{_shown(value)} is not an absolute path", "tasks run elsewhere: write it from / on")
    _argument(value, "")
    return value


def _input(value: str | InputDocument) -> bytes:
    return _input_section(value) if isinstance(value, InputDocument) else _within_input(value.encode())


def _input_section(value: InputDocument) -> bytes:
    if value.base64 is UNSET:
        raise _Refused("there is no base64 in it", "write text, or {base64: ...}")
    try:
        return _within_input(base64.b64decode(value.base64, validate=True))
    except (binascii.Error, ValueError) as error:
        if isinstance(error, _Refused):
            raise
        raise _Refused(f"is not base64: {error}", path="base64") from None


def _within_input(value: bytes) -> bytes:
    if len(value) > MAX_INPUT_BYTES:
        raise _Refused(
            f"is {len(value)} bytes long, and {MAX_INPUT_BYTES} are allowed", "put it in a file that tasks can reach"
        )
    return value


def _within(low: int, high: int) -> Callable[[int], int]:
    def check(value: int) -> int:
        if not low <= value <= high:
            raise _Refused(f"{_shown(value)} is not between {low} and {high}")
        return value

    return check


def _duration(longest_ms: int) -> Callable[[int | float | str], int]:
    def check(value: int | float | str) -> int:
        duration_ms = _parsed(parse_duration_ms, value)
        if duration_ms > longest_ms:
            raise _Refused(f"{_shown(value)} is longer than {longest_ms // 1000} seconds")
        return duration_ms

    return check


def _cpu(value: int | float | str) -> int:
    return _parsed(parse_cpu_milli, value)


def _memory(value: int | str) -> int:
    return _parsed(parse_bytes, value)


def _parsed(parse: Callable[[Any], int], value: int | float | str) -> int:
    if isinstance(value, str) and len(value) > MAX_CHARS:
        raise _Refused(f"{_shown(value)} is too long for a quantity")
    try:
        return parse(value)
    except ValueError as error:
        raise _Refused(str(error)) from None


def _gpus(value: int | float) -> int:
    if value != value // 1:  # also for NaN
        raise _Refused(f"{_shown(value)} GPUs can't be given: a GPU is not divided", "ask for whole GPUs")
    if not 0 <= value <= MAX_GPUS:
        raise _Refused(f"{_shown(value)} is not between 0 and {MAX_GPUS}")
    return int(value)


def _countables(value: dict[str, int]) -> tuple[tuple[str, int], ...]:
    if len(value) > MAX_COUNTABLES:
        raise _Refused(f"there are more than {MAX_COUNTABLES}")
    for name, amount in value.items():
        if name in _RESOURCE_NAMES:
            raise _Refused(f"{name} is not a countable", "write it beside countables, not below", name)
        if not is_name(name):
            raise _Refused(f"{_shown(name)} is not a name", path=name)
        if not 0 <= amount <= MAX_INTEGER:
            raise _Refused(f"{_shown(amount)} is not between 0 and {MAX_INTEGER}", path=name)
    return tuple(sorted((name, amount) for name, amount in value.items() if amount))


def _multiplier(value: int | float) -> int:
    if not 1 <= value <= MAX_MULTIPLIER:
        raise _Refused(f"{_shown(value)} is not between 1 and {MAX_MULTIPLIER}")
    milli = Decimal(str(value)) * 1000
    if milli != int(milli):
        raise _Refused(f"{_shown(value)} is finer than a thousandth")
    return int(milli)


def _success_exit_codes(value: list[int]) -> tuple[int, ...]:
    if not value:
        raise _Refused("no exit code would be a success", "leave it out for [0]")
    if not all(0 <= code <= 255 for code in value):
        raise _Refused("an exit code is between 0 and 255")
    return tuple(sorted(dict.fromkeys(value)))


def _labels(value: dict[str, str]) -> dict[str, str]:
    if len(value) > MAX_LABELS:
        raise _Refused(f"there are more than {MAX_LABELS}")
    for name, text in value.items():
        if not is_name(name):
            raise _Refused(f"{_shown(name)} is not a name", path=name)
        if len(text) > MAX_LABEL_CHARS or "\0" in text:
            raise _Refused(f"is longer than {MAX_LABEL_CHARS} characters, or contains a NUL", path=name)
    return value


def _same(value: Any) -> Any:
    return value


# ── The fields of each section ──────────────────────────────────────────────────────────────────────────────────────


class _Field(NamedTuple):
    """`target` is the canonical field. `section`, where the value may be a mapping of its own."""

    target: str
    check: Callable[[Any], Any]
    section: _Section | None = None


class _Section(NamedTuple):
    kind: type[msgspec.Struct]
    fields: dict[str, _Field]
    finish: Callable[[dict[str, Any]], Any] = _same


_retry_budget = _within(0, MAX_RETRIES)

_BACKOFF = _Section(
    BackoffDocument,
    {
        "kind": _Field("kind", _same),
        "initial": _Field("initial_ms", _duration(MAX_DURATION_MS)),
        "max": _Field("max_ms", _duration(MAX_DURATION_MS)),
        "multiplier": _Field("multiplier_milli", _multiplier),
    },
)
_RETRIES = _Section(
    RetriesDocument,
    {
        "max": _Field("max", _retry_budget),
        "node_lost": _Field("node_lost", _retry_budget),
        "backoff": _Field("backoff", lambda value: _take(value, _BACKOFF), _BACKOFF),
    },
)
_RESOURCES = _Section(
    ResourcesDocument,
    {
        "cpu": _Field("cpu_milli", _cpu),
        "memory": _Field("memory_bytes", _memory),
        "gpus": _Field("gpus", _gpus),
        "countables": _Field("countables", _countables),
    },
)
_INPUT = _Section(
    InputDocument, {"base64": _Field("base64", _same)}, lambda values: _input_section(InputDocument(**values))
)


def _retries(value: int | RetriesDocument) -> dict[str, Any]:
    return {"max": _retry_budget(value)} if isinstance(value, int) else _take(value, _RETRIES)


_JOB = _Section(
    JobDocument,
    {
        "name": _Field("name", _name),
        "command": _Field("command", _command),
        "script": _Field("script", _script),
        "env": _Field("env", _env),
        "working_dir": _Field("working_dir", _working_dir),
        "input": _Field("input", _input, _INPUT),
        "count": _Field("count", _within(1, MAX_TASKS)),
        "max_running": _Field("max_running", _within(0, MAX_TASKS)),
        "resources": _Field("resources", lambda value: _take(value, _RESOURCES), _RESOURCES),
        "timeout": _Field("timeout_ms", _duration(MAX_DURATION_MS)),
        "kill_grace": _Field("kill_grace_ms", _duration(MAX_KILL_GRACE_MS)),
        "retries": _Field("retries", _retries, _RETRIES),
        "restart": _Field("restart", _same),
        "success_exit_codes": _Field("success_exit_codes", _success_exit_codes),
        "on_disconnect": _Field("on_disconnect", _same),
        "labels": _Field("labels", _labels),
        "priority": _Field("priority", _within(-MAX_PRIORITY, MAX_PRIORITY)),
        "queue": _Field("queue", _name),
    },
)

_decode = msgspec.json.Decoder(JobDocument).decode
_encoder = msgspec.msgpack.Encoder()


def _take(document: msgspec.Struct, section: _Section) -> dict[str, Any]:
    """The checked values of a section that has the right types. Raises _Refused at the first that is wrong."""
    values = {}
    for name, field in section.fields.items():
        value = getattr(document, name)
        if value is not UNSET:
            values[field.target] = field.check(value)
    return values


# ── The slow way, which finds every error ───────────────────────────────────────────────────────────────────────────


class _Reader:
    """Walks a document along its sections and notes what is wrong."""

    def __init__(self) -> None:
        self.errors: list[FieldError] = []
        self.unknown_keys = False

    def note(self, refused: _Refused, path: str) -> None:
        self.errors.append(FieldError(_join(path, refused.path), refused.cause, refused.hint))

    def read(self, document: Any, section: _Section, path: str) -> Any:
        if not isinstance(document, Mapping):
            self.note(_Refused(f"expected a mapping, not {_kind_of(document)}"), path)
            return {}
        values = {}
        hints = get_type_hints(section.kind)
        errors_before = len(self.errors)
        for key, value in document.items():
            field = section.fields.get(key) if isinstance(key, str) else None
            if field is None:
                self.unknown_keys = True
                self.note(_unknown(key, section), path)
                continue
            place = _join(path, key)
            if field.section is not None and isinstance(value, Mapping):
                values[field.target] = self.read(value, field.section, place)
                continue
            try:
                values[field.target] = field.check(_convert(value, hints[key]))
            except _Refused as refused:
                self.note(refused, place)
        if len(self.errors) > errors_before:
            return {}
        try:
            return section.finish(values)
        except _Refused as refused:
            self.note(refused, path)
            return {}


def _unknown(key: object, section: _Section) -> _Refused:
    text = str(key)[:128]
    near = difflib.get_close_matches(text, section.fields, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(section.fields)}"
    return _Refused("unknown key", hint, _printable(text))


def _convert(value: Any, hint: Any) -> Any:
    """`value` as the type `hint` of a document's field. Raises _Refused in words for people."""
    alternatives = [each for each in _alternatives(hint) if each is not UnsetType]
    mapping = next((each for each in alternatives if get_origin(each) is dict), None)
    if mapping is not None and isinstance(value, Mapping):
        return {_key(key): _item(key, item, get_args(mapping)[1]) for key, item in value.items()}
    _check_unicode(value)
    try:
        return msgspec.convert(value, Union[tuple(alternatives)])  # noqa: UP007 - made at run time
    except msgspec.ValidationError as error:
        enum = next((each for each in alternatives if isinstance(each, type) and issubclass(each, Enum)), None)
        if enum is not None:
            choices = [str(member.value) for member in enum]
            near = difflib.get_close_matches(str(value)[:128], choices, n=1)
            hint = f"did you mean {near[0]!r}?" if near else ""
            raise _Refused(f"{_shown(value)} is not one of {', '.join(choices)}", hint) from None
        raise _explained(str(error), value) from None
    except RecursionError:
        raise _Refused("is nested too deeply") from None


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise _Refused(f"the key {_shown(key)} is not text", "put it in quotes")
    _check_unicode(key)
    return key


def _item(key: object, value: Any, hint: Any) -> Any:
    try:
        return _convert(value, hint)
    except _Refused as refused:
        raise _Refused(refused.cause, refused.hint, _join(_printable(str(key)[:128]), refused.path)) from None


_EXPECTED = re.compile(r"Expected `([^`]*)`(?:, got `([^`]*)`)?")
_PLACE = re.compile(r" - at `\$([^`]*)`")
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "array": "a list",
    "object": "a mapping",
    "bool": "true or false",
    "null": "nothing",
}


def _explained(message: str, value: Any) -> _Refused:
    """msgspec's message in words for people."""
    place = _PLACE.search(message)
    path = place[1] if place else ""
    match = _EXPECTED.match(message)
    if match is None:
        return _Refused(message.split(" - at ", maxsplit=1)[0].replace("`", "'"), path=path)
    names = [name.strip() for name in match[1].split("|")]
    if "float" in names and "int" in names:
        names.remove("int")
    expected = " or ".join(_KINDS.get(name, name) for name in names)
    got = _shown(value) if not path and not isinstance(value, list | Mapping) else _KINDS.get(match[2], match[2])
    hint = "put it in quotes" if names == ["str"] and match[2] in ("int", "float", "bool") else ""
    return _Refused(f"expected {expected}, not {got}", hint, path)


def _check_unicode(value: Any) -> None:
    """Refuse text that has no UTF-8 form (lone surrogates)."""
    for text in _texts(value):
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise _Refused("is not valid Unicode") from None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield from (item for item in value if isinstance(item, str))


def _size(text: str) -> int:
    return len(text.encode())


def _kind_of(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case list() | tuple():
            return "a list"
        case bool() | int() | float() | str():
            return _shown(value)
        case _:
            return type(value).__name__


def _shown(value: object) -> str:
    """A value in a sentence: short, and never a container's content."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_INTEGER:
        return "the number"
    if not isinstance(value, bool | int | float | str):
        return _kind_of(value)
    text = repr(value)
    return _printable(text if len(text) <= 80 else f"{text[:77]}…")


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def _join(path: str, key: str) -> str:
    if not path or not key or key.startswith("["):
        return path + key
    return f"{path}.{key}"
