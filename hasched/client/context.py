"""Contexts: how to reach a cluster, and as whom.

`contexts.yaml` lies in `HASCHED_CONFIG_DIR` (by default `~/.config/hasched`), readable by its owner alone, and holds any
number of named contexts and the name of the current one. `HASCHED_CONTEXT` chooses another for one command;
`HASCHED_MANAGERS` (URLs with commas between), `HASCHED_CA`, `HASCHED_TOKEN` and `HASCHED_NAMESPACE` replace single values.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from hasched.client.files import replace_file
from hasched.model.errors import BadRequest, NotFound
from hasched.model.ids import is_name
from hasched.model.kinds import NAME_HINT

FILE_NAME = "contexts.yaml"
_HINT = (
    "choose one with `hasched context use`, start `hasched dev`, or set HASCHED_MANAGERS, HASCHED_CA and HASCHED_TOKEN"
)

_VISIBLE = re.compile(r"[\x21-\x7e]+")
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")


class Context(msgspec.Struct, frozen=True):
    """`managers` are API URLs, `ca` is the path of the cluster's CA certificate, `namespace` that of jobs that name none."""

    managers: list[str]
    ca: str
    token: str = ""
    namespace: str = ""


class Contexts(msgspec.Struct):
    """The content of the file."""

    current: str = ""
    contexts: dict[str, Context] = {}


def contexts_path(environ: Mapping[str, str] = os.environ) -> Path:
    directory = environ.get("HASCHED_CONFIG_DIR")
    if directory:
        return Path(directory) / FILE_NAME
    base = environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "hasched" / FILE_NAME


def load_contexts(environ: Mapping[str, str] = os.environ) -> Contexts:
    """What the file holds; nothing if there is none. Raises BadRequest if it can't be understood."""
    path = contexts_path(environ)
    try:
        return msgspec.yaml.decode(path.read_bytes(), type=Contexts)
    except FileNotFoundError:
        return Contexts()
    except (OSError, msgspec.DecodeError) as error:
        raise BadRequest(f"{path} can't be used: {error}", "mend the file, or remove it") from None


def load_context(name: str | None = None, environ: Mapping[str, str] = os.environ) -> Context:
    """The context called `name`, else the one in HASCHED_CONTEXT, else the current one, under the single overrides.

    Raises NotFound if there is no such context, BadRequest if the file can't be understood.
    """
    known = load_contexts(environ)
    name = name or environ.get("HASCHED_CONTEXT") or known.current
    managers, ca, token = (environ.get(f"HASCHED_{key}", "") for key in ("MANAGERS", "CA", "TOKEN"))
    chosen = known.contexts.get(name)
    if chosen is None:
        if not name and managers and ca:
            chosen = Context([], "")
        elif name:
            raise _unknown(name, known)
        else:
            raise NotFound("no cluster was chosen", _HINT)
    return _checked(
        managers=[url.strip() for url in managers.split(",") if url.strip()] or chosen.managers,
        ca=ca or chosen.ca,
        token=token or chosen.token,
        namespace=environ.get("HASCHED_NAMESPACE", "") or chosen.namespace,
    )


def _unknown(name: str, known: Contexts) -> NotFound:
    names = ", ".join(sorted(known.contexts)) or "none"
    return NotFound(f"there is no context called {name!r}; there are: {names}", _HINT)


def _checked(managers: list[str], ca: str, token: str, namespace: str = "") -> Context:
    if not managers:
        raise BadRequest("the context names no manager", "write each as https://HOST:7411")
    for url in managers:
        if not _is_manager_url(url):
            raise BadRequest(f"{url!r} is not the URL of a manager", "write it as https://HOST:7411")
    if token and _TOKEN.fullmatch(token) is None:
        raise BadRequest(
            "the token is not one line of printable characters", "give it just as `hasched token create` printed it"
        )
    if namespace and not is_name(namespace):
        raise BadRequest(f"{namespace!r} can't be a namespace", NAME_HINT)
    return Context(managers, ca, token, namespace)


def _is_manager_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = parts.path in ("", "/") and not (parts.query or parts.fragment or parts.username or parts.password)
    return (
        _VISIBLE.fullmatch(url) is not None and parts.scheme == "https" and bool(parts.hostname) and plain and port != 0
    )


def check_authority(path: Path) -> None:
    """Raises BadRequest if this file holds no certificate that managers' certificates could be checked by."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=path)
    except OSError as error:
        cause = "it holds no certificate" if isinstance(error, ssl.SSLError) else str(error.strerror)
        raise BadRequest(f"{path} can't be used as the CA: {cause}", "give the ca.crt of the cluster") from None
    if not context.get_ca_certs():
        raise BadRequest(
            f"{path} can't be used as the CA: its certificate is not an authority's", "give the ca.crt of the cluster"
        )


def save_context(name: str, context: Context, *, current: bool, environ: Mapping[str, str] = os.environ) -> None:
    """Add or replace a context; `current` makes it the current one. Raises BadRequest if it can't be used."""
    if _VISIBLE.fullmatch(name) is None:
        raise BadRequest(f"{name!r} can't be the name of a context", "use visible characters without spaces")
    _checked(context.managers, context.ca, context.token, context.namespace)
    known = load_contexts(environ)
    known.contexts[name] = context
    if current or not known.current:
        known.current = name
    _write(contexts_path(environ), msgspec.yaml.encode(known))


def remove_context(name: str, environ: Mapping[str, str] = os.environ) -> str:
    """Forget a context, with its token, even one that can't be used. Gives the current one's name, which is empty if
    it was this one. Raises NotFound."""
    known = load_contexts(environ)
    if name not in known.contexts:
        raise _unknown(name, known)
    del known.contexts[name]
    if known.current == name:
        known.current = ""
    _write(contexts_path(environ), msgspec.yaml.encode(known))
    return known.current


def use_context(name: str, environ: Mapping[str, str] = os.environ) -> None:
    """Make `name` the current context. Raises NotFound."""
    load_context(name, environ)
    known = load_contexts(environ)
    known.current = name
    _write(contexts_path(environ), msgspec.yaml.encode(known))


def _write(path: Path, content: bytes) -> None:
    """It holds tokens, so it is nobody else's to read."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace_file(path, content)
