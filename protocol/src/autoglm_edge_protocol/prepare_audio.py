"""From sound to inputs of the model: the steps of `AudioSteps`, in numpy alone.

One of the few modules here that need numpy; a process that must stay light does not import it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from autoglm_edge_protocol.prepare_image import as_dtype
from autoglm_edge_protocol.preprocessing import AudioSteps

Sound = npt.NDArray[np.float64]

ZERO_CROSSINGS = 16
"""Of the filter on each side: its length, counted at the lower of the two rates."""
KAISER_BETA = 8.0
"""About 80 dB of attenuation beyond the transition band."""


def audio_inputs(sound: Sound, rate_hz: int, steps: AudioSteps) -> Iterator[npt.NDArray[Any]]:
    """Give each window of a recording, float64 [samples] in -1..1, as [1, window] of `steps.dtype`."""
    converted = resample(sound, rate_hz, steps.rate_hz) if steps.rate_hz else sound
    window = steps.window or max(1, len(converted))
    for start in range(0, max(1, len(converted)), steps.hop or window):
        piece = converted[start : start + window]
        filled = np.concatenate([piece, np.zeros(window - len(piece))])
        yield _typed(_normalised(filled, steps), steps.dtype)[None]
        if start + window >= len(converted):
            return


def _normalised(piece: Sound, steps: AudioSteps) -> Sound:
    if steps.normalise == "none":
        return piece
    size = np.abs(piece).max() if steps.normalise == "peak" else math.sqrt(float(np.square(piece).mean()))
    return piece / size if size > 0 else piece


def _typed(piece: Sound, dtype: str) -> npt.NDArray[Any]:
    if np.issubdtype(np.dtype(dtype), np.floating):
        return piece.astype(dtype)
    return as_dtype(piece * (2.0 ** (np.iinfo(dtype).bits - 1)), dtype)


def resample(sound: Sound, from_hz: int, to_hz: int) -> Sound:
    """Convert float64 [samples] to another rate; the length becomes ceil(samples * to / from).

    Polyphase windowed sinc: cut off at half the lower rate, Kaiser window of `KAISER_BETA`, `ZERO_CROSSINGS` on each
    side, each phase with a sum of 1; beyond its ends the recording is zero. Source: J. O. Smith, "Digital Audio
    Resampling", CCRMA, 2002.
    """
    divisor = math.gcd(from_hz, to_hz)
    up, down = to_hz // divisor, from_hz // divisor
    if up == down or len(sound) == 0:
        return sound
    half = math.ceil(ZERO_CROSSINGS * max(up, down) / up)
    padded = np.concatenate([np.zeros(half), sound, np.zeros(half + 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    length = -(-len(sound) * up // down)
    result = np.empty(length)
    for phase in range(min(up, length)):
        # Output `phase + k up` lies at input `start / up + k down`: every output of a phase has the same taps.
        start = phase * down
        chosen = windows[start // up :: down][: -(-(length - phase) // up)]
        result[phase::up] = chosen @ _taps(start % up / up, half, max(up, down) / up)
    return result


def _taps(offset: float, half: int, stretch: float) -> Sound:
    """Return the taps for an output `offset` of an input sample to the right of the middle one."""
    distance = (np.arange(-half, half + 1) - offset) / stretch
    inside = np.clip(1 - np.square(distance / ZERO_CROSSINGS), 0, None)
    taps = np.sinc(distance) * np.where(np.abs(distance) < ZERO_CROSSINGS, np.i0(KAISER_BETA * np.sqrt(inside)), 0.0)
    return np.asarray(taps / taps.sum(), np.float64)
