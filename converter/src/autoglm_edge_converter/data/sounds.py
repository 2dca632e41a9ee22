"""WAV files of a folder as inputs of the model: each window of each recording is a sample."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from autoglm_edge_converter.data.dataset import Dataset
from autoglm_edge_converter.data.fit import check, written
from autoglm_edge_converter.data.folder import Files, labels_of
from autoglm_edge_converter.data.options import DataOptions
from autoglm_edge_converter.data.steps import Resolved, audio_steps
from autoglm_edge_converter.data.wav import WavHeader, read_header, read_wav
from autoglm_edge_converter.errors import NoSamples, SampleMismatch
from autoglm_edge_converter.limits import DATA_LIMITS
from autoglm_edge_converter.tensors import Array, Feed, Port
from autoglm_edge_protocol.prepare_audio import Sound, audio_inputs, resample
from autoglm_edge_protocol.preprocessing import AudioSteps, Preprocessing

SUFFIXES = (".wav", ".wave")


def sounds(files: Files, port: Port, options: DataOptions, class_names: Sequence[str] | None) -> Dataset:
    """Return one sample per window, prepared for the input.

    Raises BadOption, SampleMismatch, UnreadableSample, NoSamples, OSError.
    """
    resolved = audio_steps(options, port)
    steps = resolved.steps
    headers = [read_header(path) for path in files.paths]
    rates = {header.rate_hz for header in headers}
    if steps.rate_hz is None and len(rates) > 1:
        listed = ", ".join(str(rate) for rate in sorted(rates))
        raise SampleMismatch(f"the recordings have different rates ({listed} Hz): give rate_hz with --preprocess")
    places = [(file, window) for file, header in enumerate(headers) for window in range(window_count(header, steps))]
    if len(places) > DATA_LIMITS.windows:
        raise NoSamples(f"{len(places)} windows, at most {DATA_LIMITS.windows} are read: give a longer hop")

    converted = steps.model_copy(update={"rate_hz": None})

    @lru_cache(maxsize=1)  # the windows in use come in their order
    def recording(file: int) -> tuple[Sound, int]:
        sound, rate_hz = read_wav(files.paths[file])
        return (resample(sound, rate_hz, steps.rate_hz) if steps.rate_hz else sound), steps.rate_hz or rate_hz

    def load(index: int) -> Feed:
        file, window = places[index]
        sound, rate_hz = recording(file)
        start = window * (steps.hop or steps.window or 0)
        end = start + steps.window if steps.window else None
        piece = next(audio_inputs(sound[start:end], rate_hz, converted))
        tensor = _shaped(piece, port)
        check(tensor, Port(port.name, port.dtype, tensor.shape), str(files.paths[file]))
        return {port.name: tensor}

    numbered = labels_of(files, class_names)
    return Dataset(
        names=tuple(f"{files.name(file)} window {window}" for file, window in places),
        load=load,
        digest=files.digest,
        labels=tuple(numbered.labels[file] for file, _ in places) if numbered else None,
        preprocessing=Preprocessing(input=port.name, audio=steps),
        notes=(*_note(resolved, port, rates), *(numbered.notes if numbered else ())),
        class_names=numbered.names if numbered else (),
    )


def window_count(header: WavHeader, steps: AudioSteps) -> int:
    """Return how many windows a recording gives."""
    rate_hz = steps.rate_hz or header.rate_hz
    samples = -(-header.frames * rate_hz // header.rate_hz)
    if steps.window is None or samples <= steps.window:
        return 1
    hop = steps.hop or steps.window
    return 1 + -(-(samples - steps.window) // hop)


def _shaped(piece: Array, port: Port) -> Array:
    """Bring [1, window] to the rank that the model takes, axes of one between."""
    shape = port.shape or (None, None)
    fitting = all(axis in (None, 1) for axis in shape[:-1]) and shape[-1] in (None, piece.shape[-1])
    if not fitting or not shape:
        raise SampleMismatch(
            f"input {port.name!r} takes {written(shape)}, sound gives [1,{piece.shape[-1]}]: set window with "
            "--preprocess, or give a Python function as module.py:function"
        )
    return np.asarray(piece.reshape([1] * (len(shape) - 1) + [piece.shape[-1]]))


def _note(resolved: Resolved[AudioSteps], port: Port, rates: set[int]) -> tuple[str, ...]:
    steps = resolved.steps
    window = f"windows of {steps.window} samples" if steps.window else "whole recordings"
    rate = f"at {steps.rate_hz} Hz" if steps.rate_hz else f"at their own {max(rates)} Hz" if rates else ""
    return (f"sound becomes {port.name!r} as {window} {rate}, {steps.normalise} normalisation (set with --preprocess)",)
