"""A manager says of itself that its cluster is there to be broken, if its configuration says so. A real process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hasched.cli.dev.layout import prepare
from hasched.client.context import Context
from hasched.client.sync import Client


@pytest.mark.parametrize(("line", "marked"), [("", False), ("test_cluster: true\n", True)])
def test_a_test_cluster_is_marked_by_its_configuration(tmp_path: Path, line: str, marked: bool) -> None:
    layout = prepare(tmp_path, 1, 0, 0, None)
    config = tmp_path / "marked.yaml"
    config.write_text(layout.config("m1").read_text() + line)
    context = Context(managers=layout.urls, ca=str(layout.ca), token=layout.token)
    command = [sys.executable, "-m", "hasched", "manager", "start", "--config", str(config)]
    with layout.log("m1").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as manager:
        try:
            with Client(context) as client:
                assert client.cluster().test_cluster is marked
        finally:
            manager.terminate()
