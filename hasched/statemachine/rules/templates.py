"""Templates: put as a new version each time, deleted whole. What was made of one doesn't change with it."""

from __future__ import annotations

from hasched.model.ids import is_name
from hasched.statemachine.commands import DeleteTemplate, PutTemplate
from hasched.statemachine.outcomes import Rejected, TemplateTaken
from hasched.statemachine.rules import Decision
from hasched.statemachine.state import State
from hasched.statemachine.templates import (
    MAX_DOCUMENT_BYTES,
    MAX_TEMPLATE_BYTES,
    MAX_TEMPLATES,
    MAX_VERSIONS,
    TEMPLATE_KINDS,
    Template,
    TemplateVersion,
)
from hasched.statemachine.workflow_events import TemplateDeleted, TemplatePut


def decide_put(state: State, command: PutTemplate) -> Decision | Rejected:
    kind, name = command.kind, command.name
    if kind not in TEMPLATE_KINDS or not is_name(name) or not 0 < len(command.document) <= MAX_DOCUMENT_BYTES:
        return Rejected("invalid_template", f"{kind[:20]}/{name[:100]} is no template, or too large", "see the API")
    present = state.templates.get((kind, name))
    if present is not None and present.latest.document == command.document:
        return Decision([], TemplateTaken(present.latest.version))
    version = present.latest.version if present is not None else 0
    if command.if_version is not None and command.if_version != version:
        return Rejected(
            "template_changed",
            f"{kind}/{name} is at version {version}, not {command.if_version}",
            "look at it, and try again",
        )
    if present is None and len(state.templates) >= MAX_TEMPLATES:
        return Rejected("too_many_templates", f"a cluster has at most {MAX_TEMPLATES} templates", "delete some")
    if state.template_bytes + len(command.document) > MAX_TEMPLATE_BYTES:
        return Rejected("too_many_templates", f"templates are {MAX_TEMPLATE_BYTES} bytes at most", "delete some")
    return Decision([TemplatePut(kind, name, version + 1, command.document, command.actor)], TemplateTaken(version + 1))


def decide_delete(state: State, command: DeleteTemplate) -> Decision | Rejected:
    if (command.kind, command.name) not in state.templates:
        return Rejected(
            "no_such_template",
            f"there is no {command.kind[:20]} template {command.name[:100]}",
            "see `hasched template list`",
        )
    return Decision([TemplateDeleted(command.kind, command.name, command.actor)])


def evolve_put(state: State, event: TemplatePut) -> None:
    key = (event.kind, event.name)
    present = state.templates.get(key)
    before = present.versions if present is not None else ()
    version = TemplateVersion(event.version, event.document, event.actor, state.now_ms, state.index)
    template = state.templates[key] = Template(event.kind, event.name, (*before, version)[-MAX_VERSIONS:])
    state.template_bytes += template.size - (present.size if present is not None else 0)


def evolve_deleted(state: State, event: TemplateDeleted) -> None:
    state.template_bytes -= state.templates.pop((event.kind, event.name)).size
