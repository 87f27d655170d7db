"""The report as a person reads it in the terminal, right after the run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click

from chaos.report import summary
from chaos.report.document import BROKEN, HELD, Document, DrillPart, Verdict
from hasched.cli.output import printable

SENTENCES = 5  # of one verdict; the page has more
GAPS = 3
LINES = 8  # of one sentence: a counterexample has many

_COLOURS = {HELD: "green", "passed": "green", BROKEN: "red", "failed": "red", summary.NOTHING: "bright_black"}
_UNDECIDED = "yellow"
_FADED = ("left out",)


def render(document: Document, files: Sequence[Path] = (), *, colour: bool = True) -> str:
    """Many lines, none at the end. Colours are for `click.echo`, which drops them where no terminal shows them; what others
    chose can't steer that terminal."""
    summed = summary.sum_up(document)
    lines = [
        printable(summary.name_run(document)),
        "",
        *_verdicts(document.verdicts),
        *_drills(document.drills),
        "",
        click.style(
            f"{summed.sign} {summed.sentence[:1].upper()}{summed.sentence[1:]}.", _colour(summed.word), bold=True
        ),
        *_section("calls", _calls(document)),
        *_section("longest times without an accepted submission", _gaps(document)),
        *_section("strikes", _strikes(document)),
        *_section("left out here", map(printable, document.head.left_out)),
        *_section("notes", map(printable, document.head.notes)),
        *_section("the report", map(str, files)),
        *_section("to do it again", [printable(document.head.command)]),
    ]
    text = "\n".join(lines)
    return text if colour else click.unstyle(text)


def _section(name: str, lines: Iterable[str]) -> Iterator[str]:
    """Nothing if there are no lines."""
    for number, line in enumerate(lines):
        if number == 0:
            yield from ("", name)
        yield f"  {line}"


def _colour(word: str) -> str:
    return _COLOURS.get(word, _UNDECIDED)


def _marked(word: str, name: str, width: int, more: str) -> str:
    sign = summary.SIGNS.get(word, summary.UNDECIDED_SIGN)
    coloured = click.style(f"{sign} {printable(name).ljust(width)}", None if word in _FADED else _colour(word))
    return f"  {coloured}  {printable(more)}".rstrip()


def _verdicts(verdicts: Sequence[Verdict]) -> Iterator[str]:
    width = max((len(printable(each.name)) for each in verdicts), default=0)
    for verdict in verdicts:
        word = "" if verdict.verdict == HELD else f"{verdict.verdict}: "
        yield _marked(verdict.verdict, verdict.name, width, word + (verdict.looked_at or "nothing was looked at"))
        if verdict.verdict != HELD:
            yield from _sentences(verdict.wrong)
            yield from _sentences(verdict.undecided)


def _drills(drills: Sequence[DrillPart]) -> Iterator[str]:
    width = max((len(printable(each.name)) for each in drills), default=0)
    for drill in drills:
        took = "" if drill.verdict == "left out" else summary.seconds(drill.seconds)
        yield _marked(drill.verdict, drill.name, width, ", ".join(filter(None, (drill.verdict, took))))
        yield from _sentences([drill.why] if drill.why else [])
        if len(drills) == 1:
            yield from (f"    {printable(line)}" for line in drill.evidence)


def _sentences(sentences: Sequence[str]) -> Iterator[str]:
    for sentence in sentences[:SENTENCES]:
        first, *more = sentence.splitlines() or [""]
        yield f"      - {printable(first)}"
        yield from (f"        {printable(line)}" for line in more[:LINES])
        if len(more) > LINES:
            yield "        …"
    if len(sentences) > SENTENCES:
        yield f"      and {len(sentences) - SENTENCES:,} more: see the page"


def _calls(document: Document) -> Iterator[str]:
    width = max((len(each.kind) for each in document.totals), default=0)
    for each in document.totals:
        counts = f"{each.returned:>8,} returned {each.failed:>7,} failed {each.unknown:>7,} unknown"
        yield f"{printable(each.kind).ljust(width)} {counts}"


def _gaps(document: Document) -> Iterator[str]:
    for gap in document.gaps[:GAPS]:
        during = "; ".join(gap.during[:3]) + (f"; {len(gap.during) - 3} more" if len(gap.during) > 3 else "")
        at = f"{summary.seconds(gap.until_s - gap.from_s):>6}  from {gap.from_s:.1f} s"
        yield printable(f"{at}, during {during}" if during else at)


def _strikes(document: Document) -> Iterator[str]:
    families = summary.by_family(document.strikes)
    width = max((len(family) for family in families), default=0)
    for family, strikes in families.items():
        names: dict[str, int] = {}
        for struck in strikes:
            names[struck.nemesis] = names.get(struck.nemesis, 0) + 1
        ended = [f"{count} {word}" for word, count in summary.outcomes(strikes).items() if word != "done"]
        told = ", ".join(f"{name} ×{count}" if count > 1 else name for name, count in names.items())
        line = f"{family.ljust(width)} {len(strikes):>4}  {told}"
        yield printable(f"{line} ({', '.join(ended)})" if ended else line)
