"""MLServer's side of the comparison: a runtime that hands arrays to ONNX Runtime and back, as its guide writes them."""

from __future__ import annotations

import onnxruntime
from mlserver import MLModel  # type: ignore[import-not-found]  # in an environment of its own
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse  # type: ignore[import-not-found]


class OnnxModel(MLModel):  # type: ignore[misc]
    """One ONNX model with the input `x` and the output `y`."""

    async def load(self) -> bool:
        """Load the model file of the settings."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(self.settings.parameters.uri, options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run it."""
        x = NumpyCodec.decode_input(payload.inputs[0])
        (y,) = self._session.run(["y"], {"x": x.astype("float32", copy=False)})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", y)], id=payload.id)
