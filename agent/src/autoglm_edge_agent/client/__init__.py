"""A client of the fast path: tensors in memory that both sides see, for applications on the board. Needs only numpy.

    from autoglm_edge_agent.client import Client

    with Client("/run/autoglm-edge/inference.fast") as client:
        outputs = client.infer({"x": image})              # copies in and out

        slot = client.slot({"x": (1, 3, 224, 224)})        # memory of one's own, for as often as one likes
        camera.read_into(slot.inputs["x"])                 # written in place
        slot.run(priority=1, timeout_s=0.05)
        scores = slot.outputs["scores"]                    # read in place, until the next run

When the model's worker is replaced or dies, the client connects again and asks again (`retry_s`); an inference changes
nothing, so that asking twice does no harm.
"""

from autoglm_edge_agent.client.connection import Client, InferenceRefused
from autoglm_edge_agent.client.datatypes import TensorInfo
from autoglm_edge_agent.client.slot import Slot

__all__ = ["Client", "InferenceRefused", "Slot", "TensorInfo"]
