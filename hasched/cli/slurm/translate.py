"""From a script for sbatch to a job's document, with a remark on every option that means something else here, or nothing.

sbatch runs a script once, on the first of its nodes, and `srun` in it starts the tasks. Here a job's tasks each run the
script: an array becomes a `count`, several nodes a gang with a task on each, several tasks on one node the CPUs of one.
"""

from __future__ import annotations

import re
import shlex
from pathlib import PurePath
from typing import Any, NamedTuple

from hasched.cli.slurm.lines import Option, is_read, read_options
from hasched.cli.slurm.tables import MAIL_EVENTS, NO_COUNTERPART, OF_SBATCH_ITSELF, OTHERWISE
from hasched.cli.slurm.values import (
    Array,
    expand_nodes,
    read_array,
    read_duration,
    read_mebibytes,
    read_moment,
    read_number,
    split_outside_brackets,
    write_mebibytes,
)
from hasched.cli.slurm.variables import ELSEWHERE, VARIABLES, used_in
from hasched.model.dependency import parse_dependency
from hasched.model.errors import SpecInvalid
from hasched.model.ids import is_name
from hasched.model.parse import parse_spec
from hasched.model.states import WarningSignal

_SHELL = re.compile(r"#!\s*(?:\S*/)?(?:env\s+)?(?:\S*/)?(?:ba|da|k|z|a)?sh\b")
_LAUNCHER = re.compile(r"^\s*(?:exec\s+|time\s+)?(srun|sbcast|sattach|scontrol|sbatch|scancel)\b")
_ENDS = re.compile(r"[A-Za-z]+:")


_NOBODY = "who is told is said by a notification of the cluster: name it with `--notify`"


class Remark(NamedTuple):
    """About an option of a line: `taken` otherwise than Slurm means it, or not at all; and what to do."""

    line: int
    option: str
    taken: bool
    text: str


class Import(NamedTuple):
    document: dict[str, Any]
    remarks: list[Remark]


def read_sbatch(text: str, name: str, directory: str, timezone: str, notify: str = "") -> Import:
    """The job of a script. `directory` is where sbatch would be called, `timezone` that of the times in it.

    `notify`: the notification that is told of what --mail-type says.
    """
    return _Translation(text, name, directory, timezone, notify).run()


class _Translation:
    def __init__(self, text: str, name: str, directory: str, timezone: str, notify: str) -> None:
        self._text = text
        self._name = name
        self._directory = directory
        self._timezone = timezone
        self._notify = notify
        self._options: dict[str, Option] = {}
        self._remarks: list[Remark] = []
        self._lines: dict[str, int] = {}  # of each key of the document
        self._document: dict[str, Any] = {}
        self._array: Array | None = None

    def run(self) -> Import:
        for option in read_options(self._text):
            if option.fault:
                self._refuse(option, option.fault)
            else:
                self._options[option.name] = option
        for option in self._options.values():
            self._take(option)
        self._take_shape()
        if "name" not in self._document and is_name(self._name):
            self._document = {"name": self._name, **self._document}
        self._document.setdefault("working_dir", self._directory)
        self._document["script"] = self._script()
        self._check()
        return Import(self._document, sorted(self._remarks))

    def _take(self, option: Option) -> None:
        name = option.name
        if name in NO_COUNTERPART:
            self._refuse(option, NO_COUNTERPART[name])
        elif name in OTHERWISE:
            self._remark(option, OTHERWISE[name])
        elif name not in OF_SBATCH_ITSELF and (method := getattr(self, f"_take_{name.replace('-', '_')}", None)):
            try:
                method(option)
            except ValueError as error:
                self._refuse(option, str(error))

    def _put(self, option: Option, key: str, value: Any) -> None:
        self._document[key] = value
        self._lines[key] = option.line

    def _refuse(self, option: Option, why: str) -> None:
        self._remarks.append(Remark(option.line, _shown(option), False, why))

    def _remark(self, option: Option, what: str) -> None:
        self._remarks.append(Remark(option.line, _shown(option), True, what))

    def _resource(self, option: Option, key: str, value: Any) -> None:
        self._document.setdefault("resources", {})[key] = value
        self._lines[f"resources.{key}"] = option.line

    def _place(self, option: Option, key: str, value: Any) -> None:
        placement = self._document.setdefault("placement", {})
        placement[key] = [*placement[key], value] if key in placement else [value]
        self._lines[f"placement.{key}"] = option.line

    # What an option says by itself.

    def _take_job_name(self, option: Option) -> None:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", option.value).strip("-._")[:128]
        if not is_name(name):
            raise ValueError("a name has letters and digits")
        self._put(option, "name", name)
        if name != option.value:
            self._remark(option, f"a name has letters, digits, `.`, `_` and `-`, so it is {name}")

    def _take_partition(self, option: Option) -> None:
        pools = option.value.split(",")
        self._put(option, "queue", pools[0])
        self._place(option, "pool", pools[0])
        for pool in pools[1:]:
            self._place(option, "pool", pool)
        self._remark(option, "a queue for the order, and a pool for the nodes: both have to be there")

    def _take_account(self, option: Option) -> None:
        self._put(option, "namespace", option.value)

    def _take_qos(self, option: Option) -> None:
        if option.value != "normal":
            self._put(option, "priority_class", option.value)
            self._remark(option, "a priority class, which has to be there; limits of a QOS are quotas here")

    def _take_priority(self, option: Option) -> None:
        if "qos" in self._options and self._options["qos"].value != "normal":
            raise ValueError("a priority and a priority class (--qos) exclude each other")
        self._put(option, "priority", read_number(option.value, 0))

    def _take_time(self, option: Option) -> None:
        self._put(option, "timeout", read_duration(option.value))

    def _take_begin(self, option: Option) -> None:
        self._put(option, "not_before", read_moment(option.value, self._timezone))

    def _take_deadline(self, option: Option) -> None:
        self._put(option, "deadline", read_moment(option.value, self._timezone))

    def _take_dependency(self, option: Option) -> None:
        written = re.sub(r"\+(\d+)(?=[:,?]|$)", r"+\1m", option.value)
        parse_dependency(written)
        self._put(option, "dependency", written)
        if _ENDS.search(written):
            self._remark(option, "its numbers are those of jobs of Slurm: write ours")

    def _take_kill_on_invalid_dep(self, option: Option) -> None:
        if option.value not in ("yes", "no"):
            raise ValueError("it is yes or no")
        self._put(option, "on_broken_dependency", "cancel" if option.value == "yes" else "wait")

    def _take_array(self, option: Option) -> None:
        self._array = read_array(option.value)
        self._put(option, "count", self._array.size)
        if self._array.at_once:
            self._put(option, "max_running", self._array.at_once)

    def _take_chdir(self, option: Option) -> None:
        self._put(option, "working_dir", str(PurePath(self._directory, option.value)))

    def _take_comment(self, option: Option) -> None:
        self._document.setdefault("labels", {})["comment"] = option.value

    def _take_wckey(self, option: Option) -> None:
        self._document.setdefault("labels", {})["wckey"] = option.value

    def _take_export(self, option: Option) -> None:
        env: dict[str, str] = {}
        for part in option.value.split(","):
            key, equals, value = part.partition("=")
            if equals:
                env[key] = value
            elif key == "ALL":
                self._remark(
                    option, "no variables of ours are passed on: name those that it needs, `--export=NAME=VALUE`"
                )
            elif key not in ("NONE", "NIL", ""):
                self._refuse(option, f"{key} has no value here: write {key}=VALUE")
        if env:
            self._put(option, "env", env)

    def _take_signal(self, option: Option) -> None:
        match = re.fullmatch(r"(?:[RB]+:)?(?:SIG)?([A-Za-z0-9]+)(?:@(\d+))?", option.value)
        known = [signal.value for signal in WarningSignal]
        numbers = {"1": "HUP", "2": "INT", "10": "USR1", "12": "USR2", "15": "TERM"}
        name = "" if match is None else numbers.get(match[1], match[1].upper())
        if match is None or name not in known:
            raise ValueError(f"it has the form USR1@60, with a signal of {', '.join(known)}")
        self._put(option, "preemption", {"signal": name, "warning": f"{match[2] or 60}s"})
        self._remark(
            option, "the signal comes before a preemption; at the end of --time TERM does, then KILL after kill_grace"
        )

    def _take_mail_type(self, option: Option) -> None:
        types = option.value.upper().split(",")
        if not self._notify:
            raise ValueError(_NOBODY)
        events: dict[str, None] = {}
        for each in types:
            if each in MAIL_EVENTS:
                events.update(dict.fromkeys(MAIL_EVENTS[each]))
            else:
                self._refuse(option, f"nobody is told of {each}")
        if events:
            self._put(option, "notify", {"targets": [self._notify], "events": list(events)})

    def _take_mail_user(self, option: Option) -> None:
        if not self._notify:
            raise ValueError(_NOBODY)
        self._remark(option, f"the notification {self._notify} says who is told")

    def _take_no_requeue(self, option: Option) -> None:
        self._put(option, "retries", {"node_lost": 0})

    def _take_tmp(self, option: Option) -> None:
        self._resource(option, "disk", write_mebibytes(read_mebibytes(option.value)))

    def _take_licenses(self, option: Option) -> None:
        units: dict[str, int] = {}
        for part in option.value.split(","):
            name, _, number = part.partition(":")
            name = name.partition("@")[0]
            if not is_name(name):
                raise ValueError(f"{name!r} is not a name")
            units[name] = read_number(number or "1")
        self._put(option, "semaphores", units)
        self._remark(option, "semaphores, which have to be there as policies of the kind `cap`")

    def _take_constraint(self, option: Option) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]+(?:[&|][A-Za-z0-9._-]+)*", option.value):
            raise ValueError("only names with & and | are taken; write placement.constraints")
        alternatives = [
            " and ".join(f"has label.{name}" for name in part.split("&")) for part in option.value.split("|")
        ]
        self._place(option, "constraints", " or ".join(alternatives))
        self._remark(option, "features are labels of nodes: `hasched node label` gives them")

    def _take_nodelist(self, option: Option) -> None:
        self._place(option, "constraints", f"node in [{', '.join(expand_nodes(option.value))}]")

    def _take_exclude(self, option: Option) -> None:
        self._place(option, "constraints", f"node not in [{', '.join(expand_nodes(option.value))}]")

    def _take_hetjob(self, option: Option) -> None:
        self._refuse(
            option, "a job whose tasks ask for different things is a gang with `groups`: write it as a job file"
        )

    # What several options say together: tasks, nodes, and what each has.

    def _number(self, name: str, otherwise: int) -> int:
        option = self._options.get(name)
        if option is None:
            return otherwise
        try:
            return read_number(option.value)
        except ValueError as error:
            self._refuse(option, str(error))
            return otherwise

    def _take_shape(self) -> None:
        """Tasks and nodes as our tasks, and what a node has to have as what a task asks for."""
        nodes = self._nodes()
        ntasks = self._number("ntasks", 0)
        self._tasks_per_node = self._number("ntasks-per-node", -(-ntasks // nodes) if ntasks else 1)
        self._ntasks = ntasks or nodes * self._tasks_per_node
        self._cpus_per_task = self._number("cpus-per-task", 1)
        gpus = self._gpus(nodes)
        self._cpus = self._tasks_per_node * self._cpus_per_task
        if "cpus-per-gpu" in self._options:
            self._cpus = max(self._cpus, self._number("cpus-per-gpu", 1) * gpus)
        self._gpus_per_node, self._node_count = gpus, nodes
        if nodes > 1:
            asked = self._options["nodes"]
            if self._array is not None:
                self._refuse(asked, "an array of jobs of several nodes is none here: submit one gang for each index")
            else:
                self._put(asked, "count", nodes)
                self._put(asked, "gang", True)
                self._place(asked, "anti_affinity", {"jobs": "self"})
                self._remark(asked, "a gang: the script runs on every node at once, with its rank in HASCHED_RANK")
        elif self._tasks_per_node > 1:
            asked = self._options["ntasks" if "ntasks" in self._options else "ntasks-per-node"]
            self._remark(asked, f"one task with {self._cpus} CPUs, which runs the script once, as sbatch does")
        self._document.setdefault("resources", {})["cpu"] = self._cpus
        self._take_memory(gpus)

    def _nodes(self) -> int:
        option = self._options.get("nodes")
        if option is None:
            return 1
        low, dash, high = option.value.partition("-")
        try:
            nodes = read_number(low)
            if dash and read_number(high) != nodes:
                self._remark(option, f"taken as {nodes}, the fewest")
        except ValueError as error:
            self._refuse(option, str(error))
            return 1
        return nodes

    def _gpus(self, nodes: int) -> int:
        """The GPUs of a node, by whichever option says so; other generic resources are countables."""
        gpus = 0
        for name, share in (("gpus", nodes), ("gpus-per-node", 1), ("gpus-per-task", 0), ("gres", 1)):
            option = self._options.get(name)
            if option is None or option.value.upper() == "NONE":
                continue
            for part in split_outside_brackets(option.value):
                try:
                    found = self._one_gres(option, part if name == "gres" else f"gpu:{part}", share)
                except ValueError as error:
                    self._refuse(option, str(error))
                else:
                    gpus += found
        if gpus:
            self._document.setdefault("resources", {})["gpus"] = gpus
        return gpus

    def _one_gres(self, option: Option, part: str, share: int) -> int:
        """`gpu:a100:2` of so many nodes together, or (0) of each task: the GPUs of a node."""
        kind, *rest = part.partition("(")[0].removeprefix("gres:").removeprefix("gres/").split(":")
        number = read_number(rest.pop()) if rest and rest[-1].isdigit() else 1
        model = rest[0] if rest else ""
        if kind != "gpu":
            countables = self._document.setdefault("resources", {}).setdefault("countables", {})
            countables[model or kind] = number
            self._remark(option, f"{model or kind} is a countable resource, which agents name in their configuration")
            return 0
        amount = number * self._tasks_per_node if share == 0 else -(-number // share)
        if model:
            models = self._document.setdefault("resources", {}).setdefault("gpu_model", [])
            models.append(model)
            self._lines["resources.gpu_model"] = option.line
        self._lines["resources.gpus"] = option.line
        return amount

    def _take_memory(self, gpus: int) -> None:
        for name, times in (("mem", 1), ("mem-per-cpu", self._cpus), ("mem-per-gpu", gpus)):
            option = self._options.get(name)
            if option is None:
                continue
            try:
                amount = read_mebibytes(option.value) * times
            except ValueError as error:
                self._refuse(option, str(error))
                continue
            if amount:
                self._resource(option, "memory", write_mebibytes(amount))
            else:
                self._refuse(option, "all memory of a node can't be asked for: write how much it needs")

    # The script itself.

    def _script(self) -> str:
        """The script without its #SBATCH lines, after variables that it expects of Slurm."""
        first, *lines = self._text.split("\n")
        for number, line in enumerate(lines, 2):
            if (match := _LAUNCHER.match(line)) is not None:
                hint = "leave it out: the script itself runs on every node" if match[1] == "srun" else "use `hasched`"
                self._remarks.append(Remark(number, match[1], False, f"a command of Slurm, which isn't there; {hint}"))
        return "\n".join([first, *self._variables(), *(line for line in lines if not is_read(line))])

    def _variables(self) -> list[str]:
        array = self._array
        index = "$HASCHED_TASK_INDEX"
        if array is not None and array.listed:
            listed = " ".join(map(str, array.listed))
            index = f"$(echo {listed} | cut -d' ' -f$((HASCHED_TASK_INDEX + 1)))"
        elif array is not None and (array.first or array.step != 1):
            index = f"$(({array.first} + HASCHED_TASK_INDEX * {array.step}))"
        values = {
            "index": index,
            "first": array.first if array else 0,
            "last": array.last if array else 0,
            "step": array.step if array else 1,
            "cpus_per_task": self._cpus_per_task,
            "cpus": self._cpus,
            "gpus": self._gpus_per_node,
            "nodes": self._node_count,
            "ntasks": self._ntasks,
            "tasks_per_node": self._tasks_per_node,
            "directory": shlex.quote(str(self._document["working_dir"])),
        }
        is_shell = _SHELL.match(self._text) is not None
        exports = []
        for name, line in used_in(self._text).items():
            if name not in VARIABLES:
                self._remarks.append(Remark(line, name, False, ELSEWHERE.get(name, "nothing here sets it")))
            elif is_shell:
                exports.append(f"export {name}={VARIABLES[name].format(**values)}")
            else:
                value = VARIABLES[name].format(**values)
                self._remarks.append(Remark(line, name, False, f"can't be set for this interpreter: it is {value}"))
        return exports

    def _check(self) -> None:
        """What the document as a whole refuses is said of the line that it comes from, and left out."""
        for _ in range(len(self._document)):
            try:
                parse_spec(self._document)
            except SpecInvalid as error:
                for each in error.errors:
                    self._leave_out(each.path, each.cause)
            else:
                return

    def _leave_out(self, path: str, cause: str) -> None:
        key, _, rest = re.sub(r"\[\d+\]", "", path).partition(".")
        inner = rest.partition(".")[0]
        place = f"{key}.{inner}" if inner else key
        line = self._lines.get(place, self._lines.get(key, 1))
        self._remarks.append(Remark(line, place, False, cause))
        holder = self._document.get(key)
        if isinstance(holder, dict) and inner in holder and len(holder) > 1:
            holder.pop(inner)
        else:
            self._document.pop(key, None)


def _shown(option: Option) -> str:
    return f"--{option.name}" if re.fullmatch(r"[a-z-]{2,}", option.name) else option.name
