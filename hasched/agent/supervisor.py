"""The supervisor: a small process that owns the tasks, so that they outlive the agent.

It has one thread, no dependencies but msgspec, and its own session. An agent finds it by its socket in the data directory,
tells it what to launch, stop and freeze, and hears what started and ended. Without an agent it goes on: it collects exit
statuses, enforces timeouts and leases, bounds logs, and tells the next agent. SIGTERM ends all tasks, then it. So does the
loss of its data directory: no agent would find it there, and the next one would start another beside it.

    python -m hasched.agent.supervisor DATA_DIR
"""

# Plain strings, not pathlib: it is not worth its import here.
# ruff: noqa: PTH108, PTH116

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys

import msgspec

import hasched
from hasched.agent import cgroups
from hasched.agent.executors.process import ProcessExecutor
from hasched.agent.orders import Orders
from hasched.agent.processes import boot_ms, send, wall_ms
from hasched.agent.protocol import (
    Configure,
    FrameBuffer,
    FrameTooLarge,
    FromSupervisor,
    Inventory,
    Observed,
    batches,
    decode_to_supervisor,
    encode,
    parts,
)
from hasched.agent.roster import Roster
from hasched.agent.supervised import Supervised
from hasched.model.states import EndKind

SOCKET = "supervisor.sock"
LOCK = "supervisor.lock"
READY = b"ready\n"
TAKEN = 3  # the exit status of one that found another
STARTS_PER_TURN = 16  # between two looks at who has ended
NEWS_DELAY_MS = 2  # at most; a start that ends within it is one message
RECEIVE_BYTES = 256 * 1024
LOOK_INTERVAL_MS = 2_000  # whether the data directory is still ours
_PR_SET_CHILD_SUBREAPER = 36
_PEER = struct.Struct("3i")


def log(event: str, **fields: object) -> None:
    """One line of JSON on stderr, which is `supervisor.log`."""
    sys.stderr.write(json.dumps({"time_ms": wall_ms(), "event": event, **fields}) + "\n")
    sys.stderr.flush()


class Supervisor:
    def __init__(self, data_dir: str, roster: Roster) -> None:
        self._instance = os.urandom(8).hex()
        self._supervised = Supervised(data_dir, roster, log)
        self._cgroups = cgroups.detect(f"{os.getpid()}.{self._instance}")
        self._configured: Configure | None = None
        self._isolation = "rlimit"
        self._orders = Orders(self._supervised, self._configure)
        self._listener = listen(data_dir)
        self._connection: socket.socket | None = None
        self._frames = FrameBuffer()
        self._outgoing = bytearray()
        self._news_at_ms = 0
        self._lock = f"{data_dir}/{LOCK}"
        self._lock_file = os.stat(self._lock)
        self._look_at_ms = 0
        self._told_to_end = False
        self._ended = False
        self._poll = select.poll()
        self._poll.register(self._listener, select.POLLIN)
        self._wakeup, self._waker = socket.socketpair()
        self._wakeup.setblocking(False)
        self._waker.setblocking(False)
        self._poll.register(self._wakeup, select.POLLIN)

    def run(self) -> None:
        """Until SIGTERM and the end of all tasks."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        while not (self._ended and not len(self._supervised)):
            self._turn()
        self._send_news()
        if self._cgroups is not None:
            self._cgroups.close()
        log("ended")

    def _on_term(self, *_: object) -> None:
        """Runs between any two instructions of the loop, so it only leaves a note."""
        self._told_to_end = True

    def _turn(self) -> None:
        for fd, events in self._poll.poll(self._timeout_ms()):
            if fd == self._wakeup.fileno():
                self._wakeup.recv(4096)
            elif fd == self._listener.fileno():
                self._accept()
            elif self._connection is not None and fd == self._connection.fileno():
                if events & select.POLLOUT:
                    self._flush()
                if events & ~select.POLLOUT:
                    self._receive()
        if self._told_to_end and not self._ended:
            self._end("the supervisor was told to end, with all its tasks")
        if len(self._supervised) and not self._ended and boot_ms() >= self._look_at_ms:
            self._look_at_ms = boot_ms() + LOOK_INTERVAL_MS
            if self._is_lost():
                log("data_directory_lost", running=len(self._supervised))
                self._end("the node's data directory was lost, and with it the way to tell of any end")
        self._orders.launch(STARTS_PER_TURN)
        self._supervised.reap()
        self._supervised.act()
        if self._supervised.has_news:
            now_ms = boot_ms()
            self._news_at_ms = self._news_at_ms or now_ms + NEWS_DELAY_MS
            if now_ms >= self._news_at_ms:
                self._send_news()

    def _timeout_ms(self) -> int | None:
        if self._orders.waiting:
            return 0
        due_ms = self._supervised.next_due_ms()
        if self._news_at_ms:
            due_ms = min(due_ms, self._news_at_ms) if due_ms is not None else self._news_at_ms
        return None if due_ms is None else max(0, due_ms - boot_ms())

    def _is_lost(self) -> bool:
        """Whether another supervisor could be started where this one was: its lock isn't there any more."""
        try:
            return not os.path.samestat(os.stat(self._lock), self._lock_file)
        except FileNotFoundError:
            return True
        except OSError:
            return False  # a disk that can't be read is no other disk

    def _end(self, reason: str) -> None:
        self._ended = True
        self._orders.close()
        self._supervised.stop_everything(EndKind.LOST, reason)

    # The agent.

    def _accept(self) -> None:
        """A new agent replaces the old one. What the old one sent is obeyed first, so that the inventory is complete."""
        connection, _ = self._listener.accept()
        pid, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid not in (os.geteuid(), 0):
            log("stranger_refused", pid=pid, uid=uid)
            connection.close()
            return
        if self._connection is not None:
            self._receive(to_the_end=True)
            self._disconnect()
        connection.setblocking(False)
        self._connection = connection
        self._poll.register(connection, select.POLLIN)
        log("agent_connected", pid=pid)

    def _receive(self, to_the_end: bool = False) -> None:
        while self._connection is not None:
            try:
                data = self._connection.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            if not data:
                self._disconnect()
                return
            try:
                for frame in self._frames.feed(data):
                    for message in decode_to_supervisor(frame):
                        self._orders.obey(message)
            except (FrameTooLarge, msgspec.MsgspecError) as error:
                log("agent_misunderstood", cause=str(error))
                self._disconnect()
                return
            if not to_the_end:
                return

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._poll.unregister(self._connection)
            self._connection.close()
            self._connection = None
            self._frames = FrameBuffer()
            self._outgoing.clear()
            log("agent_gone", running=len(self._supervised))

    def _configure(self, settings: Configure) -> None:
        if settings != self._configured:
            groups = self._cgroups if settings.cgroups else None
            self._isolation = f"cgroup{groups.version}" if groups else "rlimit"
            self._supervised.configure(settings, ProcessExecutor(settings), groups)
            self._configured = settings
        self._supervised.take_news()  # all of it is in the inventory
        self._news_at_ms = 0
        inventory = Inventory(
            hasched.__version__,
            self._instance,
            os.getpid(),
            self._isolation,
            self._supervised.running(),
            self._supervised.ended(),
        )
        for part in parts(inventory):
            self._send([part])

    def _send_news(self) -> None:
        self._news_at_ms = 0
        news = self._supervised.take_news()
        if news and self._connection is not None and self._configured is not None:
            for batch in batches(news):
                self._send([Observed(batch, self._supervised.take_node_failure())])

    def _send(self, messages: list[FromSupervisor]) -> None:
        self._outgoing += encode(messages)
        self._flush()

    def _flush(self) -> None:
        if self._connection is None:
            return
        try:
            while self._outgoing:
                del self._outgoing[: self._connection.send(self._outgoing)]
        except BlockingIOError:
            pass  # POLLOUT tells when there is room again
        except ConnectionError:
            self._disconnect()
            return
        self._poll.modify(self._connection, select.POLLIN | (select.POLLOUT if self._outgoing else 0))


def listen(data_dir: str) -> socket.socket:
    """The socket in the data directory, for our own user only. The path goes through /proc, as it may be too long."""
    directory = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = f"/proc/self/fd/{directory}/{SOCKET}"
        if os.path.lexists(path):
            os.unlink(path)
        umask = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(umask)
        listener.listen(8)
        listener.setblocking(False)
        return listener
    finally:
        os.close(directory)


def main(data_dir: str) -> int:
    """Own the data directory's tasks until told to end. Status TAKEN: another supervisor does so already."""
    os.umask(0o027)
    lock = os.open(f"{data_dir}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return TAKEN
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    os.chdir("/")
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        log("not_a_subreaper", cause=os.strerror(ctypes.get_errno()))
    roster = Roster(f"{data_dir}/roster")
    leftovers = roster.leftovers()
    foreign = [pid for pid in leftovers if not send(pid, signal.SIGKILL)]
    if leftovers:
        log("leftovers_killed", pids=[pid for pid in leftovers if pid not in foreign], foreign=foreign)
    roster.clear()
    supervisor = Supervisor(data_dir, roster)
    log("started", pid=os.getpid(), release=hasched.__version__)
    if not os.isatty(1):
        os.write(1, READY)
        os.dup2(2, 1)
    supervisor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
