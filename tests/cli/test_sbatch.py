"""Scripts for sbatch as job files: what real ones become, what is said of each line, and that nothing is lost in silence."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from hasched.cli.main import cli
from hasched.cli.slurm.lines import OPTIONS, Option, read_options
from hasched.cli.slurm.tables import NO_COUNTERPART, OF_SBATCH_ITSELF, OF_THE_SHAPE, OTHERWISE
from hasched.cli.slurm.translate import Import, _Translation, read_sbatch
from hasched.cli.slurm.values import (
    expand_nodes,
    read_array,
    read_duration,
    read_mebibytes,
    read_number,
    write_mebibytes,
)
from hasched.cli.slurm.variables import ELSEWHERE, VARIABLES
from hasched.model.parse import parse_spec
from hasched.model.units import parse_bytes, parse_duration_ms
from hasched.model.yaml_text import read_documents

PAGE = Path(__file__).parents[2] / "docs" / "jobs.md"


def read(lines: str, body: str = "true\n", name: str = "job.sh") -> Import:
    found = read_sbatch(f"#!/bin/bash\n{lines}{body}", name, "/home/ada", "Europe/Berlin")
    parse_spec(found.document)
    return found


def document(lines: str) -> dict[str, Any]:
    """What lines say, without what every import says."""
    found = read(lines).document
    return {key: value for key, value in found.items() if key not in ("name", "script", "working_dir")}


def said(found: Import) -> list[str]:
    return [f"{each.line} {each.option}{'' if each.taken else ' NOT'}" for each in found.remarks]


SERIAL = """\
#SBATCH --job-name=serial_job_test    # Job name
#SBATCH --mail-type=END,FAIL          # Mail events
#SBATCH --mail-user=email@ufl.edu
#SBATCH --ntasks=1                    # Run on a single CPU
#SBATCH --mem=1gb
#SBATCH --time=00:05:00
#SBATCH --output=serial_test_%j.log
"""
THREADED = """\
#SBATCH -J parallel_job
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem-per-cpu=600
#SBATCH -t 0-00:05
#SBATCH --account=staff
#SBATCH --qos=staff-b
"""
TRAINING = """\
#SBATCH --partition=a100
#SBATCH --gres=gpu:a100:4
#SBATCH --cpus-per-task 16
#SBATCH --mem=128G
#SBATCH --time=2-00:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --exclude=gpu[01-02]
#SBATCH --export=ALL,WANDB_MODE=offline
"""
DISTRIBUTED = """\
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --constraint=h100&ib
"""
SWEEP = """\
#SBATCH --array=1-31:2%4
#SBATCH --gpus=1
#SBATCH --mem-per-gpu=40G
#SBATCH --licenses=matlab:2,fluent@server
#SBATCH --nice=100
"""
LATER = """\
#SBATCH -b now+90minutes -d afterok:12:13,after:14+10
#SBATCH --deadline=2026-12-24T18:00
#SBATCH --kill-on-invalid-dep=no --no-requeue
#SBATCH --chdir=run7 --comment="the second try" --tmp 20G --priority=7
#SBATCH -w n1,n[08-10] --qos=normal
"""


@pytest.mark.parametrize(
    ("lines", "expected", "remarks"),
    [
        pytest.param(
            SERIAL,
            {"timeout": "5m", "resources": {"cpu": 1, "memory": "1Gi"}},
            ["3 --mail-type NOT", "4 --mail-user NOT", "8 --output"],
            id="serial",
        ),
        pytest.param(
            THREADED,
            {
                "timeout": "5m",
                "namespace": "staff",
                "priority_class": "staff-b",
                "resources": {"cpu": 4, "memory": "2400Mi"},
            },
            ["9 --qos"],
            id="threaded",
        ),
        pytest.param(
            TRAINING,
            {
                "queue": "a100",
                "placement": {"pool": ["a100"], "constraints": ["node not in [gpu01, gpu02]"]},
                "timeout": "2d",
                "preemption": {"signal": "USR1", "warning": "120s"},
                "env": {"WANDB_MODE": "offline"},
                "resources": {"gpu_model": ["a100"], "gpus": 4, "cpu": 16, "memory": "128Gi"},
            },
            ["2 --partition", "7 --signal", "10 --export"],
            id="training",
        ),
        pytest.param(
            DISTRIBUTED,
            {
                "count": 4,
                "gang": True,
                "placement": {"constraints": ["has label.h100 and has label.ib"], "anti_affinity": [{"jobs": "self"}]},
                "resources": {"gpus": 8, "cpu": 64},
            },
            ["2 --nodes", "6 --mem NOT", "7 --exclusive NOT", "8 --constraint"],
            id="distributed",
        ),
        pytest.param(
            SWEEP,
            {
                "count": 16,
                "max_running": 4,
                "semaphores": {"matlab": 2, "fluent": 1},
                "resources": {"gpus": 1, "cpu": 1, "memory": "40Gi"},
            },
            ["5 --licenses", "6 --nice"],
            id="a sweep",
        ),
        pytest.param(
            LATER,
            {
                "not_before": "1h30m",
                "dependency": "afterok:12:13,after:14+10m",
                "deadline": "2026-12-24T18:00:00+01:00",
                "on_broken_dependency": "wait",
                "retries": {"node_lost": 0},
                "labels": {"comment": "the second try"},
                "priority": 7,
                "placement": {"constraints": ["node in [n1, n08, n09, n10]"]},
                "resources": {"disk": "20Gi", "cpu": 1},
            },
            ["2 --dependency"],
            id="later",
        ),
        pytest.param(
            "#SBATCH -n8 -c2 --gpus-per-task=1\n",
            {"resources": {"gpus": 8, "cpu": 16}},
            ["2 --ntasks"],
            id="tasks on one node",
        ),
        pytest.param(
            "#SBATCH -G 16 -N 2-4 --gres=tape:3 --cpus-per-gpu=4\n",
            {
                "count": 2,
                "gang": True,
                "placement": {"anti_affinity": [{"jobs": "self"}]},
                "resources": {"gpus": 8, "cpu": 32, "countables": {"tape": 3}},
            },
            ["2 --gres", "2 --nodes", "2 --nodes"],
            id="GPUs of all nodes together",
        ),
    ],
)
def test_what_scripts_become(lines: str, expected: dict[str, Any], remarks: list[str]):
    assert document(lines) == expected
    assert said(read(lines)) == remarks


@pytest.mark.parametrize(
    "lines",
    [
        "#SBATCH --exlude=n1",
        "#SBATCH --time=soon",
        "#SBATCH --mem=lots",
        "#SBATCH --array=9-1",
        "#SBATCH --array=0-9999999",
        "#SBATCH --dependency=afterburstbuffer:1",
        "#SBATCH --begin=teatime",
        "#SBATCH --nodes=many",
        "#SBATCH --job-name=///",
        "#SBATCH --signal=STOP",
        "#SBATCH --job-name",
        "#SBATCH stray",
        '#SBATCH --comment="open',
        "#SBATCH hetjob",
        "#SBATCH --nodelist=n[1-9999]",
        "#SBATCH --constraint=[rack1*2]",
        "#SBATCH --gpus=0",
        "#SBATCH --account=no/name",
        "#SBATCH --kill-on-invalid-dep=maybe",
        "#SBATCH --licenses=a/b",
        "#SBATCH --export=HOME",
    ],
)
def test_what_is_not_taken_is_said_with_its_line_and_the_rest_is_taken(lines: str):
    found = read(f"# about\n{lines}\n#SBATCH --priority=3\n")
    assert [(each.line, each.taken) for each in found.remarks] == [(3, False)]
    assert found.document["priority"] == 3


def test_mail_goes_by_a_notification():
    lines = "#SBATCH --mail-type=begin,END,TIME_LIMIT_80 --mail-user=ada@example.org\n"
    found = read_sbatch(f"#!/bin/sh\n{lines}", "x", "/d", "UTC", "ml")
    events = ["job.started", "job.succeeded", "job.failed", "job.cancelled"]
    assert found.document["notify"] == {"targets": ["ml"], "events": events}
    assert sorted(said(found)) == ["2 --mail-type NOT", "2 --mail-user"]
    assert parse_spec(found.document).notify is not None


def test_every_option_of_sbatch_is_taken_refused_or_meant_for_sbatch():
    for name in OPTIONS:
        taken = hasattr(_Translation, f"_take_{name.replace('-', '_')}")
        places = [taken, *(name in table for table in (NO_COUNTERPART, OTHERWISE, OF_SBATCH_ITSELF, OF_THE_SHAPE))]
        assert sum(places) == 1, name


def test_options_are_read_as_getopt_reads_them():
    text = """\
#!/bin/sh
#SBATCH -J a -c4 --mem 4G --cpus-per-t=8 -N=2 --exclusive=user
#SBATCH\t--quiet --nice
##SBATCH --hold
#SBATCHED --hold

#SBATCH -p 'two words' # --hold
true
#SBATCH --hold
"""
    assert list(read_options(text)) == [
        Option(2, "job-name", "a"),
        Option(2, "cpus-per-task", "4"),
        Option(2, "mem", "4G"),
        Option(2, "cpus-per-task", "8"),
        Option(2, "nodes", "2"),
        Option(2, "exclusive", "user"),
        Option(3, "quiet", ""),
        Option(3, "nice", ""),
        Option(7, "partition", "two words"),
    ]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("30", "30m"), ("90:30", "1h30m30s"), ("12:00:00", "12h"), ("1-12", "1d12h"), ("1-2:3", "1d2h3m"),
        ("2-00:00:01", "2d1s"), ("0", "0"), ("UNLIMITED", "0"),
    ],
)  # fmt: skip
def test_times(text: str, written: str):
    assert read_duration(text) == written
    parse_duration_ms(written if written != "0" else 0)


@given(st.integers(1, 8000), st.sampled_from("KMGT"))
def test_sizes_keep_their_amount(number: int, unit: str):
    written = write_mebibytes(read_mebibytes(f"{number}{unit}"))
    assert parse_bytes(written) == number * 1024 ** ("KMGT".index(unit) + 1)


ranges = st.tuples(st.integers(0, 500), st.integers(0, 60), st.integers(1, 9))


@given(st.lists(ranges, min_size=1, max_size=4), st.integers(0, 50))
def test_a_task_finds_the_index_that_slurm_would_give_it(parts: list[tuple[int, int, int]], limit: int):
    text = ",".join(f"{first}-{first + length}:{step}" for first, length, step in parts)
    array = read_array(text + (f"%{limit}" if limit else ""))
    expected = sorted({index for first, length, step in parts for index in range(first, first + length + 1, step)})
    listed = array.listed or tuple(range(array.first, array.last + 1, array.step))
    assert list(listed) == expected
    assert (array.size, array.at_once, array.last) == (len(expected), limit, expected[-1])


def test_nodes():
    assert expand_nodes("a,b[1-2,09-11]c,d") == ["a", "b1c", "b2c", "b09c", "b10c", "b11c", "d"]


def test_a_number_is_as_large_as_all_its_digits_say():
    assert (read_number("007"), read_number("0", 0), read_number("0" * 20 + "7")) == (7, 0, 7)
    for text in ("0" * 12 + "7" * 12, "1000001", "9" * 5000, "", "-1", "٣"):
        with pytest.raises(ValueError, match="is not a number from 1 to 1000000"):
            read_number(text)


@pytest.mark.parametrize("array", ["0-3", "5-11:2", "1,5,9-10", "7"])
def test_variables_of_slurm_are_set_in_the_script(array: str):
    names = " ".join(f'"{name}=${{{name}}}"' for name in VARIABLES)
    lines = f"#SBATCH --array={array} -n 3 -c 2 -G 1 -D '/data/it is'\n"
    found = read(lines, f"printf '%s\\n' {names}\n", name="sweep")
    indices = read_array(array).listed or range(read_array(array).first, 99, read_array(array).step)
    for task, index in list(enumerate(indices))[: found.document["count"]]:
        ours = {
            "HASCHED_JOB_ID": "7", "HASCHED_JOB_NAME": "sweep", "HASCHED_TASK_INDEX": str(task), "HASCHED_NODE": "n1",
            "HASCHED_TASK_COUNT": str(found.document["count"]), "HASCHED_ATTEMPT": "2", "HASCHED_NODE_RANK": "",
        }  # fmt: skip
        done = subprocess.run(
            ["bash", "-c", found.document["script"]], env={"PATH": os.environ["PATH"], **ours}, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        values = dict(line.split("=", 1) for line in done.stdout.splitlines())
        assert values["SLURM_ARRAY_TASK_ID"] == str(index)
        assert values["SLURM_ARRAY_TASK_MAX"] == str(read_array(array).last)
        assert (values["SLURM_JOB_ID"], values["SLURM_JOB_NAME"], values["SLURMD_NODENAME"]) == ("7", "sweep", "n1")
        assert (values["SLURM_NTASKS"], values["SLURM_CPUS_ON_NODE"], values["SLURM_CPUS_PER_TASK"]) == ("3", "6", "2")
        assert (values["SLURM_RESTART_COUNT"], values["SLURM_SUBMIT_DIR"]) == ("1", "/data/it is")
        assert "" not in values.values()


def test_what_a_script_needs_of_slurm_and_won_t_find_is_said():
    body = "srun hostname\ncat $SLURM_JOB_NODELIST $SLURM_TOPOLOGY_ADDR\n  scancel 7\n"
    assert said(read("", body)) == [
        "2 srun NOT",
        "3 SLURM_JOB_NODELIST NOT",
        "3 SLURM_TOPOLOGY_ADDR NOT",
        "4 scancel NOT",
    ]
    of_python = read_sbatch("#!/usr/bin/env python3\nos.environ['SLURM_ARRAY_TASK_ID']\n", "x.py", "/d", "UTC")
    assert [(each.line, each.text) for each in of_python.remarks] == [
        (2, "can't be set for this interpreter: it is $HASCHED_TASK_INDEX")
    ]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, input: str | None = None) -> Result:
        return CliRunner().invoke(cli, ["import", "sbatch", *arguments], input=input, prog_name="hasched")

    return run


def test_the_command_prints_a_job_file_and_remarks(run, tmp_path: Path):
    Path("a.sh").write_text('#!/bin/sh\n#SBATCH -c 2 --exclusive -o log\n\techo "$1"  # ü\n\nexit 3\n')
    Path("b.sh").write_text("#!/bin/sh\ntrue")
    done = run("a.sh", "b.sh")
    assert done.exit_code == 0
    assert done.stderr.splitlines() == [
        "a.sh:2: --exclusive is not taken: a node isn't given to one job: ask for all its CPUs",
        "a.sh:2: --output: output is kept by the cluster: `hasched job logs`",
    ]
    first, second = read_documents(done.stdout, "printed")
    assert first.value == {
        "name": "a.sh",
        "resources": {"cpu": 2},
        "working_dir": str(tmp_path),
        "script": '#!/bin/sh\n\techo "$1"  # ü\n\nexit 3\n',
    }
    assert second.value["script"] == "#!/bin/sh\ntrue"
    as_json = json.loads(run("a.sh", "b.sh", "--json").stdout)
    assert as_json["jobs"] == [first.value, second.value]
    assert [(each["file"], each["line"], each["taken"]) for each in as_json["remarks"]] == [
        ("a.sh", 2, False),
        ("a.sh", 2, True),
    ]


def test_strict_takes_all_or_nothing(run):
    Path("a.sh").write_text("#!/bin/sh\n#SBATCH --exclusive\n#SBATCH -o log --mem=x\n")
    done = run("--strict", "a.sh")
    assert (done.exit_code, done.stdout) == (65, "")
    assert [line.partition(": --")[2][:9] for line in done.stderr.splitlines()] == ["exclusive", "mem: 'x' "]
    assert run("--strict", "-", input="#!/bin/sh\n#SBATCH -o log\n").exit_code == 0


def test_what_is_no_script_is_refused(run):
    Path("a.sh").write_text("#SBATCH -c 2\n")
    assert (run("a.sh").exit_code, run("a.sh", "--timezone", "Mars").exit_code) == (65, 65)


words = st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=12)


@given(st.lists(st.tuples(st.sampled_from(sorted(OPTIONS)), words), max_size=6))
def test_whatever_lines_say_a_job_that_can_be_submitted_comes_out(lines: list[tuple[str, str]]):
    text = "".join(f"#SBATCH --{name}={value}\n" for name, value in lines)
    read(text)


def test_the_page_has_the_variables():
    rows = dict(re.findall(r"^\| `(SLURM\w+)` \| (.+) \|$", PAGE.read_text(), re.MULTILINE))
    assert rows.keys() == VARIABLES.keys() | ELSEWHERE.keys()
    for name, value in VARIABLES.items():
        if value.startswith("$"):
            assert rows[name].strip("`") == value.replace("{{", "{").replace("}}", "}")
