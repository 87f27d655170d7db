"""The job document: a job spec as people write it, in JSON or YAML. `hasched.model.parse` makes it a `JobSpec`.

Quantities may be numbers or text with a unit. What is left out gets the cluster's defaults. The JSON Schema and the API
reference are made from these structs.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from hasched.model.states import BackoffKind, OnDisconnect, RestartPolicy

Duration = int | float | str
Quantity = int | float | str


class _Section(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    pass


class InputDocument(_Section):
    """A payload that is not text."""

    base64: Annotated[str | UnsetType, Meta(description="The bytes in base64.")] = UNSET


class BackoffDocument(_Section):
    """How long a failed task waits before it is tried again."""

    kind: Annotated[BackoffKind | UnsetType, Meta(description="How the wait grows.")] = UNSET
    initial: Annotated[Duration | UnsetType, Meta(description="The first wait: `10s`.")] = UNSET
    max: Annotated[Duration | UnsetType, Meta(description="The longest wait: `5m`.")] = UNSET
    multiplier: Annotated[
        int | float | UnsetType, Meta(description="An exponential wait grows so many times each time.")
    ] = UNSET


class RetriesDocument(_Section):
    """Attempts after the first."""

    max: Annotated[int | UnsetType, Meta(description="After a failure of the task itself.")] = UNSET
    node_lost: Annotated[int | UnsetType, Meta(description="After the loss of its node; a budget of its own.")] = UNSET
    backoff: BackoffDocument | UnsetType = UNSET


class ResourcesDocument(_Section):
    """What each task holds while it runs."""

    cpu: Annotated[Quantity | UnsetType, Meta(description="Cores: `2`, `0.5`, `500m`.")] = UNSET
    memory: Annotated[int | str | UnsetType, Meta(description="`512Mi`, `4G`, or bytes.")] = UNSET
    gpus: Annotated[int | float | UnsetType, Meta(description="Whole GPUs.")] = UNSET
    countables: Annotated[
        dict[str, int] | UnsetType, Meta(description="Other things that nodes have a number of: `{licence: 2}`.")
    ] = UNSET


class JobDocument(_Section):
    """A job as it is submitted. Exactly one of `command` and `script` is given."""

    name: Annotated[str | UnsetType, Meta(description="Not unique; by default the command's name.")] = UNSET
    command: Annotated[list[str] | UnsetType, Meta(description="Program and arguments; no shell is involved.")] = UNSET
    script: Annotated[str | UnsetType, Meta(description="Run by its `#!` line, or by `/bin/sh`.")] = UNSET
    env: Annotated[dict[str, str] | UnsetType, Meta(description="Environment variables.")] = UNSET
    working_dir: Annotated[
        str | UnsetType, Meta(description="An absolute path on the node; by default the attempt's own directory.")
    ] = UNSET
    input: Annotated[
        str | InputDocument | UnsetType, Meta(description="Handed to every task as the file `HASCHED_INPUT`.")
    ] = UNSET
    count: Annotated[int | UnsetType, Meta(description="So many tasks, numbered from 0: an array job.")] = UNSET
    max_running: Annotated[int | UnsetType, Meta(description="At most so many tasks at once; 0: no cap.")] = UNSET
    resources: ResourcesDocument | UnsetType = UNSET
    timeout: Annotated[Duration | UnsetType, Meta(description="Of each attempt: `10s`, `1h30m`; 0: none.")] = UNSET
    kill_grace: Annotated[Duration | UnsetType, Meta(description="Between TERM and KILL.")] = UNSET
    retries: Annotated[
        int | RetriesDocument | UnsetType, Meta(description="A number is short for `{max: number}`.")
    ] = UNSET
    restart: Annotated[RestartPolicy | UnsetType, Meta(description="`never` switches every retry off.")] = UNSET
    success_exit_codes: Annotated[list[int] | UnsetType, Meta(description="By default only 0.")] = UNSET
    on_disconnect: Annotated[
        OnDisconnect | UnsetType,
        Meta(description="On a node that is cut off, `run_on`, or `stop` before it can run twice at once."),
    ] = UNSET
    labels: Annotated[dict[str, str] | UnsetType, Meta(description="Marks to find the job by.")] = UNSET
    priority: Annotated[int | UnsetType, Meta(description="Larger starts first.")] = UNSET
    queue: Annotated[str | UnsetType, Meta(description="Where the job waits.")] = UNSET


def spec_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a job document."""
    return msgspec.json.schema(JobDocument)
