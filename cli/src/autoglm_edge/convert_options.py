"""The options of `autoglm-edge convert`: what each means to a user, in the groups that `--help` shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

QUALITY, DATA, SEARCH, RESULT = "Quality and limits", "Data", "Search", "Bundle and output"
LOADING = "Loading the model"

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="The model to convert; it is not changed. A file (.onnx, .tflite, .keras, .h5, .pt2), the folder of a "
        "SavedModel, or module.py:factory, a function that returns a PyTorch module.",
    ),
]
Format = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        help="onnx or tflite: what variants are made in. Repeatable. Left out: the model's own format, and both for "
        "Keras, SavedModel and PyTorch.",
        rich_help_panel=SEARCH,
    ),
]
StateDict = Annotated[
    Path | None,
    typer.Option(metavar="FILE.pt", help="Weights for the module of module.py:factory.", rich_help_panel=LOADING),
]
ExampleInputs = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.npz",
        help="Inputs that a PyTorch module is traced with, by argument; the calibration data's shapes by default.",
        rich_help_panel=LOADING,
    ),
]
Signature = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Of a SavedModel that has several; serving_default.", rich_help_panel=LOADING),
]
Finetune = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE.py:FUNCTION",
        help="Trains a pruned Keras or PyTorch model for a while: function(model). Used with --prune FRACTION, after "
        "every step of its schedule.",
        rich_help_panel=LOADING,
    ),
]
Int8Io = Annotated[
    bool,
    typer.Option(
        "--int8-io",
        help="TFLite INT8 variants take and give INT8 numbers, as accelerators such as the Edge TPU want.",
        rich_help_panel=SEARCH,
    ),
]
TablesOnly = Annotated[
    bool,
    typer.Option(
        "--tables-only",
        help="With --target: judge by tables of operators whether the oldest runtime loads a variant. Otherwise the "
        "variant is run there, in an environment that is made when it is first needed.",
        rich_help_panel=SEARCH,
    ),
]
Explain = Annotated[
    bool,
    typer.Option("--explain", help="Print what became of each operator, variant by variant.", rich_help_panel=RESULT),
]
Calibration = Annotated[
    Path,
    typer.Option(
        metavar="PATH",
        help="What the model is given in use: .npz, .npy or .csv with the samples along the first axis, a folder "
        "of images, .wav or array files, or module.py:function that yields samples. 100 or more are advised; "
        "labels in class folders, labels.csv or an array `labels` make accuracy the metric. See docs/data.md.",
    ),
]
Output = Annotated[Path, typer.Option(metavar="DIR", help="Where NAME-VERSION/ and NAME-VERSION.bundle are written.")]
Name = Annotated[
    str | None, typer.Option(help="Of the bundle; the model file's name when left out.", rich_help_panel=RESULT)
]
Version = Annotated[str, typer.Option(help="Of the bundle.", rich_help_panel=RESULT)]
MaxDrop = Annotated[
    float,
    typer.Option(
        help="How much of the quality metric INT8 may lose on held-back samples; 0.01 is one percent.",
        rich_help_panel=QUALITY,
    ),
]
Precision = Annotated[
    list[str] | None,
    typer.Option(
        help="fp32, fp16 (stored on 16 bits) or int8. Repeatable; fp32 and int8 is the default.",
        rich_help_panel=SEARCH,
    ),
]
Prune = Annotated[
    str,
    typer.Option(
        metavar="auto|FRACTION|off",
        help="Take channels out and refit the rest: as many as the budget allows, or a fraction of the "
        "multiplications. Needs no training; quality may suffer on inputs unlike the samples.",
    ),
]
Sparsify = Annotated[
    float | None,
    typer.Option(
        metavar="FRACTION",
        help="Ship one more ONNX variant with this fraction of the weights at zero: smaller where bundles are "
        "compressed on the way, and no faster, since runtimes multiply by zero like by any other number.",
        rich_help_panel=SEARCH,
    ),
]
MaxSize = Annotated[
    str | None,
    typer.Option(
        metavar="BYTES",
        help="Largest file of a variant, 500KB or 2MB; the smallest form is shipped then.",
        rich_help_panel=QUALITY,
    ),
]
MaxLatencyMs = Annotated[
    float | None,
    typer.Option(help="Longest wall time of one run of a variant here, on one thread.", rich_help_panel=QUALITY),
]
Target = Annotated[
    list[str] | None,
    typer.Option(
        help="A class of boards, see `autoglm-edge targets`. Repeatable: variants then fit all of them.",
        rich_help_panel=SEARCH,
    ),
]
Metric = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="What quality is: auto, accuracy (needs labels), top1, boxes or boxes:score=0.4,iou=0.5, "
        "sequence or sequence:unit=lines, sqnr, or module.py:function(reference_outputs, outputs, labels).",
        rich_help_panel=QUALITY,
    ),
]
Preprocess = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.toml", help="Steps in a table image or audio; flags go before it.", rich_help_panel=DATA
    ),
]
Resize = Annotated[
    str | None,
    typer.Option(metavar="WxH", help="Size of images; the model's when left out.", rich_help_panel=DATA),
]
Crop = Annotated[bool, typer.Option("--crop", help="Cut the centre out instead of distorting.", rich_help_panel=DATA)]
Colour = Annotated[str | None, typer.Option(help="rgb, bgr or grey.", rich_help_panel=DATA)]
Layout = Annotated[str | None, typer.Option(help="nchw or nhwc.", rich_help_panel=DATA)]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="R,G,B", help="Subtracted after scaling; above 2, of pixels as they are.", rich_help_panel=DATA
    ),
]
Std = Annotated[str | None, typer.Option(metavar="R,G,B", help="Divided by.", rich_help_panel=DATA)]
Scale = Annotated[
    str | None, typer.Option(metavar="X", help="Times each pixel of 0..255, as 1/255.", rich_help_panel=DATA)
]
Dtype = Annotated[str | None, typer.Option(help="Of the input, as float32.", rich_help_panel=DATA)]
LabelColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of a .csv; `label` if there is one.", rich_help_panel=DATA)
]
Shape = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=1,3,224,224",
        help="Fix the free axes of an input; -1 leaves one free. Repeatable.",
        rich_help_panel=DATA,
    ),
]
State = Annotated[
    list[str] | None,
    typer.Option(
        metavar="INPUT=OUTPUT",
        help="An output that goes into an input again with the next run: the device keeps it. Repeatable; `none`: no "
        "such state. By default those that the names tell of, as state=stateN.",
        rich_help_panel=DATA,
    ),
]
Labels = Annotated[Path | None, typer.Option(metavar="FILE", help="Class names, one a line.", rich_help_panel=DATA)]
LicenseFile = Annotated[
    Path | None, typer.Option("--license", metavar="FILE", help="The model's licence.", rich_help_panel=RESULT)
]
Ops = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LIBRARY.so[:FUNCTION]",
        help="A library of custom operators for ONNX Runtime or, with the function that registers them, for LiteRT; it "
        "travels in the bundle. Repeatable: one for each machine that the devices have.",
        rich_help_panel=RESULT,
    ),
]
Seed = Annotated[int, typer.Option(help="Decides which samples calibrate, rank and judge.", rich_help_panel=SEARCH)]
BudgetS = Annotated[
    float,
    typer.Option(
        help="How many seconds the search may take; what it has found by then is used.", rich_help_panel=SEARCH
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="How many candidates are scored at once; one per processor, at most four.", rich_help_panel=SEARCH
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where scores and measured times are kept for later conversions; the user's cache by default.",
        rich_help_panel=SEARCH,
    ),
]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Neither use nor keep scores and measured times.", rich_help_panel=SEARCH)
]
Plan = Annotated[bool, typer.Option("--plan", help="Print what would be done, and do nothing.", rich_help_panel=SEARCH)]
Force = Annotated[
    bool, typer.Option("--force", help="Replace a bundle of the same name and version.", rich_help_panel=RESULT)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.", rich_help_panel=RESULT)]


def parse_size(text: str) -> int:
    """Read `500000`, `500KB` or `2.5MB` (powers of ten). Raises typer.BadParameter."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(B|KB|MB|GB)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a size like 500KB or 2.5MB", param_hint="--max-size")
    return int(float(match[1]) * {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}[(match[2] or "B").upper()])


def parse_states(given: list[str] | None) -> tuple[tuple[str, str], ...] | None:
    """Read `INPUT=OUTPUT`, or `none` alone. Raises typer.BadParameter."""
    if given is None or given == ["none"]:
        return None if given is None else ()
    pairs = [text.rpartition("=") for text in given]
    if wrong := [text for text, (name, _, output) in zip(given, pairs, strict=True) if not name or not output]:
        raise typer.BadParameter(f"{wrong[0]!r} is not INPUT=OUTPUT", param_hint="--state")
    return tuple((name, output) for name, _, output in pairs)


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
