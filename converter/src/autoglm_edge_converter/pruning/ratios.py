"""How narrow each group becomes: measured sensitivity, then the most work saved for the least noise.

measure: each group alone at a few widths, which gives noise (power of the error, relative to the answers)
plan:    again and again the narrowing that saves most work for the noise it adds: a path of ever
         smaller models
choose:  the smallest model on that path which keeps the budget, each one tried being built and measured

Noise of several groups is taken to add up for the plan only; what is chosen was measured as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import onnx

from autoglm_edge_converter.pruning.prune import PrunedModel, prune_to
from autoglm_edge_converter.pruning.study import Study

LEVELS = 6
"""At how many widths each group is measured."""

LEAST_GAIN = 0.01
"""Groups that save less of the work than this are not worth the time to measure them."""

TRIES = 6
"""How many models of the path are built and measured at most."""


class Judgement(Protocol):
    """How a model answers compared with the original, on samples that were not used for fitting."""

    @property
    def drop(self) -> float:
        """What was lost of the metric, 0 to 1."""

    @property
    def sqnr_db(self) -> float | None:
        """Of the noisiest output; None where all are identical."""

    @property
    def finite(self) -> bool:
        """False: some output holds NaN or infinity where the original does not."""


Judge = Callable[[onnx.ModelProto], Judgement]


@dataclass(frozen=True)
class Sensitivity:
    """One group alone at one width."""

    group: str
    width: int
    noise: float
    """Power of the error over that of the answers; infinite where the answers are not finite."""


@dataclass(frozen=True)
class Step:
    """A set of widths on the path, and what it is expected to bring."""

    widths: Mapping[str, int]
    multiplications_removed: float
    noise: float


@dataclass(frozen=True)
class Choice:
    """The model chosen and its judgement."""

    model: PrunedModel
    judgement: Judgement


def measure(
    known: Study,
    judge: Judge,
    done: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Sensitivity, ...]:
    """Prune one group at a time to a few widths and judge what comes of it, until `stop` says that it is enough.

    Groups that save most come first; those that cannot save a hundredth of the work are left out.
    """
    whole = known.work()
    gains = {
        group: 1 - known.work(known.removed({group.name: known.widths(group)[-1]})) / whole
        for group in known.groups
        if known.widths(group)
    }
    found: list[Sensitivity] = []
    for group in sorted(gains, key=lambda group: -gains[group]):
        if gains[group] < LEAST_GAIN:
            break
        for width in spread(known.widths(group)):
            if stop():
                return tuple(found)
            model = prune_to(known, {group.name: width}, propagate=False)
            found.append(Sensitivity(group.name, width, noise_of(judge(model.proto))))
            done(f"{group.name} at {width} of {group.width}")
    return tuple(found)


def spread(widths: Sequence[int], levels: int = LEVELS) -> tuple[int, ...]:
    """Return at most `levels` of the widths, evenly spread and with the narrowest."""
    if len(widths) <= levels:
        return tuple(widths)
    return tuple(widths[(number + 1) * len(widths) // levels - 1] for number in range(levels))


def noise_of(judgement: Judgement) -> float:
    """Return the power of the error relative to that of the answers."""
    if not judgement.finite:
        return math.inf
    return 0.0 if judgement.sqnr_db is None else 10 ** (-judgement.sqnr_db / 10)


def plan_ratios(known: Study, sensitivities: Sequence[Sensitivity]) -> tuple[Step, ...]:
    """Return a path of ever smaller models, each step the one that saves most work for its noise."""
    total = max(1.0, known.multiplications())
    noises: dict[str, dict[int, float]] = {}
    for entry in sensitivities:
        noises.setdefault(entry.group, {})[entry.width] = entry.noise
    widths: dict[str, int] = {}
    spent: dict[str, float] = dict.fromkeys(noises, 0.0)
    path: list[Step] = []
    while True:
        now = known.work(known.removed(widths))
        offers = []
        for name, levels in noises.items():
            for width, noise in levels.items():
                if width >= widths.get(name, width + 1) or math.isinf(noise):
                    continue
                saved = now - known.work(known.removed({**widths, name: width}))
                offers.append((saved / max(noise - spent[name], 1e-9), name, width))
        offers = [offer for offer in offers if offer[0] > 0]
        if not offers:
            return tuple(path)
        _, name, width = max(offers)
        widths[name] = width
        spent[name] = noises[name][width]
        removed = 1 - known.multiplications(known.removed(widths)) / total
        path.append(Step(dict(widths), removed, sum(spent.values())))


def choose(
    known: Study,
    path: Sequence[Step],
    judge: Judge,
    max_drop: float,
    least_sqnr_db: float = 0.0,
    done: Callable[[str], None] = lambda _: None,
) -> Choice | None:
    """Return the smallest model on the path that keeps the budget; None where not even the first does.

    The budget is both a drop of the metric and a distance of the answers. Searched by halving: along the path both all
    but always grow.
    """
    low, high = 0, len(path)
    best: Choice | None = None
    for _ in range(TRIES):
        if low >= high:
            break
        middle = (low + high) // 2
        model = prune_to(known, path[middle].widths)
        judgement = judge(model.proto)
        done(f"{model.multiplications_removed:.0%} of the multiplications removed")
        near = judgement.sqnr_db is None or judgement.sqnr_db >= least_sqnr_db
        if judgement.finite and near and judgement.drop <= max_drop + 1e-9:
            best, low = Choice(model, judgement), middle + 1
        else:
            high = middle
    return best


def at_fraction(path: Sequence[Step], fraction: float) -> Step | None:
    """Return the first step that removes this fraction of the multiplications, or else the last; None without any."""
    return next((step for step in path if step.multiplications_removed >= fraction), path[-1] if path else None)
