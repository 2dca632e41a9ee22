"""The device's key, and the process that alone has it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509

from autoglm_edge_agent.enrolment.key_process import ask_key
from autoglm_edge_agent.enrolment.key_wire import KeyOrder
from autoglm_edge_agent.enrolment.key_work import FileKey, carry_out
from autoglm_edge_agent.errors import Hindrance
from autoglm_edge_protocol.durable import Disk


def test_a_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    public = FileKey(path, Disk()).public()
    assert FileKey(path, Disk()).public() == public
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_request_is_signed_by_the_key_and_says_nothing_else(tmp_path: Path) -> None:
    request = x509.load_pem_x509_csr(FileKey(tmp_path / "device.key", Disk()).request().encode())
    assert request.is_signature_valid
    assert request.subject.rfc4514_string() == "CN=device"
    assert list(request.extensions) == []


@pytest.mark.parametrize("content", ["", "nonsense", "-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_key_is_said_and_not_replaced(tmp_path: Path, content: str) -> None:
    path = tmp_path / "device.key"
    path.write_text(content)
    result = carry_out(KeyOrder(), FileKey(path, Disk()))
    assert result.csr is None
    assert "cannot be used" in (result.problem or "")
    assert path.read_text() == content


async def test_the_process_makes_a_key_and_a_request(tmp_path: Path) -> None:
    asked = await ask_key(tmp_path / "device.key", KeyOrder())
    assert asked.csr is not None
    again = await ask_key(tmp_path / "device.key", KeyOrder())
    assert again.csr is not None
    keys = [x509.load_pem_x509_csr(each.csr.encode()).public_key() for each in (asked, again) if each.csr]
    assert keys[0] == keys[1]
    with pytest.raises(Hindrance, match="cannot be used"):
        await ask_key(tmp_path, KeyOrder())


async def test_a_process_that_hangs_is_ended_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper = tmp_path / "python"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(sleeper))
    with pytest.raises(Hindrance, match="hung"):
        await ask_key(tmp_path / "device.key", KeyOrder(), silence_s=0.2)
