"""Which options are refused before anything is loaded: by themselves, and for the model that they are given with."""

from __future__ import annotations

from collections.abc import Sequence

from autoglm_edge_converter.errors import BadOption
from autoglm_edge_converter.loading import KERAS, PYTORCH, SAVEDMODEL, check_formats, formats_of, framework_of
from autoglm_edge_converter.metrics.choice import check_name
from autoglm_edge_converter.original import FORMATS, ONNX, TFLITE
from autoglm_edge_converter.plan import INT8, PRECISIONS
from autoglm_edge_converter.pruned_graphs import AUTO, OFF, check_prune
from autoglm_edge_converter.results import Options
from autoglm_edge_converter.targets import demands_of

_LOADED_BY = {
    "state_dict": (PYTORCH, "--state-dict holds the weights of a PyTorch model given as module.py:factory"),
    "example_inputs": (PYTORCH, "--example-inputs is for PyTorch models"),
    "signature": (SAVEDMODEL, "--signature names one of a SavedModel"),
}
"""By option of a framework's road: the framework, and what the option is for."""


def check_options(options: Options) -> None:
    """Refuse options that no model could be converted with. Raises BadOption."""
    _check_search(options)
    check_name(options.metric)
    check_prune(options.prune)
    if options.sparsify is not None and not 0 < options.sparsify < 1:
        raise BadOption(f"--sparsify is a fraction of the weights such as 0.5, not {options.sparsify:g}")
    if options.finetune is not None and options.prune in (OFF, AUTO):
        raise BadOption("--finetune trains a pruned model: say how much to prune, as --prune 0.4")
    check_formats(options.formats)
    demands_of(options.targets, options.formats or FORMATS)
    for path in (options.labels, options.license):
        if path is not None and not path.is_file():
            raise BadOption(f"{path} is not a file")


def _check_search(options: Options) -> None:
    unknown = sorted(set(options.precisions) - set(PRECISIONS))
    if unknown or not options.precisions:
        raise BadOption(f"precision {unknown[0] if unknown else ''!r} is not known: choose {' or '.join(PRECISIONS)}")
    if not 0 <= options.max_drop < 1:
        raise BadOption(f"--max-drop is a fraction from 0 to 1, not {options.max_drop:g}: 0.01 allows one percent")
    if options.budget_s <= 0 or (options.workers is not None and options.workers < 1):
        raise BadOption("--budget-s and --workers are greater than 0")
    if any(limit is not None and limit <= 0 for limit in (options.max_size_bytes, options.max_latency_ms)):
        raise BadOption("--max-size and --max-latency-ms are greater than 0")
    if options.int8_io and INT8 not in options.precisions:
        raise BadOption("--int8-io is for 8-bit variants: add --precision int8")
    if options.seed < 0:
        raise BadOption("--seed is a number from 0 up")


def check_for_model(model: str, options: Options) -> None:
    """Refuse options that would mean nothing for this model: none is passed over in silence.

    Raises BadOption, NotAModel.
    """
    framework = framework_of(model)
    _check_framework(framework, options)
    _check_formats_made(formats_of(framework, options.formats), options)


def _check_framework(framework: str, options: Options) -> None:
    for option, _ in options.loading:
        wanted, what = _LOADED_BY.get(option, (framework, ""))
        if framework != wanted:
            raise BadOption(f"{what}, and this model is of {framework}: leave it out")
    if options.finetune is not None and framework not in (KERAS, SAVEDMODEL, PYTORCH):
        raise BadOption(
            f"--finetune trains Keras and PyTorch models, and this one is of {framework}: give the model that it was "
            "made from, or --prune alone"
        )


def _check_formats_made(formats: Sequence[str], options: Options) -> None:
    demands_of(options.targets, formats)
    if options.int8_io and TFLITE not in formats:
        raise BadOption("--int8-io is for TFLite variants: add --format tflite")
    if options.sparsify is not None and ONNX not in formats:
        raise BadOption("--sparsify makes an ONNX variant: add --format onnx, or give the original model")
    if options.prune != OFF and options.finetune is None and ONNX not in formats:
        raise BadOption("--prune takes channels out of the ONNX graph: add --format onnx, or give the original model")
