"""`fleet init|keys|repository|audit`, as people and scripts meet them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.cli.test_fleet import PROGRAM, error_of, run
from tests.fakes.bundles import make_bundle
from typer.testing import CliRunner

from autoglm_edge.app import build
from autoglm_edge_fleet.config import ENVIRONMENT
from autoglm_edge_fleet.fleet import Fleet
from autoglm_edge_fleet.passphrases import PASSPHRASE_VARIABLE

SECRET = "correct horse battery"


def code_of(*arguments: str | Path) -> tuple[int, str]:
    """Run a command that may end in any way; returns its exit code and what it said."""
    result = CliRunner().invoke(build(), ["fleet", *map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.output


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(PASSPHRASE_VARIABLE, SECRET)
    made = json.loads(run("init", tmp_path / "fleet", "--name", "f", "--root-keys", tmp_path / "stick", "--json"))
    assert (made["threshold"], made["encrypted"], len(made["root_keys"])) == (2, True, 3)
    assert Path(made["root"]).is_file()
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "fleet"))
    return tmp_path / "fleet"


def root_keys(fleet: Path) -> list[Path]:
    return sorted((fleet.parent / "stick").glob("*.pem"))


def test_what_init_makes_and_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "passphrase").write_text(SECRET + "\n")
    said = run("init", tmp_path / "f", "--passphrase-file", tmp_path / "passphrase")
    for part in ("to every device:", "1.root.json", "offline, one to a holder", "2 of 3 must sign", "stays here"):
        assert part in said
    assert "NOT encrypted" not in said
    files = list((tmp_path / "f" / "keys").glob("*.pem")) + list((tmp_path / "f" / "root-keys").glob("*.pem"))
    assert len(files) == 7 and all(b"ENCRYPTED" in path.read_bytes() for path in files)
    assert "NOT encrypted" in run("init", tmp_path / "g", "--unencrypted")
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)
    assert "--unencrypted" in error_of("init", tmp_path / "h")
    assert not (tmp_path / "h").exists(), "nothing is made without a passphrase"


def test_a_fleet_without_keys_gets_them_and_what_was_published_is_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Fleet.init(tmp_path / "f", "old") as old:
        old.publish(make_bundle(tmp_path / "bundle"))
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "f"))
    for command in (("serve",), ("keys", "list"), ("repository", "verify"), ("repository", "refresh")):
        assert f"autoglm-edge fleet init {tmp_path / 'f'}" in error_of(*command)
    run("init", tmp_path / "f", "--unencrypted")
    assert json.loads(run("repository", "verify", "--json"))["bundles"] == 1
    assert "holds a fleet already" in error_of("init", tmp_path / "f", "--unencrypted")


def test_keys_that_exist_are_taken(fleet: Path, tmp_path: Path) -> None:
    existing = next((fleet / "keys").glob("targets-*.pem"))
    shutil.copy(existing, tmp_path / "mine.pem")
    run("init", tmp_path / "g", "--targets-key", f"file2:{tmp_path / 'mine.pem'}")
    listed = json.loads(run("keys", "list", "--fleet", tmp_path / "g", "--json"))
    places = {key["role"]: key["place"] for key in listed}
    assert places["targets"] == f"{tmp_path / 'mine.pem'}, encrypted"
    assert "hsm: is PKCS#11" in error_of("init", tmp_path / "h", "--director-key", "pkcs11:object=x")


def test_publishing_signs_and_verify_walks_it(fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("publish", make_bundle(tmp_path / "bundle"))
    said = run("repository", "verify")
    assert "1 bundle verified" in said and "model-tiny" in said and "in 7 days" in said
    assert "nothing was due" in run("repository", "refresh")
    assert json.loads(run("repository", "refresh", "--force", "--json"))["roles"] == ["snapshot", "timestamp"]
    monkeypatch.delenv(PASSPHRASE_VARIABLE)
    other = make_bundle(tmp_path / "other", version="2.0.0")
    assert "is encrypted: set AUTOGLM_EDGE_KEY_PASSPHRASE" in error_of("publish", other)
    assert len(json.loads(run("bundles", "--json"))) == 1, "what cannot be signed is not published"
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "not the passphrase")
    assert "does not open" in error_of("publish", other)


def test_a_tampered_repository_fails_verification(fleet: Path, tmp_path: Path) -> None:
    run("publish", make_bundle(tmp_path / "bundle"))
    target = next((fleet / "repository" / "targets").rglob("*.json"))
    data = target.read_bytes()
    target.unlink()  # not through the link: the object keeps its bytes
    target.write_bytes(data.replace(b"tiny", b"tinY"))
    code, said = code_of("repository", "verify")
    assert code == 1 and "a device would refuse: tiny@1.0.0" in said
    code, said = code_of("repository", "verify", "--json")
    assert code == 1 and json.loads(said)["problems"]


def test_rotating_in_one_go(fleet: Path) -> None:
    one, _, three = root_keys(fleet)
    before = json.loads(run("keys", "list", "--json"))
    assert "root 2 is installed" in run("keys", "rotate", "timestamp", "--sign-with", one, "--sign-with", three)
    after = json.loads(run("keys", "list", "--json"))
    assert {k["role"] for k in before if k not in after} == {"timestamp"}
    assert run("repository", "verify")


def test_rotating_step_by_step_on_three_machines(fleet: Path, tmp_path: Path) -> None:
    code, said = code_of("keys", "rotate", "director", "--json")
    change = json.loads(said)
    assert code == 3 and "2 more of the keys of the old root" in change["missing"][0]
    copies = []
    for number, key in enumerate(root_keys(fleet)[:2]):
        copy = tmp_path / f"holder {number}.json"
        shutil.copy(change["pending"], copy)
        assert json.loads(run("keys", "sign", copy, "--sign-with", key, "--json"))["signed_with"]
        copies.append(copy)
    code, said = code_of("keys", "sign", "--take", copies[0])
    assert code == 3 and "1 more of the keys of the old root" in said
    assert "root 2 is installed" in run("keys", "sign", "--take", copies[1])


def test_replacing_a_lost_root_key_and_renewing_the_root(fleet: Path, tmp_path: Path) -> None:
    one, two, three = root_keys(fleet)
    lost = two.stem.removeprefix("root-")
    arguments = ("--replace", lost, "--root-keys", tmp_path / "new stick", "--sign-with", one, "--sign-with", three)
    assert "root 2 is installed" in run("keys", "rotate", "root", *arguments)
    (new,) = (tmp_path / "new stick").glob("*.pem")
    assert "root 3 is installed" in run("keys", "rotate", "root", "--renew", "--sign-with", new, "--sign-with", one)
    code, said = code_of("keys", "rotate", "root", "--renew", "--sign-with", two, "--sign-with", one)
    assert code == 3 and "1 more of the keys" in said, "the lost key is worth nothing"


def test_giving_a_model_a_key_of_its_own(fleet: Path, tmp_path: Path) -> None:
    run("publish", make_bundle(tmp_path / "bundle"))
    assert "signed again" in run("keys", "rotate", "model-tiny")
    listed = {key["role"]: key["keyid"] for key in json.loads(run("keys", "list", "--json"))}
    assert listed["model-tiny"] != listed["targets"]
    run("publish", make_bundle(tmp_path / "next", version="1.1.0"))
    assert run("repository", "verify")


def test_mistakes_with_keys_are_one_line(fleet: Path, tmp_path: Path) -> None:
    one = root_keys(fleet)[0]
    assert "there is no role 'model-none'" in error_of("keys", "rotate", "model-none")
    assert "no root waits for signatures" in error_of("keys", "sign", "--sign-with", one)
    assert "there is no role 'nonsense'" in error_of("keys", "rotate", "nonsense")
    assert code_of("keys", "rotate", "targets", "--renew")[0] == 2
    assert code_of("keys", "rotate", "root", "--new-key", "x")[0] == 2
    assert "cannot be read" in error_of("keys", "sign", tmp_path / "gone.json", "--sign-with", one)
    assert "no TUF metadata" in error_of("keys", "sign", fleet / "fleet.toml", "--sign-with", one)
    assert "No such file" in error_of("keys", "rotate", "targets", "--sign-with", tmp_path / "gone.pem")
    assert "waits for signatures" in error_of("keys", "rotate", "targets"), "it was begun all the same"


def test_a_downgrade_needs_a_reason_and_is_in_the_log(fleet: Path, tmp_path: Path) -> None:
    run("publish", make_bundle(tmp_path / "bundle"))
    deploy = ("deploy", "tiny@1.0.0", "--to", "dev1", "--create")
    for wrong in (("--allow-downgrade",), ("--reason", "x"), ("--allow-downgrade", "--reason", " ")):
        assert code_of(*deploy, *wrong)[0] == 2
    run(*deploy, "--allow-downgrade", "--reason", "1.1 [bold]overheats")
    log = json.loads(run("audit", "--json"))
    assert log["first_broken"] is None
    assert log["entries"][-1]["details"]["reason"] == "1.1 [bold]overheats"
    assert "deploy-allowing-downgrade dev1" in run("audit", "--newest", "1")
    assert "[bold]overheats" in run("audit")


def test_insecure_is_said_on_every_start(tmp_path: Path) -> None:
    with Fleet.init(tmp_path / "f", "f", "mqtt://127.0.0.1:1"):
        pass
    command = [*PROGRAM, "serve", "--fleet", str(tmp_path / "f"), "--insecure"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.terminate()
    assert any(line.startswith("INSECURE") for line in lines), lines
