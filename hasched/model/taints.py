"""Taints: marks of a node that keep away every job that doesn't say it tolerates them.

As text: `KEY`, `KEY=VALUE`, and behind either `:avoid` for one that only makes the node a last resort.
"""

from __future__ import annotations

import re

import msgspec

from hasched.model.ids import is_name
from hasched.model.spec import EVERY, Toleration
from hasched.model.states import TaintEffect

MAX_VALUE_CHARS = 128
_TAINT = re.compile(r"([^=:]*)(?:=([^:]*))?(?::(.*))?")


class Taint(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    key: str
    value: str = ""
    effect: TaintEffect = TaintEffect.NO_START

    def is_tolerated(self, tolerations: tuple[Toleration, ...]) -> bool:
        return any(each.key in (self.key, EVERY) and each.value in (None, self.value) for each in tolerations)

    def __str__(self) -> str:
        value = f"={self.value}" if self.value else ""
        effect = "" if self.effect is TaintEffect.NO_START else f":{self.effect.value}"
        return f"{self.key}{value}{effect}"


def parse_taint(text: str) -> Taint:
    """Raises ValueError with a sentence."""
    match = _TAINT.fullmatch(text)
    key, value, effect = match.groups() if match is not None else ("", None, None)
    if not is_name(key):
        raise ValueError(f"{text!r} is not a taint; write it as KEY or KEY=VALUE, with :avoid behind it for a soft one")
    _check_value(text, value)
    try:
        return Taint(key, value or "", TaintEffect(effect) if effect is not None else TaintEffect.NO_START)
    except ValueError:
        effects = " or ".join(each.value for each in TaintEffect)
        raise ValueError(f"{text!r} has no known effect; behind the colon stands {effects}") from None


def parse_toleration(text: str) -> Toleration:
    """`KEY` tolerates the taint whatever its value, `KEY=VALUE` with this one, `*` all. Raises ValueError with a sentence."""
    key, equals, value = text.partition("=")
    if not is_name(key) and text != EVERY:
        raise ValueError(f"{text!r} is not a toleration; write it as KEY, KEY=VALUE or '*'")
    _check_value(text, value)
    return Toleration(key, value if equals else None)


def format_toleration(toleration: Toleration) -> str:
    return toleration.key if toleration.value is None else f"{toleration.key}={toleration.value}"


def _check_value(text: str, value: str | None) -> None:
    if value and (len(value) > MAX_VALUE_CHARS or not value.isprintable()):
        raise ValueError(f"{text[:MAX_VALUE_CHARS]!r} has a value that is too long, or not printable")
