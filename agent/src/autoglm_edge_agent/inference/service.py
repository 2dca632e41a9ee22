"""What the Open Inference Protocol v2 offers of one model, in plain values: the same over HTTP and over gRPC.

Sources: Open Inference Protocol (KServe); Triton Inference Server, the extensions binary data, statistics, system
shared memory, model configuration and model repository.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from autoglm_edge_agent import __version__
from autoglm_edge_agent.inference.asking import NOTHING, Asked, Wanted, understand
from autoglm_edge_agent.inference.errors import RequestError
from autoglm_edge_agent.inference.raw_tensors import encode_raw
from autoglm_edge_agent.inference.shared_memory import SharedRegions
from autoglm_edge_agent.inference.statistics import Statistics
from autoglm_edge_agent.inference.terms import Terms, terms_of
from autoglm_edge_protocol.manifest import Manifest, TensorSpec, Variant

Array = npt.NDArray[Any]
Run = Callable[[Sequence[Array], Terms], Awaitable[list[Array]]]
RunAtOnce = Callable[[Sequence[Array], Terms], "list[Array] | RequestError | None"]

PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "litert": "tensorflow_lite", "tflite": "tensorflow_lite"}
EXTENSIONS = ("binary_tensor_data", "statistics", "system_shared_memory", "model_configuration", "model_repository")


@dataclass(frozen=True)
class Output:
    """An output, and what was asked of it."""

    spec: TensorSpec
    array: Array
    wanted: Wanted

    def described(self, **parameters: object) -> dict[str, Any]:
        """Return all but the data, which the parameters say where to find."""
        head = {"name": self.spec.name, "datatype": self.spec.datatype, "shape": list(self.array.shape)}
        return {**head, "parameters": parameters}


class Service:
    """One model.

    Args:
        run: runs the model; awaited with arrays in the order of the variant's inputs. Raises RequestError.
        at_once: runs it where that is no wait, else returns None.
        statistics: what `run` and this have counted.
        regions: None where shared memory is not offered.
    """

    def __init__(
        self,
        manifest: Manifest,
        variant: Variant,
        run: Run,
        statistics: Statistics | None = None,
        regions: SharedRegions | None = None,
        at_once: RunAtOnce = lambda _inputs, _terms: None,
    ) -> None:
        self._manifest = manifest
        self._variant = variant
        self._run = run
        self._at_once = at_once
        self._statistics = statistics or Statistics()
        self._regions = regions

    @property
    def name(self) -> str:
        """The model's name."""
        return self._manifest.name

    @property
    def version(self) -> str:
        """Its version, of which there is one at a time."""
        return self._manifest.version

    @property
    def variant(self) -> str:
        """Which form of it runs here."""
        return self._variant.id

    @property
    def regions(self) -> SharedRegions:
        """The shared memory of clients. Raises RequestError (404) where there is none."""
        if self._regions is None:
            raise RequestError(404, "shared memory is not offered here")
        return self._regions

    def check_name(self, name: str) -> None:
        """Raises RequestError (404) for another model."""
        if name != self.name:
            raise RequestError(404, f"unknown model {name!r}; this device serves {self.name!r}")

    def check_version(self, version: str) -> None:
        """Raises RequestError (404) for another version."""
        if version != self.version:
            raise RequestError(404, f"version {version!r} is not served, {self.version} is")

    def server(self) -> dict[str, Any]:
        """Return what answers."""
        extensions = [name for name in EXTENSIONS if self._regions is not None or name != "system_shared_memory"]
        return {"name": "autoglm-edge-agent", "version": __version__, "extensions": extensions}

    def index(self) -> list[dict[str, Any]]:
        """Return the models: one."""
        return [{"name": self.name, "version": self.version, "state": "READY"}]

    def metadata(self) -> dict[str, Any]:
        """Return what goes into the model and what comes out."""
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": self._platform,
            "inputs": [_tensor(spec) for spec in self._variant.inputs],
            "outputs": [_tensor(spec) for spec in self._variant.outputs],
        }

    def config(self) -> dict[str, Any]:
        """Return the same as Triton's configuration has it."""
        return {
            "name": self.name,
            "platform": self._platform,
            "backend": self._variant.needs.runtime,
            "max_batch_size": 0,
            "input": [_configured(spec) for spec in self._variant.inputs],
            "output": [_configured(spec) for spec in self._variant.outputs],
        }

    def statistics(self) -> dict[str, Any]:
        """Return what was asked of the model and how long it took."""
        return {"model_stats": [self._statistics.to_json(self.name, self.version)]}

    def understand(self, request: dict[str, Any], beside: Mapping[str, memoryview] | None = None) -> Asked:
        """Return what a request asks, as the protocol has it in JSON. Raises RequestError.

        `beside` are the data of inputs that came by themselves, by name.
        """
        began = time.perf_counter()
        asked = understand(request, self._variant.inputs, self._variant.outputs, beside or {})
        self._statistics.translated(time.perf_counter() - began, 0.0, 0)
        return asked

    async def infer(
        self, asked: Asked, client: Hashable, binary: memoryview = NOTHING, answer: Callable[[list[Output]], Any] = list
    ) -> Any:
        """Run the model for a request and return what `answer` makes of the outputs that it asks for.

        Args:
            asked: the request.
            client: who asks: what the turns of clients go by.
            binary: the data that follow the JSON.
            answer: puts the outputs into the form of the wire; that time is counted.

        Raises RequestError.
        """
        began = time.perf_counter()
        inputs = asked.read(binary, self._regions)
        decoded = time.perf_counter()
        outputs = await self._run(inputs, terms_of(client, asked.priority, asked.timeout_us))
        return self._answered(asked, outputs, answer, decoded - began)

    def infer_at_once(
        self, asked: Asked, client: Hashable, binary: memoryview, answer: Callable[[list[Output]], Any]
    ) -> Any:
        """As `infer` where the model can be asked without a wait; None where it cannot. Raises RequestError."""
        began = time.perf_counter()
        inputs = asked.read(binary, self._regions)
        decoded = time.perf_counter()
        outputs = self._at_once(inputs, terms_of(client, asked.priority, asked.timeout_us))
        if isinstance(outputs, RequestError):
            raise outputs
        return None if outputs is None else self._answered(asked, outputs, answer, decoded - began)

    def _answered(
        self, asked: Asked, outputs: Sequence[Array], answer: Callable[[list[Output]], Any], input_s: float
    ) -> Any:
        began = time.perf_counter()
        specs = self._variant.outputs
        answered = answer([Output(specs[w.position], outputs[w.position], w) for w in asked.outputs])
        self._statistics.translated(input_s, time.perf_counter() - began)
        return answered

    def to_shared_memory(self, output: Output) -> dict[str, Any]:
        """Write an output where its parameters say, and describe it. Raises RequestError (400, 404)."""
        parameters = output.wanted.parameters
        region, size = parameters["shared_memory_region"], parameters.get("shared_memory_byte_size")
        offset = parameters.get("shared_memory_offset", 0)
        if type(size) is not int or type(offset) is not int:
            text = "'shared_memory_byte_size' must be a whole number of bytes"
            raise RequestError(400, f"output {output.spec.name!r}: {text}")
        raw = encode_raw(output.array)
        self.regions.write(str(region), offset, size, raw)
        return output.described(
            shared_memory_region=region, shared_memory_offset=offset, shared_memory_byte_size=len(raw)
        )

    @property
    def _platform(self) -> str:
        return PLATFORMS.get(self._variant.needs.runtime, self._variant.needs.runtime)


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _configured(spec: TensorSpec) -> dict[str, Any]:
    kind = "STRING" if spec.datatype == "BYTES" else spec.datatype
    return {"name": spec.name, "data_type": f"TYPE_{kind}", "dims": list(spec.shape)}
