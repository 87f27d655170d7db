"""The command line without a cluster: arguments, files, exit codes, completion, start-up time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from hasched.certs.issuing import read_tokens
from hasched.cli.dev.layout import prepare
from hasched.cli.exits import MEANINGS, Exit, exit_for_error, exit_for_job
from hasched.cli.main import COMMANDS, cli
from hasched.cli.specs import read_pairs
from hasched.model import errors
from hasched.model.views import JobView, TaskView


@pytest.fixture
def run(monkeypatch, tmp_path):
    for name in ("HASCHED_CONTEXT", "HASCHED_MANAGERS", "HASCHED_TOKEN", "HASCHED_CA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HASCHED_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv(
        "HASCHED_LOG_FORMAT", "text"
    )  # a daemon's command with --json sets it for its process, which is ours
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, input: str | None = None) -> Result:
        return CliRunner().invoke(cli, arguments, input=input, prog_name="hasched")

    return run


MANAGER = """\
cluster: lab
name: m1
data_dir: data
members:
  - {name: m1, api: "https://10.0.0.1:7411", raft: "10.0.0.1:7412"}
tls: {ca: ca.crt, cert: m1.crt, key: m1.key}
tokens: tokens.json
"""
AGENT = "name: n1\ndata_dir: /d\nmanagers: ['https://10.0.0.1:7411']\ntls: {ca: ca.crt, cert: n1.crt, key: n1.key}\n"


def test_a_valid_configuration_is_recognised_by_its_keys(run):
    Path("m.yaml").write_text(MANAGER)
    Path("a.yaml").write_text(AGENT)
    assert run("config", "validate", "m.yaml").output == "m.yaml: a valid manager configuration\n"
    assert run("config", "validate", "a.yaml").output == "a.yaml: a valid agent configuration\n"


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("name: m1\n", "name: m9\n", "m.yaml:2: name: 'm9' is not among the members"),
        ("cluster: lab", "cluster: lab\nnode_grace: 1s", "m.yaml:2: node_grace: must be longer than unhealthy_after"),
        (
            "cluster: lab",
            "cluster: lab\nscheduler: {gang_ports: 9-5}",
            "m.yaml:2: scheduler.gang_ports: must be the first",
        ),
        ("https://10.0.0.1:7411", "http://10.0.0.1:7411", "m.yaml:5: members[0].api: "),
        ("10.0.0.1:7412", "10.0.0.1", "m.yaml:5: members[0].raft: '10.0.0.1' is not an address; write it as HOST:PORT"),
        ("tokens: tokens.json", "tokns: x", "m.yaml:7: tokns: unknown key; did you mean 'tokens'?"),
        ("data_dir: data", "data_dir: 3", "m.yaml:3: data_dir: expected str, not 3"),
    ],
)
def test_a_mistake_in_a_configuration_has_its_line(run, old, new, complaint):
    Path("m.yaml").write_text(MANAGER.replace(old, new, 1))
    result = run("config", "validate", "m.yaml")
    assert result.exit_code == Exit.BAD_CONFIG
    assert complaint in result.stderr


def test_two_managers_are_no_cluster(run):
    text = MANAGER.replace("tls:", '  - {name: m2, api: "https://10.0.0.1:7411", raft: "10.0.0.2:7412"}\ntls:')
    Path("m.yaml").write_text(text)
    result = run("config", "validate", "--json", "m.yaml")
    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["kind"], answer["valid"]) == (78, "manager", False)
    assert [(error["line"], error["path"]) for error in answer["errors"]] == [(4, "members"), (6, "members[1].api")]


def test_an_override_is_checked_as_the_file_is(run, monkeypatch):
    Path("m.yaml").write_text(MANAGER)
    monkeypatch.setenv("HASCHED_SCHEDULER__PLACEMENT", "spred")
    result = run("config", "validate", "m.yaml")
    assert result.stderr.startswith("m.yaml: HASCHED_SCHEDULER__PLACEMENT: must be one of bin_pack")


def test_files_that_a_configuration_names_can_be_checked_too(run):
    Path("m.yaml").write_text(MANAGER)
    assert run("config", "validate", "--files", "m.yaml").exit_code == Exit.BAD_CONFIG
    run("certs", "init", "--dir", ".")
    run("certs", "manager", "m1", "--dir", ".")
    run("certs", "agent", "n1", "--dir", ".")
    run("token", "create", "alice")
    assert run("config", "validate", "--files", "m.yaml").exit_code == Exit.OK
    Path("a.yaml").write_text(AGENT)
    assert run("config", "validate", "--files", "a.yaml").exit_code == Exit.OK
    Path("m.yaml").write_text(MANAGER.replace("m1.crt, key: m1.key", "n1.crt, key: n1.key"))
    done = run("config", "validate", "--files", "m.yaml")
    assert (done.exit_code, "n1.crt is the certificate of agent n1, not of manager m1" in done.stderr) == (78, True)


def test_a_manager_that_can_never_start_says_so_with_the_files_name(run):
    """Exit 78, so that systemd doesn't start it again for ever."""
    Path("m.yaml").write_text(MANAGER)
    run("certs", "init", "--dir", ".")
    run("certs", "manager", "m1", "--dir", ".")
    program = [sys.executable, "-m", "hasched", "manager", "start", "--config", "m.yaml", "--json"]
    for content in (None, "[{}]", '[{"name": "a", "sha256": "x"}]'):
        if content is not None:
            Path("tokens.json").write_text(content)
        done = subprocess.run(program, check=False, capture_output=True, text=True)
        assert done.returncode == 78, done.stderr
        said = json.loads(done.stderr)
        assert (said["event"], str(Path("tokens.json").absolute()) in said["cause"]) == ("manager_failed", True)


def test_a_manager_may_hold_as_many_connections_as_the_machine_lets_it():
    script = (
        "import resource; from hasched.manager.main import raise_file_limit;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096)); raise_file_limit();"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "4096 4096\n"


def test_a_daemon_does_not_start_with_a_bad_configuration(run):
    Path("bad.yaml").write_text("nmae: x\n")
    for kind in ("manager", "agent"):
        assert run(kind, "start", "--config", "bad.yaml").exit_code == Exit.BAD_CONFIG


def test_certificates_and_tokens_from_the_command_line(run):
    assert run("certs", "agent", "n1").exit_code == Exit.NOT_FOUND
    assert json.loads(run("certs", "init", "--cluster", "lab", "--json").stdout)["info"]["role"] == "ca"
    assert run("certs", "manager", "m1", "--host", "10.0.0.1", "--days", "10").exit_code == Exit.OK
    assert run("certs", "agent", "n1").exit_code == Exit.OK
    assert run("certs", "agent", "n1").exit_code == Exit.REFUSED
    assert run("certs", "agent", "n/1").exit_code == Exit.BAD_INPUT
    shown = json.loads(run("certs", "show", "--json").stdout)["certificates"]
    assert [(cert["role"], cert["name"]) for cert in shown] == [("ca", "lab"), ("manager", "m1"), ("agent", "n1")]
    assert run("token", "create", "alice").stdout.startswith("hst_")
    assert run("token", "create", "alice").exit_code == Exit.REFUSED


def test_tokens_are_listed_and_revoked(run):
    assert run("token", "list").exit_code == Exit.NOT_FOUND
    for name in ("alice", "bob"):
        run("token", "create", name)
    assert run("token", "revoke", "alice").exit_code == Exit.OK
    assert run("token", "revoke", "alice").exit_code == Exit.NOT_FOUND
    assert json.loads(run("token", "list", "--json").stdout) == {"tokens": ["bob"]}
    assert run("token", "list").stdout == "bob\n"


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        pytest.param(["nonsense"], Exit.USAGE, "usage", id="a command that there isn't"),
        pytest.param(["job", "lst"], Exit.USAGE, "usage", id="a subcommand that there isn't"),
        pytest.param(["job", "list", "--nonsense"], Exit.USAGE, "usage", id="an option that there isn't"),
        pytest.param(["job", "run"], Exit.USAGE, "usage", id="an argument that is missing"),
        pytest.param(["node", "pool", "n1"], Exit.USAGE, "usage", id="an option that is missing"),
        pytest.param(["job", "logs", "5.3", "--task", "4"], Exit.USAGE, "usage", id="options that don't go together"),
        pytest.param(
            ["job", "run", "--count", "0", "true"], Exit.BAD_INPUT, "invalid_argument", id="a number out of range"
        ),
        pytest.param(["job", "run", "--count", "x", "true"], Exit.BAD_INPUT, "invalid_argument", id="no number"),
        pytest.param(["job", "run", "--env", "=1", "true"], Exit.BAD_INPUT, "invalid_argument", id="no pair"),
        pytest.param(
            ["job", "run", "--env", "NOT_SET_ANYWHERE", "true"], Exit.BAD_INPUT, "invalid_argument", id="not set"
        ),
        pytest.param(["job", "run", "--label", "novalue", "true"], Exit.BAD_INPUT, "invalid_argument", id="no label"),
        pytest.param(["job", "show", "x.1"], Exit.BAD_INPUT, "invalid_argument", id="no task"),
        pytest.param(["job", "why", "-3"], Exit.USAGE, "usage", id="what looks like an option"),
        pytest.param(["job", "cancel", "seven"], Exit.BAD_INPUT, "invalid_argument", id="no job"),
        pytest.param(["job", "cancel", "9" * 30], Exit.BAD_INPUT, "invalid_argument", id="a job beyond all numbers"),
        pytest.param(["job", "wait", "1", "--timeout", "soon"], Exit.BAD_INPUT, "invalid_argument", id="no duration"),
        pytest.param(
            ["what-if", "--horizon", "99d"], Exit.BAD_INPUT, "invalid_argument", id="a duration that is too long"
        ),
        pytest.param(["what-if", "--priority", "20=-5"], Exit.BAD_INPUT, "invalid_argument", id="a priority below 0"),
        pytest.param(["job", "list", "--state", "RUNING"], Exit.BAD_INPUT, "invalid_argument", id="no state"),
        pytest.param(["dev", "--managers", "2"], Exit.BAD_INPUT, "invalid_argument", id="none of the choices"),
        pytest.param(["completion", "tcsh"], Exit.BAD_INPUT, "invalid_argument", id="none of the arguments"),
        pytest.param(["job", "logs", "1", "--tail", "0"], Exit.BAD_INPUT, "invalid_argument", id="too small"),
        pytest.param(["job", "submit", "no-such-file"], Exit.NOT_FOUND, "file_unusable", id="a file that there isn't"),
        pytest.param(["job", "plan", "/"], Exit.NOT_FOUND, "file_unusable", id="a file that is a directory"),
        pytest.param(["job", "run", "--input", "no-such", "true"], Exit.NOT_FOUND, "file_unusable", id="an input file"),
    ],
)
def test_mistakes_of_one_kind_have_one_exit_code(run, arguments, code, kind):
    result = run(*arguments)
    assert result.exit_code == code, result.output
    first, hint = result.stderr.splitlines()
    assert first.startswith("hasched: ") and "--help`" in hint
    command = arguments[:-1] if arguments[-1] == "true" else arguments
    as_json = run(*command, "--json", *(["true"] if arguments[-1] == "true" else []))
    assert as_json.exit_code == code
    assert json.loads(as_json.stderr)["code"] == kind


@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param(errors.NotFound("no job", code="no_such_job"), Exit.NOT_FOUND, id="a job that there isn't"),
        pytest.param(errors.Conflict("no class", code="unknown_priority_class"), Exit.NOT_FOUND, id="a class"),
        pytest.param(errors.BadRequest("no queue", code="unknown_queue"), Exit.NOT_FOUND, id="a queue to list"),
        pytest.param(errors.BadRequest("no node", code="no_such_node"), Exit.NOT_FOUND, id="a node to suppose gone"),
        pytest.param(errors.SpecInvalid([errors.FieldError("count", "is 0")]), Exit.BAD_INPUT, id="a document"),
        pytest.param(
            errors.Conflict("too deep", code="invalid_policy"), Exit.BAD_INPUT, id="a policy as it is applied"
        ),
        pytest.param(errors.BadRequest("no state"), Exit.BAD_INPUT, id="a parameter"),
        pytest.param(errors.ConfigInvalid("m.yaml", []), Exit.BAD_CONFIG, id="a configuration"),
        pytest.param(errors.Conflict("closed", code="queue_closed"), Exit.REFUSED, id="a closed queue"),
        pytest.param(errors.TransferFailed("no"), Exit.TEMPORARY, id="what may go well the next time"),
    ],
)
def test_errors_of_one_kind_have_one_exit_code(error, code):
    assert exit_for_error(error) == code


@pytest.mark.parametrize("group", [(), ("job",)])
def test_a_group_without_a_command_shows_its_help(run, group):
    result = run(*group)
    assert (result.exit_code, result.stdout) == (Exit.USAGE, "")
    assert result.stderr.startswith("Usage: hasched")


def test_a_mistyped_word_is_answered_with_the_right_one(run):
    assert "Did you mean 'job'?" in run("jbo").stderr
    assert "Did you mean 'list'?" in run("job", "lst").stderr
    assert run("job", "run", "--count", "x", "true").stderr.startswith("hasched: --count: 'x' is not a whole number\n")


def test_a_commands_own_json_is_not_ours(run):
    assert run("job", "run", "ls", "--json").stderr.startswith("hasched: ")


def test_a_bad_configuration_is_told_of_in_json_too(run):
    Path("bad.yaml").write_text("nmae: x\n")
    told = json.loads(run("agent", "start", "--config", "bad.yaml", "--json").stderr)
    assert told["code"] == "invalid_config"
    assert {"path": "nmae", "line": 1, "cause": "unknown key; did you mean 'name'?"} in told["errors"]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["certs", "agent", "n1", "--dir", "keyless"], 66, "keyless/ca.key"),
        (["certs", "agent", "n1", "--dir", "broken"], 65, "broken/ca.key is not a private key"),
        (["certs", "init", "--dir", "plain/below"], 66, "plain/below: Not a directory"),
        (["certs", "show", "--dir", "nope"], 66, "there is no directory nope"),
        (["token", "create", "bob", "--file", "bad.json"], 65, "bad.json is not a tokens file"),
        (["job", "list"], 65, "'https://h:99999' is not the URL of a manager"),
        (
            ["context", "add", "x", "--ca", "plain", "--token-file", "plain", "--manager", "notaurl"],
            65,
            "plain holds no token",
        ),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_an_ordinary_mistake_is_told_in_a_sentence(run, monkeypatch, arguments, code, complaint):
    for name in ("keyless", "broken"):
        run("certs", "init", "--dir", name)
    Path("keyless/ca.key").unlink()
    Path("broken/ca.key").write_text("x")
    Path("plain").touch()
    Path("bad.json").write_text("[{}]")
    monkeypatch.setenv("HASCHED_MANAGERS", "https://h:99999")
    monkeypatch.setenv("HASCHED_CA", "plain")
    result = run(*arguments)
    assert (result.exit_code, "Traceback" in result.stderr) == (code, False), result.stderr
    assert complaint in result.stderr
    assert json.loads(run(*arguments, "--json").stderr)["cause"]


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"--manager": "http://h:7411"}, "'http://h:7411' is not the URL of a manager"),
        ({"--manager": "https://h:7411/jobs?x"}, "is not the URL of a manager"),
        ({"--manager": "https://h\n:7411"}, "is not the URL of a manager"),
        ({"--ca": "token"}, "token can't be used as the CA: it holds no certificate"),
        ({"--ca": "m1.crt"}, "m1.crt can't be used as the CA: its certificate is not an authority's"),
        ({"--token-file": "two-lines"}, "the token is not one line of printable characters"),
        ({"--token-file": "binary"}, "the token is not one line of printable characters"),
        ({"--token-file": "empty"}, "empty holds no token"),
        ({"NAME": "a b"}, "'a b' can't be the name of a context"),
    ],
    ids=lambda value: " ".join(value.values()) if isinstance(value, dict) else "",
)
def test_a_context_that_could_not_work_is_not_added(run, changed, complaint):
    run("certs", "init", "--dir", ".")
    run("certs", "manager", "m1", "--dir", ".")
    for name, content in (("token", b"hst_x\n"), ("two-lines", b"a\nb"), ("binary", b"\xff\x00"), ("empty", b"\n")):
        Path(name).write_bytes(content)
    usual = {"--manager": "https://h:7411", "--ca": "ca.crt", "--token-file": "token"}
    added = run("context", "add", "lab", *(word for pair in usual.items() for word in pair))
    assert added.exit_code == Exit.OK, added.output
    name = changed.get("NAME", "bad")
    options = usual | {key: value for key, value in changed.items() if key != "NAME"}
    refused = run("context", "add", name, *(word for pair in options.items() for word in pair))
    assert (refused.exit_code, complaint in refused.stderr) == (Exit.BAD_INPUT, True), refused.output
    assert [each["name"] for each in json.loads(run("context", "list", "--json").stdout)["contexts"]] == ["lab"]


def test_a_token_of_two_lines_in_a_context_is_told_in_a_sentence_and_can_be_removed(run):
    Path("config").mkdir()
    Path("config/contexts.yaml").write_text(
        'current: lab\ncontexts: {lab: {managers: ["https://h:7411"], ca: ca.crt, token: "a\\nb"}}\n'
    )
    told = run("job", "list")
    assert (told.exit_code, "Traceback" in told.output) == (Exit.BAD_INPUT, False)
    assert "the token is not one line of printable characters" in told.stderr
    assert json.loads(run("context", "remove", "lab", "--json").stdout) == {"removed": "lab", "current": ""}
    assert run("context", "remove", "lab").exit_code == Exit.NOT_FOUND
    assert json.loads(run("context", "list", "--json").stdout) == {"current": "", "contexts": []}


@pytest.mark.parametrize("user", ["a b", "", "x" * 65, "../x"])
def test_a_development_cluster_suits_any_user(user, monkeypatch, tmp_path):
    monkeypatch.setenv("USER", user)
    prepare(tmp_path / "dev", 1, 1, 2, None)
    assert [entry.name for entry in read_tokens(tmp_path / "dev" / "tokens.json")] == ["dev"]


@pytest.mark.parametrize(
    ("text", "code", "complaint"),
    [
        ("", 65, "stdin:1: there is no job in it"),
        ("command: [a]\n---\n- 3\n", 65, "stdin:3: a job is a mapping"),
        ("command: [a]\n---\ncommand: [b]\nresources:\n  gpus: 3.5\n", 65, "stdin:5: resources.gpus"),
        ("comand: [a]\ncount: 0\n---\ncount: x\n", 65, "stdin:4: count"),
        ("command: [a\n", 65, "stdin:2: "),
        ("command: *x\n", 65, "stdin:1: anchors and aliases are not allowed"),
    ],
)
def test_a_job_file_that_can_not_be_read(run, text, code, complaint):
    result = run("job", "submit", "-", input=text)
    assert (result.exit_code, complaint in result.stderr) == (code, True), result.stderr


def test_pairs_take_our_own_environment_on_request(monkeypatch):
    monkeypatch.setenv("COLOUR", "green=blue")
    assert read_pairs(["A=1=2", "COLOUR", "B="], "--env", from_environment=True) == {
        "A": "1=2",
        "COLOUR": "green=blue",
        "B": "",
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SpecInvalid([errors.FieldError("count", "is wrong")]), 65),
        (errors.BodyTooLarge("x"), 65),
        (errors.NotFound("x"), 66),
        (errors.ClusterUnreachable("x"), 69),
        (errors.HaschedError("x"), 70),
        (errors.NoLeader("x"), 75),
        (errors.OutcomeUnknown("x"), 75),
        (errors.Overloaded("x"), 75),
        (errors.Conflict("x"), 76),
        (errors.Unauthenticated("x"), 77),
        (errors.Forbidden("x"), 77),
        (errors.ConfigInvalid("f", [errors.FieldError("a", "b")]), 78),
    ],
    ids=lambda value: getattr(value, "code", str(value)),
)
def test_every_error_has_an_exit_code_with_a_meaning(error, code):
    assert exit_for_error(error) == code
    assert Exit(code) in MEANINGS


@pytest.mark.parametrize(
    ("state", "exit_code", "signal", "expected"),
    [
        ("SUCCEEDED", 0, None, 0),
        ("FAILED", 3, None, 3),
        ("FAILED", 255, None, 255),
        ("FAILED", None, 15, 143),
        ("FAILED", None, None, 127),
        ("FAILED", 0, None, 1),  # exit 0 where 0 is not among success_exit_codes
        ("TIMED_OUT", None, 15, 124),
        ("OUT_OF_MEMORY", None, 9, 137),
        ("CANCELLED", None, 15, 143),
        ("NODE_LOST", None, None, 75),
    ],
)
def test_the_exit_code_of_a_job(state, exit_code, signal, expected):
    job = JobView(
        id=1, name="j", state=state, queue="q", priority=0, actor="a", submission_id="s", count=1, tasks={state: 1}
    )
    task = TaskView(job_id=1, task_index=0, state=state, attempt=1, exit_code=exit_code, signal=signal)
    assert exit_for_job(job, task) == expected


def commands(group: click.Group, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found += commands(command, (*path, name)) if isinstance(command, click.Group) else [((*path, name), command)]
    return found


def test_every_command_has_json_and_help(run):
    for path, command in commands(cli, ()):
        assert command.help, path
        assert any("--json" in parameter.opts for parameter in command.params), path


def test_help_says_what_each_command_says_itself():
    for name, (_, summary) in COMMANDS.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert command.help is not None
        first = command.help.splitlines()[0]
        assert first.split(":")[0].rstrip(".") in summary or summary.split(":")[0].rstrip(".") in first


def test_the_exit_codes_are_in_the_help(run):
    text = run("--help").output
    assert all(f"\n  {code.value} " in text for code in MEANINGS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(run, shell):
    assert "_HASCHED_COMPLETE" in run("completion", shell).output


def test_without_a_context_the_user_is_told_what_to_do(run):
    result = run("job", "list")
    assert result.exit_code != Exit.OK
    assert "hasched dev" in result.stderr or "context" in result.stderr
    problem = json.loads(run("job", "list", "--json").stderr)
    assert problem["code"]
    assert problem["cause"]


def test_handing_in_a_job_imports_little():
    heavy = ("aiohttp", "asyncio", "rich", "cryptography", "structlog", "psutil", "pysyncobj", "uvloop")
    script = (
        "import sys, hasched.cli.main, hasched.cli.runs, hasched.cli.follow, hasched.client.context;"
        f"print(*[name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


def test_a_task_says_that_it_has_checkpointed(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mark = tmp_path / "checkpoint"
    monkeypatch.setenv("HASCHED_CHECKPOINT", str(mark))
    result = run("task", "checkpointed", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["checkpoint_ms"] == int(mark.read_text())
    monkeypatch.delenv("HASCHED_CHECKPOINT")
    assert "run this in a task" in run("task", "checkpointed").stderr
