"""`[device] identity`: a configuration that is filled up from an identity folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoglm_edge_agent.config_file import load_config
from autoglm_edge_agent.enrolment.identity import Identity, IdentityFolder
from autoglm_edge_agent.errors import ConfigurationError
from autoglm_edge_protocol.durable import Disk

IDENTITY = Identity(
    fleet="home",
    device="cam-1",
    broker_url="mqtts://broker.example:8883",
    client_id="autoglm-cam-1-0123456789abcdef",
    claim_id="b95f82062fa332f4",
    issued_at=1.7e9,
    not_before=1.6e9,
    not_after=1.8e9,
)


@pytest.fixture
def folder(tmp_path: Path) -> IdentityFolder:
    folder = IdentityFolder(tmp_path / "identity", Disk())
    folder.prepare()
    folder.write(IDENTITY, "certificate", "authority", "broker authority", "{}")
    folder.key.write_text("key")
    return folder


def written(folder: IdentityFolder, more: str = "", device: str = "") -> Path:
    path = folder.path.parent / "agent.toml"
    path.write_text(f'[device]\nidentity = "{folder.path}"\n{device}\n{more}')
    return path


def test_all_that_an_agent_needs_is_in_the_folder(folder: IdentityFolder) -> None:
    config = load_config(written(folder))
    address = config.broker.address()
    assert (config.device.fleet, config.device.name) == ("home", "cam-1")
    assert (str(address), address.time_floor) == ("mqtts://broker.example:8883", 1.7e9)
    assert (address.ca_file, address.cert_file, address.key_file) == (
        folder.broker_authority,
        folder.certificate,
        folder.key,
    )
    assert config.broker.client_id == IDENTITY.client_id
    assert config.trust.root == folder.root


def test_what_the_file_says_itself_wins(folder: IdentityFolder, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_text("x")
    more = f'[broker]\nurl = "mqtts://other.example"\nca_file = "{other}"\n[trust]\ninsecure = true\n'
    config = load_config(written(folder, more, 'name = "another"'))
    assert (config.device.fleet, config.device.name) == ("home", "another")
    assert (config.broker.url, config.broker.ca_file) == ("mqtts://other.example", other)
    assert config.broker.cert_file == folder.certificate
    assert (config.trust.insecure, config.trust.root) == (True, None)


def test_where_the_fleet_gave_nothing_nothing_is_made_up(folder: IdentityFolder) -> None:
    folder.write(IDENTITY, "certificate", "authority", None, None)
    config = load_config(written(folder))
    assert config.broker.ca_file is None
    assert (config.trust.root, config.trust.insecure) == (None, False)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "this board is no device yet"),
        ("", "not a valid identity"),
        ("{}", "not a valid identity"),
        ('{"schema_version": 2}', "update"),
    ],
)
def test_an_identity_that_cannot_be_used_is_one_line(folder: IdentityFolder, content: str | None, problem: str) -> None:
    folder.record.unlink()
    if content is not None:
        folder.record.write_text(content)
    with pytest.raises(ConfigurationError, match=problem) as caught:
        load_config(written(folder))
    assert "\n" not in str(caught.value)


def test_a_configuration_without_an_identity_is_read_as_before(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('[device]\nfleet = "home"\nname = "pi"\n[broker]\nurl = "mqtt://127.0.0.1"\n')
    config = load_config(path)
    assert (config.device.identity, config.broker.client_id, config.broker.time_floor) == (None, None, 0.0)


@pytest.mark.parametrize("lost", ["identity.json", "device.pem", "device.key"])
def test_what_is_damaged_is_no_reason_not_to_serve(folder: IdentityFolder, lost: str) -> None:
    (folder.path / lost).unlink()
    if lost == "identity.json":
        folder.record.write_bytes(bytes(100))
    with pytest.raises(ConfigurationError, match="identity"):
        load_config(written(folder))
    config = load_config(written(folder, "[inference]\nthreads = 3\n"), unidentified=True)
    assert config.unidentified is not None
    assert ("\n" in config.unidentified, config.inference.threads) == (False, 3)
    assert (config.broker.address().host, config.trust.root) == ("unidentified.invalid", None)


def test_a_key_that_is_kept_elsewhere_is_not_missing(folder: IdentityFolder, tmp_path: Path) -> None:
    folder.key.unlink()
    other = tmp_path / "other.key"
    other.write_text("x")
    assert load_config(written(folder, f'[broker]\nkey_file = "{other}"\n')).broker.key_file == other


def test_what_a_newer_release_wrote_is_not_damaged(folder: IdentityFolder) -> None:
    folder.record.write_text('{"schema_version": 2}')
    with pytest.raises(ConfigurationError, match="update"):
        load_config(written(folder), unidentified=True)


def test_a_file_cannot_say_that_nobody_is_known(folder: IdentityFolder) -> None:
    path = written(folder)
    path.write_text("_unidentified = 'x'\n" + path.read_text())
    with pytest.raises(ConfigurationError, match="_unidentified"):
        load_config(path)
