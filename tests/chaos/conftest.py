"""What the tests of the harness share: a ledger with a guard of its own, away from the machine's, and hosts to cut apart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chaos.cluster.network import HostNetwork
from chaos.safety.ledger import Ledger


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """One for a module. At its end there is nothing that could not be undone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HASCHED_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        with Ledger.open("chaos", command="pytest") as opened:
            yield opened
        assert opened.left == []


@pytest.fixture(scope="module")
def hosts() -> Iterator[HostNetwork]:
    with HostNetwork(["a", "b", "c"]) as made:
        yield made
