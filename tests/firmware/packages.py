"""Debian packages and claims, as small as can be and real."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

SECRET = "5ec2e7" * 10 + "0123"
A_DAY_S = 86400.0
LATER = 4102444800.0  # 2100


def deb(folder: Path, architecture: str = "arm64", version: str = "0.1.0", scripts: bool = False) -> Path:
    """Make a package of the agent that installs one file."""
    tree = folder / f"tree-{architecture}-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        f"Package: autoglm-edge-agent\nVersion: {version}\nArchitecture: {architecture}\n"
        "Maintainer: somebody <somebody@example.org>\nDescription: the agent\n"
    )
    (tree / "opt" / "autoglm-edge").mkdir(parents=True)
    (tree / "opt" / "autoglm-edge" / "version").write_text(version)
    target = folder / f"autoglm-edge-agent_{version}_{architecture}.deb"
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", str(tree), str(target)], check=True, capture_output=True
    )
    return target


def claim(path: Path, number: int = 1, expires_at: float = LATER) -> Path:
    """Write a claim."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "schema_version": 1,
        "fleet": "plant",
        "claim_id": f"{number:016x}",
        "secret": SECRET,
        "created_at": 1700000000.0,
        "expires_at": expires_at,
        "tags": {"site": "berlin"},
        "broker_url": "mqtts://broker.example.org:8883",
        "fleet_ca_sha256": "ab" * 32,
    }
    path.write_text(json.dumps(document))
    return path
