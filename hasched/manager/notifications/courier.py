"""The courier: makes one attempt to deliver a notice. It never raises for what a receiver does, and never takes long.

Only what the managers' configuration allows is spoken to, with certificates verified; redirects are not followed, proxies of the
environment not used, and of an answer little is read. Secrets are read anew for each attempt, so they can be changed in place.
"""

from __future__ import annotations

import asyncio
import ssl
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol, assert_never

import aiohttp
from msgspec import Struct, json
from standardwebhooks import Webhook
from standardwebhooks.webhooks import EmptyWebhookSecretError
from yarl import URL

from hasched.manager.notifications.mail import send_mail
from hasched.manager.notifications.messages import message_id, payload_of, subject_of, text_of
from hasched.manager.notifications.settings import NotifierSettings, is_allowed
from hasched.model.notices import MAX_NOTICE_TEXT, Channel, Notice
from hasched.model.notification_text import is_url
from hasched.model.policy import Notification

MAX_SECRET_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 4096
MAX_WAIT_S = 30 * 86_400
APPRISE_AT_ONCE = 16  # attempts, in threads of their own
OK, MULTIPLE_CHOICES, BAD_REQUEST = 200, 300, 400


class Sent(Struct, frozen=True):
    """How an attempt went. `wait_ms`: the receiver wants no other before."""

    delivered: bool
    error: str = ""
    wait_ms: int = 0


class Refused(Exception):
    """The attempt can't be made, or has failed; the text says why."""


class Messenger(Protocol):
    """What the duty needs of a courier."""

    async def send(self, target: Notification, origin: str, notice: Notice) -> Sent: ...

    async def close(self) -> None: ...


class Courier:
    """Any number of attempts at once. Close it."""

    def __init__(self, settings: NotifierSettings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | None = None
        self._threads = ThreadPoolExecutor(APPRISE_AT_ONCE, "apprise")  # what hangs there holds up nothing else

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(self, target: Notification, origin: str, notice: Notice) -> Sent:
        """Make one attempt. Raises nothing but CancelledError and what is a mistake of ours."""
        timeout_s = self._settings.timeout_ms / 1000
        try:
            async with asyncio.timeout(timeout_s):
                return await self._send(target, origin, notice)
        except TimeoutError:
            return Sent(False, f"no answer within {timeout_s:g}s")
        except Refused as refused:
            return Sent(False, str(refused)[:MAX_NOTICE_TEXT])
        except aiohttp.ClientResponseError as error:  # its text has the URL, which may be a secret
            return Sent(False, _one_line(f"the answer is no HTTP: {error.message}"))
        except (aiohttp.ClientError, OSError) as error:
            return Sent(False, f"{type(error).__name__}: {error}"[:MAX_NOTICE_TEXT])

    async def _send(self, target: Notification, origin: str, notice: Notice) -> Sent:
        settings, event_id = self._settings, message_id(origin, notice)
        match target.to:
            case Channel.WEBHOOK:
                return await self._send_webhook(target, event_id, payload_of(settings.cluster, notice))
            case Channel.SLACK:
                text = _escape(text_of(settings.cluster, notice))
                body = json.encode({"text": text})
                return await self._post(await self._secret(target.url_file), body, {})
            case Channel.EMAIL:
                smtp = settings.smtp
                password = await self._secret(smtp.password_file) if smtp.password_file else ""
                if error := await send_mail(
                    settings,
                    self._trust(),
                    password=password,
                    recipients=target.recipients,
                    event_id=event_id,
                    notice=notice,
                ):
                    return Sent(False, error)
                return Sent(True)
            case Channel.APPRISE:
                return await self._send_by_apprise(await self._secret(target.url_file), notice)
            case _:
                assert_never(target.to)

    async def _send_webhook(self, target: Notification, event_id: str, body: bytes) -> Sent:
        """Signed as https://www.standardwebhooks.com has it; the id is the event's, the time this attempt's."""
        url = target.url or await self._secret(target.url_file)
        try:
            signer = Webhook(await self._secret(target.secret_file))
        except (ValueError, EmptyWebhookSecretError) as error:
            raise Refused(f"{target.secret_file} holds no secret for webhooks: {error}") from None
        now = datetime.now(tz=UTC)
        headers = {
            "webhook-id": event_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signer.sign(event_id, now, body.decode()),
        }
        return await self._post(url, body, headers)

    async def _post(self, text: str, body: bytes, headers: dict[str, str]) -> Sent:
        try:
            url = URL(text) if is_url(text) else None
        except ValueError:  # a port that there isn't
            url = None
        if url is None:
            raise Refused("the URL is not an http or https URL")
        if not is_allowed(self._settings.allow, url.host or "", url.port or 0):
            raise Refused(f"{url.host}:{url.port} is not in `notifications.allow` of the managers' configuration")
        headers = {"content-type": "application/json", "user-agent": "hasched", **headers}
        session = self._open()
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
            said = (await answer.content.read(MAX_ANSWER_BYTES)).decode(errors="replace").strip()
            if OK <= answer.status < MULTIPLE_CHOICES:
                return Sent(True)
            if answer.status < BAD_REQUEST:
                said = "redirects are not followed"
            error = f"answered {answer.status} {answer.reason or ''}".strip() + (f": {said}" if said else "")
            return Sent(False, _one_line(error), _wait_of(answer.headers.get("retry-after", "")))

    async def _send_by_apprise(self, url: str, notice: Notice) -> Sent:
        if not self._settings.apprise:
            raise Refused("`notifications.apprise` is not set in the managers' configuration")
        try:
            import apprise  # an extra
        except ImportError:
            raise Refused("apprise is not installed: pip install 'hasched[apprise]'") from None
        sender = apprise.Apprise()
        if not sender.add(url):
            raise Refused("apprise doesn't understand the URL")
        cluster = self._settings.cluster
        # A thread can't be stopped: what is still on its way when the time is over goes on, and is repeated.
        notify = partial(sender.notify, title=subject_of(cluster, notice), body=text_of(cluster, notice))
        went = await asyncio.get_running_loop().run_in_executor(self._threads, notify)
        return Sent(True) if went else Sent(False, "apprise could not deliver it")

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._trust(), limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self._settings.timeout_ms / 1000),
                trust_env=False,
            )
        return self._session

    def _trust(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            if self._settings.ca:
                self._tls.load_verify_locations(self._settings.ca)
        return self._tls

    async def _secret(self, name: str) -> str:
        """What a file of the directory of secrets holds, without white space around it. Raises Refused."""
        if not self._settings.secrets_dir:
            raise Refused(
                f"{name} can't be read: `notifications.secrets_dir` is not set in the managers' configuration"
            )
        return await asyncio.to_thread(_read_secret, Path(self._settings.secrets_dir), name)


def _read_secret(directory: Path, name: str) -> str:
    """Raises Refused. A name leads nowhere else: it has no separators, and a link is followed only within the directory."""
    path = directory / name
    try:
        if path.name != name or not path.resolve().is_relative_to(directory.resolve()):
            raise Refused(f"{name} is not in {directory}")
        if not path.is_file():
            raise Refused(f"{name} is no file of {directory}")
        with path.open("rb") as file:
            data = file.read(MAX_SECRET_BYTES)
        return data.decode("ascii").strip()
    except UnicodeDecodeError:
        raise Refused(f"{name} is not ASCII text") from None
    except OSError as error:
        raise Refused(f"{name} can't be read: {error.strerror}") from None


def _escape(text: str) -> str:
    """As Slack's own documentation has it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)[:MAX_NOTICE_TEXT]


def _wait_of(header: str) -> int:
    """A Retry-After in seconds; a date is not understood, and means nothing."""
    seconds = int(header) if header.isascii() and header.isdigit() and len(header) < 10 else 0
    return min(seconds, MAX_WAIT_S) * 1000
