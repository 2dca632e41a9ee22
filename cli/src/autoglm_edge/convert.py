"""`autoglm-edge convert`: the command around `autoglm_edge_converter.convert`, with bars, a table and `--json`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from autoglm_edge import convert_options as given
from autoglm_edge.bundle import certainty, variants_table
from autoglm_edge.console import EXIT_INTERRUPTED, EXIT_PARTIAL, err, out, print_json
from autoglm_edge.conversion_bars import Bars
from autoglm_edge.conversion_document import as_document
from autoglm_edge.explanation import explain_variants

if TYPE_CHECKING:
    from autoglm_edge_converter.results import ConversionResult, Options


def convert(
    model: given.Model,
    calibration: given.Calibration,
    output: given.Output,
    name: given.Name = None,
    version: given.Version = "1.0.0",
    max_drop: given.MaxDrop = 0.01,
    precision: given.Precision = None,
    model_format: given.Format = None,
    prune: given.Prune = "off",
    sparsify: given.Sparsify = None,
    max_size: given.MaxSize = None,
    max_latency_ms: given.MaxLatencyMs = None,
    target: given.Target = None,
    tables_only: given.TablesOnly = False,
    int8_io: given.Int8Io = False,
    metric: given.Metric = "auto",
    preprocess: given.Preprocess = None,
    resize: given.Resize = None,
    crop: given.Crop = False,
    colour: given.Colour = None,
    layout: given.Layout = None,
    mean: given.Mean = None,
    std: given.Std = None,
    scale: given.Scale = None,
    dtype: given.Dtype = None,
    label_column: given.LabelColumn = None,
    shape: given.Shape = None,
    state_dict: given.StateDict = None,
    example_inputs: given.ExampleInputs = None,
    state: given.State = None,
    signature: given.Signature = None,
    finetune: given.Finetune = None,
    labels: given.Labels = None,
    license_file: given.LicenseFile = None,
    ops: given.Ops = None,
    seed: given.Seed = 0,
    budget_s: given.BudgetS = 120.0,
    workers: given.Workers = None,
    cache: given.Cache = None,
    no_cache: given.NoCache = False,
    plan: given.Plan = False,
    explain: given.Explain = False,
    force: given.Force = False,
    as_json: given.AsJson = False,
) -> None:
    """Convert a model into a bundle: float and INT8 variants, all verified against the original.

    INT8 is only shipped when it stays within --max-drop of the original on samples that it was not tuned on, and is
    faster than float, or much smaller. The report in the bundle tells what was tried. A conversion that is
    interrupted, or made again with other options, takes the scores that are known already from the cache.

    ONNX needs nothing more; TFLite, TensorFlow (Keras, SavedModel) and PyTorch are extras of the package
    autoglm-edge-converter: tflite, tensorflow, torch. See docs/convert.md and the page of your framework.

    Exit codes: 0 everything asked for is in the bundle; 3 the bundle is written, but a precision or format asked for
    could not be had, and the output says why; 1 nothing was written, one line says why; 130 interrupted.

    Example: autoglm-edge convert res.onnx --calibration samples.npz --output bundles --max-drop 0.02
    """
    from autoglm_edge_converter import Options
    from autoglm_edge_converter import convert as run
    from autoglm_edge_converter.cache import user_cache_folder
    from autoglm_edge_converter.data.options import DataOptions
    from autoglm_edge_converter.operators import custom_operators

    loading = {"state_dict": state_dict, "example_inputs": example_inputs, "signature": signature}
    options = Options(
        name=name,
        version=version,
        max_drop=max_drop,
        precisions=tuple(precision or ("fp32", "int8")),
        formats=tuple(model_format or ()),
        loading=tuple((option, str(value)) for option, value in loading.items() if value is not None),
        finetune=finetune,
        states=given.parse_states(state),
        int8_io=int8_io,
        run_oldest=not tables_only,
        metric=metric,
        data=DataOptions(preprocess, resize, crop, colour, layout, mean, std, scale, dtype, label_column),
        shapes=tuple(given.parse_shape(text) for text in shape or ()),
        labels=labels,
        license=license_file,
        ops=custom_operators(ops or ()),
        seed=seed,
        force=force,
        prune=prune,
        sparsify=sparsify,
        max_size_bytes=None if max_size is None else given.parse_size(max_size),
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
        if explain:
            explain_variants(result.findings.explanations)
    if not result.complete:
        raise typer.Exit(EXIT_PARTIAL)


def _run(run: Any, model: str, calibration: Path, output: Path, options: Options) -> ConversionResult:
    try:
        with Bars() as bars:
            result: ConversionResult = run(model, calibration, output, options, bars)
    except KeyboardInterrupt:
        kept = ", what was scored is kept for the next run" if options.cache else ""
        err.print(f"[red]autoglm-edge:[/red] interrupted; nothing was written{kept}", soft_wrap=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    return result


def _print_plan(model: str, calibration: Path, options: Options, as_json: bool) -> None:
    from autoglm_edge_converter.pipeline import plan_conversion

    plan = plan_conversion(model, calibration, options)
    if as_json:
        print_json(plan.to_dict() | {"most_candidates": plan.most_candidates})
    else:
        out.print(str(plan), markup=False, soft_wrap=True)


def _print(result: ConversionResult) -> None:
    out.print(f"[bold]{result.manifest.id}[/bold]")
    out.print(variants_table(result.manifest))
    for variant in result.manifest.variants:
        out.print(f"[dim]{variant.id}: {escape(certainty(variant))}[/dim]", soft_wrap=True)
    for refusal in result.findings.refusals:
        out.print(f"[yellow]no {refusal.precision} variant:[/yellow] {escape(refusal.reason)}", soft_wrap=True)
    where = f"bundle  {result.directory}\npacked  {result.packed}\nreport  {result.directory / 'report.html'}"
    out.print(where, markup=False, soft_wrap=True)
