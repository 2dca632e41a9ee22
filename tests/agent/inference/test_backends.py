"""Each backend with real files: what it answers, what it refuses, and where the nodes ran."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tests.fakes.onnx_writer import INT8, linear_model, running_sum_model, shaped_identity_model
from tests.fakes.tflite_layers import INPUT_SCALE, OUTPUT_SCALE, linear_tflite

from autoglm_edge_agent.inference.backends import Session, load_backend
from autoglm_edge_agent.inference.backends.graph_cache import MOST_GRAPHS, GraphCache
from autoglm_edge_agent.inference.backends.onnx_profile import providers_by_profile
from autoglm_edge_agent.inference.conversion import Converted, in_file, quantized
from autoglm_edge_agent.inference.errors import ModelUnusable
from autoglm_edge_agent.inference.options import SessionOptions
from autoglm_edge_agent.inference.runtimes import installed_runtimes
from autoglm_edge_agent.inference.state import Stateful
from autoglm_edge_agent.inference.trial import MODELS as TRIAL_MODELS
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.manifest import State, Stored, TensorSpec

RANDOM = np.random.default_rng(7)
WEIGHTS = RANDOM.standard_normal((16, 4), dtype=np.float32) / np.float32(4)
BIAS = RANDOM.standard_normal(4, dtype=np.float32)
X = RANDOM.standard_normal((1, 16), dtype=np.float32)
INPUTS = [TensorSpec(name="x", datatype="FP32", shape=(1, 16))]
OUTPUTS = [TensorSpec(name="y", datatype="FP32", shape=(1, 4))]

TFLITE = [name for name in ("litert", "tflite") if name in installed_runtimes()]
with_tflite = pytest.mark.skipif(not TFLITE, reason="no TFLite runtime is installed here")


def _write(directory: Path, data: bytes) -> Path:
    path = directory / "model"
    path.write_bytes(data)
    return path


def _open(runtime: str, path: Path, **options: object) -> Session:
    return load_backend(runtime).open(path, INPUTS, OUTPUTS, SessionOptions.model_validate(options))


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    return _write(tmp_path, linear_model(WEIGHTS, BIAS))


@pytest.mark.parametrize("options", [{}, {"threads": 2, "spinning": True}, {"optimisation": "none"}, {"strict": True}])
def test_onnxruntime_answers_with_every_option(onnx: Path, options: dict[str, object]) -> None:
    session = _open("onnxruntime", onnx, **options)
    np.testing.assert_allclose(session.run([X])[0], X @ WEIGHTS + BIAS, rtol=1e-5, atol=1e-6)
    assert set(session.placement()) == {"cpu"}


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "qnn", "openvino", "NoSuchPlugin"])
@pytest.mark.parametrize("strict", [False, True])
def test_a_provider_that_is_not_there_is_no_silent_fall_back(onnx: Path, provider: str, strict: bool) -> None:
    if provider in load_backend("onnxruntime").providers():
        pytest.skip(f"this ONNX Runtime has {provider}")
    with pytest.raises(ModelUnusable, match=provider if not strict else "."):
        _open("onnxruntime", onnx, provider=provider, strict=strict)


def test_onnxruntime_says_what_is_wrong_with_inputs(onnx: Path) -> None:
    session = _open("onnxruntime", onnx)
    with pytest.raises(ValueError, match="x"):
        session.run([X[:, :3]])


@pytest.mark.parametrize("runtime", TFLITE)
@pytest.mark.parametrize("provider", ["", "cpu", "xnnpack"])
def test_tflite_answers(tmp_path: Path, runtime: str, provider: str) -> None:
    session = _open(runtime, _write(tmp_path, linear_tflite(WEIGHTS, BIAS)), provider=provider, strict=True)
    np.testing.assert_allclose(session.run([X])[0], X @ WEIGHTS + BIAS, rtol=1e-5, atol=1e-6)
    assert session.placement() == {provider or "xnnpack": 1}


@pytest.mark.parametrize("runtime", TFLITE)
def test_tflite_takes_real_numbers_for_a_quantized_file(tmp_path: Path, runtime: str) -> None:
    session = _open(runtime, _write(tmp_path, linear_tflite(WEIGHTS, BIAS, int8=True)))
    (y,) = session.run([X])
    assert y.dtype == np.float32
    # Each of 16 inputs is off by half a step at most, and so are weights and the answer itself.
    bound = OUTPUT_SCALE / 2 + np.abs(WEIGHTS).sum(axis=0) * INPUT_SCALE / 2 + 16 * np.abs(WEIGHTS).max() / 254 * 3
    assert (np.abs(y - (X @ WEIGHTS + BIAS)) <= bound).all()
    np.testing.assert_allclose(y / OUTPUT_SCALE, np.rint(y / OUTPUT_SCALE), atol=1e-4)


@pytest.mark.parametrize("runtime", TFLITE)
def test_what_a_delegate_leaves_to_the_cpu_is_counted_and_refused_where_that_is_asked_for(
    tmp_path: Path, runtime: str
) -> None:
    path = _write(tmp_path, linear_tflite(WEIGHTS, BIAS, normalised=True))
    session = _open(runtime, path, provider="xnnpack")
    expected = X @ WEIGHTS + BIAS
    np.testing.assert_allclose(session.run([X])[0], expected / np.linalg.norm(expected), rtol=1e-4, atol=1e-5)
    assert session.placement() == {"xnnpack": 1, "cpu": 1}
    with pytest.raises(ModelUnusable, match="1 nodes would run on the CPU and not on xnnpack"):
        _open(runtime, path, provider="xnnpack", strict=True)
    assert _open(runtime, path, provider="cpu", strict=True).placement() == {"cpu": 2}


DELEGATE = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* TfLiteDelegate, as tensorflow/lite/core/c/common.h has it. This one takes no node. */
typedef struct Delegate {
  void *data;
  int (*prepare)(void *, struct Delegate *);
  void *copy_from, *copy_to, *free_buffer;
  int64_t flags;
  void *builder;
} Delegate;
static int prepare(void *context, Delegate *self) { return 0; }
Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
  for (size_t i = 0; i < count; i++)
    if (!strcmp(keys[i], "mood") && !strcmp(values[i], "good")) {
      Delegate *made = calloc(1, sizeof *made);
      made->prepare = prepare;
      return made;
    }
  report("not in the mood");
  return NULL;
}
void tflite_plugin_destroy_delegate(Delegate *delegate) { free(delegate); }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("runtime", TFLITE)
@pytest.mark.parametrize(
    ("options", "message"), [({"mood": "good"}, "the delegate mine takes no node of it"), ({}, "cannot load it")]
)
def test_a_delegate_of_a_third_party_gets_its_options_and_is_no_silent_fall_back(
    tmp_path: Path, runtime: str, options: dict[str, str], message: str
) -> None:
    library = tmp_path / "libmine.so"
    compiler = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(compiler, input=DELEGATE.encode(), check=True, timeout=60)
    path = _write(tmp_path, linear_tflite(WEIGHTS, BIAS))
    with pytest.raises(ModelUnusable, match=message):
        _open(runtime, path, provider="mine", provider_options={"library": str(library), **options})


@pytest.mark.parametrize("runtime", TFLITE)
@pytest.mark.parametrize(
    ("change", "message"),
    [({"provider": "edgetpu"}, "edgetpu"), ({"provider": "mine"}, "mine"), ({}, "cannot load")],
)
def test_what_tflite_cannot_use_is_said(tmp_path: Path, runtime: str, change: dict[str, str], message: str) -> None:
    data = linear_tflite(WEIGHTS, BIAS) if change else b"no model"
    if change.get("provider") in load_backend(runtime).providers():
        pytest.skip("this machine has it")
    with pytest.raises(ModelUnusable, match=message):
        _open(runtime, _write(tmp_path, data), **change)


@pytest.mark.parametrize(
    ("runtime", "package"), [("no-such-runtime", ""), ("litert", "ai_edge_litert"), ("tflite", "tflite_runtime")]
)
def test_a_runtime_that_is_not_installed_is_said(runtime: str, package: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        f"from autoglm_edge_agent.inference.backends import load_backend\nload_backend({runtime!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert re.search(rf"ModelUnusable: the runtime {runtime} .*{package}", done.stderr.splitlines()[-1]), done.stderr


def test_a_state_goes_in_again_and_is_forgotten_at_a_reset(tmp_path: Path) -> None:
    path = _write(tmp_path, running_sum_model(3))
    x, y = (TensorSpec(name=name, datatype="FP32", shape=(1, 3)) for name in ("x", "y"))
    state = State(input=TensorSpec(name="before", datatype="FP32", shape=(1, 3)), output="after")
    inner = load_backend("onnxruntime").open(
        path, [x, state.input], [y, state.input.model_copy(update={"name": "after"})], SessionOptions()
    )
    session = Stateful(inner, [state])
    one = np.ones((1, 3), np.float32)
    assert [float(session.run([one])[0][0, 0]) for _ in range(3)] == [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="x"):
        session.run([one.astype(np.float64)])
    assert float(session.run([one])[0][0, 0]) == 4.0, "a refused run leaves the state as it was"
    session.reset()
    assert float(session.run([one])[0][0, 0]) == 1.0


def test_axes_datatypes_and_scales_of_the_file_are_converted(tmp_path: Path) -> None:
    how = Stored(datatype="INT8", axes=(0, 2, 3, 1), scale=0.5, zero_point=-10)
    x, y = (TensorSpec(name=name, datatype="FP32", shape=(1, 3, 4, 5), stored=how) for name in ("x", "y"))
    inner = load_backend("onnxruntime").open(
        _write(tmp_path, shaped_identity_model((1, 4, 5, 3), INT8)), [in_file(x)], [in_file(y)], SessionOptions()
    )
    image = RANDOM.uniform(-30, 30, x.shape).astype(np.float32)
    (back,) = Converted(inner, [x], [y]).run([image])
    assert (str(back.dtype), back.shape, back.flags.c_contiguous) == ("float32", image.shape, True)
    np.testing.assert_array_equal(back, np.rint(image / 0.5) * 0.5)


def test_quantizing_saturates_and_rounds_half_to_even() -> None:
    whole = quantized(np.array([-1e9, 0.25, 0.75, 1e9, np.nan], np.float32), 0.5, 3, np.uint8)
    assert whole.tolist() == [0, 3, 5, 255, 3]


def test_a_rewritten_graph_is_kept_used_and_made_anew_when_damaged(onnx: Path, tmp_path: Path) -> None:
    place = tmp_path / "graphs" / "fp32-key"
    answer = X @ WEIGHTS + BIAS
    np.testing.assert_allclose(_open("onnxruntime", onnx, cached_graph=place).run([X])[0], answer, rtol=1e-5, atol=1e-6)
    graph = place.with_suffix(".ort")
    assert sorted(path.name for path in place.parent.iterdir()) == ["fp32-key.ort", "fp32-key.sha256"]
    whole = graph.read_bytes()
    model = onnx.read_bytes()
    onnx.write_bytes(b"not read any more")
    np.testing.assert_allclose(_open("onnxruntime", onnx, cached_graph=place).run([X])[0], answer, rtol=1e-5, atol=1e-6)
    onnx.write_bytes(model)
    weights = WEIGHTS.tobytes()
    assert weights in whole
    graph.write_bytes(whole.replace(weights, bytes(len(weights))))  # well-formed, and wrong
    np.testing.assert_allclose(_open("onnxruntime", onnx, cached_graph=place).run([X])[0], answer, rtol=1e-5, atol=1e-6)
    assert graph.read_bytes() == whole


def test_a_graph_that_cannot_be_kept_does_not_keep_a_model_from_running(onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "graphs").write_text("no folder")
    session = _open("onnxruntime", onnx, cached_graph=tmp_path / "graphs" / "fp32-key")
    np.testing.assert_allclose(session.run([X])[0], X @ WEIGHTS + BIAS, rtol=1e-5, atol=1e-6)


def test_the_oldest_graphs_go(tmp_path: Path) -> None:
    cache = GraphCache(tmp_path, Disk())
    for number in range(MOST_GRAPHS + 2):
        draft = cache.draft(str(number))
        draft.write_bytes(bytes([number]))
        cache.keep(str(number), draft)
        os.utime(tmp_path / f"{number}.sha256", (number, number))
    found = [number for number in range(MOST_GRAPHS + 2) if cache.find(str(number))]
    assert found == list(range(2, MOST_GRAPHS + 2))
    assert len(list(tmp_path.iterdir())) == 2 * MOST_GRAPHS


def test_a_profile_tells_where_nodes_ran(onnx: Path) -> None:
    def load(prefix: Path) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.enable_profiling, options.profile_file_prefix = True, str(prefix)
        return onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])

    (counted,) = providers_by_profile(load, INPUTS).items()
    assert counted[0] == "CPUExecutionProvider"
    assert counted[1] >= 1
    wrong = INPUTS[0].model_copy(update={"shape": (1, 3)})
    assert not providers_by_profile(load, [wrong]), "inputs that the model does not take tell nothing"


def test_the_models_of_the_trials_are_what_these_writers_make() -> None:
    weights, bias = np.ones((8, 4), np.float32), np.full(4, 2, np.float32)
    assert (TRIAL_MODELS / "linear.onnx").read_bytes() == linear_model(weights, bias)
    if "litert" in TFLITE:
        assert (TRIAL_MODELS / "linear.tflite").read_bytes() == linear_tflite(weights, bias)
