"""One HTTPS connection of the synchronous client, which asks a manager that is slow to answer whether it lives.

A frozen manager, or one whose machine vanished, takes a request and never says a word; a busy one answers late. To wait
long for the first would stop whoever called, and to wait briefly for the second would repeat its work elsewhere.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from hasched.client.policy import LIFE_PATH, LIFE_TIMEOUT_S, QUIET_S, NotReached
from hasched.client.tls import MANAGER_HOSTNAME
from hasched.model.errors import ClusterUnreachable


class Connection(http.client.HTTPSConnection):
    """To the manager at `url`, whatever its address is, as long as a manager of the cluster answers there.

    While `watches` is set, an answer that is late raises TimeoutError as soon as the manager doesn't answer a question for
    its life either. Raises ClusterUnreachable for a URL that is none.
    """

    def __init__(self, url: str, timeout_s: float, connect_timeout_s: float, tls: ssl.SSLContext) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or parts.hostname is None:
            raise ClusterUnreachable(f"{url!r} is not an https URL", "check the context")
        super().__init__(parts.hostname, parts.port, timeout=timeout_s, context=tls)
        self.url = url
        self.used = False
        self.watches = False
        self._connect_timeout_s = min(timeout_s, connect_timeout_s)
        self._tls = tls
        self.response_class = self._read_answer  # type: ignore[assignment]

    def connect(self) -> None:
        """Raises NotReached, and nothing else that is an OSError."""
        try:
            plain = socket.create_connection((self.host, self.port or 443), self._connect_timeout_s)
        except OSError as error:
            raise NotReached(error) from error
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock = self._tls.wrap_socket(plain, server_hostname=MANAGER_HOSTNAME)
        except BaseException as error:
            plain.close()
            if isinstance(error, OSError):
                raise NotReached(error) from error
            raise
        self.sock.settimeout(self.timeout)

    def _read_answer(self, sock: socket.socket, *arguments: Any, **options: Any) -> http.client.HTTPResponse:
        source = _Watched(sock, self.timeout, self._lives) if self.watches else sock
        return http.client.HTTPResponse(source, *arguments, **options)  # type: ignore[arg-type]

    def _lives(self) -> bool:
        question = Connection(self.url, LIFE_TIMEOUT_S, LIFE_TIMEOUT_S, self._tls)
        try:
            question.request("GET", LIFE_PATH)
            question.getresponse().read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            question.close()
        return True


class _Watched(io.RawIOBase):
    """Reads a socket until `timeout_s` have passed without a byte, and asks in between whether the far end lives."""

    def __init__(self, sock: socket.socket, timeout_s: float | None, lives: Callable[[], bool]) -> None:
        super().__init__()
        self._sock = sock
        self._timeout_s = float("inf") if timeout_s is None else timeout_s
        self._lives = lives
        self._held = sock.makefile("rb", buffering=0)  # keeps the socket open while this is

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        begun, quiet_s = time.monotonic(), QUIET_S
        while True:
            left_s = begun + self._timeout_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("timed out")
            self._sock.settimeout(min(quiet_s, left_s))
            try:
                return self._sock.recv_into(buffer)
            except TimeoutError:
                if left_s > quiet_s and not self._lives():
                    raise TimeoutError("it says nothing at all any more") from None
                quiet_s *= 2

    def close(self) -> None:
        self._held.close()
        super().close()
