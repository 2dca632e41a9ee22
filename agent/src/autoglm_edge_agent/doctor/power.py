"""What the board tells of its supply: under-voltage and throttling of a Raspberry Pi, the power rails of a Jetson.

Source: Raspberry Pi documentation, `vcgencmd get_throttled`; bits 0-3 tell of now, 16-19 of the time since boot.
"""

from __future__ import annotations

from autoglm_edge_agent.doctor.findings import Power
from autoglm_edge_agent.doctor.tree import Tree

THROTTLED = "/sys/devices/platform/soc*/*firmware/get_throttled"
"""In hexadecimal without a prefix; kernels that have it spare us `vcgencmd`."""
_BITS = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
_PI_SUPPLY = "rpi_volt"
_POWER_MONITORS = ("ina3221", "ina3221x")


def power(tree: Tree, throttled: int | None) -> Power:
    """Return what is known; `throttled` is what `vcgencmd` says, None where there is none."""
    read = (_hexadecimal(tree.text(path)) for path in tree.matches(THROTTLED))
    words = next((value for value in read if value is not None), throttled) or 0
    return Power(
        undervoltage_now=_undervoltage(tree),
        now=tuple(text for bit, text in enumerate(_BITS) if words >> bit & 1),
        since_boot=tuple(text for bit, text in enumerate(_BITS) if words >> (16 + bit) & 1),
        rails_mw=_rails(tree),
    )


def throttled_word(said: str) -> int | None:
    """Return the number in what `vcgencmd get_throttled` prints: `throttled=0x50005`."""
    return _hexadecimal(said.partition("=")[2])


def _hexadecimal(text: str | None) -> int | None:
    try:
        return None if text is None else int(text.strip(), 16)
    except ValueError:
        return None


def _undervoltage(tree: Tree) -> bool | None:
    for name in tree.matches("/sys/class/hwmon/hwmon*/name"):
        if tree.text(name) == _PI_SUPPLY:
            alarm = tree.number(name.removesuffix("name") + "in0_lcrit_alarm")
            return None if alarm is None else bool(alarm)
    return None


def _rails(tree: Tree) -> dict[str, int]:
    rails: dict[str, int] = {}
    for name in tree.matches("/sys/bus/i2c/devices/*/hwmon/hwmon*/name"):
        if tree.text(name) not in _POWER_MONITORS:
            continue
        folder = name.removesuffix("name")
        for number in range(1, 4):
            rail = tree.text(f"{folder}in{number}_label")
            millivolts, milliamperes = (
                tree.number(f"{folder}in{number}_input"),
                tree.number(f"{folder}curr{number}_input"),
            )
            if rail and millivolts is not None and milliamperes is not None:
                rails[rail] = millivolts * milliamperes // 1000
    return rails
