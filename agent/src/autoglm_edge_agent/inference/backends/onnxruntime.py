"""ONNX Runtime, with the execution providers that it was built with and those that plug in."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from autoglm_edge_agent.inference.backends import Backend
from autoglm_edge_agent.inference.backends.graph_cache import GraphCache
from autoglm_edge_agent.inference.backends.onnx_profile import providers_by_profile
from autoglm_edge_agent.inference.errors import ModelUnusable
from autoglm_edge_agent.inference.options import SessionOptions
from autoglm_edge_protocol.durable import Disk
from autoglm_edge_protocol.manifest import TensorSpec

log = logging.getLogger(__name__)

CPU = "cpu"
PROVIDERS = {
    CPU: "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "acl": "ACLExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
"""What a person writes, and ONNX Runtime's name; any other name is a plug-in provider's own."""
PLUGIN_LIBRARY = "library"
"""Among the options of a plug-in provider: its library."""
_NAMES = {name: short for short, name in PROVIDERS.items()}
_LEVELS = {
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


class OnnxSession:
    """A model loaded by ONNX Runtime."""

    def __init__(
        self, session: Any, inputs: Sequence[str], outputs: Sequence[str], profiled: Callable[[], Counter[str]]
    ) -> None:
        self._session = session
        # What InferenceSession.run wraps: the names that it looks up for each run were looked up when it was opened.
        self._run = getattr(getattr(session, "_sess", None), "run", session.run)
        self._inputs = list(inputs)
        self._outputs = list(outputs)
        self._profiled = profiled

    def run(self, inputs: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """See `Session.run`."""
        try:
            result: list[npt.NDArray[Any]] = self._run(
                self._outputs, dict(zip(self._inputs, inputs, strict=True)), None
            )
        except Exception as error:
            # onnxruntime has no useful hierarchy of errors: what is raised here speaks of these inputs.
            raise ValueError(_first_line(error)) from None
        if not all(isinstance(output, np.ndarray) for output in result):
            raise ValueError("an output is no tensor")
        return result

    def bind(self, inputs: Sequence[npt.NDArray[Any]], outputs: list[npt.NDArray[Any]]) -> BoundOnnx | None:
        """See `Bindable.bind`. Accelerators have memory of their own, and write into ours when they like."""
        if self._session.get_providers() != [PROVIDERS[CPU]] or not all(each.size for each in (*inputs, *outputs)):
            return None
        try:
            return BoundOnnx(self, self._session, self._inputs, inputs, self._outputs, outputs)
        except Exception as error:  # as in `run`
            log.info("the model is not bound to its tensors: %s", _first_line(error))
            return None

    def reset(self) -> None:
        """See `Session.reset`. A graph of ONNX has no variables."""

    def placement(self) -> Mapping[str, int]:
        """See `Session.placement`. An older ONNX Runtime records nothing; there a session with a profile tells."""
        recorded = getattr(self._session, "get_provider_graph_assignment_info", None)
        if recorded is None:
            used = self._session.get_providers()
            counted = self._profiled() if len(used) > 1 else Counter({used[0]: 1})
        else:
            counted = Counter[str]()
            for part in recorded():
                counted[part.ep_name] += len(part.get_nodes())
        return {_short(name): count for name, count in counted.items()}


class BoundOnnx:
    """A session with its tensors in place: nothing is copied, looked up or allocated for a run.

    Raises what onnxruntime raises when the arrays do not suit.
    """

    def __init__(
        self,
        session: OnnxSession,
        runtime: Any,
        input_names: Sequence[str],
        inputs: Sequence[npt.NDArray[Any]],
        output_names: Sequence[str],
        outputs: list[npt.NDArray[Any]],
    ) -> None:
        self._session = session
        self._runtime = runtime
        self._inputs = inputs  # the binding has their addresses alone
        self._outputs = outputs
        self._binding = runtime.io_binding()
        for names, arrays, bind in (
            (input_names, inputs, self._binding.bind_input),
            (output_names, outputs, self._binding.bind_output),
        ):
            for name, array in zip(names, arrays, strict=True):
                bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def run(self) -> list[npt.NDArray[Any]]:
        """See `Bound.run`."""
        if self._binding is not None:
            try:
                self._runtime.run_with_iobinding(self._binding)
                return self._outputs
            except Exception:
                # Outputs that have other shapes now, or something worse: the plain run tells, from now on.
                self._binding = None
        return self._session.run(self._inputs)


def open_onnxruntime(
    path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], options: SessionOptions
) -> OnnxSession:
    """Load a model file. Raises ModelUnusable."""
    session = _session(path, options)
    session.disable_fallback()  # a provider that fails later is an error, too, and no reason to go on without it
    wanted, given = {spec.name for spec in inputs}, {spec.name for spec in outputs}
    missing = wanted - {i.name for i in session.get_inputs()} or given - {o.name for o in session.get_outputs()}
    if missing:
        raise ModelUnusable(f"the manifest names {sorted(missing)[0]!r}, which the model does not have")

    def profiled() -> Counter[str]:
        return providers_by_profile(lambda prefix: _session(path, options, prefix), inputs)

    return OnnxSession(session, [spec.name for spec in inputs], [spec.name for spec in outputs], profiled)


def _session(path: Path, options: SessionOptions, profile: Path | None = None) -> Any:
    try:
        if options.cached_graph is not None and options.provider in ("", CPU) and profile is None:
            return _cached(path, options, options.cached_graph)
        return _load(path, options, _settings(options, profile))
    except ModelUnusable:
        raise
    except Exception as error:
        raise ModelUnusable(f"ONNX Runtime cannot load it: {_first_line(error)}") from None


def _cached(path: Path, options: SessionOptions, place: Path) -> Any:
    """Load the graph that was rewritten before, or rewrite and keep it; whatever goes wrong, load the file itself."""
    cache = GraphCache(place.parent, Disk())
    try:
        if (graph := cache.find(place.name)) is not None:
            return _load(graph, options, _settings(options.model_copy(update={"optimisation": "none"})))
        draft = cache.draft(place.name)
    except Exception as error:
        log.warning("no use of the graphs in %s: %s", place.parent, _first_line(error))
        return _load(path, options, _settings(options))
    try:
        settings = _settings(options)
        settings.optimized_model_filepath = str(draft)
        settings.add_session_config_entry("session.save_model_format", "ORT")
        session = _load(path, options, settings)
        cache.keep(place.name, draft)
        return session
    except Exception as error:
        log.warning("the graph for %s is not kept: %s", path.name, _first_line(error))
        return _load(path, options, _settings(options))
    finally:
        cache.discard(draft)


def _load(path: Path, options: SessionOptions, settings: Any) -> Any:
    provider = options.provider or CPU
    name = PROVIDERS.get(provider, provider)
    if provider in PROVIDERS:
        named: list[tuple[str, dict[str, str]]] = [(name, dict(options.provider_options))]
        if provider != CPU and not options.strict:
            named.append((PROVIDERS[CPU], {}))
        with warnings.catch_warnings():
            # That a provider is not in this build is told below, by what the session uses.
            warnings.simplefilter("ignore", UserWarning)
            session = onnxruntime.InferenceSession(str(path), settings, providers=named)
    else:
        _plug_in(settings, provider, dict(options.provider_options))
        session = onnxruntime.InferenceSession(str(path), settings)
    if name not in session.get_providers():
        # Whoever asked for an accelerator would measure and serve the processor without a word.
        used = ", ".join(map(_short, session.get_providers()))
        raise ModelUnusable(f"ONNX Runtime fell back from {provider} to {used}")
    return session


def _settings(options: SessionOptions, profile: Path | None = None) -> Any:
    settings = onnxruntime.SessionOptions()
    if profile is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = str(profile)
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.graph_optimization_level = _LEVELS[options.optimisation]
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1" if options.spinning else "0")
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if options.strict and options.provider not in ("", CPU):
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    settings.log_severity_level = 3
    for library in options.custom_ops:
        settings.register_custom_ops_library(str(library))
    return settings


def _plug_in(settings: Any, name: str, options: dict[str, str]) -> None:
    library = options.pop(PLUGIN_LIBRARY, None)
    if not hasattr(onnxruntime, "get_ep_devices"):
        raise ModelUnusable(f"ONNX Runtime {onnxruntime.__version__} takes no plug-in providers such as {name}")
    if library is not None and not any(device.ep_name == name for device in onnxruntime.get_ep_devices()):
        onnxruntime.register_execution_provider_library(name, library)
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]
    if not devices:
        raise ModelUnusable(f"ONNX Runtime has no provider {name}, or that finds no device")
    settings.add_provider_for_devices(devices, options)


def providers() -> tuple[str, ...]:
    """Return the providers that were compiled in, the CPU first; whether there is a device for them is not known."""
    built = [_NAMES[name] for name in onnxruntime.get_available_providers() if name in _NAMES]
    return (CPU, *(name for name in built if name != CPU))


def _short(name: str) -> str:
    return _NAMES.get(name, name)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:500]


BACKEND = Backend(open_onnxruntime, providers)
