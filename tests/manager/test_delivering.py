"""The notifications duty delivers to real receivers: at least once, with one id, whoever leads and whoever is down."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiosmtpd.smtp import SMTP
from msgspec.structs import replace
from standardwebhooks import Webhook

from hasched.manager.config import NotificationsConfig, parse_manager_config
from hasched.manager.notifications.courier import Courier, Messenger, Sent
from hasched.manager.notifications.duty import MAX_AT_ONCE, NotificationDuty
from hasched.manager.notifications.messages import subject_of, text_of
from hasched.manager.notifications.settings import NotifierSettings, SmtpSecurity, SmtpSettings, is_allowed
from hasched.model.errors import ConfigInvalid, NoLeader
from hasched.model.notices import Channel, DeliveryState, Notice
from hasched.model.policy import Notification, PolicyKind
from hasched.model.spec import JobSpec
from hasched.model.workflow_text import parse_workflow
from hasched.statemachine.commands import (
    CancelJob,
    DecideApproval,
    PutPolicy,
    RetryNotifications,
    SettleDeliveries,
    Settlement,
    StartExecution,
    StepClock,
    SubmitJob,
    TryNotification,
)
from hasched.statemachine.outbox import Lane
from hasched.statemachine.outcomes import Done
from tests.manager.local_replica import ORIGIN, LocalReplica, until

SECRET = "whsec_" + b64encode(b"0123456789abcdef01234567").decode()
NOTICE = Notice(topic="job.failed", event="12.3", time_ms=1_700_000_000_000, name="nightly", job_id=7, state="FAILED")
FAST: dict[str, Any] = {"retry_after_ms": 100, "retry_at_most_ms": 200}


class Receiver:
    """An HTTP server that verifies what it gets, and answers as the test wants."""

    def __init__(self) -> None:
        self.url, self.port = "", 0
        self.got: list[tuple[str, dict[str, Any]]] = []  # (webhook-id, body)
        self.attempts = 0
        self.status = 204
        self.headers: dict[str, str] = {}
        self.open = asyncio.Event()
        self.open.set()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        application = web.Application()
        application.router.add_post("/{path:.*}", self._take)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}/in"

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.attempts += 1
        await self.open.wait()
        body = await request.read()
        if "webhook-id" in request.headers:
            Webhook(SECRET).verify(body, dict(request.headers))
        if self.status < 300:
            self.got.append((request.headers.get("webhook-id", ""), json.loads(body)))
        return web.Response(status=self.status, headers=self.headers, text="so it is")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    await receiver.start()
    yield receiver
    receiver.open.set()
    await receiver.stop()


@pytest.fixture
def settings(tmp_path: Path) -> NotifierSettings:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "ops.secret").write_text(f"{SECRET}\n")
    return NotifierSettings(
        cluster="prod", secrets_dir=str(tmp_path / "secrets"), allow=("127.0.0.1",), timeout_ms=10_000
    )


@pytest.fixture
def replica() -> LocalReplica:
    replica = LocalReplica()
    replica.lead(True)
    return replica


class Leader:
    """A manager that leads, as far as notifications go."""

    def __init__(self, replica: LocalReplica, messenger: Messenger) -> None:
        self.duty = NotificationDuty(replica, lambda: messenger)
        self.running = asyncio.create_task(self.duty.run())

    async def die(self) -> None:
        self.running.cancel()
        await asyncio.wait([self.running])


@pytest.fixture
async def leader(replica: LocalReplica, settings: NotifierSettings) -> AsyncIterator[Leader]:
    leader = Leader(replica, Courier(settings))
    yield leader
    await leader.die()


def webhook(receiver: Receiver, **fields: Any) -> Notification:
    fields = {"events": ("job.cancelled",), "url": receiver.url, "secret_file": "ops.secret", **FAST, **fields}
    return Notification(to=Channel.WEBHOOK, **fields)


def put(replica: LocalReplica, body: Notification, name: str = "ops") -> None:
    assert replica.commit(PutPolicy(kind=PolicyKind.NOTIFICATION, name=name, body=body, actor="root")) == [Done()]


def happen(replica: LocalReplica) -> int:
    """A job comes and is cancelled."""
    job_id = replica.state.next_job_id
    spec = JobSpec(name="nightly", command=("true",))
    replica.commit(SubmitJob(submission_id=f"s{job_id}", actor="ada", spec=spec))
    replica.commit(CancelJob(job_id=job_id, actor="bob", reason="not needed"))
    return job_id


def lane(replica: LocalReplica, name: str = "ops") -> Lane:
    return replica.state.outbox.lanes[name]


async def test_a_webhook_is_signed_and_says_what_has_happened(
    replica: LocalReplica, leader: Leader, receiver: Receiver
) -> None:
    put(replica, webhook(receiver))
    job_id = happen(replica)
    await until(lambda: lane(replica).delivered == 1)
    ((event_id, body),) = receiver.got
    index, number = event_id.removeprefix(f"evt_{ORIGIN[:16]}_").split("_")
    assert body["type"] == "job.cancelled"
    assert body["data"].pop("ended") == body["timestamp"]
    assert body["data"] == {
        "cluster": "prod",
        "event": f"{index}.{number}",
        "namespace": "default",
        "name": "nightly",
        "actor": "ada",
        "job_id": job_id,
        "state": "CANCELLED",
        "reason": "cancelled (by bob: not needed)",
        "tasks": 1,
    }


async def test_a_workflow_that_could_never_run_is_told_of_to_whom_it_names(
    replica: LocalReplica, leader: Leader, receiver: Receiver
) -> None:
    put(replica, webhook(receiver, events=()))
    document = {
        "name": "etl",
        "tasks": {"train": {"command": ["true"]}},
        "notify": {"targets": ["ops"], "events": ["workflow.approval"]},
        "hooks": {"pre": ["validate_resources"], "post": ["notify_completion"]},
    }
    replica.commit(StartExecution(submission_id="s", actor="ada", spec=parse_workflow(document, given={}).spec))
    replica.commit(StepClock())
    await until(lambda: lane(replica).delivered == 1)
    ((_, body),) = receiver.got
    assert (body["type"], body["data"]["execution_id"], body["data"]["state"]) == ("workflow.failed", 1, "FAILED")
    assert body["data"]["reason"] == "validate_resources: train: there is no node yet: no agent has come"


async def test_the_webhooks_of_a_workflow_come_signed_and_are_tried_until_they_have_arrived(
    replica: LocalReplica, leader: Leader, receiver: Receiver
) -> None:
    put(replica, webhook(receiver, events=()))
    receiver.status = 503
    document = {
        "name": "etl",
        "tasks": {"go": {"approval": "Ship it?"}},
        "hooks": {"pre": [{"webhook": "ops", "name": "begun"}], "post": [{"webhook": "ops"}]},
    }
    replica.commit(StartExecution(submission_id="s", actor="ada", spec=parse_workflow(document, given={}).spec))
    replica.commit(StepClock())
    (begun,) = lane(replica).waiting.values()
    await until(lambda: receiver.attempts > 1)
    receiver.status = 204
    await until(lambda: lane(replica).delivered == 1)
    replica.commit(DecideApproval(execution_id=1, task="go", approve=False, actor="bob", comment=""))
    replica.commit(StepClock())
    await until(lambda: lane(replica).delivered == 2)
    (event_id, first), (_, last) = receiver.got
    assert event_id == f"evt_{ORIGIN[:16]}_{begun.notice.event.replace('.', '_')}"
    assert (first["type"], first["data"].pop("started")) == ("workflow.hook", first["timestamp"])
    assert first["data"] == {
        "cluster": "prod",
        "event": begun.notice.event,
        "namespace": "default",
        "name": "etl",
        "actor": "ada",
        "execution_id": 1,
        "state": "RUNNING",
        "task": "begun",
        "hook": "pre",
    }
    data = last["data"]
    assert (data["task"], data["hook"], data["state"]) == ("post-1", "post", "FAILED")
    assert data["reason"] == "go: refused by bob"


async def test_a_receiver_that_is_down_gets_everything_when_it_is_up_again(
    replica: LocalReplica, leader: Leader, receiver: Receiver
) -> None:
    put(replica, webhook(receiver))
    await receiver.stop()
    jobs = [happen(replica) for _ in range(20)]
    await until(lambda: len(lane(replica).waiting) == 20 and all(d.attempts for d in lane(replica).waiting.values()))
    assert "Cannot connect" in next(iter(lane(replica).waiting.values())).error
    await receiver.start()
    await until(lambda: lane(replica).delivered == 20)
    assert sorted(body["data"]["job_id"] for _, body in receiver.got) == jobs
    assert len({event_id for event_id, _ in receiver.got}) == 20


async def test_what_a_dying_leader_has_delivered_and_not_reported_comes_again_with_the_same_id(
    replica: LocalReplica, settings: NotifierSettings, receiver: Receiver
) -> None:
    first = Leader(replica, Courier(settings))
    put(replica, webhook(receiver))
    replica.held.clear()  # nothing that it reports is committed any more
    jobs = [happen(replica) for _ in range(3)]
    await until(lambda: len(receiver.got) == 3)
    await first.die()
    assert len(lane(replica).waiting) == 3
    replica.held.set()
    second = Leader(replica, Courier(settings))
    await until(lambda: lane(replica).delivered == 3)
    await second.die()
    assert sorted(body["data"]["job_id"] for _, body in receiver.got) == sorted(jobs * 2)
    assert sorted(receiver.got[:3], key=str) == sorted(receiver.got[3:], key=str)


async def test_an_attempt_that_another_leader_has_reported_first_is_made_again(
    replica: LocalReplica, leader: Leader, receiver: Receiver
) -> None:
    put(replica, webhook(receiver))
    receiver.open.clear()
    happen(replica)
    await until(lambda: receiver.attempts == 1)
    (delivery,) = lane(replica).waiting.values()
    replica.commit(SettleDeliveries(settled=(Settlement("ops", delivery.id, 1, False, "no answer"),)))
    await until(lambda: not leader.duty.woken)
    receiver.open.set()
    await until(lambda: lane(replica).delivered == 1)
    assert receiver.attempts == 2


async def test_a_report_that_meets_no_leader_is_repeated_and_the_notice_is_not(
    replica: LocalReplica, leader: Leader, receiver: Receiver
) -> None:
    put(replica, webhook(receiver))
    replica.fail_next = [NoLeader("nobody leads")] * 2
    happen(replica)
    await until(lambda: lane(replica).delivered == 1)
    assert (replica.fail_next, receiver.attempts) == ([], 1)


async def test_a_receiver_that_never_answers_holds_up_nobody_else(
    replica: LocalReplica, leader: Leader, receiver: Receiver
) -> None:
    stuck = Receiver()
    await stuck.start()
    stuck.open.clear()
    put(replica, webhook(stuck), "stuck")
    put(replica, webhook(receiver))
    for _ in range(3 * MAX_AT_ONCE):
        happen(replica)
    await until(lambda: lane(replica).delivered == 3 * MAX_AT_ONCE)
    assert stuck.attempts == MAX_AT_ONCE
    stuck.open.set()
    await until(lambda: lane(replica, "stuck").delivered == 3 * MAX_AT_ONCE)
    await stuck.stop()


async def test_only_what_is_queued_wakes_the_duty_however_much_waits(
    replica: LocalReplica, leader: Leader, receiver: Receiver
) -> None:
    receiver.status = 500
    put(replica, webhook(receiver, retry_after_ms=3_600_000, retry_at_most_ms=3_600_000))
    for _ in range(3):
        happen(replica)
    await until(lambda: all(each.attempts for each in lane(replica).waiting.values()) and not leader.duty.woken)
    replica.commit(SubmitJob(submission_id="unrelated", actor="ada", spec=JobSpec(name="nightly", command=("true",))))
    assert not leader.duty.woken
    receiver.status = 204
    replica.commit(RetryNotifications(target="ops", actor="root"))
    assert leader.duty.woken
    await until(lambda: lane(replica).delivered == 3)
    assert receiver.attempts == 6


async def test_a_receiver_that_refuses_is_asked_again_until_that_is_given_up(
    replica: LocalReplica, leader: Leader, receiver: Receiver
) -> None:
    receiver.status = 500
    put(replica, webhook(receiver, give_up_after_ms=250))
    happen(replica)
    await until(lambda: lane(replica).failed == 1)
    (failed,) = lane(replica).over[DeliveryState.FAILED].values()
    assert failed.error == "answered 500 Internal Server Error: so it is"
    assert failed.attempts == receiver.attempts >= 1


@pytest.mark.parametrize(
    ("status", "headers", "error", "wait_ms"),
    [
        (307, {"location": "http://127.0.0.1:1/"}, "answered 307 Temporary Redirect: redirects are not followed", 0),
        (429, {"retry-after": "7"}, "answered 429 Too Many Requests: so it is", 7000),
        (503, {"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, "answered 503 Service Unavailable: so it is", 0),
    ],
)
async def test_only_success_is_success(
    settings: NotifierSettings, receiver: Receiver, status: int, headers: dict[str, str], error: str, wait_ms: int
) -> None:
    receiver.status, receiver.headers = status, headers
    courier = Courier(settings)
    assert await courier.send(webhook(receiver), ORIGIN, NOTICE) == Sent(False, error, wait_ms)
    await courier.close()


async def test_nothing_goes_where_the_configuration_does_not_allow(
    settings: NotifierSettings, receiver: Receiver, tmp_path: Path
) -> None:
    (tmp_path / "outside").write_text(SECRET)
    secrets = tmp_path / "secrets"
    (secrets / "link").symlink_to(tmp_path / "outside")
    (secrets / "empty").write_text("")
    (secrets / "file.url").write_text("file:///etc/passwd")
    cases = [
        (webhook(receiver, url=receiver.url.replace("127.0.0.1", "localhost")), "is not in `notifications.allow`"),
        (webhook(receiver, url="", url_file="file.url"), "is not an http or https URL"),
        (webhook(receiver, secret_file="link"), "is not in"),
        (webhook(receiver, secret_file="../outside"), "is not in"),
        (webhook(receiver, secret_file="empty"), "holds no secret"),
        (webhook(receiver, secret_file="none"), "is no file"),
        (Notification(to=Channel.APPRISE, url_file="file.url"), "`notifications.apprise` is not set"),
        (Notification(to=Channel.EMAIL, recipients=("ada@example.com",)), "`notifications.smtp.host` is not set"),
    ]
    courier = Courier(settings)
    for body, error in cases:
        sent = await courier.send(body, ORIGIN, NOTICE)
        assert not sent.delivered and error in sent.error
    await courier.close()
    assert receiver.attempts == 0
    assert "is not set" in (await Courier(NotifierSettings()).send(webhook(receiver), ORIGIN, NOTICE)).error


def test_a_host_is_allowed_by_its_name_its_domain_or_its_port() -> None:
    assert is_allowed(("hooks.example.com",), "HOOKS.example.com", 443)
    assert is_allowed(("*.example.com",), "a.b.example.com", 443)
    assert not is_allowed(("*.example.com",), "example.com", 443)
    assert not is_allowed(("*.example.com",), "evil-example.com", 443)
    assert is_allowed(("example.com:8443",), "example.com", 8443)
    assert not is_allowed(("example.com:8443",), "example.com", 443)
    assert is_allowed(("*",), "example.com", 443)
    assert not is_allowed((), "example.com", 443)
    assert (
        is_allowed(("[::1]:8443",), "::1", 8443)
        and is_allowed(("[::1]",), "::1", 443)
        and is_allowed(("::1",), "::1", 1)
    )
    assert not is_allowed(("[::1]:8443",), "::1", 443) and not is_allowed(("::1",), "::", 1)


async def test_no_error_has_the_url_which_may_be_a_secret(settings: NotifierSettings, tmp_path: Path) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"what?\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    courier = Courier(settings)
    for url, error in (
        (f"http://127.0.0.1:{port}/hidden", "the answer is no HTTP"),
        ("http://127.0.0.1:99999/hidden", "the URL is not an http or https URL"),
    ):
        (tmp_path / "secrets" / "slack.url").write_text(url)
        sent = await courier.send(Notification(to=Channel.SLACK, url_file="slack.url"), ORIGIN, NOTICE)
        assert not sent.delivered and error in sent.error and "hidden" not in sent.error
    await courier.close()
    server.close()


async def test_slack_and_what_apprise_speaks_to_get_the_text(
    settings: NotifierSettings, receiver: Receiver, tmp_path: Path
) -> None:
    (tmp_path / "secrets" / "slack.url").write_text(receiver.url)
    (tmp_path / "secrets" / "apprise.url").write_text(f"json://127.0.0.1:{receiver.port}/x")
    courier = Courier(replace(settings, apprise=True))
    slack = Notification(to=Channel.SLACK, url_file="slack.url")
    asked = Notice(topic="workflow.approval", event="1.0", time_ms=1, name="<etl>", execution_id=4, task="deploy")
    notice = replace(asked, reason="Ship it?")
    assert await courier.send(slack, ORIGIN, notice) == Sent(True)
    assert receiver.got[0][1]["text"].startswith("workflow &lt;etl&gt; asks for approval of deploy: Ship it?\n")
    pytest.importorskip("apprise")
    assert await courier.send(Notification(to=Channel.APPRISE, url_file="apprise.url"), ORIGIN, NOTICE) == Sent(True)
    assert "hasched job logs 7" in receiver.got[1][1]["message"]
    receiver.status = 500
    assert not (await courier.send(Notification(to=Channel.APPRISE, url_file="apprise.url"), ORIGIN, NOTICE)).delivered
    await courier.close()


class Mailbox:
    """What an SMTP server of aiosmtpd has taken."""

    def __init__(self) -> None:
        self.mail: list[tuple[list[str], Message]] = []
        self.answer = "250 OK"

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:
        from email import message_from_bytes

        if self.answer.startswith("250"):
            self.mail.append((envelope.rcpt_tos, message_from_bytes(envelope.content)))
        return self.answer


async def test_an_email_says_it_to_people(replica: LocalReplica, settings: NotifierSettings) -> None:
    mailbox = Mailbox()
    listener = await asyncio.get_running_loop().create_server(lambda: SMTP(mailbox), "127.0.0.1", 0)
    smtp = SmtpSettings(
        host="127.0.0.1",
        port=listener.sockets[0].getsockname()[1],
        security=SmtpSecurity.NONE,
        sender="hasched@example.com",
    )
    mailbox.answer = "451 later"
    leader = Leader(replica, Courier(replace(settings, smtp=smtp)))
    recipients = ("ada@example.com", "bob@example.com")
    put(replica, Notification(to=Channel.EMAIL, recipients=recipients, events=("job.cancelled",), **FAST))
    job_id = happen(replica)
    await until(lambda: any(d.attempts for d in lane(replica).waiting.values()))
    assert "451" in next(iter(lane(replica).waiting.values())).error
    mailbox.answer = "250 OK"
    await until(lambda: lane(replica).delivered == 1)
    ((to, message),) = mailbox.mail
    assert to == list(recipients)
    assert message["Subject"] == f"[prod] job {job_id} nightly cancelled: cancelled (by bob: not needed)"
    assert message["Message-ID"].startswith(f"<evt_{ORIGIN[:16]}_")
    assert f"hasched job logs {job_id}" in message.get_payload()
    strict = Courier(replace(settings, smtp=replace(smtp, security=SmtpSecurity.STARTTLS)))
    sent = await strict.send(Notification(to=Channel.EMAIL, recipients=recipients), ORIGIN, NOTICE)
    assert not sent.delivered and "STARTTLS" in sent.error
    await leader.die()
    listener.close()


async def test_somebody_tries_a_target(replica: LocalReplica, leader: Leader, receiver: Receiver) -> None:
    put(replica, webhook(receiver, events=()))
    replica.commit(TryNotification(target="ops", actor="root"))
    await until(lambda: lane(replica).delivered == 1)
    assert receiver.got[0][1]["type"] == "notification.test"


def test_a_subject_is_one_line_whatever_it_is_about() -> None:
    notice = Notice(topic="node.disconnected", event="1.0", time_ms=1, name="n1", node="n1", reason="a\r\nBcc: x@y.z")
    assert subject_of("prod", notice) == "[prod] node n1 disconnected: a  Bcc: x@y.z"
    failed = Notice(
        topic="job.failed", event="1.0", time_ms=1, name="a", job_id=3, state="TIMED_OUT", task="17", tasks=99
    )
    assert subject_of("prod", failed) == "[prod] job 3 a timed out"
    assert "hasched job logs 3 --task 17" in text_of("prod", failed)
    assert "\nreason:    a  Bcc: x@y.z\n" in text_of("prod", notice), "nor is any fact in the text more than a line"
    assert text_of("prod", notice).startswith("node n1 disconnected: a  Bcc: x@y.z\n\n")
    late = Notice(topic="schedule.late", event="1.0", time_ms=1, name="nightly", delay_ms=90_000)
    assert subject_of("prod", late) == "[prod] schedule nightly fired 1m30s late"
    hook = Notice(topic="workflow.hook", event="1.0", time_ms=1, name="etl", execution_id=4, task="post-1", hook="post")
    failed = replace(hook, state="TIMED_OUT", reason="its timeout is over")
    assert (
        subject_of("prod", failed)
        == "[prod] workflow 4 etl, timed out, has come to its hook post-1: its timeout is over"
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{allow: ['https://example.com/']}", "notifications.allow[0]"),
        ("{timeout: 1h}", "notifications.timeout"),
        ("{smtp: {host: mail.example.com}}", "notifications.smtp.sender"),
        ("{smtp: {host: mail.example.com, sender: a@b, username: a}}", "notifications.smtp.username"),
    ],
)
def test_a_configuration_that_can_not_be_meant_is_refused(text: str, place: str) -> None:
    config = """
cluster: prod
name: m1
data_dir: data
members: [{name: m1, api: "https://m1.example:7411", raft: "m1.example:7412"}]
tls: {ca: ca, cert: cert, key: key}
tokens: tokens
"""
    assert parse_manager_config(config, "file").notifications == NotificationsConfig()
    with pytest.raises(ConfigInvalid) as caught:
        parse_manager_config(f"{config}notifications: {text}\n", "file")
    assert [error.path for error in caught.value.errors] == [place]
