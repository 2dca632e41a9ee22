from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.fakes.model_bundles import make_model_bundle

from autoglm_edge_agent.errors import Refusal
from autoglm_edge_agent.updates.fit import MOST_CONTENDERS, Capabilities, choose_variant, contenders
from autoglm_edge_protocol.bundle import read_manifest
from autoglm_edge_protocol.manifest import Manifest

BOARD = Capabilities({"onnxruntime": "1.20.1", "mine": "0.3"}, 1 << 30, measures=True, machine="aarch64")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(make_model_bundle(tmp_path_factory.mktemp("bundle")).directory)


def _with(manifest: Manifest, *changes: dict[str, Any]) -> Manifest:
    base = manifest.variants[0]
    variants = []
    for number, change in enumerate(changes):
        needs = base.needs.model_copy(
            update={k: v for k, v in change.items() if k in ("runtime", "min_version", "memory_bytes", "alternatives")}
        )
        figures = {"speedup": change.get("speedup", 1.0), "unknown_on": change.get("unknown_on", ())}
        latency = base.latency.model_copy(update=figures)
        update = {"id": f"v{number}", "needs": needs, "latency": latency, "format": change.get("format", "onnx")}
        variants.append(base.model_copy(update=update))
    return manifest.model_copy(update={"variants": tuple(variants)})


CHOICES: list[tuple[str, list[dict[str, Any]], str | None, str]] = [
    ("the only one", [{}], None, "v0"),
    ("the fastest", [{"speedup": 1.0}, {"speedup": 2.0}, {"speedup": 1.5}], None, "v1"),
    ("of equally fast ones the better, which is first", [{"speedup": 2.0}, {"speedup": 2.0}], None, "v0"),
    ("the fastest that fits", [{}, {"speedup": 9.0, "memory_bytes": 1 << 30}], None, "v0"),
    ("the one that is asked for", [{"speedup": 2.0}, {"speedup": 1.0}], "v1", "v1"),
    ("a format that the runtime reads", [{"format": "tflite", "speedup": 9.0}, {}], None, "v1"),
    ("just enough memory", [{"memory_bytes": 3 << 28}], None, "v0"),
    ("the same version", [{"min_version": "1.20.1"}], None, "v0"),
    ("zeros that do not count", [{"min_version": "1.20"}], None, "v0"),
    ("an older need", [{"min_version": "1.9"}], None, "v0"),
    ("another runtime of the same file", [{"runtime": "b", "alternatives": {"onnxruntime": "1.20"}}], None, "v0"),
    (
        "a third party's runtime",
        [{"speedup": 9.0, "runtime": "mine", "min_version": None, "format": "npz"}, {}],
        None,
        "v0",
    ),
]

REFUSALS: list[tuple[str, list[dict[str, Any]], str | None, str, str]] = [
    ("another variant", [{}], "v7", "unknown-variant", "it has v0"),
    ("another runtime", [{"runtime": "litert"}], None, "no-fitting-variant", "needs the runtime litert"),
    ("a newer runtime", [{"min_version": "1.21"}], None, "no-fitting-variant", "1.20.1 is installed"),
    ("more memory", [{"memory_bytes": 1 << 30}], None, "no-fitting-variant", "needs 1024 MiB"),
    (
        "the one asked for does not fit",
        [{}, {"min_version": "2"}],
        "v1",
        "no-fitting-variant",
        "v1 needs onnxruntime 2",
    ),
    (
        "another runtime, too old",
        [{"runtime": "b", "alternatives": {"onnxruntime": "1.21"}}],
        None,
        "no-fitting-variant",
        "needs onnxruntime 1.21, 1.20.1 is installed",
    ),
    (
        "a runtime that reads another format",
        [{"runtime": "onnxruntime", "format": "tflite"}],
        None,
        "no-fitting-variant",
        "needs the runtime onnxruntime for tflite",
    ),
    ("each one's lack", [{"runtime": "a"}, {"runtime": "b"}], None, "no-fitting-variant", "runtime b"),
    ("no variants", [], None, "no-fitting-variant", "no variant"),
]


@pytest.mark.parametrize(
    ("what", "variants", "requested", "chosen"), CHOICES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_choice(
    manifest: Manifest, what: str, variants: list[dict[str, Any]], requested: str | None, chosen: str
) -> None:
    assert choose_variant(_with(manifest, *variants), requested, BOARD).id == chosen, what


@pytest.mark.parametrize(
    ("what", "variants", "requested", "code", "text"), REFUSALS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_refusal(
    manifest: Manifest, what: str, variants: list[dict[str, Any]], requested: str | None, code: str, text: str
) -> None:
    with pytest.raises(Refusal, match=text) as caught:
        choose_variant(_with(manifest, *variants), requested, BOARD)
    assert caught.value.reason.code == code, what


UNKNOWN: dict[str, Any] = {"speedup": 0.7, "unknown_on": ("aarch64",)}
CONTESTS: list[tuple[str, list[dict[str, Any]], str | None, Capabilities, list[str]]] = [
    ("nothing is unknown", [{"speedup": 2.0}, {}], None, BOARD, []),
    ("the slower one is unknown", [{}, UNKNOWN], None, BOARD, ["v1"]),
    ("the chosen one is no contender of itself", [{}, {**UNKNOWN, "speedup": 2.0}], None, BOARD, []),
    ("unknown on others", [{}, {**UNKNOWN, "unknown_on": ("x86_64",)}], None, BOARD, []),
    ("does not fit", [{}, {**UNKNOWN, "memory_bytes": 1 << 30}], None, BOARD, []),
    ("one was asked for", [{}, UNKNOWN], "v0", BOARD, []),
    ("nothing is measured here", [{}, UNKNOWN], None, replace(BOARD, measures=False), []),
    ("each is a download", [{}, UNKNOWN, UNKNOWN, UNKNOWN], None, BOARD, ["v2", "v3"]),
]


@pytest.mark.parametrize(
    ("variants", "requested", "board", "expected"), [row[1:] for row in CONTESTS], ids=[row[0] for row in CONTESTS]
)
def test_contenders(
    manifest: Manifest, variants: list[dict[str, Any]], requested: str | None, board: Capabilities, expected: list[str]
) -> None:
    bundle = _with(manifest, *variants)
    chosen = choose_variant(bundle, requested, board)
    assert [variant.id for variant in contenders(bundle, chosen, requested, board)] == expected
    assert len(expected) <= MOST_CONTENDERS
