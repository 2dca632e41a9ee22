"""Where each file of the package lies on the board."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from autoglm_edge_firmware.errors import FirmwareError
from autoglm_edge_firmware.package.control import NAME
from autoglm_edge_firmware.package.deb import Entry
from autoglm_edge_firmware.package.wheels import contents

LIBRARY = "/opt/autoglm-edge/lib"
COMMAND = "/opt/autoglm-edge/bin/autoglm-edge-agent"
SHARED = "any"
"""Folder of what every Python that the package is made for can load."""

_SCRIPTS = ("postinst", "prerm", "postrm")
_PLACES: tuple[tuple[str, str, int], ...] = (
    ("firmware_images/debian/autoglm-edge-agent", COMMAND, 0o755),
    ("firmware_images/debian/take-claim", "/opt/autoglm-edge/bin/take-claim", 0o755),
    ("firmware_images/debian/agent.toml", "/etc/autoglm-edge/agent.toml", 0o644),
    ("systemd/*.service", "/usr/lib/systemd/system/", 0o644),
    ("systemd/*.socket", "/usr/lib/systemd/system/", 0o644),
    ("systemd/*.timer", "/usr/lib/systemd/system/", 0o644),
    ("systemd/autoglm-edge-agent.service.d/*.conf", "/usr/lib/systemd/system/autoglm-edge-agent.service.d/", 0o644),
    ("systemd/devices/*.conf", "/usr/share/autoglm-edge/devices/", 0o644),
    ("systemd/sysusers.conf", "/usr/lib/sysusers.d/autoglm-edge.conf", 0o644),
    ("systemd/tmpfiles.conf", "/usr/lib/tmpfiles.d/autoglm-edge.conf", 0o644),
    ("docs/agent.md", f"/usr/share/doc/{NAME}/agent.md", 0o644),
    ("docs/service.md", f"/usr/share/doc/{NAME}/service.md", 0o644),
    ("LICENSE", f"/usr/share/doc/{NAME}/copyright", 0o644),
)
"""What of the checkout goes where; a place that ends with a slash is a folder."""


def system_files(checkout: Path) -> list[Entry]:
    """Return everything but modules. Raises FirmwareError, OSError."""
    return [Entry("/usr/bin/autoglm-edge-agent", target=COMMAND), *_placed(checkout)]


def control_files(checkout: Path, control: str, entries: Sequence[Entry]) -> dict[str, Entry]:
    """Return the control files by name. Raises OSError."""
    configuration = "".join(f"{entry.path}\n" for entry in entries if entry.path.startswith("/etc/"))
    scripts = {name: (checkout / "firmware_images/debian" / name).read_bytes() for name in _SCRIPTS}
    return {
        "control": Entry("/control", control.encode()),
        "conffiles": Entry("/conffiles", configuration.encode()),
        **{name: Entry(f"/{name}", data, 0o755) for name, data in scripts.items()},
    }


def modules(wheels: Mapping[str, Sequence[Path]]) -> list[Entry]:
    """Return the modules out of the wheels for each version of Python. Raises FirmwareError."""
    found: dict[str, Entry] = {}
    shared = set.intersection(*({wheel.name for wheel in each if _portable(wheel)} for each in wheels.values()))
    for python, each in wheels.items():
        for wheel in each:
            folder = SHARED if wheel.name in shared else f"cp{python.replace('.', '')}"
            for path, data in contents(wheel):
                entry = Entry(f"{LIBRARY}/{folder}/{path}", data)
                if found.setdefault(entry.path, entry) != entry:
                    raise FirmwareError(f"two wheels have a file {path}, the second is {wheel.name}")
    return list(found.values())


def _portable(wheel: Path) -> bool:
    return wheel.stem.split("-")[-2] in ("none", "abi3")


def _placed(checkout: Path) -> Iterator[Entry]:
    for source, place, mode in _PLACES:
        found = sorted(checkout.glob(source))
        if not found:
            raise FirmwareError(f"{checkout} has no {source}: is it a checkout of autoglm-edge?")
        for path in found:
            yield Entry(place + path.name if place.endswith("/") else place, path.read_bytes(), mode)
