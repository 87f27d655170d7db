"""Packages of others, found as if they were installed."""

from __future__ import annotations

from pathlib import Path


def put(folder: Path, name: str, source: str, entry_points: str) -> None:
    """A distribution of one module, in a folder that is on the path."""
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(entry_points)
    (folder / f"{name}.py").write_text(source)


def installed(toml: str) -> str:
    """Entry points of a pyproject.toml as they are when it is installed."""
    return toml.replace('[project.entry-points."', "[").replace('"]', "]").replace('"', "")
