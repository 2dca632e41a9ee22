from __future__ import annotations

from pathlib import Path

import pytest
from tests.fakes.ports import free_port
from tests.protocol.example_documents import CLAIM

from autoglm_edge_agent.enrolment import asking
from autoglm_edge_agent.enrolment.enrol import enrol, wanted_name
from autoglm_edge_agent.enrolment.identity import IdentityFolder
from autoglm_edge_agent.errors import Hindrance
from autoglm_edge_protocol.backoff import Backoff
from autoglm_edge_protocol.claims import Claim
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.enrolment import Board


@pytest.fixture
def claim() -> Claim:
    nowhere = f"mqtt://127.0.0.1:{free_port()}"
    return CLAIM.model_copy(update={"broker_url": nowhere, "broker_ca": None, "name": None, "name_prefix": None})


async def test_without_a_network_it_waits_and_says_once_for_what(
    claim: Claim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "LOOK_S", 0.1)
    monkeypatch.setattr(asking, "PAUSES", Backoff(0.05, 1.0))
    said: list[str] = []
    folder = IdentityFolder(tmp_path / "identity", Disk())
    with pytest.raises(Hindrance, match="not enrolled within 2 s: this board waits for the broker") as caught:
        await enrol(claim, folder, said.append, timeout_s=2)
    assert caught.value.reason.code == "not-enrolled"
    assert len(said) == 1
    assert "Connection refused" in said[0]
    # It goes on with the key that it has made.
    assert sorted(path.name for path in folder.path.iterdir()) == ["device.key"]


def test_a_board_would_like_to_be_called_the_same_each_time(claim: Claim) -> None:
    known = Board(board_id="1f0c9a3b" * 4, model="m", architecture="a")
    unknown = known.model_copy(update={"board_id": None})
    prefixed = claim.model_copy(update={"name_prefix": "porch"})
    assert wanted_name(claim, known) == "device-1f0c9a3b"
    assert wanted_name(prefixed, known) == "porch-1f0c9a3b"
    assert wanted_name(prefixed, unknown) == f"porch-{claim.claim_id[:8]}"
    assert wanted_name(claim.model_copy(update={"name": "porch-9"}), known) == "porch-9"
