"""What notification policies and a job's `notify` say, as people write it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from hasched.model import kinds
from hasched.model.kinds import Field, Kind, Problems, describe, set_of
from hasched.model.notices import Channel, NotifyRule, Topic

MAX_URL_BYTES = 2048
MAX_RECIPIENTS = 50
MAX_TARGETS = 16  # of a job or a workflow
MIN_RETRY_MS = 100
MAX_GIVE_UP_MS = 30 * 86_400_000

_URL = re.compile(r"https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?(?:[/?#][^\s\\]*)?")
_ADDRESS = re.compile(r"[^\s@<>,;:\"()\\]+@[A-Za-z0-9.-]+", re.ASCII)
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_NEEDED = {  # of a channel: what it needs, and what it may have besides
    Channel.WEBHOOK: ("secret_file", ("url", "url_file")),
    Channel.EMAIL: ("recipients", ()),
    Channel.SLACK: ("url_file", ()),
    Channel.APPRISE: ("url_file", ()),
}


def is_url(text: str) -> bool:
    """Whether it is an http or https URL without a user, a space or a control character."""
    return len(text) <= MAX_URL_BYTES and _URL.fullmatch(text) is not None and text.isprintable()


def _matching(good: Callable[[str], bool], what: str, schema: dict[str, Any]) -> Kind:
    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, str) or not good(value):
            problems.note(place, f"must be {what}, not {describe(value)}")
        return value

    return Kind(read, {"type": "string", **schema})


def _topic(topics: Iterable[Topic]) -> Kind:
    known = {topic.value: None for topic in topics}

    def read(value: Any, place: str, problems: Problems) -> Any:
        if not isinstance(value, str) or value not in known:
            hint = kinds.suggest(value, known) if isinstance(value, str) else ""
            problems.note(
                place, f"{describe(value)} is no event that is told", hint or f"there are: {', '.join(known)}"
            )
        return value

    return Kind(read, {"enum": list(known)})


URL = _matching(is_url, "an http or https URL, without a user", {"format": "uri"})
FILE = _matching(
    lambda text: _FILE.fullmatch(text) is not None,
    "the name of a file in the managers' directory of secrets, without a path",
    {"pattern": f"^{_FILE.pattern}$"},
)
_EMAIL = _matching(
    lambda text: len(text) <= 254 and _ADDRESS.fullmatch(text) is not None,
    "an e-mail address such as ada@example.com",
    {"format": "email"},
)
ADDRESSES = set_of(_EMAIL, MAX_RECIPIENTS, "e-mail addresses")
TOPICS = set_of(_topic(Topic), len(Topic), "events")


def _notify(topics: Iterable[Topic], events: tuple[Topic, ...]) -> Kind:
    """Of what has these topics; `events` are those that are told of where it doesn't say."""
    keys = kinds.mapping(
        {
            "targets": Field("targets", kinds.names(MAX_TARGETS), "Names of notification policies."),
            "events": Field("events", set_of(_topic(topics), len(Topic), "events"), "What of."),
        },
        f"a mapping such as {{targets: [ops], events: [{events[0]}]}}",
    )

    def read(value: Any, place: str, problems: Problems) -> Any:
        before = len(problems)
        given = {"events": tuple(each.value for each in events)} | keys.read(value, place, problems)
        if len(problems) == before:
            for key in ("targets", "events"):
                if not given.get(key):
                    problems.note(f"{place}.{key}", "is empty" if key in given else "is missing")
        return NotifyRule(**given) if len(problems) == before else None

    return Kind(read, {**keys.schema, "required": ["targets"]})


NOTIFY = _notify((each for each in Topic if each.of_jobs), (Topic.JOB_FAILED, Topic.JOB_SUCCEEDED))
NOTIFY_OF_WORKFLOW = _notify(
    (each for each in Topic if each.of_workflows), (Topic.WORKFLOW_FAILED, Topic.WORKFLOW_SUCCEEDED)
)


def check_notification(given: dict[str, Any], problems: Problems) -> None:
    """What one key of a notification policy alone can't show."""
    channel: Channel = given["to"]
    needed, other = _NEEDED[channel]
    if not given.get(needed):
        problems.note(needed, "is missing", f"{channel} needs it")
    if other and bool(given.get("url")) == bool(given.get("url_file")):
        problems.note("url", "is missing" if not given.get("url") else "and `url_file` exclude each other", "give one")
    for key in ("url", "url_file", "secret_file", "recipients"):
        if given.get(key) and key not in (needed, *other):
            problems.note(key, f"means nothing for {channel}", "leave it out")
    first_ms, most_ms = given.get("retry_after_ms", 5_000), given.get("retry_at_most_ms", 3_600_000)
    if not first_ms >= MIN_RETRY_MS:
        problems.note("retry_after", "must be at least 100ms")
    if first_ms > most_ms:
        problems.note("retry_at_most", "must not be shorter than `retry_after`")
    if given.get("give_up_after_ms", 0) > MAX_GIVE_UP_MS:
        problems.note("give_up_after", "must be at most 30d")
