"""Managers that misbehave on purpose, behind real TLS."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec

from hasched.client.context import Context
from hasched.client.tls import server_context

Answer = Callable[["Handler"], None]


def reply(status: int, document: Any, **headers: str) -> Answer:
    """A whole answer; a status of 400 and above makes a problem of `document`'s code."""
    if status >= 400:
        problem = dict.fromkeys(("type", "title", "detail", "instance", "cause", "hint"), "told so")
        document = {**problem, "status": status, "code": document}

    def answer(handler: Handler) -> None:
        body = document if isinstance(document, bytes) else msgspec.json.encode(document)
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def stream(*pieces: bytes, whole: bool = True, then: Callable[[], object] = lambda: None, **headers: str) -> Answer:
    """A chunked answer; one that isn't `whole` breaks off. `then` runs before its end."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for piece in pieces:
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        handler.wfile.flush()
        then()
        if whole:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    return answer


def hang_up(handler: Handler) -> None:
    """Take the request, and close the connection without a word."""
    handler.close_connection = True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedManager

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((self.command, self.path, dict(self.headers), body))
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read `requests`."""


class ScriptedManager(ThreadingHTTPServer):
    """Gives `answers` in turn, the last one for ever, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self, folder: Path, *answers: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = list(answers)
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        context = server_context(folder / "ca.crt", folder / "m1.crt", folder / "m1.key")
        self.socket = context.wrap_socket(self.socket, server_side=True)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is part of the story."""


class Scene:
    """Makes scripted managers and the context that reaches them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.managers: list[ScriptedManager] = []

    def manager(self, *answers: Answer) -> ScriptedManager:
        manager = ScriptedManager(self._folder, *answers)
        threading.Thread(target=manager.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.managers.append(manager)
        return manager

    def context(self, *urls: str) -> Context:
        ca = str(self._folder / "ca.crt")
        return Context(managers=list(urls) or [manager.url for manager in self.managers], ca=ca, token="secret")

    def requests(self) -> list[tuple[str, str, dict[str, str], bytes]]:
        return [request for manager in self.managers for request in manager.requests]
