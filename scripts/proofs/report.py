"""What a proof says: a Markdown table for people, one JSON object for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


@dataclass
class Proof:
    """`rows` are cases, under `columns`; `facts` sum them up; each of the `violations` is a sentence about a broken promise."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[object]] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def add(self, *row: object) -> None:
        assert len(row) == len(self.columns)
        self.rows.append(row)
        say("  ".join(map(str, row)))

    def violate(self, sentence: str) -> None:
        self.violations.append(sentence)
        say(f"VIOLATION: {sentence}")

    def to_text(self) -> str:
        lines = [f"## {self.title}", "", _line(self.columns), _line(["---"] * len(self.columns))]
        lines += [_line(row) for row in self.rows]
        if self.facts:
            lines += ["", *(f"- {name}: {value}" for name, value in self.facts.items())]
        lines += ["", *(f"**VIOLATION**: {each}" for each in self.violations or [])]
        return "\n".join(lines if self.violations else [*lines, "No promise was broken."])

    def to_json(self) -> str:
        cases = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        whole = {"title": self.title, "facts": self.facts, "violations": self.violations, "cases": cases}
        return json.dumps(whole, indent=2, default=str)


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
