"""A conversion that runs out of room says so in one line, and leaves nothing."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.converter.graphs import linear, linear_samples

from autoglm_edge_converter.errors import OutputUnavailable
from autoglm_edge_converter.working_folder import working_folder


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of processes")
def test_no_room_to_work(tmp_path: Path) -> None:
    """Files of more than 200 bytes cannot be written, as on a disk that is full."""
    model, samples = linear(tmp_path / "m.onnx"), linear_samples(tmp_path / "s.npz")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [
        str(Path(sys.executable).with_name("autoglm-edge")),
        "convert",
        str(model),
        "--calibration",
        str(samples),
    ]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out"), "--no-cache"],
        # Compiled modules would be cut short as well, for all who come after.
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200)),
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("autoglm-edge: ")]
    assert done.returncode == 1
    assert f"no room for what a conversion works with ({scratch}" in line
    assert not list(scratch.iterdir())
    assert not list(tmp_path.glob("out/*"))


def test_other_errors_go_on_and_the_folder_is_gone() -> None:
    with pytest.raises(FileNotFoundError), working_folder() as folder:
        (folder / "none").read_text()
    assert not folder.exists()
    with pytest.raises(OutputUnavailable, match=tempfile.gettempdir()), working_folder() as folder:
        raise OSError(28, "No space left on device")
