"""The two ends of tests.support.packets, with the standard library alone.

python packet_ends.py receive HOST PORT COUNT
python packet_ends.py send HOST PORT COUNT
python packet_ends.py tell HOST PORT
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time

PACKET = struct.Struct("!id")  # number, when it was sent: CLOCK_MONOTONIC, the same in all namespaces
LAST = -1
PAD = b"x" * 188
EVERY_S = 0.001
TELL_EVERY_S = 0.05


def receive(host: str, port: int, count: int) -> None:
    """Prints `ready`, then what came, once it was told that this was all, or so many came."""
    numbers: list[int] = []
    seconds: list[float] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind((host, port))
        print("ready", flush=True)
        while not count or len(numbers) < count:
            number, sent = PACKET.unpack_from(ear.recv(2048))
            if number == LAST:
                break
            numbers.append(number)
            seconds.append(time.monotonic() - sent)
    print(json.dumps({"numbers": numbers, "seconds": seconds}), flush=True)


def send(host: str, port: int, count: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
        for number in range(count):
            mouth.sendto(PACKET.pack(number, time.monotonic()) + PAD, (host, port))
            time.sleep(EVERY_S)


def tell(host: str, port: int) -> None:
    """That it was all, until somebody ends it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
        while True:
            mouth.sendto(PACKET.pack(LAST, 0), (host, port))
            time.sleep(TELL_EVERY_S)


if __name__ == "__main__":
    {"receive": receive, "send": send, "tell": tell}[sys.argv[1]](sys.argv[2], *map(int, sys.argv[3:]))
