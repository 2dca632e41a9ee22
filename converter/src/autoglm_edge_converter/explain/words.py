"""An explanation in words, the same on a terminal and in the report."""

from __future__ import annotations

from autoglm_edge_converter.explain.explanation import (
    ADDED,
    BY_NAME,
    EIGHT_BITS,
    FLOAT,
    FOLDED,
    FUSED,
    GONE,
    KEPT,
    REPLACED,
    SMALL_WEIGHTS,
    Explanation,
    Group,
    Need,
)

_RUNTIMES = {"onnxruntime": "onnxruntime", "litert": "LiteRT", "tflite": "tflite-runtime"}
_WORDS = {
    KEPT: "kept",
    FUSED: "fused into",
    REPLACED: "replaced by",
    FOLDED: "folded into constants",
    GONE: "not needed",
    ADDED: "added",
    EIGHT_BITS: "8 bits",
    FLOAT: "left in float",
    SMALL_WEIGHTS: "smaller weights",
}


def fate_words(group: Group) -> str:
    """Return `fused into Conv`, `8 bits`, ..."""
    if group.became in (FUSED, REPLACED):
        return f"{_WORDS[group.became]} {group.into or 'what is behind it'}"
    return _WORDS.get(group.became, group.became)


def names_words(group: Group) -> str:
    """Return the names of its first members, and how many more there are."""
    names = ", ".join(name for name in group.names if name)
    rest = group.count - len(group.names)
    return f"{names}, {rest} more" if rest > 0 and names else names


def needs_words(need: Need) -> str:
    """Return who reads an operator: `onnxruntime 1.12`, `LiteRT 1.0, tflite-runtime 2.14`."""
    return ", ".join(f"{_RUNTIMES.get(runtime, runtime)} {oldest or 'unknown'}" for runtime, oldest in need.readers)


def heading_words(explanation: Explanation) -> str:
    """Return the sentence above the table of a variant."""
    told = f"The file: {explanation.file_needs}. Operators of {explanation.source}: {explanation.how}."
    if explanation.how != BY_NAME:
        told += f" Before: {counts_words(explanation.before)}. After: {counts_words(explanation.after)}."
    return f"{told} {explanation.road}." if explanation.road else told


def counts_words(counts: tuple[tuple[str, int], ...]) -> str:
    """Return `20 Conv, 16 Relu`."""
    return ", ".join(f"{number} {kind}" for kind, number in counts)
