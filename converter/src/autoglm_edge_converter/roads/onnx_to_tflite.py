"""From an ONNX file to a float TFLite file with the same inputs and outputs, by onnx2tf in an environment of its own.

onnx2tf may crash, hang, write operators that no runtime has, or write a graph that computes something else. So it
runs in a process with a time limit, and its file is believed only after it has given the ONNX file's answers.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx

from autoglm_edge_converter.environments import ENVIRONMENTS, ready_environment
from autoglm_edge_converter.errors import CandidateFailed, ConversionError
from autoglm_edge_converter.laboratory import Answers, Laboratory
from autoglm_edge_converter.original import TFLITE, Rendition
from autoglm_edge_converter.progress import Progress
from autoglm_edge_converter.roads.fixed_shapes import fixed_graph, random_feeds, slimmed
from autoglm_edge_converter.roads.tflite_layout import axes_to_restore, make_scalars, transpose_outputs
from autoglm_edge_converter.source import all_nodes
from autoglm_edge_converter.tensors import Array, Feed, Port, output_ports
from autoglm_edge_converter.tflite.flatbuffer import TfliteModel, read_model
from autoglm_edge_converter.tflite.operators import foreign_operators
from autoglm_edge_converter.tflite.ports import rename_ports
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.golden import compare

ENVIRONMENT = "onnx2tf"
LEAST_SQNR_DB = 60.0
"""Other kernels and orders of sums leave 95 dB and more of a float network; a wrong graph leaves 10."""
LEAST_EQUAL = 0.99
"""Of an integer output's elements: an index may fall to the other side where two numbers are as good as equal."""
MOST_SAMPLES = 4
CONVERTING_S = 600.0

_PROGRAM = Path("isolated") / "programs" / "onnx_to_tflite.py"


class _Refused(Exception):
    """This road does not lead to a faithful file; the text is one line."""


@dataclass(frozen=True)
class _Case:
    """What a file must answer."""

    laboratory: Laboratory
    outputs: tuple[str, ...]
    expected: Answers

    def answers(self, path: Path) -> Answers:
        """Return a file's answers. Raises _Refused."""
        try:
            return self.laboratory.run(path, range(len(self.expected)))
        except CandidateFailed as error:
            raise _Refused(f"{path.name} does not run: {str(error)[:200]}") from None


def road() -> str:
    """Return what makes the file, with its version: `onnx2tf 2.6.9`."""
    return f"onnx2tf {ENVIRONMENTS[ENVIRONMENT].pins[ENVIRONMENT]}"


def to_tflite(
    model: Path,
    out: Path,
    shapes: Mapping[str, Sequence[int]],
    progress: Progress,
    feeds: Sequence[Feed] = (),
    converting_s: float = CONVERTING_S,
) -> Rendition:
    """Write a float TFLite file of an ONNX model to `out` and return it as a rendition, or why it could not be had.

    Names, order, layout, shapes and dtypes of inputs and outputs are the ONNX file's; free axes have the sizes of
    `shapes`, a free first one is 1. `feeds` are a few inputs of these shapes to compare with, random ones where there
    are none. Files of its own go beside `out`. Raises OSError.
    """
    scratch = out.with_name(f"{out.name}.scratch")
    disk = Disk()
    disk.remove_tree(scratch)
    disk.make_directories(scratch)
    try:
        data = _convert(model, scratch, shapes, progress, feeds, converting_s)
        disk.commit(out, data)
        return Rendition(TFLITE, out, road())
    except (_Refused, ConversionError) as error:
        return Rendition(TFLITE, None, road(), problem=str(error))
    finally:
        disk.remove_tree(scratch)


def _convert(
    model: Path,
    scratch: Path,
    shapes: Mapping[str, Sequence[int]],
    progress: Progress,
    feeds: Sequence[Feed],
    converting_s: float,
) -> bytes:
    """Return the file. Raises _Refused, ConversionError, OSError."""
    python = ready_environment(ENVIRONMENT, progress)
    progress.stage("from ONNX to TFLite", 3)
    proto, inputs = fixed_graph(model, shapes)
    outputs = tuple(port.name for port in output_ports(proto.graph))
    samples = list(feeds[:MOST_SAMPLES]) or random_feeds(inputs, MOST_SAMPLES)
    plain = scratch / "fixed.onnx"
    onnx.save(proto, plain)
    with Laboratory(samples, scratch) as laboratory:
        case = _Case(laboratory, outputs, laboratory.run(model, range(len(samples))))
        ready = _prepared(proto, plain, case)
        progress.step("shapes fixed")
        written = _onnx2tf(python, ready, scratch, [port.name for port in inputs], converting_s)
        progress.step(road())
        data = written.read_bytes()
        _check_operators(data, proto)
        data = _with_ports(data, inputs, case, scratch / "written.tflite")
        progress.step("compared with the original")
    return data


def _prepared(proto: onnx.ModelProto, plain: Path, case: _Case) -> Path:
    """Return the path of the folded graph where it answers alike, else of the plain one. Raises _Refused."""
    folded = slimmed(proto)
    if folded is not None:
        path = plain.with_name("slimmed.onnx")
        onnx.save(folded, path)
        with suppress(_Refused):
            _compare(case, case.answers(path))
            return path
    try:
        _compare(case, case.answers(plain))
    except _Refused as refusal:
        raise _Refused(f"with its free axes fixed, the ONNX model answers otherwise or not at all: {refusal}") from None
    return plain


def _onnx2tf(python: Path, model: Path, scratch: Path, inputs: Sequence[str], converting_s: float) -> Path:
    program = Path(str(files("autoglm_edge_converter"))) / _PROGRAM
    command = [str(python), "-I", str(program), str(model), str(scratch / "written"), *inputs]
    log = scratch / "onnx2tf.log"
    with log.open("w") as errors_to:
        # It starts processes of its own, which must end with it.
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors_to, text=True, cwd=scratch, start_new_session=True
        )
        try:
            said, _ = process.communicate(timeout=converting_s)
        except subprocess.TimeoutExpired:
            raise _Refused(f"it did not end within {converting_s:.0f} s") from None
        finally:
            _end_group(process)
    with suppress(ValueError, IndexError):
        told = json.loads(said.splitlines()[-1])
        if "path" in told:
            return Path(told["path"])
        raise _Refused(f"it refuses the model: {told['error']}")
    raise _Refused(f"it crashed: {_last_words(process.returncode, log)}")


def _end_group(process: subprocess.Popen[str]) -> None:
    if sys.platform != "win32":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _last_words(code: int, log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    reason = f"ended by signal {-code}" if code < 0 else f"ended with code {code}"
    return f"{reason}: {lines[-1][:200]}" if lines and code > 0 else reason


def _check_operators(data: bytes, proto: onnx.ModelProto) -> None:
    """Raises _Refused with the ONNX operator for which onnx2tf wrote one of its own, that no runtime has."""
    for custom in foreign_operators(read_model(data, "what onnx2tf wrote")):
        kind = custom.removeprefix("ONNX_")
        node = next((node for node in all_nodes(proto.graph) if node.op_type.upper() == kind), None)
        name = f"{node.op_type} (node {node.name!r})" if node is not None else custom
        raise _Refused(f"TFLite has no operator for {name}, and onnx2tf knows no replacement")


def _with_ports(data: bytes, inputs: Sequence[Port], case: _Case, path: Path) -> bytes:
    """Return the file with the original's inputs and outputs, compared. Raises _Refused, ConversionError."""
    names = [port.name for port in inputs]
    named = rename_ports(data, names, case.outputs)
    scalars = [place for place, port in enumerate(inputs) if port.shape == ()]
    named = make_scalars(named, scalars) if scalars else named
    _check_inputs(read_model(named), inputs)
    path.write_bytes(named)
    found = case.answers(path)
    axes = {}
    for number in range(len(case.outputs)):
        order = axes_to_restore(_output(case.expected, number), _output(found, number))
        if order is not None:
            axes[number] = order
    if axes:
        named = rename_ports(transpose_outputs(named, axes), names, case.outputs)
        path.write_bytes(named)
        found = case.answers(path)
    _compare(case, found)
    return named


def _check_inputs(written: TfliteModel, inputs: Sequence[Port]) -> None:
    for ours, theirs in zip(inputs, written.inputs, strict=True):
        if ours != theirs:
            hint = "" if ours.dtype == theirs.dtype else f": export it with inputs and outputs in {theirs.dtype}"
            raise _Refused(f"it made {_told(theirs)} of input {ours.name!r}, which is {_told(ours)}{hint}")


def _told(port: Port) -> str:
    return f"{port.dtype} [{', '.join('?' if axis is None else str(axis) for axis in port.shape or ())}]"


def _output(answers: Answers, number: int) -> list[Array]:
    return [np.asarray(sample[number]) for sample in answers]


def _compare(case: _Case, found: Answers) -> None:
    """Raises _Refused with the figure where an output is not the original's."""
    for number, name in enumerate(case.outputs):
        ours, theirs = _output(case.expected, number), _output(found, number)
        if ours[0].shape != theirs[0].shape or ours[0].dtype != theirs[0].dtype:
            raise _Refused(
                f"output {name!r} is {theirs[0].dtype} {list(theirs[0].shape)} in the TFLite file, "
                f"{ours[0].dtype} {list(ours[0].shape)} in the original"
            )
        agreement = compare(ours, theirs)
        if not agreement.finite:
            raise _Refused(f"output {name!r} of the TFLite file is NaN or infinite where the original's is not")
        if ours[0].dtype.kind != "f" and agreement.equal < LEAST_EQUAL:
            raise _Refused(f"the TFLite file computes something else: {agreement.equal:.1%} of {name!r} are equal")
        if agreement.sqnr_db is not None and agreement.sqnr_db < LEAST_SQNR_DB:
            raise _Refused(
                f"the TFLite file computes something else: {name!r} is {agreement.sqnr_db:.1f} dB from the original's, "
                f"at least {LEAST_SQNR_DB:.0f} needed"
            )
