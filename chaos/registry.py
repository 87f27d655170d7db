"""Which nemeses, workloads and drills there are: every concrete class in the modules of their packages, and in files that an
operator names. A module that is put there is found; nothing else has to know of it."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import chaos.drills
import chaos.nemeses
import chaos.workloads
from chaos.drills.base import Drill
from chaos.nemeses.base import Nemesis
from chaos.workloads.base import Workload
from hasched.model.errors import BadRequest, NotFound

T = TypeVar("T", Nemesis, Workload, Drill)


class Registry:
    """Everything by its name, sorted. `files` are Python files of the operator's own; their code runs as it is loaded."""

    def __init__(self, files: Sequence[Path] = ()) -> None:
        more = [_load(path) for path in files]
        self.nemeses = _collect(Nemesis, [*_modules(chaos.nemeses), *more])  # type: ignore[type-abstract]
        self.workloads = _collect(Workload, [*_modules(chaos.workloads), *more])  # type: ignore[type-abstract]
        self.drills = _collect(Drill, [*_modules(chaos.drills), *more])  # type: ignore[type-abstract]

    def choose_nemeses(self, wanted: Sequence[str], unwanted: Sequence[str] = ()) -> list[Nemesis]:
        """Those of these names or families; all, if none is named. Raises NotFound."""
        families = {each.family.value for each in self.nemeses.values()}
        for name in (*wanted, *unwanted):
            if name not in self.nemeses and name not in families:
                raise NotFound(f"there is no nemesis or family called {name!r}", "see `hasched chaos list`")

        def is_named(nemesis: Nemesis, names: Sequence[str]) -> bool:
            return nemesis.name in names or nemesis.family.value in names

        chosen = [each for each in self.nemeses.values() if not wanted or is_named(each, wanted)]
        return [each for each in chosen if not is_named(each, unwanted)]

    def choose_workloads(self, wanted: Sequence[str]) -> list[Workload]:
        return [_named(self.workloads, name, "workload") for name in wanted] or list(self.workloads.values())

    def choose_drills(self, wanted: Sequence[str]) -> list[Drill]:
        return [_named(self.drills, name, "drill") for name in wanted] or list(self.drills.values())


def _named(known: dict[str, T], name: str, what: str) -> T:
    if name not in known:
        raise NotFound(f"there is no {what} called {name!r}", "see `hasched chaos list`")
    return known[name]


def _modules(package: ModuleType) -> list[ModuleType]:
    names = sorted(each.name for each in pkgutil.iter_modules(package.__path__))
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]


def _load(path: Path) -> ModuleType:
    """Raises BadRequest if it isn't Python that can be loaded."""
    spec = importlib.util.spec_from_file_location(f"chaos_file_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise BadRequest(f"{path} is not a Python file", "give a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever is wrong with somebody's file
        raise BadRequest(f"{path} can't be loaded: {type(error).__name__}: {error}", "mend it and try again") from error
    return module


def _collect(kind: type[T], modules: Iterable[ModuleType]) -> dict[str, T]:
    found: dict[str, T] = {}
    for module in modules:
        for _, each in inspect.getmembers(module, inspect.isclass):
            if issubclass(each, kind) and not inspect.isabstract(each) and each.__module__ == module.__name__:
                if each.name in found:
                    raise BadRequest(f"{module.__name__} has another {each.name!r}", "give it another name")
                found[each.name] = each()
    return dict(sorted(found.items()))
