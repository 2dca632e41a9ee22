"""Convert models of other frameworks, and to TFLite, with this converter and with the frameworks' own tools.

    make bench-frameworks
    .venv-tensorflow/bin/python benchmarks/frameworks/run.py --cases keras,fashion
    .venv-torch/bin/python benchmarks/frameworks/run.py --cases faces
    .venv/bin/python benchmarks/frameworks/run.py --cases res,mbn,rapidocr-rec,ssd

All forms of a model are timed in turns in one process (processor time, median), so the speeds compare; quality is
judged on samples that calibrated nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conversion"))

from models import Answers, Feed, digits, recogniser
from results import write_section
from samples import noise_db, save_folder

from autoglm_edge_converter import ConversionError, Options, convert
from autoglm_edge_converter.laboratory import Laboratory
from autoglm_edge_converter.machine import machine_name, versions
from autoglm_edge_converter.processor import own_words

HERE = Path(__file__).resolve().parent

PART = "Other frameworks, and TFLite"
TARGET = "rpi5"
INTRODUCTION = f"""
    make bench-frameworks

Speed is processor time of a float file divided by that of the variant: of the first float file in the table, and of the
variant's own format. Medians of runs in turns in one process, one thread. Noise is against the original in its own
framework, and so is the largest difference of an answer. Quality is on samples that calibrated nothing; all tools had
the same calibration samples and no labels. ONNX variants are made for the machine that measures, TFLite variants with
`--target {TARGET}`. Where one is made for what such a board has and this machine has not, `unknown` says on which
machines its speed is not known; under speed stands what it takes here. Each section says in its title, each row in its
last column, what the processor that measured has: 8-bit TFLite files are fast with VNNI, or on ARM. The figures wanted
were set with VNNI. The sections with VNNI are of an earlier state of the converter. The machine had other work at the
time: trust the ratios more than "made in", which is wall time.
"""
REPOSITORY = HERE.parents[1]
TIMED_SAMPLES = 8


@dataclass(frozen=True)
class Case:
    """A model as its framework has it, the samples that calibrate, those that judge, and the judge."""

    model: str
    calibration: tuple[Feed, ...]
    evaluation: tuple[Feed, ...]
    judge: Callable[[Answers, Answers], dict[str, float]]
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    runnable: Path | None = None
    """What gives the reference answers where the model itself is no file that can be run."""
    peers: tuple[str, ...] = ()
    formats: tuple[str, ...] = ("onnx", "tflite")
    reference: Callable[[Sequence[Feed]], Answers] | None = None
    """The framework itself, where the model is no file that can be run."""
    metric: str = "auto"
    max_drop: float = 0.01


@dataclass
class Row:
    """How one form came out."""

    tool: str
    path: Path
    figures: dict[str, float] = field(default_factory=dict)
    noise: float | None = None
    difference: float | None = None
    cpu_us: float = 0.0
    unknown_on: tuple[str, ...] = ()
    """Machines whose speed this one cannot tell."""


def keras() -> Case:
    """The MobileNet-like digits network as Keras has it."""
    found = digits("mbn")
    port = "input_layer"

    def turned(feeds: Sequence[Feed]) -> tuple[Feed, ...]:
        return tuple({port: np.ascontiguousarray(np.moveaxis(feed["x"], 1, -1))} for feed in feeds)

    model = REPOSITORY / "examples" / "digits" / "mbn.keras"
    peers = ("tf.lite full INT8", "ai-edge-quantizer, stock static")
    return Case(str(model), turned(found.calibration), turned(found.evaluation), found.judge, (), model, peers)


def onnx_digits(name: str) -> Case:
    """A digits network in ONNX."""
    found = digits(name)
    return Case(str(found.model), found.calibration, found.evaluation, found.judge, (), found.model)


def text(cache: Path) -> Case:
    """The text recogniser in ONNX, at one width."""
    found = recogniser(cache)
    shape = (("x", found.calibration[0]["x"].shape),)
    return Case(str(found.model), found.calibration, found.evaluation, found.judge, shape, found.model)


def faces() -> Case:
    """R-Net in PyTorch on scikit-image's crops; all 200 judge, half of them calibrate."""
    example = REPOSITORY / "examples" / "face_pytorch"
    sys.path.insert(0, str(example))
    from prepare import crops

    pictures, labels = crops()
    feeds = tuple({"x": picture[None]} for picture in pictures)

    def judge(_: Answers, answers: Answers) -> dict[str, float]:
        found = [int(sample[1].argmax()) for sample in answers]
        return {"accuracy": float(np.mean([a == b for a, b in zip(found, labels[100:], strict=True)]))}

    def in_pytorch(samples: Sequence[Feed]) -> Answers:
        import torch
        from rnet import rnet

        network = rnet().eval()
        with torch.no_grad():
            answers = [network(torch.from_numpy(sample["x"])) for sample in samples]
        return [[tensor.numpy() for tensor in answer.values()] for answer in answers]

    shape = (("x", (1, *pictures.shape[1:])),)
    return Case(f"{example / 'rnet.py'}:rnet", feeds[:100], feeds[100:], judge, shape, reference=in_pytorch)


def fashion(cache: Path) -> Case:
    """The CNN that the example trains on Fashion-MNIST; all 10,000 test images judge."""
    folder = cache / "fashion"
    if not (folder / "fashion.keras").is_file():
        train = REPOSITORY / "examples" / "fashion_mnist_keras" / "train.py"
        subprocess.run([sys.executable, str(train), str(folder), "--train-only"], check=True)
    with np.load(folder / "calibration.npz") as archive:
        calibration = tuple({"image": image[None]} for image in archive["image"])
    with np.load(folder / "test.npz") as archive:
        evaluation, labels = tuple({"image": image[None]} for image in archive["image"]), archive["labels"]

    def judge(_: Answers, answers: Answers) -> dict[str, float]:
        return {"accuracy": float(np.mean([sample[0].argmax() for sample in answers] == labels))}

    model = folder / "fashion.keras"
    return Case(str(model), calibration, evaluation, judge, (), model, ("tf.lite full INT8",))


def detector(cache: Path) -> Case:
    """SSD MobileNetV2; pictures of photographs that calibrated nothing judge."""
    example, folder = REPOSITORY / "examples" / "detector_tflite", cache / "detector"
    sys.path.insert(0, str(example))
    subprocess.run([sys.executable, str(example / "prepare.py"), str(folder)], check=True)
    from draw import INPUT, OUTPUTS
    from fetch import MODEL
    from PIL import Image
    from ssd import detections, matched

    def pictures(name: str) -> tuple[Feed, ...]:
        files = sorted((folder / name).iterdir())
        pixels = (np.asarray(Image.open(file).convert("RGB"), np.float32) for file in files)
        return tuple({INPUT: ((picture - 127.5) / 127.5)[None]} for picture in pixels)

    def judge(references: Answers, answers: Answers) -> dict[str, float]:
        seen = [[detections(dict(zip(OUTPUTS, a, strict=True))) for a in side] for side in (references, answers)]
        kept = sum(matched(before, after) for before, after in zip(*seen, strict=True))
        return {"boxes kept": kept / sum(len(found.boxes) for found in seen[0])}

    metric = f"{example / 'ssd.py'}:boxes_kept"
    parts = pictures("pictures"), pictures("held_out")
    model = folder / MODEL
    return Case(str(model), *parts, judge, (), model, formats=("tflite",), metric=metric, max_drop=0.05)


def by_us(case: Case, folder: Path) -> tuple[list[Row], str]:
    save_folder(folder / "samples", case.calibration)
    rows, remarks = [], []
    for form in case.formats:
        started = time.monotonic()
        options = Options(
            name="model",
            shapes=case.shapes,
            formats=(form,),
            metric=case.metric,
            max_drop=case.max_drop,
            # ONNX files for boards give other answers on processors whose sums saturate.
            targets=(TARGET,) if form == "tflite" else (),
        )
        try:
            result = convert(case.model, folder / "samples", folder / form, options)
        except ConversionError as error:
            remarks.append(f"{form}: {error}")
            continue
        remarks.append(f"{form} made in {time.monotonic() - started:.0f} s")
        remarks += [f"no {refusal.precision}: {refusal.reason}" for refusal in result.findings.refusals]
        for found in result.manifest.variants:
            noise = worst_db(found.quality.sqnr_db)
            rows.append(Row(found.id, result.directory / found.model, noise=noise, unknown_on=found.latency.unknown_on))
    return rows, "; ".join(remarks)


def worst_db(outputs: Mapping[str, float | None]) -> float:
    """Return the noise of the worst output as the bundle tells it, infinite where all are identical."""
    return min((np.inf if value is None else value for value in outputs.values()), default=np.inf)


def by_peers(case: Case, folder: Path, floats: Path | None) -> list[Row]:
    if not case.peers or case.runnable is None or floats is None:
        return []
    from peers import PEERS

    return [Row(name, PEERS[name](case.runnable, floats, case.calibration, folder)) for name in case.peers]


def measure(case: Case, rows: Sequence[Row], folder: Path) -> None:
    folder.mkdir()
    with Laboratory(case.evaluation, folder) as laboratory:
        everything = range(len(case.evaluation))
        first = case.runnable or rows[0].path
        references = case.reference(case.evaluation) if case.reference else laboratory.run(first, everything)
        for row in rows:
            answers = laboratory.run(row.path, everything)
            row.figures = case.judge(references, answers)
            if case.runnable is not None or case.reference is not None:
                row.difference = max(
                    float(np.abs(ours - theirs).max(initial=0))
                    for one, other in zip(answers, references, strict=True)
                    for ours, theirs in zip(one, other, strict=True)
                )
                row.noise = noise_db(references, answers)
        timings = laboratory.time([row.path for row in rows], range(TIMED_SAMPLES))
        for row, timing in zip(rows, timings, strict=True):
            row.cpu_us = timing.cpu_us


def table(rows: Sequence[Row]) -> str:
    names = list(rows[0].figures)
    head = ["form", *names, "noise", "largest difference", "size", "speed", "to its own float", "unknown", "processor"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in rows:
        own = next((r for r in rows if r.path.suffix == row.path.suffix and r.tool.endswith("fp32")), rows[0])
        noise = "-" if row.noise is None else "identical" if np.isinf(row.noise) else f"{row.noise:.1f} dB"
        far = "-" if row.difference is None else f"{row.difference:.1g}"
        speeds = (rows[0].cpu_us / row.cpu_us, own.cpu_us / row.cpu_us)
        size = f"{row.path.stat().st_size / 1000:,.0f} kB"
        elsewhere = " ".join(row.unknown_on) or "-"
        figures = [f"{row.figures[name]:.2%}" for name in names]
        lines.append([row.tool, *figures, noise, far, size, *map(_speed, speeds), elsewhere, own_words()])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _speed(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio >= 1 else f"**{ratio:.2f}x**"


def run(name: str, case: Case, output: Path) -> None:
    with TemporaryDirectory(prefix="autoglm-benchmark-") as scratch:
        folder = Path(scratch)
        print(f"{name}: ours", flush=True)
        rows, remark = by_us(case, folder)
        if not rows:
            print(f"{name}: {remark}", file=sys.stderr)
            return
        floats = next((row.path for row in rows if row.tool == "tflite-fp32"), None)
        print(f"{name}: peers", flush=True)
        rows += by_peers(case, folder, floats)
        measure(case, rows, folder / "laboratory")
        tools = ", ".join(f"{tool} {number}" for tool, number in versions().items())
        when = f"{date.today().isoformat()}, {machine_name()}; {tools}."
        title = f"{name} ({own_words()})"
        write_section(output, PART, INTRODUCTION, title, f"{when}\n\n{table(rows)}\n\n- {remark}")
        print(table(rows), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="res,mbn,rapidocr-rec,ssd", help="comma separated")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "autoglm-edge-benchmark")
    parser.add_argument("--output", type=Path, default=HERE.parent / "RESULTS.md")
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    cases: dict[str, Callable[[], Case]] = {
        "keras": keras,
        "faces": faces,
        "fashion": lambda: fashion(given.cache),
        "ssd": lambda: detector(given.cache),
        "res": lambda: onnx_digits("res"),
        "mbn": lambda: onnx_digits("mbn"),
        "rapidocr-rec": lambda: text(given.cache),
    }
    names = {
        "keras": "mbn.keras", "faces": "R-Net (PyTorch)", "fashion": "Fashion-MNIST CNN (Keras)",
        "ssd": "SSD MobileNetV2 (TFLite)",
    }  # fmt: skip
    for name in given.cases.split(","):
        run(names.get(name, f"{name}.onnx to TFLite"), cases[name](), given.output)


if __name__ == "__main__":
    main()
