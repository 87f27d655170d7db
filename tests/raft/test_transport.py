"""Links between managers: who may speak, and what they may say."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager

import pytest
from raft_cluster import CLUSTER, Authority, Cluster, running, submit, until

from hasched.raft import transport
from hasched.raft.frames import MAX_FRAME_BYTES, FrameInvalid, FrameReader, encode_frame
from hasched.raft.messages import PROTOCOL_VERSION, Append, Entry, Hello, Refusal, RequestVote

BAD_TERM = RequestVote(10_000, 10_000, 10_000)


@asynccontextmanager
async def dialled(cluster: Cluster, target: str, client: ssl.SSLContext, name: str | None = None):
    """A connection to a manager's Raft port, as an intruder would open it."""
    host, _, port = next(m.raft_address for m in cluster.members if m.manager_id == target).rpartition(":")
    reader, writer = await asyncio.open_connection(
        host, int(port), ssl=client, server_hostname=f"{target}.manager.hasched.internal"
    )
    try:
        yield reader, writer
    finally:
        writer.close()


async def is_cut_off(reader: asyncio.StreamReader) -> bool:
    """The manager has closed the connection, and has not said its hello."""
    async with asyncio.timeout(10):
        try:
            return await reader.read() == b""
        except (ConnectionError, ssl.SSLError):
            return True


@pytest.mark.parametrize(
    ("certificate", "hello"),
    [
        pytest.param(("m2", "agent"), Hello(PROTOCOL_VERSION, CLUSTER, "m2", False), id="an agent's certificate"),
        pytest.param(
            ("m2", "manager"),
            Hello(PROTOCOL_VERSION, CLUSTER, "m3", False),
            id="a name that the certificate doesn't state",
        ),
        pytest.param(("m2", "manager"), Hello(PROTOCOL_VERSION, "other", "m2", False), id="another cluster"),
        pytest.param(("m2", "manager"), Hello(99, CLUSTER, "m2", False), id="another version of the protocol"),
        pytest.param(("m2", "manager"), BAD_TERM, id="no hello at all"),
    ],
)
async def test_24_a_stranger_is_cut_off_before_it_is_heard(tmp_path, certificate, hello):
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        term = leader.term
        _, client = cluster.authority.contexts(*certificate)
        async with dialled(cluster, "m1", client) as (reader, writer):
            writer.write(encode_frame(hello) + encode_frame(BAD_TERM))
            assert await is_cut_off(reader)
        assert leader.term == term


async def test_24_a_manager_that_is_no_member_is_told_so_and_is_not_heard(tmp_path):
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        term = leader.term
        _, client = cluster.authority.contexts("m9")
        async with dialled(cluster, leader.manager_id, client) as (reader, writer):
            writer.write(encode_frame(Hello(PROTOCOL_VERSION, CLUSTER, "m9", False)) + encode_frame(BAD_TERM))
            (refusal,) = FrameReader().feed(await asyncio.wait_for(reader.read(), 5))
        assert refusal == Refusal("not_a_member", term, leader._core.engine.membership.index)
        assert leader.term == term


async def test_24_who_shows_no_certificate_of_the_cluster_is_not_let_in(tmp_path):
    async with running(tmp_path) as cluster:
        await cluster.leader()
        anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _, foreign = Authority(tmp_path / "foreign").contexts("m2")
        for client in (anonymous, foreign):
            client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
            async with dialled(cluster, "m1", client) as (reader, writer):
                writer.write(encode_frame(Hello(PROTOCOL_VERSION, CLUSTER, "m2", False)))
                assert await is_cut_off(reader)


async def test_a_server_that_is_not_the_manager_meant_is_not_spoken_to(tmp_path):
    """m1's configuration gives m2's address for m3: the certificate there doesn't carry m3's name."""
    cluster = Cluster(tmp_path)
    await cluster.start("m2")
    first, second, third = cluster.members
    swapped = [first, second, type(third)("m3", third.api_url, second.raft_address)]
    await cluster.start("m1", members=swapped)
    node = cluster.nodes["m1"]
    await until(lambda: node._transport.is_connected("m2"))
    assert not node._transport.is_connected("m3")
    await cluster.stop()


async def test_the_newer_connection_of_a_manager_puts_the_older_out_of_use(tmp_path):
    async with running(tmp_path) as cluster:
        leader = await cluster.leader()
        follower = (await cluster.followers())[0].manager_id
        _, client = cluster.authority.contexts(follower)
        old = leader._transport._heard[follower]
        async with dialled(cluster, leader.manager_id, client) as (reader, writer):
            writer.write(encode_frame(Hello(PROTOCOL_VERSION, CLUSTER, follower, False)))
            await reader.readexactly(4)
            await until(lambda: leader._transport._heard[follower] is not old)
            assert not old.current
        await until(lambda: leader._transport._heard[follower].current)
        await leader.propose(submit(1))


def test_14_frames_hold_messages_and_nothing_else():
    messages = [Hello(PROTOCOL_VERSION, "c", "m1", True), Append(3, 2, 1, 0, [Entry(3, b"data")], 7), BAD_TERM]
    stream = b"".join(map(encode_frame, messages))
    for step in (1, 7, len(stream)):
        reader = FrameReader()
        pieces = [stream[start : start + step] for start in range(0, len(stream), step)]
        assert [message for piece in pieces for message in reader.feed(piece)] == messages


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param((MAX_FRAME_BYTES + 1).to_bytes(4, "big"), id="too long"),
        pytest.param(b"\0\0\0\x01\xc1", id="not MessagePack"),
        pytest.param(b"\0\0\0\x02\x91\xa0", id="of no known kind"),
        pytest.param(b"\0\0\0\x09\x94\xa4vote\xa1x\x01\x01", id="a field of another type"),
        pytest.param(b"\0\0\0\x05\x80\x03cos"[:9], id="a pickle"),
    ],
)
def test_14_what_is_no_message_ends_the_connection(frame):
    with pytest.raises(FrameInvalid):
        list(FrameReader().feed(frame))


async def test_a_manager_that_dials_us_is_dialled_at_once(tmp_path, monkeypatch):
    """It was away, and would be tried again only after a pause; in an election both directions are needed."""
    monkeypatch.setattr(transport, "REDIAL_MIN_S", 1000.0)
    monkeypatch.setattr(transport, "REDIAL_MAX_S", 1000.0)
    cluster = Cluster(tmp_path)
    try:
        for name in ("m1", "m2", "m3"):
            await cluster.start(name)
        await until(lambda: all(member.connected for member in cluster.nodes["m1"].status.members))
    finally:
        await cluster.stop()
