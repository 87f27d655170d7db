"""The configuration files of a cluster's daemons, found by their command lines, for drills that change them."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from chaos.drills.scene import Scene, Unmet

Config = dict[str, Any]


def config_file(scene: Scene, name: str) -> Path:
    """That of a daemon which runs now. Raises Unmet if it doesn't, or was started without `--config`."""
    pid = scene.cluster.processes.pid(name)
    if pid is None:
        raise Unmet(f"{name} is down, so its configuration can't be found")
    words = [os.fsdecode(word) for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]
    for word, following in pairwise(words):
        if word == "--config":
            return Path(following)
        if word.startswith("--config="):
            return Path(word.removeprefix("--config="))
    raise Unmet(f"{name} was started without --config")


def read(path: Path) -> Config:
    return msgspec.yaml.decode(path.read_bytes(), type=Config)


def change(path: Path, edit: Callable[[Config], None]) -> None:
    """Takes effect when the daemon starts again."""
    config = read(path)
    edit(config)
    fresh = path.with_suffix(".fresh")
    fresh.write_bytes(msgspec.yaml.encode(config))
    fresh.rename(path)
