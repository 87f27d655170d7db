"""The pages name only commands that exist, with options that these have, and link only to what is there."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from hasched import __version__
from hasched.api.codes import AMONG_OURSELVES, REFUSALS
from hasched.api.problem import MethodNotAllowed
from hasched.cli.codes import CODES
from hasched.cli.main import cli
from hasched.cli.settings import Settings
from hasched.manager.config import parse_manager_config
from hasched.model import errors
from hasched.model.parse import parse_spec
from hasched.model.yaml_text import read_documents
from tests.support.page import File, sections_of

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
VALUES = frozenset({"prod"})  # of global options, which stand before the command
YAML = re.compile(r"^( *)```ya?ml\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
RUN = {  # pages whose files tests write and whose commands they run
    "docs/install.md": "tests/deploy/test_install.py",
    "docs/jobs.md": "tests/cli/test_dev.py",
    "docs/notifications.md": "tests/cli/test_dev.py",
    "docs/schedules.md": "tests/cli/test_scheduling_page.py",
    "docs/scheduling.md": "tests/cli/test_scheduling_page.py",
    "docs/workflows.md": "tests/cli/test_dev.py",
}
MANAGER = """cluster: prod
name: m1
data_dir: data
tokens: tokens
tls: {ca: ca, cert: cert, key: key}
members: [{name: m1, api: "https://m1.example:7411", raft: "m1.example:7412"}]
"""  # what a manager's configuration has besides a part of it that a page shows
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
CALL = re.compile(r"(?:^|[\s/$(`])hasched ([a-z-].*)")


def commands_in(text: str) -> Iterator[str]:
    """What follows `hasched` in code: lines of blocks, and spans in a sentence."""
    blocks = FENCE.findall(text)
    indented = re.findall(r"^ {4}(?=\S)(.*)$", text, re.MULTILINE)
    for line in [
        *(line for block in blocks for line in block.splitlines()),
        *indented,
        *SPAN.findall(FENCE.sub("", text)),
    ]:
        if (call := CALL.search(line)) is not None:
            yield call[1]


def find_mistake(call: str) -> str | None:
    """Why `hasched CALL` can't be meant: a word that is no command, or an option that the command doesn't have."""
    try:
        words = shlex.split(call.split(" | ", maxsplit=1)[0].split(" > ", maxsplit=1)[0], comments=True)
    except ValueError:
        words = call.split()
    command: click.Command = cli
    context = click.Context(cli)
    options = set(cli.get_help_option_names(context)) | {each for parameter in cli.params for each in parameter.opts}
    for word in words:
        if word == "--":
            return None
        if word.startswith("-"):
            if re.fullmatch(r"--?[a-z-]+", word) and word not in options:
                return f"{command.name} has no option {word}"
        elif isinstance(command, click.Group) and re.fullmatch(r"[a-z-]+", word):
            found = command.get_command(context, word)
            if found is None:
                if word in VALUES:
                    continue
                return f"there is no command {word!r}"
            command = found
            options |= {each for parameter in command.params for each in (*parameter.opts, *parameter.secondary_opts)}
    return None


def anchors_of(page: Path) -> set[str]:
    """The anchors that a page's headings get."""
    headings = HEADING.findall(FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_commands_of_a_page_exist(page: Path):
    mistakes = {f"hasched {call}": mistake for call in commands_in(page.read_text()) if (mistake := find_mistake(call))}
    assert not mistakes


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_links_of_a_page_lead_somewhere(page: Path):
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert not broken


def yaml_in(page: str, text: str) -> list[str]:
    """The YAML of a page that no test runs. What is a file of a section is run with it, on the pages that are run."""
    written: list[str] = []
    if page in RUN:
        named = re.sub(
            r"<!-- file: .*? (\S+) -->", r"<!-- file: \1 -->", text
        )  # of which hosts, says the page on installing
        written = [step.text for steps in sections_of(named).values() for step in steps if isinstance(step, File)]
    return [block for _, block in YAML.findall(text) if block not in written]


def read_yaml(block: str) -> None:
    """Read a block that is only shown as what it is: a job, a part of one, or a manager's configuration. Raises what is wrong."""
    for document in read_documents(block, "the page"):
        value = document.value
        assert isinstance(value, dict)
        if "members" in value:
            parse_manager_config(block, "the page")
        elif "notifications" in value:
            parse_manager_config(f"{MANAGER}{block}", "the page")
        else:
            parse_spec(value if {"command", "script"} & value.keys() else {"command": ["true"], **value})


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_yaml_of_a_page_is_run_or_else_read(page: Path):
    name = str(page.relative_to(ROOT))
    if name in RUN:
        assert page.stem in (ROOT / RUN[name]).read_text()
    for block in yaml_in(name, page.read_text()):
        read_yaml(block)


def test_yaml_that_nobody_could_use_would_be_found():
    page = "## One\n\n<!-- file: a.yaml -->\n```yaml\nnmae: a\n```\n\n```yaml\nnmae: b\n```\n"
    assert yaml_in("docs/jobs.md", page) == ["nmae: b\n"]
    assert yaml_in("docs/operations.md", page) == ["nmae: a\n", "nmae: b\n"]
    with pytest.raises(errors.HaschedError, match="unknown key"):
        read_yaml("nmae: b\n")


def codes_in(tree: ast.Module) -> Iterator[str]:
    """The codes of errors that a module gives, as they are written: of a refusal, of a class, or of one error."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for line in node.body:
                if isinstance(line, ast.Assign) and [ast.unparse(each) for each in line.targets] == ["code"]:
                    yield ast.unparse(line.value)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            if called == "Rejected" and node.args:
                yield ast.unparse(node.args[0])
            elif called != "Reason":  # whose codes docs/reasons.md has
                yield from (ast.unparse(each.value) for each in node.keywords if each.arg == "code")


def test_every_code_of_an_error_is_in_a_table():
    sources = [path for folder in ("hasched", "chaos") for path in sorted((ROOT / folder).rglob("*.py"))]
    trees = [ast.parse(path.read_text()) for path in sources if path.name != "codes.py"]
    written = {code for tree in trees for code in codes_in(tree)}
    found = {ast.literal_eval(code) for code in written if code.startswith("'")}
    of_the_tree = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "code")}
    tables = {*REFUSALS, *CODES, *AMONG_OURSELVES}
    missing = sorted(found - tables - of_the_tree - {MethodNotAllowed.code})
    assert not missing, "put them into hasched/api/codes.py or hasched/cli/codes.py, and run scripts/reference"
    words = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert not sorted(tables - words), "nothing has these codes any more"


def parse(call: str) -> None:
    """Read `hasched CALL` as the program does, up to where the command would begin. Raises ClickException."""
    command: click.Command = cli
    name, words, context = "hasched", shlex.split(call), None
    while True:
        context = command.make_context(name, words, context, obj=Settings())
        if not isinstance(command, click.Group):
            return
        found, group, words = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None and group is not None
        name, command = found, group


def test_the_commands_that_stand_for_those_of_others_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    section = (ROOT / "docs" / "scheduling.md").read_text().partition("## From Slurm, from Nomad")[2]
    calls = re.findall(r"`hasched ([^`]+)`", section)
    assert len(calls) > 60
    for call in calls:
        for file in re.findall(r"\S+\.(?:yaml|sh)", call):
            (tmp_path / file).touch()
        try:
            parse(call)
        except click.ClickException as error:
            pytest.fail(f"hasched {call}: {error.format_message()}")
    with pytest.raises(click.BadParameter):
        parse("job cancel seven")
    with pytest.raises(click.UsageError):
        parse("job list --queu night")


def test_a_mistake_would_be_found():
    assert find_mistake("job dance 7") == "there is no command 'dance'"
    assert find_mistake("job list --jokes") == "list has no option --jokes"
    assert sorted(commands_in("see `hasched job list` and\n\n```\n$ /opt/bin/hasched top\n```\n")) == [
        "job list",
        "top",
    ]


def test_the_version_is_the_one_that_the_changelog_is_about():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__
    latest, released = re.search(
        r"^## (\S+)( \(unreleased\))?", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    ).groups()
    assert __version__ == (f"{latest}.dev0" if released else latest)
