"""Write windows of speech and noise with the states that the network really gets to: `input` and `state`.

Three recordings make the samples, the other two are kept for `follow.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from fetch import MODEL, fetch
from stream import SPEECH, feeds, scene

from autoglm_edge_converter.runners import open_runner

COUNT, SCENES = 600, 4


def prepare(folder: Path, count: int = COUNT, seed: int = 0) -> Path:
    """Write `folder/samples.npz`: float32 input [count,1,576] and state [count,2,1,128]."""
    runner = open_runner(folder / MODEL)
    chance = np.random.default_rng(seed)
    known = sorted((folder / "recordings").glob("*.wav"))[:3]
    found = [entry for _ in range(SCENES) for entry in feeds(runner.run, scene(known, chance))]
    chosen = [found[number] for number in chance.permutation(len(found))[:count]]
    path = folder / "samples.npz"
    arrays = {name: np.stack([feed[name] for feed, _ in chosen]) for name in ("input", "state")}
    speech = np.array([probability for _, probability in chosen])
    np.savez(path, **arrays)
    sys.stdout.write(f"{path}: {len(chosen)} windows, {(speech >= SPEECH).mean():.0%} of them speech\n")
    return path


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "speech")
    fetch(target)
    prepare(target)
