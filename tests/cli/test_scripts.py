"""Scripts with directives, up to the document that is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from hasched.cli.main import cli
from hasched.cli.runs import run, submit
from hasched.cli.scripts import DIRECTIVE, is_script
from hasched.cli.specs import FileInvalid, read_job_file
from hasched.model.parse import parse_spec


def read(folder: Path, text: str, *arguments: str, name: str = "train.sh", **options: Any) -> dict[str, Any]:
    (folder / name).write_text(text)
    (document,) = read_job_file(str(folder / name), arguments, options)
    parse_spec(document.value)
    return dict(document.value)


def mistakes(folder: Path, text: str, **options: Any) -> list[str]:
    with pytest.raises(FileInvalid) as caught:
        read(folder, text, **options)
    return caught.value.cause.replace(f"{folder}/", "").splitlines()


def test_a_script_is_its_job(tmp_path: Path):
    text = "#!/usr/bin/env python3\nprint('hi')\n"
    assert read(tmp_path, text, "a", "-b") == {"name": "train.sh", "script": text, "args": ["a", "-b"]}
    assert read(tmp_path, text, name="two words") == {"script": text}


def test_directives_are_options_of_the_command_line(tmp_path: Path):
    text = """\
#!/bin/sh
# about
#HASCHED --gpus=2 --gpu-model A100 --gpu-model H100 --name first
#HASCHED\t--memory 4G   # a note
#HASCHED

#HASCHED --name second --env 'A=#1' --env B=2 --gang
"""
    document = read(tmp_path, text, env=("B=3", "C=4"), gpu_models=("T4",))
    assert document == {
        "name": "second",
        "script": text,
        "gang": True,
        "env": {"A": "#1", "B": "3", "C": "4"},
        "resources": {"gpus": 2, "gpu_model": ["T4"], "memory": "4G"},
    }


def test_directives_of_slurm_are_not_passed_over_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    read(tmp_path, "#!/bin/sh\n#SBATCH -n 2\n#SBATCH --mem=4G\necho hi\n#SBATCH late\n")
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "hasched: line 2: #SBATCH lines say nothing here; `hasched import sbatch` makes a job file of them",
    ]


def test_a_text_that_is_no_job_may_be_meant_as_a_script(tmp_path: Path):
    text = "echo hi\n"
    assert mistakes(tmp_path, text) == ["train.sh:1: a job is a mapping; a script begins with a line such as #!/bin/sh"]


def test_a_script_says_all_that_it_needs_of_a_node(tmp_path: Path):
    text = """\
#!/bin/sh
#HASCHED --countable licence=2 --countable mig-1g.10gb --spread rack --spread node --gpu-locality nvlink
#HASCHED --kill-grace 30s --warn USR1@60s
"""
    document = read(tmp_path, text, countables=("licence=3",))
    assert document == {
        "script": text,
        "name": "train.sh",
        "resources": {"countables": {"licence": 3, "mig-1g.10gb": 1}},
        "placement": {"spread": ["rack", "node"], "gpu_locality": "nvlink"},
        "kill_grace": "30s",
        "preemption": {"signal": "USR1", "warning": "60s"},
    }
    assert read(tmp_path, "#!/bin/sh\n#HASCHED --resource-class large\n")["placement"] == {"resource_class": "large"}
    assert mistakes(tmp_path, "#!/bin/sh\n#HASCHED --warn USR1\n") == [
        "train.sh:2: --warn: 'USR1' is not SIGNAL@DURATION"
    ]
    assert mistakes(tmp_path, "#!/bin/sh\n#HASCHED --countable x=y\n") == [
        "train.sh:2: --countable: 'x=y' is not NAME or NAME=NUMBER"
    ]


def test_a_job_with_parameters_is_a_template(tmp_path: Path):
    (cause,) = mistakes(tmp_path, "command: [x]\nparameters: {a: 1}\n")
    assert cause.startswith("train.sh:2: parameters: unknown key; a job with parameters is a template: ")


def test_a_script_says_who_is_told(tmp_path: Path):
    document = read(tmp_path, "#!/bin/sh\n#HASCHED --notify=ops\n", targets=("ml",))
    assert document["notify"] == {"targets": ["ml"]}


@pytest.mark.parametrize("command", [["job", "submit", "-h"], ["job", "run", "-h"]])
def test_help_is_at_hand(command: list[str]):
    assert "Usage: " in CliRunner().invoke(cli, command).output


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("# HASCHED --priority 7", id="a blank before the word"),
        pytest.param("##HASCHED --priority 7", id="commented out"),
        pytest.param(" #HASCHED --priority 7", id="indented"),
        pytest.param("#HASCHEDULE --priority 7", id="another word"),
        pytest.param("true\n#HASCHED --priority 7", id="behind a command"),
        pytest.param("  true\n#HASCHED --priority 7", id="behind an indented command"),
    ],
)
def test_other_lines_say_nothing(tmp_path: Path, line: str):
    assert "priority" not in read(tmp_path, f"#!/bin/sh\n{line}\n")
    assert read(tmp_path, "#!/bin/sh\n#HASCHED --priority 7\n")["priority"] == 7


def test_a_directive_that_comes_too_late_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    read(tmp_path, "#!/bin/sh\n\ntrue\n\n#HASCHED --priority 7\n")
    assert capsys.readouterr().err == "hasched: line 5: #HASCHED behind the first command (line 3) says nothing\n"


def test_every_mistake_has_its_line(tmp_path: Path):
    text = """\
#!/bin/sh
#HASCHED --gpus=two
#HASCHED --memory=4G --wait
#HASCHED --prioritty 3
#HASCHED --env "open
#HASCHED --name two words
#HASCHED --env =1
#HASCHED --input /etc/hostname
"""
    assert mistakes(tmp_path, text) == [
        "train.sh:2: --gpu / --gpus: 'two' is not a whole number",
        "train.sh:3: --wait is for the command line alone",
        "train.sh:4: there is no option --prioritty; did you mean --priority?",
        "train.sh:5: No closing quotation",
        "train.sh:6: '--name two words' is more than options; a value with blanks goes in quotes",
        "train.sh:7: --env: '=1' is not KEY=VALUE",
        "train.sh:8: --input is for the command line alone",
    ]


def test_what_the_document_refuses_has_the_line_of_its_directive(tmp_path: Path):
    text = "#!/bin/sh\n#HASCHED --cpu 2\n#HASCHED --memory lots\n#HASCHED --cpu many\n"
    cpu, memory = sorted(mistakes(tmp_path, text), reverse=True)
    assert cpu.startswith("train.sh:4: resources.cpu: 'many'")
    assert memory.startswith("train.sh:3: resources.memory: 'lots'")


def test_what_the_command_line_says_wrong_is_said_of_no_file(tmp_path: Path):
    (tmp_path / "a.sh").write_text("#!/bin/sh\n#HASCHED --cpu 2\n")
    done = CliRunner().invoke(cli, ["job", "submit", "--cpu", "many", str(tmp_path / "a.sh")], prog_name="hasched")
    assert done.exit_code == 65
    assert done.stderr.startswith("hasched: resources.cpu: 'many'")


def test_what_can_be_no_script_is_refused(tmp_path: Path):
    assert mistakes(tmp_path, "echo\n#HASCHED --cpu 2\n") == [
        "train.sh:1: a script begins with a line such as #!/bin/sh"
    ]
    assert "is larger than" in mistakes(tmp_path, "#!/bin/sh\n" + "#" * 2**19)[0]
    (tmp_path / "job.yaml").write_text("command: [x]\n")
    with pytest.raises(click.UsageError, match="write priority, resources into it"):
        read_job_file(str(tmp_path / "job.yaml"), (), {"gpu": 1, "priority": 2, "namespace": "n"})
    with pytest.raises(click.UsageError, match="arguments are for scripts"):
        read_job_file(str(tmp_path / "job.yaml"), ("x",))


@pytest.mark.parametrize(
    ("words", "file", "arguments", "waits"),
    [
        (["--wait", "a.sh", "--wait", "x"], "a.sh", ("--wait", "x"), True),
        (["a.sh", "--", "--wait"], "a.sh", ("--wait",), False),
        (["--", "a.sh", "--name", "x"], "a.sh", ("--name", "x"), False),
        (["a.sh", "-x", "--", "-y"], "a.sh", ("-x", "--", "-y"), False),
        (["job.yaml", "--wait"], "job.yaml", (), True),
    ],
)
def test_what_stands_behind_a_script_is_the_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], file: str, arguments: tuple[str], waits: bool
):
    monkeypatch.chdir(tmp_path)
    Path("a.sh").write_text("#!/bin/sh\n")
    Path("job.yaml").write_text("command: [x]\n")
    given = submit.make_context("submit", words).params
    assert (given["file"], given["arguments"], given["wait"]) == (file, arguments, waits)


def test_run_submit_and_directives_take_the_same_options():
    from hasched.cli.scripts import _directive

    names = {parameter.name for parameter in _directive.params}
    own = {"input_file", "submission_id", "if_index", "estimate", "wait", "json"}
    assert {parameter.name for parameter in run.params} == names | own | {"command"}
    assert {parameter.name for parameter in submit.params} == names | own | {"file", "arguments"}
    assert is_script("#!/bin/sh")
    assert not is_script(f"{DIRECTIVE} --cpu 2\n")
