"""Which candidates are tried, and which of them is the best."""

from __future__ import annotations

import pytest

from autoglm_edge_agent.inference.candidates import MOST, candidates
from autoglm_edge_agent.inference.measurement import Figures, Measured, Weights, best_of, ranked
from autoglm_edge_agent.inference.options import Plan


def _short(plan: Plan) -> str:
    options = plan.options
    words = [plan.runtime, options.provider, str(options.threads), "spin" * options.spinning, options.optimisation]
    return " ".join(word for word in words if word)


CANDIDATES: list[tuple[str, dict[str, tuple[str, ...]], int, list[str]]] = [
    ("one core", {"onnxruntime": ("cpu",)}, 1, ["onnxruntime cpu 1 all", "onnxruntime cpu 1 basic"]),
    (
        "spinning only with threads",
        {"onnxruntime": ("cpu",)},
        2,
        [
            "onnxruntime cpu 1 all",
            "onnxruntime cpu 2 all",
            "onnxruntime cpu 2 spin all",
            "onnxruntime cpu 1 basic",
            "onnxruntime cpu 2 basic",
            "onnxruntime cpu 2 spin basic",
        ],
    ),
    (
        "an accelerator has no threads, and each provider comes early",
        {"litert": ("xnnpack", "edgetpu")},
        3,
        ["litert xnnpack 1 all", "litert edgetpu 1 all", "litert xnnpack 2 all", "litert xnnpack 3 all"],
    ),
    ("a third party's", {"mine": ("npu",)}, 8, ["mine npu 1 all"]),
    ("no runtime", {}, 4, []),
]


@pytest.mark.parametrize(("providers", "most", "expected"), [r[1:] for r in CANDIDATES], ids=[r[0] for r in CANDIDATES])
def test_candidates(providers: dict[str, tuple[str, ...]], most: int, expected: list[str]) -> None:
    assert [_short(plan) for plan in candidates(providers, most)] == expected


def test_a_provider_that_somebody_names_is_tried_with_its_options() -> None:
    settings = {"onnxruntime": {"qnn": {"backend_path": "libQnnHtp.so"}, "Mine": {"library": "/opt/mine.so"}}, "x": {}}
    found = candidates({"onnxruntime": ("cpu", "qnn"), "litert": ("xnnpack",)}, 1, settings)
    told = {(plan.runtime, plan.options.provider): plan.options.provider_options for plan in found}
    assert told == {
        ("onnxruntime", "cpu"): {},
        ("onnxruntime", "qnn"): {"backend_path": "libQnnHtp.so"},
        ("onnxruntime", "Mine"): {"library": "/opt/mine.so"},
        ("litert", "xnnpack"): {},
    }


@pytest.mark.parametrize("strict", [False, True])
def test_the_runtime_itself_is_told_to_be_strict(strict: bool) -> None:
    found = candidates({"onnxruntime": ("cpu", "cuda")}, 2, strict=strict)
    assert {plan.options.strict for plan in found} == {strict}


def test_many_candidates_are_cut_but_no_provider_is_left_out() -> None:
    providers = {"onnxruntime": ("cpu", "xnnpack", "acl", "cuda"), "litert": ("xnnpack", "cpu")}
    found = candidates(providers, 64)
    assert len(found) == MOST
    wanted = {(runtime, provider) for runtime, listed in providers.items() for provider in listed}
    assert {(plan.runtime, plan.options.provider) for plan in found} == wanted


def _measured(name: str, p50_us: float, cpu_us: float, p99_us: float = 0, megabytes: int = 100) -> Measured:
    figures = Figures(
        latency_p50_us=p50_us, latency_p99_us=p99_us or p50_us, cpu_us=cpu_us, memory_bytes=megabytes << 20, runs=9
    )
    return Measured(plan=Plan(runtime=name), figures=figures)


OUT = Measured(plan=Plan(runtime="out"), disqualified="crashed")
CHOICES: list[tuple[str, list[Measured], Weights, list[str]]] = [
    ("the faster", [_measured("a", 100, 100), _measured("b", 50, 50)], Weights(), ["b", "a"]),
    ("not at any price", [_measured("a", 100, 100), _measured("b", 90, 400)], Weights(), ["a", "b"]),
    ("at any price", [_measured("a", 100, 100), _measured("b", 90, 400)], Weights(cpu=0), ["b", "a"]),
    ("alike: the plainer", [_measured("a", 102, 102), _measured("b", 100, 100)], Weights(), ["a", "b"]),
    ("rare slow runs", [_measured("a", 100, 100, 3000), _measured("b", 110, 110, 120)], Weights(), ["b", "a"]),
    ("memory", [_measured("a", 100, 100, 0, 400), _measured("b", 100, 100)], Weights(memory=1), ["b", "a"]),
    ("never a disqualified one", [OUT, _measured("a", 9e6, 9e6)], Weights(), ["a"]),
    ("none", [OUT], Weights(), []),
    (
        "the rest by score",
        [_measured("a", 300, 300), _measured("b", 200, 200), _measured("c", 100, 100)],
        Weights(),
        ["c", "b", "a"],
    ),
]


@pytest.mark.parametrize(("measured", "weights", "expected"), [r[1:] for r in CHOICES], ids=[r[0] for r in CHOICES])
def test_choices(measured: list[Measured], weights: Weights, expected: list[str]) -> None:
    assert [found.plan.runtime for found in ranked(measured, weights)] == expected


BEST: list[tuple[str, list[list[Measured]], int | None]] = [
    ("each by its best way", [[_measured("a", 100, 100), _measured("b", 50, 50)], [_measured("a", 70, 70)]], 0),
    ("the faster", [[_measured("a", 100, 100)], [_measured("a", 70, 70)]], 1),
    ("alike: the first", [[_measured("a", 102, 102)], [_measured("a", 100, 100)]], 0),
    ("never one that cannot be run", [[OUT], [_measured("a", 9e6, 9e6)]], 1),
    ("none can be run", [[OUT], []], None),
]


@pytest.mark.parametrize(("variants", "expected"), [row[1:] for row in BEST], ids=[row[0] for row in BEST])
def test_the_best_of_variants(variants: list[list[Measured]], expected: int | None) -> None:
    assert best_of(variants, Weights()) == expected
