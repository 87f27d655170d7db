"""The report as one HTML file that needs nothing but itself: no network, no other file, and no script but its own.

The document lies in it as JSON, and everything that it says reaches the page as text, never as markup. Should markup slip in
all the same, the page's content security policy lets nothing run whose hash isn't named in it, and nothing be fetched at all.
"""

from __future__ import annotations

import base64
import hashlib
import html
from importlib.resources import files
from string import Template

import msgspec

from chaos.report import summary, text
from chaos.report.document import Document

SCRIPTS = ("dom.js", "verdicts.js", "scales.js", "timeline.js", "zoom.js", "strikes.js", "histories.js", "page.js")
_ESCAPED = str.maketrans(
    {"<": r"\u003c", ">": r"\u003e", "&": r"\u0026", "\u2028": r"\u2028", "\u2029": r"\u2029"}
)  # in JSON these stand in strings only


def render(document: Document) -> str:
    """The page's text, for a file in UTF-8."""
    style = _asset("page.css")
    script = "\n".join(['"use strict";', *map(_asset, SCRIPTS)])
    summed = summary.sum_up(document)
    headline = f"{summed.sentence[:1].upper()}{summed.sentence[1:]}"
    return Template(_asset("page.html")).substitute(
        policy=_policy(style, script),
        style=style,
        script=script,
        title=html.escape(f"{summed.sign} {headline} · {summary.name_run(document)}"),
        word=html.escape(summed.word),
        sign=html.escape(summed.sign),
        headline=html.escape(headline),
        run=html.escape(summary.name_run(document)),
        figures="".join(
            f"<div><dd>{html.escape(number)}</dd><dt>{html.escape(what)}</dt></div>"
            for number, what in summary.name_figures(document)
        ),
        plain=html.escape(text.render(document, colour=False)),
        document=embed(document),
    )


def embed(document: Document) -> str:
    """As JSON that can't end the script element which holds it, whatever its strings say."""
    return msgspec.json.encode(document).decode().translate(_ESCAPED)


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _asset(name: str) -> str:
    return files("chaos.report").joinpath("assets", name).read_text("utf-8")
