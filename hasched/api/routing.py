"""Routes as data: the one table that answers requests, and from which the OpenAPI document and docs/api.md are made.

A handler is a typed function, and its signature is its contract: path parameters by name, `query` and `body` as structs
(or `body: bytes`, as it came), the answer as the struct that it returns. What doesn't fit never reaches it.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Generic, Literal, TypeAlias, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec
from aiohttp import web

from hasched.api.problem import MethodNotAllowed
from hasched.model.errors import BadRequest, MalformedBody, NotFound
from hasched.model.kinds import suggest
from hasched.model.units import format_duration

JSON_BODY_BYTES = 64 * 1024
MAX_QUERY_FIELDS = 100
MAX_PATH_ID = 2**53

Access: TypeAlias = Literal["open", "user", "agent"]
Handler: TypeAlias = Callable[..., Awaitable[Any]]
Q = TypeVar("Q", bound=msgspec.Struct)

_TOO_LONG = re.compile(r"Expected int <= (\d+) at (\w+_ms)")
_PARAMETER = re.compile(r"\{(\w+)\}")


class QueryReader(Generic[Q]):
    """Reads the query string into a struct; a parameter that the struct doesn't know is an error."""

    def __init__(self, kind: type[Q]) -> None:
        hints = typing.get_type_hints(kind)
        self._many = {
            field.name: typing.get_origin(hints[field.name]) is list for field in msgspec.structs.fields(kind)
        }
        self._kind = kind
        self._empty = None if any(field.required for field in msgspec.structs.fields(kind)) else kind()

    def read(self, text: str) -> Q:
        """Raises BadRequest."""
        if not text and self._empty is not None:
            return self._empty
        values: dict[str, Any] = {}
        try:
            pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
        except ValueError as error:
            raise BadRequest(f"the query can't be read: {error}", "encode it as UTF-8, percent-encoded") from None
        for name, value in pairs:
            many = self._many.get(name)
            if many is None:
                hint = suggest(name, self._many) or f"known are: {', '.join(self._many) or 'none'}"
                raise BadRequest(f"there is no query parameter {name[:80]!r} here", hint)
            if many:
                values.setdefault(name, []).append(value)
            elif name in values:
                raise BadRequest(f"the query parameter {name!r} is given twice", "give it once")
            else:
                values[name] = value
        try:
            return msgspec.convert(values, self._kind, strict=False)
        except msgspec.ValidationError as error:
            raise BadRequest(f"the query can't be used: {readable(error)}", "see /v1/openapi.json") from None


class Route:
    """One method of one path, and what its handler takes and gives."""

    def __init__(
        self,
        method: str,
        path: str,
        handler: Handler,
        *,
        status: int,
        aliases: tuple[str, ...],
        access: Access,
        by_leader: bool,
        body_bytes: int,
        document: str,
        tag: str,
    ) -> None:
        self.method = method
        self.path = path
        self.handler = handler
        self.status = status
        self.aliases = aliases
        self.access: Access = access
        self.by_leader = by_leader
        self.body_bytes = body_bytes
        self.document = document
        self.tag = tag
        hints = typing.get_type_hints(handler)
        self.returns: Any = hints.pop("return")
        parameters = [name for name in inspect.signature(handler).parameters if name != "call"]
        self.query_type: type[msgspec.Struct] | None = hints.get("query")
        self.body_type: Any = hints.get("body")
        assert method == "GET" or not by_leader, f"{path}: only a GET can be passed on to the leader"
        self.path_types: dict[str, type] = {name: hints[name] for name in parameters if name not in ("query", "body")}
        assert set(_PARAMETER.findall(path)) == set(self.path_types), f"{path} and its handler disagree"
        streams = isinstance(self.returns, type) and issubclass(self.returns, web.StreamResponse)
        whole = not streams or issubclass(self.returns, web.Response)
        self.answers_head = method == "GET" and whole and not by_leader
        self.query = QueryReader(self.query_type) if self.query_type else None
        self._body = msgspec.json.Decoder(self.body_type) if self.body_type not in (None, bytes) else None

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.handler) or "").split("\n")[0]

    @property
    def description(self) -> str:
        return inspect.getdoc(self.handler) or ""

    def read_body(self, data: bytes) -> Any:
        """Raises MalformedBody for what is not JSON, BadRequest for JSON that is something else."""
        if self._body is None:
            return data
        try:
            return self._body.decode(data or b"{}")
        except msgspec.ValidationError as error:
            raise BadRequest(f"the body can't be used: {readable(error)}", "see /v1/openapi.json") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MalformedBody(f"this is not JSON: {error}") from None
        except RecursionError:
            raise MalformedBody("this JSON is nested too deeply") from None


def readable(error: Exception) -> str:
    """msgspec's message in our own words: no backquotes, places without their `$.`, and what a bound in ms comes to."""
    told = str(error).replace("`", "").replace(" - at $.", " at ").replace(" - at $", "")
    if bound := _TOO_LONG.fullmatch(told):
        return f"{bound[2]} must be at most {bound[1]}, which is {format_duration(int(bound[1]))}"
    return told


class Routes:
    """The routes of one module, gathered by decorators."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self.table: list[Route] = []

    def add(
        self,
        method: str,
        path: str,
        *,
        status: int = 200,
        aliases: tuple[str, ...] = (),
        access: Access = "user",
        by_leader: bool = False,
        body_bytes: int = JSON_BODY_BYTES,
        document: str = "JobDocument",
    ) -> Callable[[Handler], Handler]:
        """`by_leader`: only the leader can answer, so other managers pass the request on. `document`: the schema of a body that
        is taken as it came."""

        def register(handler: Handler) -> Handler:
            self.table.append(
                Route(
                    method,
                    path,
                    handler,
                    status=status,
                    aliases=aliases,
                    access=access,
                    by_leader=by_leader,
                    body_bytes=body_bytes,
                    document=document,
                    tag=self._tag,
                )
            )
            return handler

        return register


class Router:
    """Finds the route of a request. Paths without parameters are one look-up, the others are matched part by part."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._fixed: dict[str, dict[str, Route]] = {}
        self._patterns: dict[int, list[tuple[tuple[str | None, ...], tuple[str, ...], dict[str, Route]]]] = {}
        for route in routes:
            for path in (route.path, *route.aliases):
                self._methods_of(path)[route.method] = route

    def _methods_of(self, path: str) -> dict[str, Route]:
        names = tuple(_PARAMETER.findall(path))
        if not names:
            return self._fixed.setdefault(path, {})
        parts = tuple(None if _PARAMETER.fullmatch(part) else part for part in path.split("/"))
        candidates = self._patterns.setdefault(len(parts), [])
        for known, _, known_methods in candidates:
            if known == parts:
                return known_methods
        methods: dict[str, Route] = {}
        candidates.append((parts, names, methods))
        return methods

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, Any]]:
        """The route and its path parameters. Raises NotFound, MethodNotAllowed."""
        fixed = self._fixed.get(path)
        if fixed is not None and method in fixed:
            return fixed[method], {}
        parts = path.split("/")
        for pattern, names, methods in self._patterns.get(len(parts), ()):
            if fixed is not None and method not in methods:
                continue  # a name may be a word that a fixed path has, too
            if all(known is None or known == part for known, part in zip(pattern, parts, strict=True)):
                route = _choose(methods, method)
                values = [part for known, part in zip(pattern, parts, strict=True) if known is None]
                return route, _read_path(route, names, values)
        if fixed is not None:
            return _choose(fixed, method), {}
        raise NotFound("there is nothing at this path", "see /v1/openapi.json")


def _choose(methods: dict[str, Route], method: str) -> Route:
    route = methods.get(method)
    if route is not None:
        return route
    head = methods.get("GET")  # what it would say, without its body
    if head is not None and head.answers_head:
        if method == "HEAD":
            return head
        raise MethodNotAllowed(method, sorted([*methods, "HEAD"]))
    raise MethodNotAllowed(method, sorted(methods))


def _read_path(route: Route, names: tuple[str, ...], values: list[str]) -> dict[str, Any]:
    read: dict[str, Any] = {}
    for name, value in zip(names, values, strict=True):
        if route.path_types[name] is not int:
            read[name] = unquote(value)
        elif value.isascii() and value.isdigit() and len(value) <= 16 and int(value) < MAX_PATH_ID:
            read[name] = int(value)
        else:
            raise NotFound(f"{value[:40]!r} is no {name}", "it is a number")
    return read
