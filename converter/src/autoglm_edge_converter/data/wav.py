"""Reading WAV files (RIFF, PCM of 8, 16, 24 or 32 bits) with the standard library."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autoglm_edge_converter.errors import UnreadableSample
from autoglm_edge_converter.limits import DATA_LIMITS

_BYTES = (1, 2, 3, 4)


@dataclass(frozen=True)
class WavHeader:
    """What a file says of itself."""

    rate_hz: int
    frames: int


def read_header(path: Path) -> WavHeader:
    """Return rate and length of a file. Raises UnreadableSample."""
    with _opened(path) as file:
        return WavHeader(file.getframerate(), file.getnframes())


def read_wav(path: Path) -> tuple[npt.NDArray[np.float64], int]:
    """Return the mean of the channels, float64 [samples] in -1..1, and the rate in Hz. Raises UnreadableSample."""
    with _opened(path) as file:
        width, channels, frames = file.getsampwidth(), file.getnchannels(), file.getnframes()
        try:
            data = file.readframes(frames)
        except (wave.Error, EOFError, OSError, ValueError) as error:
            raise UnreadableSample(f"{path} is cut short ({error}): record or copy it again") from None
        if len(data) < frames * width * channels:
            raise UnreadableSample(
                f"{path} is cut short: {len(data)} of {frames * width * channels} bytes: record or copy it again"
            )
        numbers = _numbers(data, width).reshape(-1, channels)
        return np.asarray(numbers.mean(axis=1), np.float64), file.getframerate()


def _opened(path: Path) -> wave.Wave_read:
    try:
        size_bytes = path.stat().st_size
        if size_bytes > DATA_LIMITS.sound_file_bytes:
            raise UnreadableSample(f"{path} has more than {DATA_LIMITS.sound_file_bytes} bytes: cut it into pieces")
        file = wave.open(str(path), "rb")  # noqa: SIM115  # the caller closes it
    except UnreadableSample:
        raise
    except Exception as error:
        # wave raises its own, EOFError, struct.error and ZeroDivisionError on damaged headers.
        reason = str(error) or "it ends too early"
        raise UnreadableSample(
            f"{path} cannot be read as WAV ({reason}): write it as PCM of 8, 16, 24 or 32 bits"
        ) from None
    problem = _problem(file, size_bytes)
    if problem:
        file.close()
        raise UnreadableSample(f"{path} {problem}")
    return file


def _problem(file: wave.Wave_read, size_bytes: int) -> str | None:
    if file.getsampwidth() not in _BYTES:
        return f"has {8 * file.getsampwidth()} bits a sample: write it as PCM of 8, 16, 24 or 32 bits"
    if file.getnframes() == 0:
        return "holds no sound: take it away"
    promised = file.getnframes() * file.getnchannels() * file.getsampwidth()
    if promised > size_bytes:
        return f"is cut short: {size_bytes} bytes for {promised} of sound: record or copy it again"
    if not 1 <= file.getnchannels() <= DATA_LIMITS.sound_channels:
        return f"has {file.getnchannels()} channels, at most {DATA_LIMITS.sound_channels} are read"
    if not 1000 <= file.getframerate() <= 384_000:
        return f"has a rate of {file.getframerate()} Hz, outside 1000 to 384000: its header is damaged"
    return None


def _numbers(data: bytes, width: int) -> npt.NDArray[np.float64]:
    """8 bits are unsigned around 128; the others are signed, little endian."""
    if width == 1:
        return (np.frombuffer(data, np.uint8).astype(np.float64) - 128) / 128
    if width == 3:
        octets = np.frombuffer(data, np.uint8).reshape(-1, 3).astype(np.int32)
        whole = octets[:, 0] | octets[:, 1] << 8 | octets[:, 2] << 16
        return np.asarray((whole - ((whole & 0x800000) << 1)) / 2.0**23, np.float64)
    return np.frombuffer(data, "<i2" if width == 2 else "<i4").astype(np.float64) / 2.0 ** (8 * width - 1)
