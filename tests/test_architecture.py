"""The layers of ARCHITECTURE.md hold: imports go down only, and pure packages stay pure.

`LAYERS` is the table. There is no list of exceptions: code that doesn't fit belongs elsewhere.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hasched"

EVERY = ("model", "timetable", "statemachine", "scheduler", "raft", "agent", "client", "certs", "api", "manager", "cli")
LAYERS: dict[str, tuple[str, ...]] = {
    "model": (),
    "timetable": ("model",),
    "statemachine": ("model",),
    "scheduler": ("model", "statemachine"),
    "raft": ("model", "statemachine"),
    "agent": ("model", "client"),
    "client": ("model",),
    "certs": ("model", "client"),
    "api": ("model", "timetable", "statemachine", "raft", "scheduler"),
    "manager": ("model", "timetable", "statemachine", "scheduler", "raft", "client", "api"),
    "cli": ("model", "timetable", "client", "certs", "manager", "agent"),
}
# Packages at the top, and what they may import of hasched. `cli` is the exit codes and how a command prints, nothing that
# knows what goes on inside a manager.
BESIDE: dict[str, tuple[str, ...]] = {"chaos": ("model", "client", "certs", "cli")}
PURE = (
    "model",
    "statemachine",
    "scheduler",
    "agent/core.py",
    "agent/attempts.py",
    "agent/reunion.py",
    "agent/outbox.py",
    "agent/specs.py",
    "agent/devices.py",
    "../chaos/checkers",
    "../chaos/judge.py",
    "../chaos/judging",
    "../chaos/merging.py",
)
IMPURE_MODULES = frozenset(
    """
    aiohttp asyncio concurrent datetime fcntl glob http io logging mmap multiprocessing os pathlib psutil pynvml random
    resource secrets select selectors shutil signal socket socketserver sqlite3 ssl structlog subprocess tempfile
    threading time tty urllib uuid uvloop zoneinfo
    """.split()
)
IMPURE_BUILTINS = frozenset({"open", "input", "print", "hash", "id", "eval", "exec", "compile", "__import__"})
FORBIDDEN_EVERYWHERE = frozenset({"pickle", "marshal", "shelve", "dill"})


def modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, path: Path) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports in full, so that this test can read them"
            module = node.module or ""
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return found


def impurities(source: str) -> list[str]:
    """Sentences about what in `source` reads the world or leaks an order: imports, builtins, iteration over sets."""
    tree = ast.parse(source)
    found = []
    for line, name in imports(tree, Path("<source>")):
        if name.split(".")[0] in IMPURE_MODULES:
            found.append(
                f"line {line} imports {name}: a pure module has no clock, randomness, socket, thread, file or OS"
            )
    sets = _names_of_sets(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_BUILTINS:
            found.append(f"line {node.lineno} calls {node.func.id}(): its value depends on more than its arguments")
        for iterated in _iterated(node):
            if _is_set(iterated, sets):
                found.append(f"line {iterated.lineno} iterates over a set: its order differs from process to process")
    return found


def _iterated(node: ast.AST) -> list[ast.expr]:
    match node:
        case ast.For() | ast.comprehension() | ast.YieldFrom():
            return [node.iter if not isinstance(node, ast.YieldFrom) else node.value]
        case ast.Starred():
            return [node.value]
        case ast.Call(
            func=ast.Name(id="list" | "tuple" | "enumerate" | "iter" | "map" | "zip" | "next" | "dict"), args=args
        ):
            return list(args)
        case ast.Call(func=ast.Attribute(attr="join" | "extend" | "fromkeys"), args=args):
            return list(args)
        case ast.Call(func=ast.Attribute(attr="pop", value=value), args=[]):
            return [value]
        case _:
            return []


def _is_set(node: ast.expr, sets: frozenset[str]) -> bool:
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
        case ast.Call(func=ast.Attribute(attr="union" | "intersection" | "difference" | "symmetric_difference")):
            return True
        case ast.BinOp(op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), left=left, right=right):
            return _is_set(left, sets) or _is_set(right, sets)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in sets
        case _:
            return False


def _names_of_sets(tree: ast.AST) -> frozenset[str]:
    """Names of variables, arguments and attributes that the module annotates as a set or assigns one to."""
    names: list[str] = []
    for node in ast.walk(tree):
        match node:
            case ast.AnnAssign(target=target, annotation=annotation) if _annotates_set(annotation):
                names += _target_names(target)
            case ast.arg(arg=name, annotation=ast.expr() as annotation) if _annotates_set(annotation):
                names.append(name)
            case ast.Assign(targets=targets, value=value) if _is_set(value, frozenset()):
                names += [name for target in targets for name in _target_names(target)]
    return frozenset(names)


def _annotates_set(annotation: ast.expr) -> bool:
    return ast.unparse(annotation).split("[")[0] in ("set", "frozenset", "AbstractSet", "Set", "MutableSet")


def _target_names(target: ast.expr) -> list[str]:
    match target:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return [name]
        case _:
            return []


@pytest.mark.parametrize("layer", EVERY)
def test_imports_go_down_only(layer: str) -> None:
    allowed = (*LAYERS[layer], layer)
    for path in modules(PACKAGE / layer):
        for line, name in imports(ast.parse(path.read_text()), path):
            parts = name.split(".")
            assert parts[0] not in FORBIDDEN_EVERYWHERE, (
                f"{path.relative_to(ROOT)}:{line} imports {parts[0]}: never here"
            )
            if parts[0] == "hasched" and len(parts) > 1 and parts[1] in EVERY:
                assert parts[1] in allowed, (
                    f"{path.relative_to(ROOT)}:{line}: hasched/{layer}/ imports {name}; "
                    f"of hasched it may import {', '.join(LAYERS[layer]) or 'nothing'}"
                )
            if parts[0] == "pysyncobj":
                assert layer == "raft", f"{path.relative_to(ROOT)}:{line}: only hasched/raft/ may import pysyncobj"


@pytest.mark.parametrize("name", BESIDE)
def test_what_stands_beside_the_product_works_from_outside(name: str) -> None:
    for path in modules(ROOT / name):
        for line, imported in imports(ast.parse(path.read_text()), path):
            parts = imported.split(".")
            assert parts[0] not in (*FORBIDDEN_EVERYWHERE, "pysyncobj"), f"{path}:{line} imports {parts[0]}: never here"
            assert parts[0] != "hasched" or parts[1] in BESIDE[name], (
                f"{path.relative_to(ROOT)}:{line}: {name}/ imports {imported}; "
                f"of hasched it may import {', '.join(BESIDE[name])}"
            )
    for path in modules(PACKAGE):
        for line, imported in imports(ast.parse(path.read_text()), path):
            assert imported.split(".")[0] != name, f"{path.relative_to(ROOT)}:{line}: the product imports {imported}"


def test_every_folder_has_its_row() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == LAYERS.keys(), "a new package needs its row in LAYERS and in ARCHITECTURE.md"


@pytest.mark.parametrize("place", PURE)
def test_pure_modules_are_pure(place: str) -> None:
    root = PACKAGE / place
    for path in [root] if root.is_file() else modules(root):
        for sentence in impurities(path.read_text()):
            pytest.fail(f"{path.resolve().relative_to(ROOT)}: {sentence}")


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("import time", id="a clock"),
        pytest.param("from random import random", id="a random source"),
        pytest.param("open('x')", id="a file"),
        pytest.param("for x in {1, 2}: pass", id="a loop over a set display"),
        pytest.param("def f(names: set[str]) -> list[str]:\n    return [n for n in names]", id="a set argument"),
        pytest.param(
            "class A:\n    def __init__(self): self.s = set()\n    def f(self): return list(self.s)", id="a set field"
        ),
        pytest.param("s = set(); t = (*(s | {1}),)", id="a union of sets"),
        pytest.param("s = frozenset('ab'); ','.join(s)", id="a join over a set"),
        pytest.param("s = {1, 2}; s.pop()", id="popping any element of a set"),
    ],
)
def test_the_check_sees(source: str) -> None:
    assert impurities(source)


def test_sorting_a_set_is_allowed() -> None:
    assert not impurities("s = {1, 2}\nfor x in sorted(s): pass\nprint_ = 1 in s")
