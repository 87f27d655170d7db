"""How the synchronous client asks: one connection, tries on one manager after the other, streams that go on across fail-overs."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from hasched.client import calls
from hasched.client.calls import Call
from hasched.client.connection import Connection
from hasched.client.context import Context
from hasched.client.event_text import EventLines
from hasched.client.policy import ATTEMPT_TIMEOUT_S, Endpoints, Tries
from hasched.client.problems import error_of
from hasched.client.tls import client_context
from hasched.model.errors import HaschedError, NotFound
from hasched.model.views import EventView

T = TypeVar("T")
DEFAULT_TIMEOUT_S = 30.0
SILENCE_S = 2.0
STREAM_SILENCE_S = 45.0  # a stream says something at least every 15 s


class Wire:
    """What every part of `Client` is made with: `_do` makes a call, `_open` and `_events` follow a stream."""

    def __init__(
        self,
        context: Context,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        on_silence: Callable[[str], None] | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._on_silence = on_silence
        self._endpoints = Endpoints(context.managers)
        try:
            self._tls = client_context(Path(context.ca).expanduser())
        except OSError as error:
            raise NotFound(f"the CA certificate {context.ca} can't be read: {error}", "check the context") from None
        self._headers = {"Authorization": f"Bearer {context.token}"} if context.token else {}
        self._connection: Connection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _do(self, call: Call[T]) -> T:
        tries = self._tries(call)
        if call.patience_s > ATTEMPT_TIMEOUT_S:  # a question: its answer takes its time
            return self._try(call, tries)
        with self._watch(tries):
            return self._try(call, tries)

    @contextmanager
    def _watch(self, tries: Tries) -> Iterator[None]:
        """Say so, if the call takes long."""
        tell = self._on_silence
        if tell is None:
            yield
            return

        def speak() -> None:
            self._on_silence = None
            tell(tries.tell())

        timer = threading.Timer(SILENCE_S, speak)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _try(self, call: Call[T], tries: Tries) -> T:
        while True:
            reused = False
            try:
                connection = self._connect(tries)
                reused = connection.used
                connection.used = connection.watches = True
                connection.request(call.method, call.path, call.body or None, {**self._headers, **call.headers})
                response = connection.getresponse()
                body = response.read()
                if response.status >= 400:
                    raise error_of(response.status, body)
                return call.decode(body)
            except NotFound:
                if call.method == "DELETE" and tries.uncertain:
                    return call.decode(b"")  # an earlier try did it
                raise
            except HaschedError as error:
                pause = tries.failed(error, time.monotonic())
            except (OSError, http.client.HTTPException) as error:
                self.close()
                pause = tries.failed(as_oserror(error), time.monotonic(), reused_connection=reused)
            time.sleep(pause)

    def _tries(self, call: Call[T] | None = None) -> Tries:
        started = time.monotonic()
        if call is None:
            return Tries(self._endpoints, started, self._timeout_s)
        return Tries(
            self._endpoints,
            started,
            self._timeout_s,
            writes=call.writes,
            submission_ids=call.submission_ids,
            patience_s=call.patience_s,
        )

    def _connect(self, tries: Tries) -> Connection:
        timeout_s = tries.attempt_timeout_s(time.monotonic())
        if self._connection is None or self._connection.url != tries.url:
            self.close()
            self._connection = Connection(tries.url, timeout_s, tries.connect_timeout_s, self._tls)
        self._connection.timeout = timeout_s
        if self._connection.sock is not None:
            self._connection.sock.settimeout(timeout_s)
        return self._connection

    def _open(
        self, tries: Tries, path: str, silence_s: float | None = None
    ) -> tuple[http.client.HTTPResponse, Connection]:
        """A stream on a connection of its own. Raises the error that the manager answers with."""
        silence_s = STREAM_SILENCE_S if silence_s is None else silence_s
        timeout_s = min(silence_s, tries.attempt_timeout_s(time.monotonic()))
        connection = Connection(tries.url, timeout_s, tries.connect_timeout_s, self._tls)
        try:
            connection.request("GET", path, headers=self._headers)
            stream = connection.sock
            response = connection.getresponse()
            if response.status >= 400:
                raise error_of(response.status, response.read())
            stream.settimeout(silence_s)
        except BaseException:
            connection.close()
            raise
        return response, connection

    def _events(
        self,
        after: str,
        job: int | None,
        types: Sequence[str],
        deadline: float | None,
        *,
        execution: int | None = None,
    ) -> Iterator[EventView]:
        tries = self._tries()
        while deadline is None or time.monotonic() < deadline:
            silence = STREAM_SILENCE_S
            if deadline is not None:
                silence = max(0.05, min(silence, deadline - time.monotonic()))
            try:
                response, connection = self._open(tries, calls.events_path(after, job, types, execution), silence)
                try:
                    lines = EventLines()
                    while line := response.readline():
                        event = lines.feed(line.rstrip(b"\r\n"))
                        if event is not None:
                            after = event.id
                            yield event
                        tries = self._tries()
                    raise ConnectionResetError("the event stream ended")
                finally:
                    connection.close()
            except (OSError, HaschedError, http.client.HTTPException) as error:
                if deadline is not None and time.monotonic() >= deadline:
                    return
                time.sleep(tries.failed(as_oserror(error), time.monotonic()))


def as_oserror(error: Exception) -> HaschedError | OSError:
    if isinstance(error, HaschedError | OSError):
        return error
    return ConnectionResetError(f"the answer broke off ({type(error).__name__})")
