"""YAML documents as plain values that remember their lines.

Only data comes out: no tags, no anchors, no merge keys, no duplicate keys, bounded depth. A document that uses any of
these is refused with the line, so a file can neither run code nor grow when it is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import yaml
from yaml.composer import Composer

from hasched.model.errors import ConfigInvalid, FieldError

MAX_DEPTH = 32
MAX_TEXT_CHARS = 16 * 1024 * 1024

_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null"))
_UNQUOTED = re.compile(r"\s#\{")
_PATH_PART = re.compile(r"[^.\[\]]+")


class Document(msgspec.Struct, frozen=True):
    """One document of a file: its value, and the line (from 1) of each of its places, keyed by dotted path."""

    value: Any
    lines: dict[str, int]

    def line_of(self, path: str) -> int:
        """The line of `path` (`resources.gpus`, `members[1].api`), or of the nearest place above it that exists."""
        parts = _PATH_PART.findall(path)
        while parts and ".".join(parts) not in self.lines:
            parts.pop()
        return self.lines[".".join(parts)]


def read_documents(text: str, source: str, *, fillable: bool = False) -> list[Document]:
    """Every document of `text`, empty ones left out. Raises ConfigInvalid, which carries the line.

    `fillable`: `#{…}` means something in it. Where it begins a comment, somebody has forgotten the quotes.
    """
    if len(text) > MAX_TEXT_CHARS:
        raise ConfigInvalid(source, [FieldError("", f"the text is longer than {MAX_TEXT_CHARS} characters", line=1)])
    documents = []
    for node in _compose(text, source, fillable):
        lines: dict[str, int] = {}
        if fillable:
            _refuse_comments(node, text.splitlines(), source)
        value = _plain(node, "", lines, source)
        if value is not None:
            documents.append(Document(value, lines))
    return documents


def _advice(text: str) -> str:
    """What to do if the text is no YAML: a `#{` without quotes is a comment, which swallows what should close a list."""
    for number, line in enumerate(text.splitlines(), 1):
        if _holds_unquoted(line):
            return f"line {number}: a text with `#{{…}}` goes in quotes"
    return ""


def _holds_unquoted(line: str) -> bool:
    """Whether a `#{` stands behind something, and not in quotes."""
    start, quotes, others = len(line) - len(line.lstrip()), 0, 0
    for found in _UNQUOTED.finditer(line, start):
        quotes += line.count('"', start, found.start())
        others += line.count("'", start, found.start())
        start = found.start()
        if quotes % 2 == 0 and others % 2 == 0:
            return True
    return False


def _refuse_comments(node: yaml.Node, lines: list[str], source: str) -> None:
    """Raises ConfigInvalid where a plain text ends at a `#{`."""
    waiting: list[Any] = [node]
    while waiting:
        each = waiting.pop()
        if isinstance(each, tuple):
            waiting += each
        elif isinstance(each, yaml.CollectionNode):
            waiting += each.value
        elif not each.style and _rest_of_line(each, lines).startswith("#{"):
            raise _refusal(source, "", "a comment begins with `#{`: write the text before it in quotes", each)


def _rest_of_line(node: yaml.Node, lines: list[str]) -> str:
    mark: Any = node.end_mark
    return lines[mark.line][mark.column :].lstrip() if mark.line < len(lines) else ""


def _compose(text: str, source: str, fillable: bool) -> Iterator[yaml.Node]:
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            assert node is not None, "check_node saw one"
            yield node
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        advice = _advice(text) if fillable else ""
        raise ConfigInvalid(source, [FieldError("", error.problem or str(error), advice, line=line)]) from None
    except yaml.YAMLError as error:  # A character that YAML forbids: the reader gives a position, and no line.
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise ConfigInvalid(source, [FieldError("", str(error).splitlines()[0], line=line)]) from None
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise ConfigInvalid(source, [FieldError("", "a character is not Unicode", line=line)]) from None
    finally:
        if loader is not None:
            loader.dispose()


class _Loader(Composer, yaml.CSafeLoader):
    """Composes nodes, and refuses what could make a small text large or a deep one overflow.

    libyaml reads the text, which is seven times as fast; its own composer has no bound on depth, so ours is Python's.
    """

    def __init__(self, text: str) -> None:
        yaml.CSafeLoader.__init__(self, text)
        Composer.__init__(self)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        assert event is not None, "a stream has an end event"
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not allowed", problem_mark=mark)
        if self._depth >= MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {MAX_DEPTH} levels", problem_mark=mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def _plain(node: yaml.Node, path: str, lines: dict[str, int], source: str) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    match node:
        case yaml.MappingNode() if node.tag == "tag:yaml.org,2002:map":
            mapping: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = _key(key_node, path, source)
                place = f"{path}.{key}" if path else key
                if key in mapping:
                    raise _refusal(source, place, f"the key {key!r} appears twice", key_node)
                lines[place] = key_node.start_mark.line + 1
                mapping[key] = _plain(value_node, place, lines, source)
            return mapping
        case yaml.SequenceNode() if node.tag == "tag:yaml.org,2002:seq":
            prefix = f"{path}." if path else ""
            return [_plain(item, f"{prefix}{number}", lines, source) for number, item in enumerate(node.value)]
        case yaml.ScalarNode() if node.tag == "tag:yaml.org,2002:str":
            return node.value
        case yaml.ScalarNode() if node.tag in _PLAIN_TAGS:
            try:
                return yaml.SafeLoader("").construct_object(node)
            except ValueError as error:
                raise _refusal(source, path, str(error), node) from None
        case _:
            if node.tag == "tag:yaml.org,2002:timestamp" and isinstance(node, yaml.ScalarNode):
                return node.value
            raise _refusal(source, path, f"the tag {node.tag!r} is not allowed", node)


def _key(node: yaml.Node, path: str, source: str) -> str:
    """Keys are text as it is written: `yes: 1` means the key `yes`, and `8080: x` the key `8080`."""
    if not isinstance(node, yaml.ScalarNode) or node.tag == "tag:yaml.org,2002:merge":
        raise _refusal(source, path, "a key must be plain text", node)
    return str(node.value)


def _refusal(source: str, path: str, cause: str, node: yaml.Node) -> ConfigInvalid:
    return ConfigInvalid(source, [FieldError(path, cause, line=node.start_mark.line + 1)])
