"""Packages of third parties as an installer leaves them: a module, and metadata with an entry point."""

from __future__ import annotations

from pathlib import Path


def write_backend(folder: Path, runtime: str, source: str, version: str = "1.0") -> Path:
    """Put a backend for `runtime` into a folder of packages, whose path is returned for PYTHONPATH.

    The source is a module that has a BACKEND.
    """
    module = f"backend_{runtime.replace('-', '_')}"
    metadata = folder / f"{module}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (folder / f"{module}.py").write_text(source)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: {version}\n")
    entry = f"[autoglm_edge_agent.backends]\n{runtime} = {module}:BACKEND\n"
    (metadata / "entry_points.txt").write_text(entry)
    return folder
