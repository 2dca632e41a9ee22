"""Sound in windows, and a network that remembers: what it gives as its state goes in again with the next window.

silero-vad takes 512 samples at 16 kHz (32 ms) behind the last 64 of the window before, and a state of [2,1,128].
"""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Run = Callable[[Mapping[str, Floats]], Sequence[Floats]]

RATE, WINDOW, CONTEXT = 16000, 512, 64
STATE_SHAPE = (2, 1, 128)
SPEECH = 0.5
"""At and above this probability a window is taken for speech."""


def recorded(path: Path) -> Floats:
    """Return a 16 kHz mono recording of 16 bits, float32 in -1..1. Raises ValueError for another."""
    with wave.open(str(path)) as sound:
        if (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) != (RATE, 1, 2):
            raise ValueError(f"{path} is not a 16 kHz mono recording of 16 bits")
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
    return samples.astype(np.float32) / 32768


def windows(sound: Floats) -> Iterator[Floats]:
    """Give the windows as the network takes them, float32 [1,576]; what does not fill one is left out."""
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), sound])
    for start in range(0, len(sound) - WINDOW + 1, WINDOW):
        yield padded[start : start + CONTEXT + WINDOW][None]


def feeds(run: Run, sound: Floats) -> Iterator[tuple[dict[str, Floats], float]]:
    """Give each window with the state that the network itself got to, and the probability of speech."""
    state = np.zeros(STATE_SHAPE, np.float32)
    for window in windows(sound):
        feed = {"input": window, "state": state}
        speech, state = run(feed)
        yield feed, float(speech.reshape(-1)[0])


def with_noise(sound: Floats, decibels: float, chance: np.random.Generator) -> Floats:
    """Return a recording with noise below it by so many decibels, whose spectrum falls as that of rooms does."""
    white = chance.normal(size=len(sound))
    spectrum = np.fft.rfft(white)
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    noise = np.fft.irfft(spectrum, len(sound))
    level = float(np.sqrt(np.mean(sound**2))) / 10 ** (decibels / 20) / float(np.sqrt(np.mean(noise**2)))
    mixed: Floats = np.clip(sound + noise * level, -1, 1).astype(np.float32)
    return mixed


def scene(paths: Sequence[Path], chance: np.random.Generator) -> Floats:
    """Return recordings one after the other, noise alone between them, louder and quieter noise below them."""
    parts = []
    for path in paths:
        speech = recorded(path)
        pause = np.zeros(int(RATE * chance.uniform(1.0, 2.5)), np.float32)
        whole = np.concatenate([pause, speech * float(chance.uniform(0.4, 1.0))])
        parts.append(with_noise(whole, float(chance.uniform(5, 25)), chance))
    return np.concatenate(parts)
