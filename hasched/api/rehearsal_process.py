"""The process that works out questions about what would be: `python -m hasched.api.rehearsal_process`.

It belongs to one manager (`rehearsals.py`), which writes to its stdin and reads its stdout, in frames of a length and as many
bytes. A question is a frame, the snapshot that it is asked of a frame for each chunk and an empty one; an answer is a frame.
It is nice, so that the manager comes first, and it ends with its manager, or when it takes too much memory or time.
"""

from __future__ import annotations

import os
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from typing import BinaryIO, TypeAlias

import msgspec

from hasched.api.plugins import load_plugins
from hasched.model.errors import HaschedError
from hasched.scheduler.questions import Question, answer

ANSWER_S = 60  # for one answer
MEMORY_BYTES = 8 * 2**30
NICE = 10
_LENGTH = struct.Struct(">I")


class Answered(msgspec.Struct, frozen=True, tag=True):
    answer: msgspec.Raw


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The question has no answer; `code` and the rest are of the error that says why."""

    code: str
    cause: str
    hint: str


Reply: TypeAlias = Answered | Failed

_encoder = msgspec.msgpack.Encoder()
_question_decoder = msgspec.msgpack.Decoder(Question)


def frame(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


def read_length(prefix: bytes) -> int:
    length: int = _LENGTH.unpack(prefix)[0]
    return length


PREFIX_BYTES = _LENGTH.size


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer question after question until the source ends."""
    while (data := _read(source)) is not None:
        snapshot = list(_chunks(source))
        signal.alarm(ANSWER_S)
        reply = _reply(_question_decoder.decode(data), snapshot)
        signal.alarm(0)
        del snapshot
        sink.write(frame(_encoder.encode(reply)))
        sink.flush()


def _reply(question: Question, snapshot: list[bytes]) -> Reply:
    try:
        return Answered(msgspec.Raw(_encoder.encode(answer(question, snapshot))))
    except HaschedError as error:
        return Failed(str(error.extra.get("code", error.code)), error.cause, error.hint)


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    while chunk := _read(source):
        yield chunk


def _read(source: BinaryIO) -> bytes | None:
    """The next frame; None at the end, also at one within a frame: whoever wrote it is gone."""
    prefix = source.read(PREFIX_BYTES)
    if len(prefix) < PREFIX_BYTES:
        return None
    length = read_length(prefix)
    data = source.read(length)
    return data if len(data) == length else None


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the manager
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    load_plugins()  # the manager has them too, or it wouldn't run
    try:
        serve(sys.stdin.buffer, sys.stdout.buffer)
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main()
