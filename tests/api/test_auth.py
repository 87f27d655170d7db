"""Who may ask: nobody without a token or the right certificate."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request
from api_server import Manager, Pki

from hasched.api.auth import Authenticator
from hasched.api.table import ROUTES
from hasched.certs.issuing import create_token
from hasched.model.errors import ConfigInvalid, Unauthenticated

OPEN = {"/livez", "/readyz"}
NUMBERS = {"job_id", "index", "execution_id"}


def basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no token"),
        pytest.param({"Authorization": "Bearer hst_wrong"}, id="a wrong token"),
        pytest.param({"Authorization": "Bearer "}, id="an empty token"),
        pytest.param({"Authorization": "Basic YWxpY2U6"}, id="no password"),
        pytest.param({"Authorization": basic("alice:hst_wrong")}, id="a wrong password"),
        pytest.param({"Authorization": "Basic !!"}, id="a password that can't be read"),
        pytest.param({"Authorization": "Digest hst_wrong"}, id="another scheme"),
        pytest.param({"Hasched-Actor": "alice"}, id="an actor without a manager's certificate"),
        pytest.param({"Authorization": "Bearer " + "x" * 5000}, id="a huge token"),
    ],
)
async def test_strangers_change_and_see_nothing(manager: Manager, headers: dict[str, str]) -> None:
    before = manager.digest
    for route in ROUTES:
        path = re.sub(r"\{(\w+)\}", lambda found: "1" if found[1] in NUMBERS else "n1", route.path)
        for each in (path, *route.aliases):
            answer = await manager.request(route.method, each, token=None, headers=headers)
            if each in OPEN:
                assert answer.status == 200
            elif route.access == "agent":
                assert answer.code == "forbidden"
            else:
                assert (answer.status, answer.code) == (401, "unauthenticated")
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert manager.digest == before


async def test_a_token_as_a_password_reads_and_changes_nothing(manager: Manager) -> None:
    """Calendar programs know of passwords only; what a browser sends by itself must not do anything."""
    headers = {"Authorization": basic(f"anybody:{manager.pki.token}")}
    calendar = await manager.request("GET", "/v1/schedules-calendar", token=None, headers=headers)
    assert calendar.status == 200
    before = manager.digest
    refused = await manager.request("POST", "/v1/jobs", token=None, headers=headers)
    assert (refused.status, refused.code) == (401, "unauthenticated")
    assert manager.digest == before


async def test_a_stranger_learns_nothing_from_the_order_of_checks(manager: Manager) -> None:
    """A body is not read, and a parameter not looked at, for somebody who isn't known."""
    answer = await manager.post("/v1/jobs?x=1", b"{" * 1000, token="hst_wrong")
    assert answer.code == "unauthenticated"


async def test_a_managers_certificate_speaks_for_a_user_and_an_agents_for_none(manager: Manager, pki: Pki) -> None:
    for name, status in (("m2", 201), ("n1", 403)):
        connector = aiohttp.TCPConnector(ssl=pki.client(name))
        async with aiohttp.ClientSession(connector=connector) as session:
            answer = await manager.post(
                "/v1/jobs", {"command": ["true"]}, token=None, session=session, headers={"Hasched-Actor": "bob"}
            )
            assert answer.status == status
    assert [job.actor for job in manager.replica.state.jobs.values()] == ["bob"]


async def test_a_user_cant_name_another(manager: Manager) -> None:
    await manager.post("/v1/jobs", {"command": ["true"]}, headers={"Hasched-Actor": "bob"})
    assert [job.actor for job in manager.replica.state.jobs.values()] == ["alice"]


class Tokens:
    """An authenticator of a file, and a clock for its looks at that file."""

    def __init__(self, path: Path) -> None:
        self.now = 0.0
        self.authenticator = Authenticator(path, lambda: self.now)

    def name_of(self, token: str) -> str | None:
        self.now += 1.0
        request = make_mocked_request("GET", "/", headers={"Authorization": f"Bearer {token}"})
        try:
            return self.authenticator.identify(request)
        except Unauthenticated:
            return None


def test_tokens_come_and_go_with_their_file(tmp_path: Path, pki: Pki) -> None:
    path = tmp_path / "tokens"
    shutil.copy(pki.tokens, path)
    tokens = Tokens(path)
    bobs = create_token(path, "bob")
    assert (tokens.name_of(pki.token), tokens.name_of(bobs)) == ("alice", "bob")
    path.write_text(json.dumps([entry for entry in json.loads(path.read_text()) if entry["name"] == "bob"]))
    assert (tokens.name_of(pki.token), tokens.name_of(bobs)) == (None, "bob")
    path.write_text("half of a fi")
    assert tokens.name_of(bobs) == "bob", "what can't be understood changes nothing"
    path.unlink()
    assert tokens.name_of(bobs) is None, "a file that is gone opens nothing"
    create_token(path, "carol")
    os.utime(path, ns=(1, 1))
    assert tokens.name_of(bobs) is None


@pytest.mark.parametrize("text", ["", "{}", '[{"name": "x", "sha256": "zz"}]', '[{"name": "x", "token": "y"}]'])
def test_a_manager_does_not_start_with_tokens_that_it_cant_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(ConfigInvalid):
        Authenticator(path)
    with pytest.raises(ConfigInvalid):
        Authenticator(tmp_path / "missing")
