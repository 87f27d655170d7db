"""Certificates and tokens: what is issued is what TLS then proves."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import stat
import threading

import pytest

from hasched.certs.issuing import CertsError, create_ca, create_token, describe, issue_agent, issue_manager
from hasched.client.tls import (
    MANAGER_HOSTNAME,
    PeerIdentity,
    certificate_identity,
    client_context,
    find_tls_problems,
    manager_hostname,
    peer_identity,
    server_context,
)
from hasched.model.errors import Conflict, NotFound


@pytest.fixture
def certs(tmp_path):
    create_ca(tmp_path, "lab")
    issue_manager(tmp_path, "m1", ["10.0.0.11", "m1.example.org"])
    issue_agent(tmp_path, "n1")
    return tmp_path


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, hostname: str) -> tuple[object, object]:
    """Who each side sees, over a real socket pair: (the server's view, the client's view)."""
    left, right = socket.socketpair()
    seen: list[object] = []

    def serve() -> None:
        try:
            with server.wrap_socket(left, server_side=True) as link:
                seen.append(peer_identity(link))
                link.recv(1)
        except ssl.SSLError as error:
            seen.append(error)
            left.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(right, server_hostname=hostname) as link:
            identity = peer_identity(link)
            link.send(b"x")
    finally:
        right.close()
        thread.join()
    return seen[0], identity


def test_manager_and_agent_prove_who_they_are(certs):
    server = server_context(certs / "ca.crt", certs / "m1.crt", certs / "m1.key", "required")
    client = client_context(certs / "ca.crt", certs / "n1.crt", certs / "n1.key")
    for hostname in (MANAGER_HOSTNAME, manager_hostname("m1"), "localhost", "127.0.0.1", "10.0.0.11", "m1.example.org"):
        assert handshake(server, client, hostname) == (("agent", "n1"), ("manager", "m1"))


def test_a_manager_is_not_another_manager(certs):
    server = server_context(certs / "ca.crt", certs / "m1.crt", certs / "m1.key")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client_context(certs / "ca.crt"), manager_hostname("m2"))


def test_an_agent_can_not_pose_as_a_manager(certs):
    server = server_context(certs / "ca.crt", certs / "n1.crt", certs / "n1.key")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client_context(certs / "ca.crt"), MANAGER_HOSTNAME)


def test_another_clusters_certificate_is_refused(certs, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    create_ca(other, "lab")
    issue_manager(other, "m1", [])
    server = server_context(other / "ca.crt", other / "m1.crt", other / "m1.key")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client_context(certs / "ca.crt"), MANAGER_HOSTNAME)


def test_keys_are_their_owners_alone(certs):
    for name in ("ca", "m1", "n1"):
        assert stat.S_IMODE((certs / f"{name}.key").stat().st_mode) == 0o600


def test_nothing_is_overwritten(certs):
    before = {path: path.read_bytes() for path in certs.iterdir()}
    with pytest.raises(Conflict):
        create_ca(certs, "lab")
    with pytest.raises(Conflict):
        issue_manager(certs, "m1", [])
    with pytest.raises(Conflict):
        issue_agent(certs, "ca")
    assert {path: path.read_bytes() for path in certs.iterdir()} == before


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", "x" * 65, "-a"])
def test_a_name_that_is_no_name_is_refused(certs, name):
    with pytest.raises(CertsError):
        issue_agent(certs, name)


def test_without_a_ca_nothing_is_issued(tmp_path):
    with pytest.raises(NotFound):
        issue_agent(tmp_path, "n1")
    assert list(tmp_path.iterdir()) == []


def test_describe_tells_validity_and_hosts(certs):
    info = describe(certs / "m1.crt")
    assert (info.role, info.name, info.days_left) == ("manager", "m1", 824)
    assert {"10.0.0.11", "m1.example.org", MANAGER_HOSTNAME} <= set(info.hosts)


def test_a_tokens_file_holds_hashes_only(tmp_path):
    path = tmp_path / "tokens.json"
    alice, bob = create_token(path, "alice"), create_token(path, "bob")
    entries = json.loads(path.read_text())
    assert entries == [
        {"name": "alice", "sha256": hashlib.sha256(alice.encode()).hexdigest()},
        {"name": "bob", "sha256": hashlib.sha256(bob.encode()).hexdigest()},
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(Conflict):
        create_token(path, "alice")
    assert json.loads(path.read_text()) == entries


def test_extending_a_tokens_file_keeps_its_mode(tmp_path):
    path = tmp_path / "tokens.json"
    create_token(path, "alice")
    path.chmod(0o640)
    create_token(path, "bob")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_certificate_file_says_whose_it_is(certs):
    assert certificate_identity(certs / "m1.crt") == PeerIdentity("manager", "m1")
    assert certificate_identity(certs / "n1.crt") == PeerIdentity("agent", "n1")
    for name in ("ca.crt", "ca.key"):
        with pytest.raises(ValueError):
            certificate_identity(certs / name)


@pytest.mark.parametrize(
    ("ca", "cert", "key", "place", "cause"),
    [
        ("ca.crt", "m1.crt", "m1.key", "", ""),
        ("no.crt", "m1.crt", "m1.key", "tls.ca", "no.crt can't be read: No such file"),
        ("m1.key", "m1.crt", "m1.key", "tls.ca", "m1.key holds no certificate"),
        ("ca.crt", "m1.key", "m1.key", "tls.cert", "m1.key can't be used"),
        ("ca.crt", "n1.crt", "n1.key", "tls.cert", "n1.crt is the certificate of agent n1, not of manager m1"),
        ("ca.crt", "m1.crt", "n1.key", "tls.key", "n1.key is not the key of"),
    ],
)
def test_files_that_can_not_prove_who_a_daemon_is(certs, ca, cert, key, place, cause):
    files = (str(certs / name) for name in (ca, cert, key))
    problems = list(find_tls_problems(*files, PeerIdentity("manager", "m1")))
    assert [problem.path for problem in problems] == ([place] if place else [])
    assert all(cause in problem.cause for problem in problems)
