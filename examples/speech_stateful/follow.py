"""Let the original and each variant listen to recordings that took no part, each with its own state fed back.

    python follow.py FOLDER BUNDLE

An error of one step goes into the next, so this shows what single windows cannot: whether errors grow.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fetch import MODEL
from stream import SPEECH, Floats, feeds, scene

from autoglm_edge_converter.runners import Runner, open_runner


@dataclass(frozen=True)
class Followed:
    """A variant over a whole sequence, against the original."""

    variant: str
    windows: int
    speech: float
    """Share of the windows that the original takes for speech."""
    agreement: float
    """Share of the windows decided alike."""
    early: float
    late: float
    """Mean difference of the probabilities in the first and in the last quarter."""


def probabilities(runner: Runner, sound: Floats) -> Floats:
    """Return the probability of speech of each window, the runner's own state fed back step by step."""
    return np.array([speech for _, speech in feeds(runner.run, sound)], np.float32)


def follow(folder: Path, bundle: Path, seed: int = 1) -> list[Followed]:
    """Compare every variant of a bundle with the original over about a minute of speech and noise."""
    unknown = sorted((folder / "recordings").glob("*.wav"))[3:]
    chance = np.random.default_rng(seed)
    sound = np.concatenate([scene(unknown, chance) for _ in range(3)])
    expected = probabilities(open_runner(folder / MODEL), sound)
    manifest = json.loads((bundle / "manifest.json").read_text())
    found = []
    for variant in manifest["variants"]:
        given = probabilities(open_runner(bundle / variant["model"]), sound)
        found.append(_compared(str(variant["id"]), expected, given))
    return found


def _compared(name: str, expected: Floats, given: Floats) -> Followed:
    apart = np.abs(given - expected)
    quarter = len(apart) // 4
    decided = (expected >= SPEECH) == (given >= SPEECH)
    return Followed(
        variant=name,
        windows=len(expected),
        speech=float((expected >= SPEECH).mean()),
        agreement=float(decided.mean()),
        early=float(apart[:quarter].mean()),
        late=float(apart[-quarter:].mean()),
    )


def told(entry: Followed) -> str:
    """Return one line."""
    decided = f"{entry.agreement:.2%} of {entry.windows} windows decided alike ({entry.speech:.0%} speech)"
    return f"{entry.variant}: {decided}, probabilities {entry.early:.4f} apart at first, {entry.late:.4f} at last"


def main() -> None:
    """Print one line for each variant."""
    for entry in follow(Path(sys.argv[1]), Path(sys.argv[2])):
        sys.stdout.write(f"{told(entry)}\n")


if __name__ == "__main__":
    main()
