"""Which versions of TFLite's operators a runtime reads, and which operators of a file one of them does not.

The table was measured: for every operator and version a file that names it was given to the interpreter of each
release, which looks all of them up when it loads. LiteRT never took a version back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from autoglm_edge_converter.errors import UnknownOperator
from autoglm_edge_converter.tflite.flatbuffer import TfliteModel

TFLITE, LITERT = "tflite", "litert"
"""tflite-runtime (last release 2.14) and its successor ai-edge-litert."""

_NEWEST = {
    ("tflite", "2.14"): {
        1: (
            "ADD_N ASSIGN_VARIABLE ATAN2 BITCAST BITWISE_XOR BROADCAST_ARGS BUCKETIZE CALL_ONCE CEIL COMPLEX_ABS "
            "CONV_3D CONV_3D_TRANSPOSE COS CUMSUM DENSIFY DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP_SPARSE "
            "EXPAND_DIMS FLOOR HARD_SWISH HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_LOOKUP "
            "HASHTABLE_SIZE IF IMAG L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOG LOGICAL_AND LOGICAL_NOT "
            "LOGICAL_OR LSH_PROJECTION MATRIX_DIAG MATRIX_SET_DIAG MULTINOMIAL NEG NON_MAX_SUPPRESSION_V4 "
            "NON_MAX_SUPPRESSION_V5 ONE_HOT POW PRELU RANDOM_STANDARD_NORMAL RANDOM_UNIFORM RANK READ_VARIABLE "
            "REAL REDUCE_ALL REDUCE_ANY RELU_0_TO_1 RELU_N1_TO_1 RESHAPE REVERSE_SEQUENCE RFFT2D RIGHT_SHIFT "
            "ROUND SCATTER_ND SEGMENT_SUM SHAPE SIN SKIP_GRAM SQRT SQUARE UNIQUE UNSORTED_SEGMENT_MAX "
            "UNSORTED_SEGMENT_MIN UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_SUM VAR_HANDLE WHILE ZEROS_LIKE"
        ),
        2: (
            "DEPTH_TO_SPACE DIV EXP FAKE_QUANT FLOOR_MOD GELU GREATER L2_NORMALIZATION LEAKY_RELU LESS_EQUAL "
            "LOG_SOFTMAX RANGE REDUCE_PROD RSQRT SELECT_V2 SIGN SPACE_TO_DEPTH SPLIT_V SQUARED_DIFFERENCE SQUEEZE "
            "SUM WHERE"
        ),
        3: (
            "ARG_MAX ARG_MIN AVERAGE_POOL_2D BIDIRECTIONAL_SEQUENCE_LSTM BIDIRECTIONAL_SEQUENCE_RNN BROADCAST_TO "
            "EMBEDDING_LOOKUP FLOOR_DIV GREATER_EQUAL LESS LOGISTIC MAX_POOL_2D MEAN MIRROR_PAD NOT_EQUAL "
            "QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 REVERSE_V2 RNN SOFTMAX SPARSE_TO_DENSE TANH TILE TOPK_V2 "
            "UNIDIRECTIONAL_SEQUENCE_RNN"
        ),
        4: (
            "BATCH_MATMUL BATCH_TO_SPACE_ND CONCATENATION EQUAL FILL GATHER_ND LSTM MAXIMUM MINIMUM PACK PAD "
            "PADV2 RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR SELECT SPACE_TO_BATCH_ND SPLIT SVDF TRANSPOSE_CONV "
            "UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK"
        ),
        5: "ABS ADD CAST DEQUANTIZE SUB",
        6: "GATHER SLICE TRANSPOSE",
        7: "CONV_2D DEPTHWISE_CONV_2D MUL",
        8: "STRIDED_SLICE",
        10: "FULLY_CONNECTED",
    },
    ("litert", "1.0"): {
        1: (
            "DILATE REDUCE_WINDOW STABLEHLO_ADD STABLEHLO_COMPOSITE STABLEHLO_GATHER STABLEHLO_MAXIMUM "
            "STABLEHLO_MINIMUM STABLEHLO_MULTIPLY STABLEHLO_PAD STABLEHLO_REDUCE_WINDOW "
            "STABLEHLO_RNG_BIT_GENERATOR STABLEHLO_SCATTER"
        ),
        2: "DYNAMIC_UPDATE_SLICE LOG",
        3: "RSQRT",
        4: "EMBEDDING_LOOKUP",
        5: "GATHER_ND TRANSPOSE_CONV",
        6: "CAST DEQUANTIZE",
        7: "GATHER",
        8: "CONV_2D",
        13: "FULLY_CONNECTED",
    },
    ("litert", "1.1"): {
        1: "STABLEHLO_AND STABLEHLO_CASE STABLEHLO_SHIFT_LEFT",
        3: "DYNAMIC_UPDATE_SLICE",
        7: "CAST",
    },
    ("litert", "1.2"): {
        7: "TRANSPOSE",
    },
    ("litert", "1.3"): {
        4: "DYNAMIC_UPDATE_SLICE",
    },
    ("litert", "2.0"): {
        2: "SQRT",
        5: "PAD PADV2",
    },
    ("litert", "2.1"): {
        4: "NOT_EQUAL QUANTIZE",
        5: "EQUAL",
        7: "DEQUANTIZE SLICE",
        8: "CAST",
        14: "FULLY_CONNECTED",
    },
    ("litert", "2.2"): {
        2: "COS SIN",
        3: "GELU SPLIT_V",
        4: "BROADCAST_TO REVERSE_V2 SOFTMAX",
        5: "EMBEDDING_LOOKUP FILL PACK SPLIT",
        6: "ADD DYNAMIC_UPDATE_SLICE GATHER_ND PAD PADV2 QUANTIZE UNPACK",
        7: "CONCATENATION",
        8: "GATHER MUL SLICE",
        9: "CAST DEQUANTIZE TRANSPOSE",
    },
}
"""By runtime and release, oldest first: the newest version of the operators that the release added or raised."""

CUSTOM = frozenset(("AudioSpectrogram", "Mfcc", "NumericVerify", "TFLite_Detection_PostProcess"))
"""Custom operators that every one of these runtimes brings along."""

_FLEX = "Flex"
"""How TensorFlow's own operators begin when they are left in a file; they need TensorFlow on the device."""


@dataclass(frozen=True)
class Unreadable:
    """An operator of a file that a runtime does not read. `newest` is the version that it does, 0 where it has none."""

    kind: str
    version: int
    newest: int
    runtime: str
    release: str

    def __str__(self) -> str:
        name = f"{_PACKAGES[self.runtime]} {self.release}"
        if not self.newest:
            return f"{name} has no operator {self.kind}"
        return f"{name} reads {self.kind} up to version {self.newest}, the file has version {self.version}"


_PACKAGES = {TFLITE: "tflite-runtime", LITERT: "LiteRT"}


def newest_versions(runtime: str, release: str) -> dict[str, int]:
    """Return the newest version of each builtin operator that a release reads. Raises KeyError for another runtime.

    A release between two of the table reads what the older one does.
    """
    if runtime not in _PACKAGES:
        raise KeyError(runtime)
    found: dict[str, int] = {}
    for (name, first), raised in _NEWEST.items():
        if name == TFLITE or (runtime == LITERT and _numbers(first) <= _numbers(release)):
            found |= {kind: version for version, kinds in raised.items() for kind in kinds.split()}
    return found


def unreadable(model: TfliteModel, runtime: str, release: str) -> tuple[Unreadable, ...]:
    """Return the builtin operators of a file that a release of a runtime does not read, each once.

    Raises KeyError for a runtime other than `tflite` and `litert`.
    """
    newest = newest_versions(runtime, release)
    asked = dict.fromkeys((entry.kind, entry.version) for entry in model.codes if not entry.custom)
    return tuple(
        Unreadable(kind, version, newest.get(kind, 0), runtime, release)
        for kind, version in asked
        if version > newest.get(kind, 0)
    )


def oldest_reader(model: TfliteModel, runtime: str) -> str | None:
    """Return the oldest release in the table that reads a file, None where none does. Raises KeyError as above."""
    releases = [release for name, release in _NEWEST if name == runtime]
    return next((release for release in releases if not unreadable(model, runtime, release)), None)


def foreign_operators(model: TfliteModel) -> tuple[str, ...]:
    """Return the custom operators of a file that no runtime brings along, each once."""
    names = dict.fromkeys(entry.kind for entry in model.codes if entry.custom)
    return tuple(name for name in names if name not in CUSTOM)


def check_operators(model: TfliteModel, known: Collection[str] = ()) -> None:
    """Refuse a file with a custom operator that is not among the known ones. Raises UnknownOperator."""
    for name in foreign_operators(model):
        if name not in known:
            raise UnknownOperator(name, _first_output(model, name), _remedy(name))


def _remedy(name: str) -> str:
    if name.startswith(_FLEX):
        return (
            f"is TensorFlow's own {name.removeprefix(_FLEX)}, which no runtime without TensorFlow has: "
            "convert the model without SELECT_TF_OPS"
        )
    return (
        "is a custom one that LiteRT does not bring along: give its library with --ops LIBRARY.so:FUNCTION, "
        "or convert the model with builtin operators only"
    )


def _first_output(model: TfliteModel, name: str) -> str:
    names: Iterable[str] = (
        graph.tensors[entry.outputs[0]].name
        for graph in model.subgraphs
        for entry in graph.operations
        if entry.custom and entry.kind == name and entry.outputs
    )
    return next(iter(names), "")


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split(".")[:2])
