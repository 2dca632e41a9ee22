"""What the machine itself knows of Debian: its release, and where its packages come from."""

from __future__ import annotations

import platform
from pathlib import Path

APT = Path("/etc/apt")


def release() -> str:
    """Return the code name of the machine's release, such as `bookworm`; empty where it is no Debian."""
    try:
        found = platform.freedesktop_os_release()
    except OSError:
        return ""
    return found.get("VERSION_CODENAME", "") if found.get("ID") == "debian" else ""


def sources(suite: str, with_security: bool, folder: Path, apt: Path = APT) -> list[str]:
    """Write the machine's own sources of Debian into files for mmdebstrap; returns their names.

    Other people's archives, which may lack the architecture, are left out, and so is the security suite where its
    index is out of step with its packages, as that of armhf often is.
    """
    stanzas, lines = [], []
    for file in sorted((apt / "sources.list.d").glob("*.sources")):
        stanzas += [each for each in file.read_text().split("\n\n") if _wanted_stanza(each, suite, with_security)]
    for file in (apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))):
        if file.exists():
            lines += [each for each in file.read_text().splitlines() if _wanted_line(each, suite, with_security)]
    written = []
    for name, text in (("debian.sources", "\n\n".join(stanzas)), ("debian.list", "\n".join(lines))):
        if text:
            (folder / name).write_text(text + "\n")
            written.append(str(folder / name))
    return written


def _wanted_stanza(text: str, suite: str, with_security: bool) -> bool:
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line and line[0] not in "# ")
    return "deb" in fields.get("Types", "").split() and _wanted(
        fields.get("Suites", "").split(), fields.get("Components", "").split(), suite, with_security
    )


def _wanted_line(line: str, suite: str, with_security: bool) -> bool:
    words = line.split("]", 1)[-1].split() if "[" in line else line.split()[1:]
    return line.startswith("deb ") and len(words) > 2 and _wanted([words[1]], words[2:], suite, with_security)


def _wanted(suites: list[str], components: list[str], suite: str, with_security: bool) -> bool:
    ours = "main" in components and all(each.split("-")[0].split("/")[0] == suite for each in suites)
    return ours and (with_security or not any("security" in each for each in suites))
