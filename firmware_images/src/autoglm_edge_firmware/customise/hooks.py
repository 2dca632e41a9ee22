"""What each way of a first boot has to be told, added to what the image or its owner says already. Pure: text to text.

Whatever is done is done once: an image that is customised again does not run things twice.
"""

from __future__ import annotations

import re
from email import message_from_string
from email.message import Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import tomllib

from autoglm_edge_firmware.errors import SettingRefused

FOLDER = "autoglm-edge"
"""Of the boot partition, for all that is ours."""

_CALL = 'for b in /boot/firmware /boot; do [ ! -e "$b/{0}/begin.sh" ] || {{ sh "$b/{0}/begin.sh"{1}; break; }}; done'
_MARK = "# autoglm-edge begins here"
_PART = "autoglm-edge.sh"
_OF_CLOUD_INIT = {
    "#cloud-config": "cloud-config",
    "#!": "x-shellscript",
    "#include": "x-include-url",
    "#cloud-boothook": "cloud-boothook",
    "## template: jinja": "jinja2",
}
"""The kinds of user-data by their first line, and the MIME subtype of each (cloud-init, "User data formats")."""


def call(now: bool = True) -> str:
    """Return the shell command that begins the installation, now or at the next boot, wherever the card is mounted."""
    return _CALL.format(FOLDER, " now" if now else "")


def firstrun(script: str | None, mount: str) -> str:
    """Return `firstrun.sh` with our part: before what the imager wrote, whose script removes itself at its end."""
    if script is None:
        # As the imager's own does: the command line is cleaned, so that the next boot is a usual one.
        return (
            f"#!/bin/sh\n{_MARK}\n{call(now=False)}\nrm -f {mount}/firstrun.sh\n"
            f"sed -i 's| systemd\\.run[^ ]*||g; s| systemd\\.unit=kernel-command-line\\.target||' {mount}/cmdline.txt\n"
            "exit 0\n"
        )
    if _MARK in script:
        return script
    first, _, rest = script.partition("\n")
    if not first.startswith("#!"):
        raise SettingRefused("the image has a firstrun.sh that is no script: remove it from the boot partition")
    return f"{first}\n{_MARK}\n{call(now=False)}\n{rest}"


def command_line(line: str, mount: str) -> str:
    """Return `cmdline.txt` that runs `firstrun.sh`; one line, as the firmware reads no other."""
    if "\n" in line.strip():
        raise SettingRefused("the image's cmdline.txt has more than one line")
    words = line.split()
    runs = [word for word in words if word.startswith("systemd.run=")]
    if any(not word.endswith("/firstrun.sh") for word in runs):
        raise SettingRefused(f"the image runs another program at its first boot ({runs[0]}): let it do so first")
    if not runs:
        words += [
            f"systemd.run={mount}/firstrun.sh",
            "systemd.run_success_action=reboot",
            "systemd.unit=kernel-command-line.target",
        ]
    return " ".join(words) + "\n"


def user_data(existing: str) -> str:
    """Return user-data of cloud-init that has our script as a part of its own beside what is there, unchanged.

    Raises:
        SettingRefused: what is there is of no known kind.
    """
    ours = MIMEText(f"#!/bin/sh\n{call()}\n", "x-shellscript", "us-ascii")
    ours.add_header("Content-Disposition", "attachment", filename=_PART)
    parts = [part for part in _parts(existing) if part.get_filename() != _PART]
    # A fixed boundary, and so the same file from the same words.
    whole = MIMEMultipart("mixed", boundary="==autoglm-edge==", _subparts=[*parts, ours])
    return whole.as_string()


def _parts(existing: str) -> list[Message]:
    if not existing.strip():
        return []
    if re.match(r"(?i)(content-type: *multipart|mime-version:)", existing):
        payload = message_from_string(existing).get_payload()
        return [part for part in payload if isinstance(part, Message)] if isinstance(payload, list) else []
    first = existing.lstrip("\ufeff").split("\n", 1)[0].rstrip()
    subtype = next((kind for start, kind in _OF_CLOUD_INIT.items() if first.startswith(start)), None)
    if subtype is None:
        raise SettingRefused(f"the image's user-data is of no known kind (it begins with {first[:40]!r})")
    encoding = "us-ascii" if existing.isascii() else "utf-8"
    part = MIMEText(existing, subtype, encoding)
    part.add_header("Content-Disposition", "attachment", filename="as-it-was")
    return [part]


def meta_data(existing: str | None) -> str:
    """Return meta-data of cloud-init, which does nothing without an instance's id."""
    if existing and re.search(r"^instance[-_]id:", existing, re.MULTILINE):
        return existing
    return f"{existing or ''}instance-id: autoglm-edge\n"


def preseed(existing: str | None) -> str:
    """Return `rpi-preseed.toml` with our command among the early ones.

    Raises:
        SettingRefused: what is there is not TOML, or has commands in a form that cannot be added to.
    """
    text = existing if existing and existing.strip() else 'config_version = "1.1"\n'
    before = _toml(text)
    early = before.get("runcmd", {}).get("early", [])
    if call() in early:
        return text
    quoted = "'" + call() + "'"
    if "early" in before.get("runcmd", {}):
        after = re.sub(
            r"^(\s*early\s*=\s*\[)", lambda found: f"{found[1]}{quoted}, ", text, count=1, flags=re.MULTILINE
        )
    elif "runcmd" in before:
        after = re.sub(
            r"^(\s*\[\s*runcmd\s*\][^\n]*\n?)",
            lambda found: f"{found[1].rstrip()}\nearly = [{quoted}]\n",
            text,
            count=1,
            flags=re.MULTILINE,
        )
    else:
        after = f"{text.rstrip()}\n\n[runcmd]\nearly = [{quoted}]\n"
    wanted = {**before, "runcmd": {**before.get("runcmd", {}), "early": [call(), *early]}}
    if _toml(after) != wanted:
        raise SettingRefused("the commands in the image's rpi-preseed.toml cannot be added to: write them one a line")
    return after


def _toml(text: str) -> dict[str, dict[str, list[str]]]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingRefused(f"the image's rpi-preseed.toml is not TOML ({error})") from None
