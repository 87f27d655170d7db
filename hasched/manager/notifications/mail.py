"""E-mail: one message through the relay of the configuration."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime

import aiosmtplib
import structlog

from hasched.manager.notifications.messages import subject_of, text_of
from hasched.manager.notifications.settings import NotifierSettings, SmtpSecurity
from hasched.model.notices import Notice

log = structlog.get_logger(__name__)


async def send_mail(
    settings: NotifierSettings,
    trust: ssl.SSLContext,
    *,
    password: str,
    recipients: Sequence[str],
    event_id: str,
    notice: Notice,
) -> str:
    """Why the relay hasn't taken the message; empty if it has, for one recipient at least.

    The Message-ID is the event's, so that one which is sent again is the same message to whoever looks.
    """
    smtp = settings.smtp
    if not smtp.host:
        return "`notifications.smtp.host` is not set in the managers' configuration"
    message = EmailMessage()
    message["From"] = smtp.sender
    message["To"] = ", ".join(recipients)
    message["Subject"] = subject_of(settings.cluster, notice)
    message["Date"] = format_datetime(datetime.fromtimestamp(notice.time_ms / 1000, tz=UTC))
    message["Message-ID"] = f"<{event_id}@{settings.cluster}.hasched>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text_of(settings.cluster, notice))
    try:
        refused, _ = await aiosmtplib.send(
            message,
            hostname=smtp.host,
            port=smtp.port,
            username=smtp.username or None,
            password=password or None,
            use_tls=smtp.security is SmtpSecurity.TLS,
            start_tls=smtp.security is SmtpSecurity.STARTTLS,  # left out, it would go on in the clear
            tls_context=trust,
            timeout=settings.timeout_ms / 1000,
        )
    except (aiosmtplib.SMTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    for address, answer in refused.items():
        log.warning("mail_refused", recipient=address, code=answer.code, cause=answer.message)
    return ""
