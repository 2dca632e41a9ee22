"""`autoglm-edge flash` as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from tests.firmware import images, packages
from typer.testing import CliRunner, Result

from autoglm_edge.app import USER_ERRORS, build

SMALL = images.Layout({"cmdline.txt": images.CMDLINE}, images.root_of(), boot_mib=34, root_mib=8)
PASSPHRASE = "correct horse battery"
LINE = [sys.executable, "-c", "from autoglm_edge.app import main; main()"]
APP = build()


def command(*words: object, **env: str) -> Result:
    """Run the command in this process, which is as good and much quicker."""
    return CliRunner().invoke(APP, [str(word) for word in words], env=env)


def flash(*words: object, **env: str) -> Result:
    return command("flash", *words, **env)


def autoglm_edge(*words: object) -> str:
    done = command(*words)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return images.make(tmp_path / "pi.img", SMALL)


def card(path: Path) -> Path:
    path.write_bytes(os.urandom(1 << 20) * 64)
    return path


def test_from_an_image_to_cards_with_claims_of_a_fleet(tmp_path: Path, image: Path) -> None:
    fleet, out = tmp_path / "plant", tmp_path / "card.img.xz"
    autoglm_edge("fleet", "init", fleet, "--unencrypted")
    autoglm_edge("fleet", "claim", "create", "--fleet", fleet, "--count", "2", "-o", tmp_path / "claims")
    deb = packages.deb(tmp_path)
    options = ("--package", deb, "--wifi", "Werkstatt", "--wifi-country", "DE", "--hostname-prefix", "plant-a")
    made = flash("customise", image, *options, "-o", out, AUTOGLM_EDGE_WIFI_PASSPHRASE=PASSPHRASE)
    assert made.exit_code == 0, made.output
    assert "told by firstrun" in made.stdout

    cards = [card(tmp_path / name) for name in ("left", "right")]
    confirmed = ("--confirm", "left", "--confirm", "right")
    told = flash("write", out, *cards, "--many", "--claims", tmp_path / "claims", *confirmed)
    assert told.exit_code == 0, told.output
    seen = [json.loads(flash("doctor", each, "--json").stdout) for each in cards]
    assert {each["claim"]["fleet"] for each in seen} == {"plant"}
    assert len({each["claim"]["claim_id"] for each in seen}) == 2
    assert [(each["claim_state"], each["agent"]) for each in seen] == [("waiting", "0.1.0")] * 2
    everything = made.output + told.output + json.dumps(seen)
    secrets = [json.loads(path.read_text())["secret"] for path in (tmp_path / "claims" / "given").iterdir()]
    assert len(secrets) == 2
    for secret in (*secrets, PASSPHRASE):
        assert secret not in everything

    shown = flash("doctor", cards[0])
    assert "waits for the first boot" in shown.stdout
    assert "Debian GNU/Linux 12" in shown.stdout


def test_a_claim_is_made_by_the_fleet_or_checked_against_it(tmp_path: Path, image: Path) -> None:
    fleet, deb = tmp_path / "plant", packages.deb(tmp_path)
    autoglm_edge("fleet", "init", fleet, "--unencrypted")
    strange = packages.claim(tmp_path / "strange.json")
    refused = flash("customise", image, "--package", deb, "--fleet", fleet, "--claim", strange)
    assert "none of this fleet's" in str(refused.exception)
    made = flash("customise", image, "--package", deb, "--fleet", fleet)
    assert made.exit_code == 0, made.output
    (known,) = json.loads(autoglm_edge("fleet", "claim", "list", "--fleet", fleet, "--json"))
    on_card = json.loads(images.boot_file(image, "autoglm-edge/claim.json"))
    assert on_card["claim_id"] == known["claim_id"]


def test_a_dry_run_changes_nothing(tmp_path: Path, image: Path) -> None:
    before = image.read_bytes()
    told = flash(
        "customise",
        image,
        "--package",
        packages.deb(tmp_path),
        "--claim",
        packages.claim(tmp_path / "c.json"),
        "--dry-run",
    )
    assert told.exit_code == 0, told.output
    assert "way   firstrun" in told.stdout
    assert packages.SECRET not in told.stdout
    target = card(tmp_path / "card")
    content = target.read_bytes()
    written = flash("write", image, target, "--dry-run")
    assert (written.exit_code, "plain file" in written.stdout) == (0, True), written.output
    assert (image.read_bytes(), target.read_bytes()) == (before, content)


def test_the_plan_of_an_image(tmp_path: Path) -> None:
    deb = packages.deb(tmp_path)
    out = tmp_path / "card.img.xz"
    told = flash(
        "image", "--board", "rpi4", "--package", deb, "-o", out, "--epoch", "1", "--hostname-prefix", "p", "--dry-run"
    )
    assert told.exit_code == 0, told.output
    assert "raspi-firmware" in told.stdout
    assert "p-SERIAL" in told.stdout
    assert not out.exists()


@pytest.mark.parametrize(("typed", "code"), [("card\n", 0), ("sda\n", 1)])
def test_it_asks_for_the_name_of_what_it_erases(tmp_path: Path, image: Path, typed: str, code: int) -> None:
    target = card(tmp_path / "card")
    before = target.read_bytes()
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*LINE, "flash", "write", str(image), str(target)],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.write(ours, typed.encode())
        _, told = process.communicate(timeout=120)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == code, told
    assert "all of it is erased" in told
    assert (target.read_bytes() == before) is (code == 1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("write", "{image}", "{card}"), "too small"),
        (("write", "{image}", "{image}"), "say so with --confirm pi.img"),
        (("write", "{image}", "/dev/there-is-none"), "no such device"),
        (("write", "{image}", "{card}", "{image}"), "--many"),
        (("write", "{card}", "{card}"), "not an image"),
        (("customise", "{image}", "--package", "{deb}", "--wifi", "x"), "no passphrase for x"),
        (("customise", "{image}", "--package", "{deb}", "--claim", "{image}"), "not a valid claim"),
        (("customise", "{image}", "--package", "{image}"), "not a Debian package"),
        (("image", "--board", "rpi5", "--package", "{deb}", "-o", "{card}"), "no image is made for 'rpi5'"),
        (("doctor", "{card}"), "not an image"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, image: Path, words: tuple[str, ...], says: str) -> None:
    deb, target = packages.deb(tmp_path), tmp_path / "card"
    target.write_bytes(bytes(1 << 20))
    ended = flash(*(word.format(image=image, card=target, deb=deb) for word in words))
    assert ended.exit_code == 1
    assert isinstance(ended.exception, USER_ERRORS)
    assert says in str(ended.exception)
    assert "\n" not in str(ended.exception)
