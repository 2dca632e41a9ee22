"""What an extra of the converter asks for, and whether this environment has it within its bounds."""

from __future__ import annotations

from importlib.metadata import requires, version

from packaging.requirements import Requirement


def outside_of_bounds(extra: str) -> list[str]:
    """Return what is wrong with an extra here: packages without an upper bound, and versions that it does not take."""
    asked = [Requirement(text) for text in requires("autoglm-edge-converter") or ()]
    mine = [entry for entry in asked if entry.marker and not entry.marker.evaluate({"extra": ""})]
    found = [entry for entry in mine if entry.marker and entry.marker.evaluate({"extra": extra})]
    assert found
    outside = []
    for entry in found:
        if entry.name == "autoglm-edge-converter":
            continue
        if not any(bound.operator in ("<", "==", "~=") for bound in entry.specifier):
            outside.append(f"{entry.name} has no upper bound")
        if version(entry.name) not in entry.specifier:
            outside.append(f"{entry.name} {version(entry.name)} is not {entry.specifier}")
    return outside
