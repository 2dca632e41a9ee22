"""One peer makes one variant: `python peer.py PEER MODEL SAMPLES.npz OUT.onnx`, run in the peer's own environment.

Each is used as its documentation shows it first, with no exclusions set by hand.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

Feed = dict[str, Any]


def read(path: Path) -> list[Feed]:
    feeds: dict[int, Feed] = {}
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            number, _, name = key.partition(".")
            feeds.setdefault(int(number), {})[name] = archive[key]
    return [feeds[number] for number in sorted(feeds)]


class Reader:
    """Calibration samples as onnxruntime takes them."""

    def __init__(self, feeds: list[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def ort_static(model: Path, feeds: list[Feed], out: Path, *, preprocess: bool = True, **options: Any) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    reader = type("SampleReader", (Reader, CalibrationDataReader), {})(feeds)
    with TemporaryDirectory() as scratch:
        prepared = Path(scratch) / "prepared.onnx"
        try:
            quant_pre_process(str(model), str(prepared))
        except Exception as error:
            print(f"its pre-processing fails ({str(error).splitlines()[0][:80]}); without it")
            shutil.copy(model, prepared)
        quantize_static(
            str(prepared),
            str(out),
            reader,
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            **options,
        )


def ort_dynamic(model: Path, _: list[Feed], out: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(str(model), str(out), weight_type=QuantType.QUInt8)


def nncf_mixed(model: Path, feeds: list[Feed], out: Path) -> None:
    import nncf
    import onnx

    proto = onnx.load(model)
    dataset = nncf.Dataset(feeds, lambda feed: feed)
    quantized = nncf.quantize(proto, dataset, preset=nncf.QuantizationPreset.MIXED, subset_size=len(feeds))
    onnx.save(quantized, out)


def olive_static(model: Path, feeds: list[Feed], out: Path) -> None:
    """A workflow of one pass, as its documentation of quantization writes it; all of the pass is as it comes."""
    import olive
    from olive.data.registry import Registry
    from torch.utils.data import Dataset

    class Samples(Dataset[tuple[Feed, int]]):
        def __len__(self) -> int:
            return len(feeds)

        def __getitem__(self, number: int) -> tuple[Feed, int]:
            return feeds[number], 0  # The label, which calibration does not read.

    Registry.register_dataset("benchmark_samples")(lambda **_: Samples())
    data = {
        "name": "calibration",
        "type": "DataContainer",
        "load_dataset_config": {"type": "benchmark_samples"},
        "pre_process_data_config": {"type": "skip_pre_process"},
        "post_process_data_config": {"type": "skip_post_process"},
        # The samples have their batch axis already.
        "dataloader_config": {"type": "no_auto_batch_dataloader"},
    }
    config = {
        "input_model": {"type": "ONNXModel", "model_path": str(model)},
        "data_configs": [data],
        "passes": {"quantized": {"type": "OnnxStaticQuantization", "data_config": "calibration"}},
    }
    with TemporaryDirectory() as scratch:
        olive.run({**config, "output_dir": f"{scratch}/out", "cache_dir": f"{scratch}/cache"})
        shutil.copy(_only_model(Path(scratch) / "out"), out)


def olive_command(model: Path, _: list[Feed], out: Path) -> None:
    """Its command in one line, which takes samples from data sets of a hub alone: what it does without any."""
    command = [sys.executable, "-m", "olive", "quantize", "--model_name_or_path", str(model), "--precision", "int8"]
    with TemporaryDirectory() as scratch:
        subprocess.run(
            [*command, "--implementation", "ort", "--output_path", scratch, "--disable_telemetry"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        shutil.copy(_only_model(Path(scratch)), out)


def _only_model(folder: Path) -> Path:
    found = sorted(folder.rglob("*.onnx"))
    if not found:
        sys.exit("it ends without an error and without a model")
    return found[0]


PEERS: dict[str, Callable[[Path, list[Feed], Path], None]] = {
    "ort-static-per-channel": lambda model, feeds, out: ort_static(model, feeds, out, per_channel=True),
    "ort-static-per-tensor": lambda model, feeds, out: ort_static(model, feeds, out, per_channel=False),
    "ort-dynamic": ort_dynamic,
    "nncf-mixed": nncf_mixed,
    "olive-static": olive_static,
    "olive-quantize": olive_command,
}

if __name__ == "__main__":
    PEERS[sys.argv[1]](Path(sys.argv[2]), read(Path(sys.argv[3])), Path(sys.argv[4]))
