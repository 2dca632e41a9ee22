"""What an update must not leave on the disk of a real agent."""

from __future__ import annotations

from pathlib import Path

from autoglm_edge_agent.storage.slots import Slots
from autoglm_edge_protocol.documents import parse
from autoglm_edge_protocol.limits import LIMITS
from autoglm_edge_protocol.manifest import MANIFEST_PATH, Manifest


def left_over(state: Path) -> list[str]:
    """Return what is of no use once an update has ended: all that no bundle in slots needs."""
    slots = parse(Slots, (state / "slots.json").read_bytes())
    needed = slots.manifests()
    for digest in slots.manifests():
        manifest = parse(Manifest, (state / "bundles" / digest / MANIFEST_PATH).read_bytes(), LIMITS.manifest_bytes)
        needed |= {entry.sha256 for entry in manifest.files}
    found = [path for path in (state / "bundles").iterdir() if path.name not in slots.manifests()]
    found += [path for path in (state / "objects").glob("*/*") if path.name not in needed]
    for pattern in ("partial/*", "trust/work-*", "trust/partial/*", "trust/objects/*/*"):
        found += state.glob(pattern)
    return [str(path.relative_to(state)) for path in found]
