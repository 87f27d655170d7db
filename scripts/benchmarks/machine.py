"""What this machine can do at all: process starts, synced appends, and etcd's synced puts where it is installed."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path


def spawn_limit_per_s(folder: Path, count: int = 3000, window: int = 32) -> float:
    """`/bin/true` a second by Python's posix_spawn, each in its own session with two log files, `window` at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    started = ended = 0
    begin = time.perf_counter()
    while ended < count:
        while started < count and started - ended < window:
            actions = [
                (os.POSIX_SPAWN_OPEN, 1, str(folder / f"{started}.stdout"), flags, 0o600),
                (os.POSIX_SPAWN_OPEN, 2, str(folder / f"{started}.stderr"), flags, 0o600),
            ]
            os.posix_spawn("/bin/true", ["true"], os.environ, file_actions=actions, setsid=True)
            started += 1
        os.wait4(-1, 0)
        ended += 1
    elapsed = time.perf_counter() - begin
    shutil.rmtree(folder)
    return count / elapsed


def synced_appends_per_s(folder: Path, count: int = 1000) -> float:
    """4 KiB appends a second, each followed by fdatasync."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "synced"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    block = os.urandom(4096)
    try:
        begin = time.perf_counter()
        for _ in range(count):
            os.write(descriptor, block)
            os.fdatasync(descriptor)
        return count / (time.perf_counter() - begin)
    finally:
        os.close(descriptor)
        path.unlink()


def etcd_puts_per_s(folder: Path, clients: int, seconds: float = 3.0) -> float | None:
    """Puts a second of a three-member etcd on loopback, `clients` connections; None where etcd isn't installed."""
    binary = shutil.which("etcd")
    if binary is None:
        return None
    ports = _free_ports(6)
    peers = ",".join(f"m{i}=http://127.0.0.1:{ports[2 * i + 1]}" for i in range(3))
    members = []
    try:
        for i in range(3):
            client_url, peer_url = (f"http://127.0.0.1:{ports[2 * i + j]}" for j in (0, 1))
            arguments = {
                "name": f"m{i}", "data-dir": str(folder / f"etcd{i}"), "initial-cluster": peers,
                "listen-client-urls": client_url, "advertise-client-urls": client_url,
                "listen-peer-urls": peer_url, "initial-advertise-peer-urls": peer_url,
            }  # fmt: skip
            command = [binary, *(f"--{key}={value}" for key, value in arguments.items())]
            members.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        _wait_for_etcd(ports[0])
        return _put_load([ports[0], ports[2], ports[4]], clients, seconds)
    finally:
        for member in members:
            member.send_signal(signal.SIGKILL)
            member.wait()


def _wait_for_etcd(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            _put(http.client.HTTPConnection("127.0.0.1", port, timeout=5), "ready")
            return
        except (OSError, http.client.HTTPException, RuntimeError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _put(connection: http.client.HTTPConnection, key: str) -> None:
    value = base64.b64encode(b"x" * 200).decode()
    body = json.dumps({"key": base64.b64encode(key.encode()).decode(), "value": value})
    connection.request("POST", "/v3/kv/put", body)
    response = connection.getresponse()
    response.read()
    if response.status != 200:
        raise RuntimeError(f"etcd answered {response.status}")


def _put_load(ports: list[int], clients: int, seconds: float) -> float:
    done = [0] * clients
    end = time.monotonic() + seconds

    def put(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", ports[number % len(ports)], timeout=10)
        while time.monotonic() < end:
            _put(connection, f"{number}-{done[number]}")
            done[number] += 1

    threads = [threading.Thread(target=put, args=(number,)) for number in range(clients)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.monotonic() - begin)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
