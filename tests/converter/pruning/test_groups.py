"""Which channels are coupled, and why some cannot be pruned."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.converter.graphs import DIGITS
from tests.converter.pruning.networks import Network, network

from autoglm_edge_converter.pruning import find_groups


def test_layers_joined_by_additions_are_one_group() -> None:
    groups = {group.layers: group for group in find_groups(onnx.load(DIGITS / "res.onnx"))}
    widths = sorted((len(layers), group.width) for layers, group in groups.items())
    # Three stages of residual blocks, each one group; inside a block the first convolution is a group by itself.
    assert widths == [(1, 10), (1, 24), (1, 48), (1, 48), (1, 96), (1, 96), (2, 24), (3, 48), (3, 96)]


def test_depthwise_convolutions_follow_what_they_read() -> None:
    groups = find_groups(onnx.load(DIGITS / "mbn.onnx"))
    assert sum(len(group.layers) for group in groups) < sum(
        node.op_type in ("Conv", "Gemm") for node in onnx.load(DIGITS / "mbn.onnx").graph.node
    )
    assert all(len(group.free) == group.width for group in groups[:-2])


@pytest.mark.parametrize(
    ("operator", "attributes", "reason"),
    [
        ("Softmax", {"axis": 1}, "taking a channel out would change the others"),
        ("LRN", {"size": 3}, "not known to keep channels apart"),
        ("DepthToSpace", {"blocksize": 2}, "not known to keep channels apart"),
        ("ReduceMean", {"axes": [1], "keepdims": 1}, "reduces over the channels"),
        ("CumSum", {}, "not known to keep channels apart"),
    ],
)
def test_what_mixes_channels_freezes_them(operator: str, attributes: dict[str, Any], reason: str) -> None:
    net = Network(0)
    net.conv(8)
    inputs = [net.constant(np.array(1, np.int64))] if operator == "CumSum" else []
    net.add(operator, [net.here, *inputs], **attributes)
    group = find_groups(net.model(head=False))[0]
    assert group.free == ()
    assert reason in (group.reason or "")


def test_channels_that_leave_the_graph_stay() -> None:
    net = Network(0)
    net.conv(8)
    model = net.model(head=False)
    assert "output" in (find_groups(model)[0].reason or "")


def test_a_weight_that_two_layers_read_differently_stays() -> None:
    net = Network(0)
    net.conv(3, kernel=1)
    net.add("Conv", [net.here, "w0", "w1"])
    net.add("Transpose", [net.here], perm=[0, 3, 2, 1])
    net.add("Mul", [net.here, "w1"])
    groups = find_groups(net.model(head=False))
    assert all(group.reason for group in groups)


def test_what_control_flow_reads_stays() -> None:
    net = Network(0)
    net.conv(8)
    inner = helper.make_graph(
        [helper.make_node("Relu", [net.here], ["inside"])], "inner", [], [helper.make_empty_tensor_value_info("inside")]
    )
    condition = net.constant(np.array(True))
    net.add("If", [condition], then_branch=inner, else_branch=inner)
    assert "If" in (find_groups(net.model(head=False))[0].reason or "")


def test_a_flattened_picture_keeps_its_places() -> None:
    net = Network(3)
    net.conv(8)
    net.add("Reshape", [net.here, net.constant(np.array([0, 8 * 64], np.int64))])
    net.add("Gemm", [net.here, net.normal(8 * 64, 4)])
    group = find_groups(net.model(head=False))[0]
    assert (group.width, len(group.free)) == (8, 8)


@pytest.mark.parametrize("target", [[0, 2, 4, 64], [0, -1, 2], [1, 3, -1]])
def test_a_reshape_that_takes_channels_apart_freezes_them(target: list[int]) -> None:
    net = Network(3)
    net.conv(8)
    net.add("Reshape", [net.here, net.constant(np.array(target[:3] if len(target) == 3 else target, np.int64))])
    net.add("Relu", [net.here])
    assert find_groups(net.model(head=False))[0].free == ()


@pytest.mark.parametrize(("end", "free"), [(2**31 - 1, 8), (8, 8), (7, 0), (-1, 0)])
def test_a_slice_may_take_all_channels(end: int, free: int) -> None:
    net = Network(3)
    net.conv(8)
    bounds = [net.constant(np.array(values, np.int64)) for values in ([0, 1], [end, 5], [1, 2])]
    net.add("Slice", [net.here, *bounds])
    net.conv(4, kernel=1)
    assert len(find_groups(net.model())[0].free) == free


def test_finding_groups_changes_nothing() -> None:
    model = network(["apart", "depthwise"], 2)
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    assert find_groups(model) == find_groups(model)
    assert model == copy
