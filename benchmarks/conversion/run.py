"""Convert the benchmark's models with this converter and with its peers, measure all in one run, write RESULTS.md.

    .venv/bin/python benchmarks/conversion/run.py [--models res,mbn] [--peers ort-dynamic] [--cache DIR] [--output FILE]

Every form of a model is timed in turns in one process (processor time, median), so the speeds compare; quality is
judged on samples that calibrated nothing. Environments of the peers, packages of the models and everything written on
the way stay in the cache.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from models import Case, all_cases
from samples import noise_db, save_feeds, save_folder
from tables import write_results

from autoglm_edge_converter import ConversionError, Options, convert
from autoglm_edge_converter.errors import CandidateFailed
from autoglm_edge_converter.laboratory import Laboratory, Timing

HERE = Path(__file__).resolve().parent
ENVIRONMENT_OF = {
    "ort-static-per-channel": "ort",
    "ort-static-per-tensor": "ort",
    "ort-dynamic": "ort",
    "nncf-mixed": "nncf",
    "olive-static": "olive",
    "olive-quantize": "olive",
}
TIMED_SAMPLES = 8
PEER_S = 900.0


@dataclass
class Form:
    """One row: how a form of a model came out."""

    tool: str
    path: Path | None = None
    problem: str | None = None
    made_s: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    sqnr_db: float | None = None
    speed: float | None = None
    note: str = ""


def environment(name: str, cache: Path) -> Path:
    """Return the interpreter of a peer's environment, made when first asked for. Raises CalledProcessError."""
    folder = cache / "environments" / name
    python = folder / "bin" / "python"
    ready = folder / ".ready"
    if not ready.exists():
        print(f"making the environment {name} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *requirements(name)], check=True)
        ready.touch()
    return python


def requirements(name: str) -> list[str]:
    """Return the lines of requirements.txt that belong to one environment."""
    found: list[str] = []
    current = ""
    for line in (HERE / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# environment:"):
            current = line.partition(":")[2].strip()
        elif line.strip() and not line.startswith("#") and current == name:
            found.append(line.strip())
    return found


def by_peer(tool: str, case: Case, samples: Path, folder: Path, cache: Path) -> Form:
    """Let a peer make its variant; whatever goes wrong is its row's text."""
    out = folder / f"{tool}.onnx"
    started = time.monotonic()
    try:
        python = environment(ENVIRONMENT_OF[tool], cache)
        command = [
            str(python.absolute()),
            str(HERE / "peer.py"),
            tool,
            str(case.model.absolute()),
            str(samples),
            str(out),
        ]
        # Some peers leave files where they are started.
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PEER_S, check=False)
    except subprocess.CalledProcessError:
        return Form(tool, problem="cannot be installed here")
    except subprocess.TimeoutExpired:
        return Form(tool, problem=f"not done within {PEER_S:.0f} s")
    made_s = time.monotonic() - started
    said = [line for line in done.stdout.splitlines() if line.startswith("its pre-processing")]
    if done.returncode or not out.exists():
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()] or ["no message"]
        return Form(tool, problem=lines[-1][:160], made_s=made_s)
    return Form(tool, out, made_s=made_s, note=said[0] if said else "")


def by_us(case: Case, samples: Path, folder: Path, prune: str = "off") -> list[Form]:
    """Convert with default options, with pruning or without; one row for each variant but the float one.

    What was asked for and not made has a row too, that says why.
    """
    tool = "autoglm-edge" if prune == "off" else f"autoglm-edge --prune {prune}"
    started = time.monotonic()
    try:
        options = Options(name=case.name, prune=prune)
        result = convert(case.model, samples, folder / f"ours-{prune}", options)
    except ConversionError as error:
        return [Form(tool, problem=str(error), made_s=time.monotonic() - started)]
    made_s = time.monotonic() - started
    forms = [
        Form(
            f"{tool}: {variant.id}",
            result.directory / variant.model,
            made_s=made_s,
            note="; ".join(variant.notes),
        )
        for variant in result.manifest.variants
        if variant.id != "fp32"
    ]
    refused = [Form(tool, problem=f"none: {r.reason}", made_s=made_s) for r in result.findings.refusals]
    return [*forms, *refused]


def measure(case: Case, forms: Sequence[Form], laboratory: Laboratory) -> None:
    """Judge every form that runs, then time them all in turns."""
    everything = range(len(case.evaluation))
    references = laboratory.run(case.model, everything)
    for form in forms:
        if form.path is None:
            continue
        try:
            answers = laboratory.run(form.path, everything)
        except CandidateFailed as error:
            form.problem, form.path = f"written, but does not run: {error}"[:160], None
            continue
        form.figures = case.judge(references, answers)
        form.sqnr_db = noise_db(references, answers)
    alive = [form for form in forms if form.path is not None]
    for form, timing in zip(alive, timings(laboratory, alive), strict=True):
        form.speed = timing


def timings(laboratory: Laboratory, forms: Sequence[Form]) -> list[float]:
    found: tuple[Timing, ...] = laboratory.time([form.path for form in forms if form.path], range(TIMED_SAMPLES))
    return [found[0].cpu_us / timing.cpu_us for timing in found]


def benchmark(case: Case, peers: Sequence[str], cache: Path) -> list[Form]:
    with TemporaryDirectory(prefix="autoglm-benchmark-") as scratch:
        folder = Path(scratch)
        save_feeds(folder / "calibration.npz", case.calibration)
        save_folder(folder / "samples", case.calibration)
        forms = [Form("float (as it came)", case.model)]
        print(f"{case.name}: ours", flush=True)
        forms += by_us(case, folder / "samples", folder)
        if case.prunes:
            forms += by_us(case, folder / "samples", folder, "auto")
        for tool in peers:
            print(f"{case.name}: {tool}", flush=True)
            forms.append(by_peer(tool, case, folder / "calibration.npz", folder, cache))
        (folder / "laboratory").mkdir()
        with Laboratory(case.evaluation, folder / "laboratory") as laboratory:
            measure(case, forms, laboratory)
        for form in forms:
            form.figures = dict(form.figures)
            if form.path is not None:
                form.figures["size_kB"] = form.path.stat().st_size / 1000
        return forms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="", help="comma separated; all when left out")
    parser.add_argument("--peers", default=",".join(ENVIRONMENT_OF), help="comma separated; empty for none")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "autoglm-edge-benchmark")
    parser.add_argument("--output", type=Path, default=HERE.parent / "RESULTS.md")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    cases = all_cases(options.cache)
    wanted = [name for name in options.models.split(",") if name] or list(cases)
    peers = [name for name in options.peers.split(",") if name]
    for name in wanted:
        write_results(options.output, name, benchmark(cases[name](), peers, options.cache))
        print(f"{name}: written to {options.output}", flush=True)


if __name__ == "__main__":
    main()
