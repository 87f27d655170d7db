"""The process executor: a task is a plain process, started by posix_spawn.

posix_spawn doesn't copy the page tables of the supervisor, so a start costs the same whatever its size. What it can't do
(enter a control group, set a limit) is done by a line of /bin/sh that becomes the command, and only for jobs that ask for it.
"""

# Plain strings, not pathlib: this is the path of every start.
# ruff: noqa: PTH102, PTH113

from __future__ import annotations

import errno
import os
import pwd
import signal

from hasched.agent.cgroups import Cgroup
from hasched.agent.executors import CHECKPOINT, LaunchFailed, NodeFailed
from hasched.agent.protocol import Configure, LaunchJob, LaunchTask

WORKING_DIR = "work"  # in the attempt's directory: what a task writes there can't replace what we write beside it
LIMIT = 'ulimit -v "$1" || exit 125; shift; exec "$@"'
MAX_NAME = 200  # of what a reason quotes
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
# Python ignores SIGPIPE and SIGXFSZ, and whoever started us may have ignored more; a task begins with the defaults.
_DEFAULTS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
# What the machine has run out of, or lost: no job is to blame.
_NODE_ERRNOS = (
    errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS,
    errno.ESTALE, errno.ENODEV,
)  # fmt: skip
_CAUSES = {
    errno.ENOENT: "no such file",
    errno.ENOTDIR: "not a directory",
    errno.EACCES: "permission denied",
    errno.ENOEXEC: "not a program that this machine can run; a script needs a #! line",
    errno.E2BIG: "the arguments and the environment are too long",
    errno.ENOSPC: "no space left on the device",
}


class ProcessExecutor:
    def __init__(self, settings: Configure) -> None:
        name, home = _user()
        self._base = {
            "PATH": settings.path,
            "HOME": home,
            "USER": name,
            "LOGNAME": name,
            "SHELL": "/bin/sh",
            "LANG": "C.UTF-8",
        }
        self._node_id = settings.node_id
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._prepared: tuple[LaunchJob, dict[str, str]] | None = None
        self._programs: dict[tuple[str, str], str] = {}

    def start(self, job: LaunchJob, task: LaunchTask, directory: str, cgroup: Cgroup | None) -> int:
        env = self._environment(job, task, directory)
        argv = list(job.command)
        if job.input:
            _write(f"{directory}/input", job.input, 0o640)
        if task.hostfile:
            _write(f"{directory}/hostfile", task.hostfile.encode(), 0o640)
        if job.script:
            _write(f"{directory}/script", job.script.encode(), 0o750)
            interpreter = [] if job.script.startswith("#!") else ["/bin/sh"]
            argv = [*interpreter, f"{directory}/script", *job.args]
        self._enter(job.working_dir, directory)
        program = self._resolve(argv[0], env["PATH"])
        if cgroup is not None:
            argv = cgroup.enter_command([program, *argv[1:]])
            program = argv[0]
        elif job.memory_bytes:
            argv = ["/bin/sh", "-c", LIMIT, "hasched", str(job.memory_bytes // 1024), program, *argv[1:]]
            program = argv[0]
        return self._spawn(program, argv, env, directory)

    def _enter(self, working_dir: str, directory: str) -> None:
        """Make the current directory the one that the task begins in."""
        if working_dir:
            try:
                os.chdir(working_dir)
            except OSError as error:
                raise _failed(error, f"working directory {_short(working_dir)}") from error
            return
        own = f"{directory}/{WORKING_DIR}"
        try:
            os.mkdir(own, 0o750)
            os.chdir(own)
        except OSError as error:
            raise NodeFailed(f"{own} can't be made: {_cause(error)}") from error

    def _spawn(self, program: str, argv: list[str], env: dict[str, str], directory: str) -> int:
        opened: list[int] = []
        try:
            for stream in ("stdout", "stderr"):
                opened.append(os.open(f"{directory}/{stream}", _APPEND, 0o640))
        except OSError as error:
            for fd in opened:
                os.close(fd)
            raise NodeFailed(f"the log can't be written in {directory}: {_cause(error)}") from error
        out, err = opened
        try:
            return os.posix_spawn(
                program,
                argv,
                env,
                file_actions=(
                    (os.POSIX_SPAWN_DUP2, self._null, 0),
                    (os.POSIX_SPAWN_DUP2, out, 1),
                    (os.POSIX_SPAWN_DUP2, err, 2),
                ),
                setsid=True,
                setsigmask=(),
                setsigdef=_DEFAULTS,
            )
        except OSError as error:
            self._programs.clear()
            raise _failed(error, _short(program)) from error
        except ValueError as error:
            raise LaunchFailed(f"{_short(program)}: {error}") from error
        finally:
            os.close(out)
            os.close(err)

    def _environment(self, job: LaunchJob, task: LaunchTask, directory: str) -> dict[str, str]:
        """A small base, the job's own variables, and ours, which a job can't replace."""
        if self._prepared is None or self._prepared[0] is not job:
            shared = {
                **self._base,
                **job.env,
                "HASCHED_JOB_ID": str(job.job_id),
                "HASCHED_JOB_NAME": job.name,
                "HASCHED_TASK_COUNT": str(job.count),
                "HASCHED_NODE": self._node_id,
            }
            self._prepared = (job, shared)
        env = self._prepared[1].copy()
        env["HASCHED_TASK_INDEX"] = str(task.index)
        env["HASCHED_ATTEMPT"] = str(task.attempt)
        env["HASCHED_OUTPUT"] = f"{directory}/output"
        env["HASCHED_CHECKPOINT"] = f"{directory}/{CHECKPOINT}"
        if job.input:
            env["HASCHED_INPUT"] = f"{directory}/input"
        env.update(task.env)
        if task.hostfile:
            env["HASCHED_HOSTFILE"] = f"{directory}/hostfile"
        if task.gpus is not None:
            env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
            env["CUDA_VISIBLE_DEVICES"] = task.gpus
        return env

    def _resolve(self, name: str, path: str) -> str:
        """The file that `name` stands for, as a shell finds it. Raises LaunchFailed."""
        if "/" in name:
            return name
        program = self._programs.get((name, path))
        if program is None:
            for folder in path.split(":"):
                candidate = f"{folder or '.'}/{name}"
                if os.access(candidate, os.X_OK) and os.path.isfile(candidate):
                    program = candidate
                    break
            else:
                raise LaunchFailed(f"{_short(name)}: no such program in PATH ({path})")
            if program.startswith("/"):
                self._programs[name, path] = program
        return program


def _user() -> tuple[str, str]:
    """Our name and home. A container may run us as a user that nobody has entered anywhere."""
    try:
        user = pwd.getpwuid(os.geteuid())
    except KeyError:
        return str(os.geteuid()), "/"
    return user.pw_name, user.pw_dir


def _write(path: str, content: bytes, mode: int) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
    except OSError as error:
        raise NodeFailed(f"{path} can't be written: {_cause(error)}") from error


def _failed(error: OSError, what: str) -> LaunchFailed | NodeFailed:
    """Whose failure it is: the job's, which names something that isn't there, or the node's."""
    kind = NodeFailed if error.errno in _NODE_ERRNOS else LaunchFailed
    return kind(f"{what}: {_cause(error)}")


def _short(name: str) -> str:
    """So that what is wrong with it isn't cut off behind it."""
    return name if len(name) <= MAX_NAME else name[:MAX_NAME] + "…"


def _cause(error: OSError) -> str:
    return _CAUSES.get(error.errno or 0) or error.strerror or str(error)
