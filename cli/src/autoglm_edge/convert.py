"""`autoglm-edge convert`: the command around `autoglm_edge_converter.convert`, with bars, a table and `--json`."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from autoglm_edge.bundle import certainty, variants_table
from autoglm_edge.console import EXIT_PARTIAL, err, out, print_json

if TYPE_CHECKING:
    from autoglm_edge_converter.results import Considered, ConversionResult, Options
    from autoglm_edge_converter.search import Trial

QUALITY, DATA, SEARCH, RESULT = "Quality and limits", "Data", "Search", "Bundle and output"


class Bars:
    """Draws the stages of a conversion as progress bars on standard error. A context manager."""

    def __init__(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description:9}"), BarColumn(28), TimeElapsedColumn())
        self._bars = Progress(*columns, TextColumn("{task.fields[what]}", style="dim", markup=False), console=err)
        self._task: TaskID | None = None

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._finish()
        self._bars.stop()

    def stage(self, name: str, steps: int) -> None:
        """Begin a bar; the one before is full."""
        self._finish()
        self._task = self._bars.add_task(name, total=steps, what="")

    def step(self, what: str) -> None:
        """Advance the bar, and lengthen it where more steps come than were expected."""
        if self._task is None:
            return
        task = self._bars.tasks[self._task]
        if task.total is not None and task.completed + 1 > task.total:
            self._bars.update(self._task, total=task.completed + 2)
        self._bars.update(self._task, advance=1, what=what)

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(f"[yellow]note:[/yellow] {escape(text)}", soft_wrap=True)

    def _finish(self) -> None:
        if self._task is not None:
            task = self._bars.tasks[self._task]
            self._bars.update(self._task, total=task.completed, what="")


def convert(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The model to convert; it is not changed.")],
    calibration: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            help="What the model is given in use: .npz, .npy or .csv with the samples along the first axis, a folder "
            "of images, .wav or array files, or module.py:function that yields samples. 100 or more are advised; "
            "labels in class folders, labels.csv or an array `labels` make accuracy the metric. See docs/data.md.",
        ),
    ],
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Where NAME-VERSION/ and NAME-VERSION.bundle are written.")
    ],
    name: Annotated[
        str | None, typer.Option(help="Of the bundle; the model file's name when left out.", rich_help_panel=RESULT)
    ] = None,
    version: Annotated[str, typer.Option(help="Of the bundle.", rich_help_panel=RESULT)] = "1.0.0",
    max_drop: Annotated[
        float,
        typer.Option(
            help="How much of the quality metric INT8 may lose on held-back samples; 0.01 is one percent.",
            rich_help_panel=QUALITY,
        ),
    ] = 0.01,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="fp32, fp16 (stored on 16 bits) or int8. Repeatable; fp32 and int8 is the default.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    prune: Annotated[
        str,
        typer.Option(
            metavar="auto|FRACTION|off",
            help="Take channels out and refit the rest: as many as the budget allows, or a fraction of the "
            "multiplications. Needs no training; quality may suffer on inputs unlike the samples.",
        ),
    ] = "off",
    max_size: Annotated[
        str | None,
        typer.Option(
            metavar="BYTES",
            help="Largest file of a variant, 500KB or 2MB; the smallest form is shipped then.",
            rich_help_panel=QUALITY,
        ),
    ] = None,
    max_latency_ms: Annotated[
        float | None,
        typer.Option(help="Longest wall time of one run of a variant here, on one thread.", rich_help_panel=QUALITY),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="A class of boards, see `autoglm-edge targets`. Repeatable: variants then fit all of them.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What quality is: auto, accuracy (needs labels), top1, boxes or boxes:score=0.4,iou=0.5, "
            "sequence or sequence:unit=lines, sqnr, or module.py:function(reference_outputs, outputs, labels).",
            rich_help_panel=QUALITY,
        ),
    ] = "auto",
    preprocess: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml", help="Steps in a table image or audio; flags go before it.", rich_help_panel=DATA
        ),
    ] = None,
    resize: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Size of images; the model's when left out.", rich_help_panel=DATA),
    ] = None,
    crop: Annotated[
        bool, typer.Option("--crop", help="Cut the centre out instead of distorting.", rich_help_panel=DATA)
    ] = False,
    colour: Annotated[str | None, typer.Option(help="rgb, bgr or grey.", rich_help_panel=DATA)] = None,
    layout: Annotated[str | None, typer.Option(help="nchw or nhwc.", rich_help_panel=DATA)] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="R,G,B", help="Subtracted after scaling; above 2, of pixels as they are.", rich_help_panel=DATA
        ),
    ] = None,
    std: Annotated[str | None, typer.Option(metavar="R,G,B", help="Divided by.", rich_help_panel=DATA)] = None,
    scale: Annotated[
        str | None, typer.Option(metavar="X", help="Times each pixel of 0..255, as 1/255.", rich_help_panel=DATA)
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the input, as float32.", rich_help_panel=DATA)] = None,
    label_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a .csv; `label` if there is one.", rich_help_panel=DATA)
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=1,3,224,224",
            help="Fix the free axes of an input; -1 leaves one free. Repeatable.",
            rich_help_panel=DATA,
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Class names, one a line.", rich_help_panel=DATA)
    ] = None,
    license_file: Annotated[
        Path | None, typer.Option("--license", metavar="FILE", help="The model's licence.", rich_help_panel=RESULT)
    ] = None,
    ops: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="LIBRARY.so",
            help="A library of custom operators for ONNX Runtime; it travels in the bundle. Repeatable: one for each "
            "machine that the devices have.",
            rich_help_panel=RESULT,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Decides which samples calibrate, rank and judge.", rich_help_panel=SEARCH)
    ] = 0,
    budget_s: Annotated[
        float,
        typer.Option(
            help="How many seconds the search may take; what it has found by then is used.", rich_help_panel=SEARCH
        ),
    ] = 120.0,
    workers: Annotated[
        int | None,
        typer.Option(
            help="How many candidates are scored at once; one per processor, at most four.", rich_help_panel=SEARCH
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where scores are kept for later conversions; the user's cache by default.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Neither use nor keep scores.", rich_help_panel=SEARCH)
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what would be done, and do nothing.", rich_help_panel=SEARCH)
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a bundle of the same name and version.", rich_help_panel=RESULT)
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON document.", rich_help_panel=RESULT)
    ] = False,
) -> None:
    """Convert an ONNX model into a bundle: a float and an INT8 variant, both verified against the original.

    INT8 is only shipped when it stays within --max-drop of the original on samples that it was not tuned on, and is
    faster than float, or much smaller. The report in the bundle tells what was tried. A conversion that is
    interrupted, or made again with other options, takes the scores that are known already from the cache.

    Exit codes: 0 every precision asked for is in the bundle; 3 the bundle is written, but no INT8 variant was good
    enough and it holds the float one only; 1 nothing was written, one line says why; 130 interrupted.

    Example: autoglm-edge convert res.onnx --calibration samples.npz --output bundles --max-drop 0.02
    """
    from autoglm_edge_converter import Options
    from autoglm_edge_converter import convert as run
    from autoglm_edge_converter.cache import user_cache_folder
    from autoglm_edge_converter.data.options import DataOptions
    from autoglm_edge_converter.operators import CustomOperators

    options = Options(
        name=name,
        version=version,
        max_drop=max_drop,
        precisions=tuple(precision or ("fp32", "int8")),
        metric=metric,
        data=DataOptions(preprocess, resize, crop, colour, layout, mean, std, scale, dtype, label_column),
        shapes=tuple(parse_shape(text) for text in shape or ()),
        labels=labels,
        license=license_file,
        ops=CustomOperators(onnxruntime=tuple(ops or ())),
        seed=seed,
        force=force,
        prune=prune,
        max_size_bytes=None if max_size is None else parse_size(max_size),
        max_latency_ms=max_latency_ms,
        targets=tuple(target or ()),
        budget_s=budget_s,
        cache=None if no_cache else cache or user_cache_folder() / "scores",
        workers=workers,
    )
    if plan:
        _print_plan(model, calibration, options, as_json)
        return
    result = _run(run, model, calibration, output, options)
    if as_json:
        print_json(as_document(result))
    else:
        _print(result)
    if not result.complete:
        raise typer.Exit(EXIT_PARTIAL)


def _run(run: Any, model: Path, calibration: Path, output: Path, options: Options) -> ConversionResult:
    with Bars() as bars:
        result: ConversionResult = run(model, calibration, output, options, bars)
    return result


def _print_plan(model: Path, calibration: Path, options: Options, as_json: bool) -> None:
    from autoglm_edge_converter.pipeline import plan_conversion

    plan = plan_conversion(model, calibration, options)
    if as_json:
        print_json(plan.to_dict() | {"most_candidates": plan.most_candidates})
    else:
        out.print(str(plan), markup=False, soft_wrap=True)


def parse_size(text: str) -> int:
    """Read `500000`, `500KB` or `2.5MB` (powers of ten). Raises typer.BadParameter."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(B|KB|MB|GB)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a size like 500KB or 2.5MB", param_hint="--max-size")
    return int(float(match[1]) * {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}[(match[2] or "B").upper()])


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read `NAME=1,3,224,224`. Raises typer.BadParameter."""
    name, separator, axes = text.rpartition("=")
    try:
        shape = tuple(int(axis) for axis in axes.split(","))
    except ValueError:
        shape = ()
    if not separator or not name or not shape:
        raise typer.BadParameter(f"{text!r} is not NAME=1,3,224,224", param_hint="--shape")
    return name, shape


def _print(result: ConversionResult) -> None:
    out.print(f"[bold]{result.manifest.id}[/bold]")
    out.print(variants_table(result.manifest))
    for variant in result.manifest.variants:
        out.print(f"[dim]{variant.id}: {escape(certainty(variant))}[/dim]", soft_wrap=True)
    for refusal in result.findings.refusals:
        out.print(f"[yellow]no {refusal.precision} variant:[/yellow] {escape(refusal.reason)}", soft_wrap=True)
    where = f"bundle  {result.directory}\npacked  {result.packed}\nreport  {result.directory / 'report.html'}"
    out.print(where, markup=False, soft_wrap=True)


def as_document(result: ConversionResult) -> dict[str, Any]:
    """Return the result for a script: what was written, what was tried, and what could not be had."""
    search = result.findings.search
    return {
        "name": result.manifest.name,
        "version": result.manifest.version,
        "directory": str(result.directory),
        "packed": str(result.packed),
        "report": str(result.directory / "report.html"),
        "complete": result.complete,
        "variants": [variant.model_dump(mode="json") for variant in result.manifest.variants],
        "refused": [{"precision": r.precision, "reason": r.reason} for r in result.findings.refusals],
        "passes": [{"name": p.name, "dropped": p.dropped} for p in result.findings.passes],
        "tried": [_trial(trial) for trial in search.trials] if search else [],
        "considered": [_considered(entry) for entry in result.findings.considered],
        "pruning": asdict(result.findings.pruning) if result.findings.pruning else None,
        "notes": list(result.findings.notes),
    }


def _considered(entry: Considered) -> dict[str, Any]:
    return {
        "candidate": str(entry.trial.candidate),
        "form": entry.form,
        "size_bytes": entry.size_bytes,
        "speedup": entry.speedup,
        "outcome": entry.outcome,
    }


def _trial(trial: Trial) -> dict[str, Any]:
    score = trial.score
    return {
        "recipe": str(trial.candidate.recipe),
        "float_nodes": list(trial.candidate.float_nodes),
        "size_bytes": trial.size_bytes,
        "metric": score.metric if score else None,
        "value": score.value if score else None,
        "sqnr_db": score.sqnr_db if score else None,
        "problem": trial.problem,
    }
