"""`fleet claim|devices|broker`, as people and scripts meet them."""

from __future__ import annotations

import json
import ssl
import stat
import time
from pathlib import Path

import pytest
from tests.cli.test_fleet import error_of, run
from tests.cli.test_fleet_trust import SECRET, code_of
from tests.fakes.claimants import Claimant

from autoglm_edge_agent.enrolment.answers import Issued, Pending
from autoglm_edge_fleet.config import ENVIRONMENT, read_config
from autoglm_edge_fleet.database import DATABASE_FILE, Database
from autoglm_edge_fleet.enrolment.registrar import Registrar
from autoglm_edge_fleet.passphrases import PASSPHRASE_VARIABLE, Passphrases
from autoglm_edge_protocol.claims import Claim, read_claim


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    run("init", tmp_path / "fleet", "--name", "home", "--unencrypted")
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "fleet"))
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)
    return tmp_path / "fleet"


def claims_in(folder: Path) -> list[Claim]:
    return [read_claim(path.read_bytes()) for path in sorted(folder.iterdir())]


def ask(fleet: Path, board: Claimant) -> object:
    """Let a board ask as `fleet serve` would."""
    database = Database(fleet / DATABASE_FILE)
    registrar = Registrar(fleet, read_config(fleet), Passphrases.find(), lambda _line: None)
    meaning = board.hears(registrar.enrol(database, board.request.request_id, board.asks()).payload)
    database.close()
    return meaning


def test_claims_are_files_that_hold_all_a_board_needs(fleet: Path, tmp_path: Path) -> None:
    folder = tmp_path / "claims"
    said = run(
        "claim", "create", "--count", "3", "--expires", "12h", "--tag", "site=berlin", "--tag", "floor=2", "-o", folder
    )
    assert "3 claims" in said
    made = claims_in(folder)
    assert len({claim.secret for claim in made}) == len({claim.claim_id for claim in made}) == 3
    for path, claim in zip(sorted(folder.iterdir()), made, strict=True):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert claim.secret not in said
        assert (claim.fleet, claim.tags) == ("home", {"site": "berlin", "floor": "2"})
        assert claim.expires_at - claim.created_at == 12 * 3600
        assert claim.root == (fleet / "repository" / "metadata" / "1.root.json").read_text()
    listed = json.loads(run("claim", "list", "--json"))
    assert [row["state"] for row in listed] == ["open"] * 3
    assert "secret" not in json.dumps(listed)
    assert all(claim.secret not in run("claim", "list") for claim in made)


def test_where_boards_ask_can_be_said(fleet: Path, tmp_path: Path) -> None:
    run("claim", "create", "--broker", "mqtt://10.0.2.2:1883", "--name-prefix", "cam", "-o", tmp_path / "c")
    (claim,) = claims_in(tmp_path / "c")
    assert (claim.broker_url, claim.device_broker_url) == ("mqtt://10.0.2.2:1883", "mqtt://10.0.2.2:1883")
    assert claim.name_prefix == "cam"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--expires", "soon"], "write 90m, 12h, 30d or 8w"),
        (["--tag", "site"], "KEY=VALUE"),
        (["--tag", "a=1", "--tag", "a=2"], "each key once"),
        (["--count", "0"], "--count"),
    ],
)
def test_what_cannot_be_is_refused_as_a_usage_error(fleet: Path, arguments: list[str], problem: str) -> None:
    code, said = code_of("claim", "create", *arguments)
    assert code == 2
    assert problem in said
    assert json.loads(run("claim", "list", "--json")) == []


@pytest.mark.parametrize("arguments", [["--tag", "Site=x"], ["--broker", "http://x"], ["--name-prefix", "-x"]])
def test_what_no_claim_can_hold_is_one_line_and_makes_none(fleet: Path, arguments: list[str]) -> None:
    assert "not a valid claim" in error_of("claim", "create", *arguments)
    assert json.loads(run("claim", "list", "--json")) == []


def test_a_fleet_from_before_there_were_claims_gets_its_authority(
    fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (fleet / "ca").iterdir():
        path.unlink()
    assert "no passphrase" in error_of("claim", "create")
    run("claim", "create", "--unencrypted", "-o", tmp_path / "c")
    assert len(claims_in(tmp_path / "c")) == 1


def test_a_device_from_its_approval_to_its_end(fleet: Path, tmp_path: Path) -> None:
    run("claim", "create", "--approve", "-o", tmp_path / "c")
    board = Claimant(claims_in(tmp_path / "c")[0], tmp_path / "board")
    assert isinstance(ask(fleet, board), Pending)
    assert "cam-1: waits for `fleet devices approve cam-1` (Raspberry Pi 4 (aarch64) abababababab)" in run("devices")
    assert "does not wait to be approved; waiting: cam-1" in error_of("devices", "approve", "cam-9")
    assert "cam-1 is approved" in run("devices", "approve", "cam-1")
    assert isinstance(ask(fleet, board), Issued)
    (listed,) = json.loads(run("devices", "--json"))
    assert [listed] == json.loads(run("devices", "list", "--json"))
    assert (listed["name"], listed["certificate"]["revoked_at"], listed["suspicion"]) == ("cam-1", None, None)
    assert listed["certificate"]["pem"] is None

    replaced = json.loads(run("devices", "replace", "cam-1", "-o", tmp_path / "r", "--json"))
    assert read_claim(Path(replaced["file"]).read_bytes()).name == "cam-1"
    assert "no device 'cam-9'" in error_of("devices", "replace", "cam-9")
    assert "cam-1 is revoked: 1 certificate" in run("devices", "revoke", "cam-1", "--reason", "stolen")
    assert "cam-1: revoked: stolen" in run("devices")
    assert "cam-1 is revoked: it was before" in run("devices", "revoke", "cam-1")
    assert "no device 'cam-9'" in error_of("devices", "revoke", "cam-9")
    actions = [entry["action"] for entry in json.loads(run("audit", "--json"))["entries"]]
    assert actions[-5:] == ["make claim", "approve device", "enrol device", "make claim", "revoke device"]


@pytest.mark.parametrize(
    ("left_days", "said"),
    [(100, None), (80, "cam-1: its certificate runs out in 80 days"), (-1, "cam-1: its certificate has run out")],
)
def test_a_certificate_that_was_not_renewed_is_said(
    fleet: Path, tmp_path: Path, left_days: float, said: str | None
) -> None:
    run("claim", "create", "-o", tmp_path / "c")
    ask(fleet, Claimant(claims_in(tmp_path / "c")[0], tmp_path / "board"))
    database = Database(fleet / DATABASE_FILE)
    with database.transaction() as connection:
        connection.execute("UPDATE certificates SET not_after = ?", (time.time() + left_days * 86_400 + 60,))
    database.close()
    listed = run("devices")
    assert ("certificate" in listed) is (said is not None)
    assert said is None or said in listed


def test_a_claim_that_two_boards_used_is_shown(fleet: Path, tmp_path: Path) -> None:
    run("claim", "create", "-o", tmp_path / "c")
    (claim,) = claims_in(tmp_path / "c")
    for number in (1, 2):
        ask(fleet, Claimant(claim, tmp_path / str(number), board=f"{number}" * 32))
    for command in (("claim", "list"), ("devices",)):
        assert f"claim {claim.claim_id} of cam-1 was used by a second board" in run(*command)
    assert "was used already: cam-1 stays a device" in run("claim", "revoke", claim.claim_id)


@pytest.mark.parametrize("kind", ["mosquitto", "nats", "emqx"])
def test_a_brokers_files_are_written_and_written_anew(fleet: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "broker"
    reloaded = tmp_path / "reloaded"
    options = ("--host", "broker.example", "--host", "10.0.0.1", "-o", folder, "--reload", f"touch {reloaded}")
    made = json.loads(run("broker", "config", kind, *options, "--use", "--json"))
    assert (made["device_url"], made["enrolment_url"]) == ("mqtts://broker.example:8883", "mqtts://broker.example:8884")
    assert all(Path(path).is_file() for path in made["files"])
    assert stat.S_IMODE((folder / "broker.key").stat().st_mode) == 0o600
    config = read_config(fleet)
    assert (config.broker, config.url_for_enrolment) == (made["device_url"], made["enrolment_url"])
    address = config.address(fleet)
    assert all(path is not None and path.is_file() for path in (address.ca_file, address.cert_file, address.key_file))

    run("claim", "create", "-o", tmp_path / "c")
    (claim,) = claims_in(tmp_path / "c")
    assert claim.broker_url == made["enrolment_url"]
    assert claim.broker_ca == (fleet / "ca" / "fleet-ca.pem").read_text()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    reloaded.unlink()
    assert isinstance(ask(fleet, Claimant(claim, tmp_path / "board")), Issued)
    assert reloaded.exists()
    run("devices", "revoke", "cam-1")
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"revoked.pem"} | ({"acl.conf"} if kind == "emqx" else set())


def test_certificates_for_the_broker_are_made_anew_with_its_files(fleet: Path, tmp_path: Path) -> None:
    options = ("mosquitto", "--host", "b.example", "-o", tmp_path / "b", "--use")
    run("broker", "config", *options)
    certificates = [tmp_path / "b" / "broker.pem", fleet / "ca" / "fleet-client.pem"]
    keys = [path.with_suffix(".key") for path in certificates]
    before = [path.read_bytes() for path in certificates]
    keys_before = [path.read_bytes() for path in keys]
    run("broker", "config", *options)
    after = [path.read_bytes() for path in certificates]
    assert all(old != new for old, new in zip(before, after, strict=True))
    # A broker that reads them at this moment finds a pair.
    assert [path.read_bytes() for path in keys] == keys_before
    for certificate, key in zip(certificates, keys, strict=True):
        ssl.create_default_context().load_cert_chain(certificate, key)
    for key in keys:
        kept = key.read_bytes()
        key.write_text("damaged")
        assert "is damaged: remove it" in error_of("broker", "config", *options)
        key.write_bytes(kept)


@pytest.mark.parametrize(("option", "expected"), [((), "cam-1 is revoked"), (("--json",), '"problem": "the broker')])
def test_a_broker_that_cannot_be_reloaded_is_said(
    fleet: Path, tmp_path: Path, option: tuple[str, ...], expected: str
) -> None:
    options = ("--host", "b.example", "-o", tmp_path / "b", "--reload", "sh -c 'echo no such unit >&2; exit 5'")
    assert "the broker was not reloaded, exit code 5: no such unit" in run("broker", "config", "mosquitto", *options)
    run("claim", "create", "-o", tmp_path / "c")
    ask(fleet, Claimant(claims_in(tmp_path / "c")[0], tmp_path / "board"))
    code, said = code_of("devices", "revoke", "cam-1", *option)
    assert code == 3
    assert expected in said
    assert "no such unit" in said


def test_nothing_is_revoked_that_the_broker_could_not_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSPHRASE_VARIABLE, SECRET)
    run("init", tmp_path / "locked", "--name", "home")
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "locked"))
    run("broker", "config", "mosquitto", "--host", "b.example", "-o", tmp_path / "b")
    run("claim", "create", "-o", tmp_path / "c")
    ask(tmp_path / "locked", Claimant(claims_in(tmp_path / "c")[0], tmp_path / "board"))
    monkeypatch.delenv(PASSPHRASE_VARIABLE)
    assert "is encrypted" in error_of("devices", "revoke", "cam-1")
    assert json.loads(run("devices", "--json"))[0]["certificate"]["revoked_at"] is None
    (tmp_path / "passphrase").write_text(SECRET)
    assert "cam-1 is revoked" in run("devices", "revoke", "cam-1", "--passphrase-file", tmp_path / "passphrase")


def test_a_fleet_without_keys_makes_claims_and_says_what_they_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autoglm_edge_fleet.fleet import Fleet

    Fleet.init(tmp_path / "bare", "bare").close()
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "bare"))
    code, said = code_of("claim", "create", "--unencrypted", "-o", tmp_path / "c")
    assert code == 0
    assert "its devices will refuse everything" in said
    assert claims_in(tmp_path / "c")[0].root is None
