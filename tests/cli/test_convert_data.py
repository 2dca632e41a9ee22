"""`convert` with data of every kind: what a user gets wrong is one line and nothing is written."""

from __future__ import annotations

import json
import sys
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.converter.data.files import tone, write_image, write_lines, write_png_digits, write_wav
from tests.converter.graphs import DIGITS, linear, linear_samples

from autoglm_edge.app import main

Prepare = Callable[[Path], list[object]]


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["autoglm-edge", "convert", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def truncated_png(folder: Path) -> list[object]:
    path = write_image(folder / "d" / "0.png", np.random.default_rng(0).integers(0, 255, (40, 40)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:700])
    return [folder / "d"]


def empty_wav(folder: Path) -> list[object]:
    (folder / "a.wav").write_bytes(b"")
    return [folder / "a.wav"]


def one_image(folder: Path) -> list[object]:
    return [write_image(folder / "a.png", np.zeros((32, 32), np.uint8))]


def images_with_a_wrong_label(folder: Path) -> list[object]:
    write_png_digits(folder / "d", 30)
    (folder / "d" / "3").rename(folder / "d" / "12")
    return [folder / "d"]


def images_and_flags(*flags: str) -> Prepare:
    def prepare(folder: Path) -> list[object]:
        return [write_png_digits(folder / "d", 30), *flags]

    return prepare


def table(*lines: str) -> Prepare:
    return lambda folder: [write_lines(folder / "t.csv", lines)]


def function(*lines: str) -> Prepare:
    def prepare(folder: Path) -> list[object]:
        return [f"{write_lines(folder / 'mine.py', ['import numpy as np', *lines])}:samples"]

    return prepare


def metric(*lines: str) -> Prepare:
    def prepare(folder: Path) -> list[object]:
        path = write_lines(folder / "mine.py", lines)
        return [write_png_digits(folder / "d", 30), "--metric", f"{path}:judge"]

    return prepare


def rates(folder: Path) -> list[object]:
    write_wav(folder / "w" / "a.wav", tone(0.1))
    with wave.open(str(folder / "w" / "b.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(tone(0.1, 8000))
    return [folder / "w"]


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (truncated_png, "cannot be read as an image"),
        (empty_wav, "cannot be read as WAV"),
        (rates, "different rates (8000, 16000 Hz)"),
        (one_image, "1 calibration sample, at least 3 are needed"),
        (images_with_a_wrong_label, "out of range: the model has 10 classes, 0 to 9"),
        (images_and_flags("--colour", "rgb"), "give --colour or --layout"),
        (images_and_flags("--resize", "16x16"), "the model takes [1,1,32,32]"),
        (images_and_flags("--mean", "1,2,3"), "mean has 3 numbers, the image 1 channels"),
        (images_and_flags("--preprocess", "none.toml"), "none.toml is not a file"),
        (images_and_flags("--metric", "best"), "metric 'best' is not known: choose auto, top1"),
        (images_and_flags("--metric", "boxes"), "no layout of boxes is recognised"),
        (images_and_flags("--metric", "nothing.py:judge"), "nothing.py is not a file"),
        (
            metric("def judge(reference_outputs, outputs, labels):", "    return outputs[99]"),
            "mine.py line 2, in judge",
        ),
        (table("a,b", "1,2", "3"), "line 3 has 1 values, expected 2"),
        (table("a,b", "1,nan"), "line 2, column 'b' is nan"),
        (table("a,b", "1,2"), "2 numeric columns for 'x', which takes [1,1,32,32]"),
        (function("def samples():", "    return 1 / 0"), "mine.py line 3, in samples: ZeroDivisionError"),
        (function("def samples():", "    yield np.zeros(3)"), "float64, the model takes float32"),
        (lambda folder: [folder], "holds no samples: give .npz, .npy, .csv"),
    ],
)
def test_a_mistake_in_the_data_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    prepare: Prepare,
    says: str,
) -> None:
    (tmp_path / "in").mkdir()
    words = prepare(tmp_path / "in")
    code = run(monkeypatch, DIGITS / "mbn.onnx", "--output", tmp_path / "out", "--no-cache", "--calibration", *words)
    printed = capsys.readouterr()
    assert code == 1, printed.err
    lines = [line for line in printed.err.splitlines() if "autoglm-edge:" in line]
    assert len(lines) == 1, printed.err
    assert says in lines[0]
    assert printed.err.splitlines()[-1] == lines[0], "nothing follows the line"
    assert "Traceback" not in printed.err
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_images_with_labels_are_judged_by_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_png_digits(tmp_path / "digits", 60)
    words = ("--output", tmp_path / "out", "--precision", "fp32", "--no-cache", "--json", "--calibration", folder)
    assert run(monkeypatch, DIGITS / "res.onnx", *words) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    quality = found["variants"][0]["quality"]
    assert quality["metric"] == "accuracy"
    assert quality["value"] == quality["baseline"] > 0.9
    assert quality["low"] < quality["value"] <= quality["high"]
    assert "note: images become 'x' resized to 32x32" in printed.err.replace("\n", " ")
    manifest = json.loads((tmp_path / "out" / "res-1.0.0" / "manifest.json").read_text())
    assert manifest["preprocessing"]["image"]["colour"] == "grey"
    assert manifest["preprocessing"]["image"]["scale"] == 1 / 255


@pytest.mark.slow
def test_a_table_and_a_function_convert_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = linear(tmp_path / "m.onnx")
    with np.load(linear_samples(tmp_path / "s.npz")) as samples:
        rows = samples["x"]
    table_path = write_lines(tmp_path / "t.csv", [",".join(repr(float(v)) for v in row) for row in rows])
    write_lines(
        tmp_path / "mine.py",
        [
            "from pathlib import Path",
            "import numpy as np",
            "def samples():",
            "    with np.load(Path(__file__).with_name('s.npz')) as file:",
            "        yield from file['x']",
        ],
    )
    goldens = []
    for number, source in enumerate((tmp_path / "s.npz", table_path, f"{tmp_path / 'mine.py'}:samples")):
        output = tmp_path / str(number)
        words = (model, "--output", output, "--precision", "fp32", "--no-cache", "--calibration", source)
        assert run(monkeypatch, *words) == 0
        goldens.append((output / "m-1.0.0" / "golden" / "golden.npz").read_bytes())
    assert goldens[0] == goldens[1] == goldens[2], "the same numbers by three roads"


def test_a_decompression_bomb_is_refused_before_it_unpacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("1", (9_000, 9_000)).save(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size < 200_000
    words = ("--output", tmp_path / "out", "--calibration", tmp_path / "a.png")
    assert run(monkeypatch, DIGITS / "mbn.onnx", *words) == 1
    assert "a.png" in capsys.readouterr().err
