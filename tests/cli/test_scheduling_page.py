"""The pages on scheduling and schedules show what happens: their commands are run, and say what stands there."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import eventually
from tests.support.dev import Dev
from tests.support.fake_nvml import FakeNvml, Gpu, build
from tests.support.packages import installed, put
from tests.support.page import File, Step, Terminal, matches, sections

DOCS = Path(__file__).parents[2] / "docs"
SECTIONS = {
    f"{page}, {heading}": steps
    for page in ("scheduling", "schedules")
    for heading, steps in sections(DOCS / f"{page}.md").items()
}

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """The cluster of the page, whose managers have the package that the page shows, and whose agents find GPUs."""
    folder = tmp_path_factory.mktemp("page")
    build(folder)
    driver = FakeNvml(folder, [Gpu(f"GPU-{number}", links=0, numa_node=number // 2) for number in range(4)])
    driver.write()
    own = (DOCS / "scheduling.md").read_text().partition("### Filters and scorers of your own")[2]
    blocks = [re.findall(rf"```{kind}\n(.*?)```", own, re.DOTALL)[0] for kind in ("python", "toml")]
    put(folder / "packages", "night", blocks[0], installed(blocks[1]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("USER", "dev")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder / "packages"), os.environ.get("PYTHONPATH", "")]))
        for name, value in driver.environment.items():
            patch.setenv(name, value)
        (folder / "plugins").mkdir(mode=0o755)
        with Dev(folder, "--agents", "4", "--simulate-nodes", "28", "--plugins", str(folder / "plugins")) as dev:
            yield dev


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_of_the_page_is_true(dev: Dev, section: str, tmp_path: Path):
    programs = str(Path(sys.executable).parent)
    path = f"{programs}:{os.environ['PATH']}"
    environment = {**dev.environment, "PATH": path, "COLUMNS": "120", "HOME": str(dev.data.parent)}
    with Terminal(tmp_path, environment) as terminal:
        for step in SECTIONS[section]:
            terminal.take(step)
    eventually("the section's jobs to be over", lambda: nothing_runs(dev), patience_s=30)


def nothing_runs(dev: Dev) -> bool:
    nodes: list[dict[str, object]] = dev.json("node", "list")["nodes"]  # type: ignore[assignment]
    return not any(node["running"] for node in nodes)


def test_a_page_is_cut_into_steps(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n\n## One\n\n<!-- file: a.txt -->\n```\nx\n```\n\n```sh\nonly shown\n```\n\n<!-- run: exit 3 -->\n"
        "```console\n$ cat a.txt\nx\n$ echo a \\\n  b; exit 3\na b\n```\n\n## Two\n\nNothing.\n"
    )
    assert sections(page) == {
        "One": [File("a.txt", "x\n"), Step("cat a.txt", "x\n"), Step("echo a \\\n  b; exit 3", "a b\n", 3)]
    }


@pytest.mark.parametrize(
    ("expected", "said", "same"),
    [
        pytest.param("job … is here\n", "job 7 is here\n", True, id="any text in a line"),
        pytest.param("job …\n", "job 7\nand more\n", False, id="but not over its end"),
        pytest.param("one\n…\ntwo\n", "one\nand\nmore\ntwo\n", True, id="any lines"),
        pytest.param("…\n", "", True, id="even none"),
        pytest.param("", "oops\n", False, id="nothing is nothing"),
        pytest.param("JOB  NAME\n", "JOB     NAME\n", True, id="any width of columns"),
        pytest.param("JOB NAME\n", "JOB  NAME\n", False, id="which have two spaces between them"),
        pytest.param("a.b\n", "axb\n", False, id="the rest is meant as it stands"),
    ],
)
def test_output_is_compared(expected: str, said: str, same: bool):
    assert matches(expected, said) is same


def test_a_terminal_keeps_its_variables_and_tells_both_streams_and_the_code(tmp_path: Path):
    with Terminal(tmp_path, {"PATH": os.environ["PATH"]}) as terminal:
        terminal.take(Step("name=there", ""))
        terminal.take(Step("echo hi $name; echo oops >&2; (exit 4)", "hi there\noops\n", 4))
        with pytest.raises(AssertionError, match="the page says"):
            terminal.take(Step("true", "", 1))
