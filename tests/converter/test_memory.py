"""Too little memory: in the main process it is one line, in a candidate's process a finding, and the next one runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.converter.graphs import linear, linear_samples

from autoglm_edge_converter.candidates import Candidates
from autoglm_edge_converter.data.reading import read_data
from autoglm_edge_converter.deadline import Deadline
from autoglm_edge_converter.float_graphs import FloatGraph
from autoglm_edge_converter.laboratory import Answers, Laboratory
from autoglm_edge_converter.loading import Loading, load_original
from autoglm_edge_converter.memory import ran_out
from autoglm_edge_converter.progress import Silent
from autoglm_edge_converter.recipes import OPTIMISED, Candidate, Recipe
from autoglm_edge_converter.workbench import open_workbench

SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
from autoglm_edge_converter import ConversionError, Options, convert

class Short:
    "Leaves the process 16 MB more than it has when the search begins: one activation of the model has 64."
    def stage(self, name, steps):
        if name == "search":
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 16 * 2**20,) * 2)
    def step(self, what): pass
    def note(self, text): pass

try:
    convert(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Options(workers=1), Short())
except ConversionError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def wide(path: Path) -> Path:
    """x [N,1,512,512] -> 64 channels of 512 x 512 -> their mean: 64 MB on the way."""
    weight = np.random.default_rng(0).normal(size=(64, 1, 1, 1)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], "c"),
            helper.make_node("Relu", ["c"], ["r"], "r"),
            helper.make_node("GlobalAveragePool", ["r"], ["y"], "y"),
        ],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 1, 512, 512))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", 64, 1, 1))],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space, which other systems do not")
def test_a_main_process_without_memory_says_so_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", x=np.random.default_rng(1).random((6, 1, 512, 512), np.float32))
    words = [str(wide(tmp_path / "m.onnx")), str(tmp_path / "s.npz"), str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", SHORT_OF_MEMORY, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("OutOfMemory: not enough memory to convert ")
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("*"))


class Deadly(Laboratory):
    """Kills the process of one run as the system does where memory is short, once it has begun to answer."""

    victims = 1

    def run(self, model: Path, samples: Sequence[int]) -> Answers:
        if not model.name.startswith("candidate-") or not self.victims:
            return super().run(model, samples)
        self.victims -= 1
        (worker,) = self.workers
        assert worker.process is not None
        # Stopped first: it cannot answer before it is killed.
        os.kill(worker.process.pid, signal.SIGSTOP)
        killer = threading.Timer(0.1, os.kill, (worker.process.pid, signal.SIGKILL))
        killer.start()
        try:
            return super().run(model, samples)
        finally:
            killer.join()


def test_a_candidate_that_is_killed_is_a_finding_and_the_next_one_is_tried(tmp_path: Path) -> None:
    source = load_original(str(linear(tmp_path / "m.onnx")), Loading(), tmp_path, Silent())
    data = read_data(linear_samples(tmp_path / "s.npz"), source.inputs, 0)
    with Deadly(data.feeds, tmp_path) as laboratory:
        bench = open_workbench(source, data, laboratory, tmp_path)
        graphs = [FloatGraph(OPTIMISED, source.proto)]
        tried = Candidates(graphs, bench, Silent(), Deadline(1000)).attempt(
            [Candidate(Recipe("min-max")), Candidate(Recipe("percentile"))]
        )
    assert tried[0].score is None
    assert tried[0].problem == "the process was killed (out of memory?)"
    assert tried[1].problem is None
    assert tried[1].score is not None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc"), True),
        (RuntimeError("can't start new thread"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (OSError(28, "No space left on device"), False),
        (ValueError("shapes do not fit"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_who_says_that_memory_ran_out(error: BaseException, expected: bool) -> None:
    assert ran_out(error) == expected
