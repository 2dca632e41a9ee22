"""How warm the board is: thermal zones of the kernel first, sensors that psutil knows where there are none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

ZONES = Path("/sys/devices/virtual/thermal")
_HIGHEST_PLAUSIBLE_C = 150.0


def temperature_c(directory: Path = ZONES) -> float | None:
    """Return the temperature of the board's warmest part in degrees Celsius; None where nothing tells it."""
    readings = [celsius for _, celsius in zones(directory)] or list(_sensors())
    return max((value for value in readings if 0 < value < _HIGHEST_PLAUSIBLE_C), default=None)


def zones(directory: Path) -> Iterator[tuple[str, float]]:
    """Yield the kernel's thermal zones: what it is of, degrees Celsius."""
    for zone in sorted(directory.glob("thermal_zone*")):
        try:
            part = (zone / "type").read_text().strip()
            # The power chip of Jetson boards reports 100 degrees at all times under a zone of its own.
            if "pmic" not in part.lower():
                yield part, int((zone / "temp").read_text()) / 1000
        except (OSError, ValueError):  # some zones cannot be read while their part sleeps
            continue


def _sensors() -> Iterator[float]:
    read = getattr(psutil, "sensors_temperatures", None)  # not on every system
    try:
        sensors = read() if read is not None else {}
    except OSError:
        return
    for name, entries in sensors.items():
        if "pmic" not in name.lower():
            yield from (entry.current for entry in entries if entry.current is not None)
