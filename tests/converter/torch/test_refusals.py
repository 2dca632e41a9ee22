"""What cannot be converted is told in one line, with what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.converter.torch import networks
from tests.converter.torch.road import NETWORKS, go

from autoglm_edge_converter.errors import (
    BadModel,
    BadOption,
    BrokenWeights,
    ConversionError,
    MissingWeights,
    ModelDoesNotRun,
    NotAModel,
    UserCodeFailed,
)

SHAPE = {"input": (1, 4)}


def test_control_flow_on_values_is_refused_with_its_line(tmp_path: Path) -> None:
    lines = NETWORKS.read_text().splitlines()
    number = next(n for n, line in enumerate(lines, 1) if "the line that is refused" in line)
    with pytest.raises(BadModel, match=rf"networks\.py line {number}, in forward.*torch\.where"):
        go("branching", tmp_path, {"x": (1, 4)})


def test_a_pickled_module_is_refused_without_reading_it(tmp_path: Path) -> None:
    torch.save(networks.linear(), tmp_path / "model.pt")
    with pytest.raises(NotAModel, match=r"pickle.*module\.py:factory with --state-dict"):
        go(tmp_path / "model.pt", tmp_path, {})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.trace(networks.linear(), torch.zeros(1, 4)).save(str(tmp_path / "model.pt"))
    with pytest.raises(NotAModel, match=r"TorchScript.*torch\.export\.save"):
        go(tmp_path / "model.pt", tmp_path, {})


def test_a_factory_that_gives_torchscript_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAModel, match=r"networks\.py:scripted gives TorchScript.*torch\.export\.save"):
        go("scripted", tmp_path, SHAPE)


def test_a_program_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(networks.linear().eval(), (torch.zeros(1, 4),)), tmp_path / "whole.pt2")
    whole = (tmp_path / "whole.pt2").read_bytes()
    (tmp_path / "half.pt2").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(NotAModel, match="cut short"):
        go(tmp_path / "half.pt2", tmp_path, {})


def test_a_program_exported_in_training_mode_is_refused(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout())
    torch.export.save(torch.export.export(module, (torch.zeros(1, 4),)), tmp_path / "model.pt2")
    with pytest.raises(BadModel, match=r"training mode \(dropout\): call model\.eval\(\)"):
        go(tmp_path / "model.pt2", tmp_path, {})


def test_a_buffer_that_is_read_at_the_next_call_is_refused(tmp_path: Path) -> None:
    line = "forward changes the buffer 'mean' .* --state before=after"
    with pytest.raises(BadModel, match=line):
        go("remembering", tmp_path / "factory", {"x": (1, 4)})
    program = torch.export.export(networks.remembering().eval(), (torch.zeros(1, 4),))
    torch.export.save(program, tmp_path / "model.pt2")
    with pytest.raises(BadModel, match=line):
        go(tmp_path / "model.pt2", tmp_path / "program", {})


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokenWeights, match="'bias' holds NaN"):
        go("not_a_number", tmp_path, SHAPE)


def test_a_state_dict_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(4, 5).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(BadOption, match="in another shape bias, weight"):
        go("linear", tmp_path, SHAPE, state_dict=str(tmp_path / "weights.pt"))
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(BadOption, match="lacks bias, weight"):
        go("linear", tmp_path, SHAPE, state_dict=str(tmp_path / "other.pt"))
    torch.save({"model.weight": torch.zeros(4, 4)}, tmp_path / "part.pt")
    with pytest.raises(BadOption, match="lacks bias, weight"):
        go("linear", tmp_path, SHAPE, state_dict=str(tmp_path / "part.pt"))


def test_a_state_dict_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save(networks.linear(), tmp_path / "module.pt")
    with pytest.raises(BadOption, match="holds more than weights"):
        go("linear", tmp_path, SHAPE, state_dict=str(tmp_path / "module.pt"))


def test_a_state_dict_that_is_no_file_or_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingWeights, match="is not a file"):
        go("linear", tmp_path, SHAPE, state_dict=str(tmp_path / "none.pt"))
    (tmp_path / "short.safetensors").write_bytes(b"\x08")
    with pytest.raises(BadOption, match="cannot be read"):
        go("linear", tmp_path, SHAPE, state_dict=str(tmp_path / "short.safetensors"))


@pytest.mark.parametrize(
    ("factory", "line"),
    [
        ("missing", "has no function 'missing'"),
        ("no_module", r"gives int, not a torch\.nn\.Module"),
        ("broken", r"networks\.py line \d+, in broken: RuntimeError: no such thing"),
    ],
)
def test_a_factory_that_gives_no_module_is_told(factory: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(UserCodeFailed, match=line):
        go(factory, tmp_path, SHAPE)


def test_shapes_that_do_not_fit_are_told(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match=r"'x' is no argument of the module's forward\(input\)"):
        go("linear", tmp_path, {"x": (1, 4)})
    with pytest.raises(BadOption, match="--shape left="):
        go("two_inputs", tmp_path, {"right": (1, 4)})
    with pytest.raises(ModelDoesNotRun, match="input=1x5 float32"):
        go("linear", tmp_path, {"input": (1, 5)})


def test_shapes_that_contradict_the_example_inputs_are_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "call.npz", input=np.zeros((1, 4), np.float32))
    for shape in ((-1, 5), (-1, 2, 2)):
        with pytest.raises(
            BadOption, match=r"--shape input=-1,.* contradicts --example-inputs call\.npz, which has 1,4"
        ):
            go("linear", tmp_path, {"input": shape}, example_inputs=str(tmp_path / "call.npz"))


def test_shapes_that_do_not_fit_a_program_are_told(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(networks.linear().eval(), (torch.zeros(1, 4),)), tmp_path / "model.pt2")
    with pytest.raises(BadOption, match="--shape names 'x', but the program's inputs are: input"):
        go(tmp_path / "model.pt2", tmp_path, {"x": (1, 4)})
    with pytest.raises(BadOption, match="--shape input=2,4: the program was exported for 1,4"):
        go(tmp_path / "model.pt2", tmp_path, {"input": (2, 4)})


def test_example_inputs_without_names_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros((1, 4), np.float32))
    with pytest.raises(BadOption, match="without a name"):
        go("linear", tmp_path, {}, example_inputs=str(tmp_path / "one.npy"))


def test_options_of_a_factory_do_not_go_with_a_program(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(networks.linear().eval(), (torch.zeros(1, 4),)), tmp_path / "model.pt2")
    with pytest.raises(BadOption, match=r"--finetune goes with a model given as module\.py:factory"):
        go(tmp_path / "model.pt2", tmp_path, {}, finetune="a.py:b")


def test_a_missing_package_is_told_with_how_to_install_it() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from autoglm_edge_converter.roads.pytorch import depart\n"
        "try: depart({}, print)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("MissingPackage PyTorch models need the package torch")
    assert "pip install 'autoglm-edge-converter[torch]'" in said


def test_pruning_needs_a_fraction_and_code_that_trains(tmp_path: Path) -> None:
    shapes = {"input": (1, 3, 32, 32)}
    with pytest.raises(BadOption, match="--finetune goes with --prune FRACTION"):
        go("resnet", tmp_path, shapes, (), finetune=f"{NETWORKS}:train")
    with pytest.raises(ConversionError, match=r"networks\.py line \d+, in train_badly: ValueError: no data"):
        go("resnet", tmp_path, shapes, (), finetune=f"{NETWORKS}:train_badly", prune="0.3")
