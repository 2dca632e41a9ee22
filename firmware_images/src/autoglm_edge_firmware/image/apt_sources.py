"""Where Debian's packages come from while an image is made: this machine's own sources, of those only Debian's. Pure.

They name one set of components; an image may need more, such as the firmware of a board.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from autoglm_edge_firmware.errors import SettingRefused

_ONE_LINE = re.compile(r"^deb(?:\s+(\[[^\]]*\]))?\s+(\S+)\s+(\S+)\s+(.+)$")
_USUAL = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))


def usual() -> Path:
    """Return where this machine says where Debian's packages are.

    Raises:
        SettingRefused: it is no Debian, or says so elsewhere.
    """
    found = next((path for path in _USUAL if path.is_file()), None)
    if found is None:
        raise SettingRefused("this machine has no apt sources of Debian: give a file of them with --apt-sources")
    return found


def with_components(text: str, suite: str, components: Sequence[str]) -> str:
    """Return the entries for one release, with these components, in the form of the text (sources.list(5)).

    Raises:
        SettingRefused: there is none for this release.
    """
    entries = (
        _stanzas(text, suite, components)
        if re.search(r"^Types:", text, re.MULTILINE)
        else _lines(text, suite, components)
    )
    if not entries:
        raise SettingRefused(f"the apt sources name no {suite}: give a file of Debian's with --apt-sources")
    return "\n".join(entries)


def _stanzas(text: str, suite: str, components: Sequence[str]) -> list[str]:
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        kept = [line for line in stanza.splitlines() if not line.startswith("#")]
        suites = next((line.split(":", 1)[1].split() for line in kept if line.startswith("Suites:")), [])
        mine = [each for each in suites if each == suite or each.startswith((f"{suite}-updates", f"{suite}-security"))]
        if not mine:
            continue
        replaced = {"Suites": " ".join(mine), "Components": " ".join(components), "Types": "deb"}
        lines = [_replaced(line, replaced) for line in kept if not line.startswith("Architectures:")]
        found.append("\n".join(lines) + "\n")
    return found


def _replaced(line: str, values: dict[str, str]) -> str:
    name = line.partition(":")[0]
    return f"{name}: {values[name]}" if name in values else line


def _lines(text: str, suite: str, components: Sequence[str]) -> list[str]:
    found = []
    for line in text.splitlines():
        match = _ONE_LINE.match(line.strip())
        if match and (match[3] == suite or match[3] in (f"{suite}-updates", f"{suite}-security")):
            options = f"{match[1]} " if match[1] else ""
            found.append(f"deb {options}{match[2]} {match[3]} {' '.join(components)}\n")
    return found
