"""Templates: documents of jobs and workflows that are kept under a name, in versions."""

from __future__ import annotations

import msgspec

TEMPLATE_KINDS = ("job", "workflow")
MAX_TEMPLATES = 10_000
MAX_VERSIONS = 50  # of one template, the latest
MAX_DOCUMENT_BYTES = 1024 * 1024
MAX_TEMPLATE_BYTES = 128 * 1024 * 1024  # of all together


class TemplateVersion(msgspec.Struct, frozen=True, array_like=True):
    """`document` is JSON text."""

    version: int
    document: bytes
    actor: str
    put_ms: int
    log_index: int


class Template(msgspec.Struct, frozen=True, array_like=True):
    """`versions` are those that are kept, ascending; the last counts."""

    kind: str
    name: str
    versions: tuple[TemplateVersion, ...]

    @property
    def latest(self) -> TemplateVersion:
        return self.versions[-1]

    @property
    def size(self) -> int:
        return sum(len(each.document) for each in self.versions)

    def find(self, version: int) -> TemplateVersion | None:
        return next((each for each in self.versions if each.version == version), None)
