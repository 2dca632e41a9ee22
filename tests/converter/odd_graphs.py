"""Small models of the kinds that exporters write and converters stumble over, each with samples for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Feeds = list[dict[str, np.ndarray]]
Odd = tuple[onnx.ModelProto, Feeds]
SAMPLES = 24

node, tensor = helper.make_node, numpy_helper.from_array
random = np.random.default_rng(7)


def weight(name: str, *shape: int, dtype: type = np.float32) -> onnx.TensorProto:
    return tensor((random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(dtype), name)


def value(name: str, shape: Sequence[int | str] | None = None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto],
    *,
    inputs: Sequence[onnx.ValueInfoProto] = (),
    outputs: Sequence[onnx.ValueInfoProto] = (),
    opset: int = 17,
    ir_version: int = 8,
) -> onnx.ModelProto:
    taken = inputs or [value("x", ("N", 3, 16, 16))]
    graph = helper.make_graph(nodes, "odd", taken, outputs or [value("y")], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def samples(*shape: int, dtype: type = np.float32) -> Feeds:
    return [{"x": random.normal(size=shape or (1, 3, 16, 16)).astype(dtype)} for _ in range(SAMPLES)]


def branches_that_read_outside() -> Odd:
    def branch(name: str) -> onnx.GraphProto:
        conv = node("Conv", ["c", f"{name}_w"], [f"{name}_y"], f"{name}_conv", pads=[1, 1, 1, 1])
        return helper.make_graph([conv], name, [], [value(f"{name}_y")], [weight(f"{name}_w", 8, 8, 3, 3)])

    nodes = [
        node("Conv", ["x", "w"], ["c"], "first", pads=[1, 1, 1, 1]),
        node("ReduceMax", ["c"], ["most"], keepdims=0),
        node("Greater", ["most", "limit"], ["above"]),
        node("If", ["above"], ["chosen"], then_branch=branch("a"), else_branch=branch("b")),
        node("GlobalAveragePool", ["chosen"], ["y"]),
    ]
    return model(nodes, [weight("w", 8, 3, 3, 3), tensor(np.array(2.5, np.float32), "limit")]), samples()


def a_loop_that_reads_outside() -> Odd:
    body = helper.make_graph(
        [
            node("MatMul", ["before", "inner"], ["p"]),
            node("Add", ["p", "h"], ["s"]),
            node("Tanh", ["s"], ["after"]),
            node("Identity", ["go"], ["on"]),
        ],
        "body",
        [value("turn", (), TensorProto.INT64), value("go", (), TensorProto.BOOL), value("before")],
        [value("on", (), TensorProto.BOOL), value("after")],
        [weight("inner", 16, 16)],
    )
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Loop", ["turns", "", "h"], ["l"], body=body),
        node("MatMul", ["l", "v"], ["y"]),
    ]
    constants = [weight("w", 32, 16), weight("v", 16, 10), tensor(np.array(3, np.int64), "turns")]
    return model(nodes, constants, inputs=[value("x", ("N", 32))]), samples(1, 32)


def a_scan_that_reads_outside() -> Odd:
    body = helper.make_graph(
        [
            node("MatMul", ["before", "inner"], ["p"]),
            node("Add", ["p", "row"], ["s"]),
            node("Tanh", ["s"], ["after"]),
            node("Identity", ["after"], ["each"]),
        ],
        "body",
        [value("before", (1, 16)), value("row", (1, 16))],
        [value("after", (1, 16)), value("each", (1, 16))],
    )
    nodes = [
        node("MatMul", ["x", "w"], ["rows"]),
        node("Scan", ["start", "rows"], ["last", "all"], body=body, num_scan_inputs=1),
        node("MatMul", ["all", "v"], ["y"]),
    ]
    constants = [weight("w", 32, 16), weight("inner", 16, 16), weight("v", 16, 10)]
    constants.append(tensor(np.zeros((1, 16), np.float32), "start"))
    return model(nodes, constants, inputs=[value("x", (12, 1, 32))]), samples(12, 1, 32)


def an_axis_of_no_length() -> Odd:
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Slice", ["c", "zero", "zero", "one"], ["none"]),
        node("Concat", ["c", "none"], ["k"], axis=1),
        node("GlobalAveragePool", ["k"], ["y"]),
    ]
    constants = [weight("w", 8, 3, 3, 3), tensor(np.array([0]), "zero"), tensor(np.array([1]), "one")]
    return model(nodes, constants, outputs=[value("y"), value("none")]), samples()


def convolutions_in_space() -> Odd:
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1] * 6),
        node("Relu", ["c"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
        node("Conv", ["p", "v"], ["d"]),
        node("GlobalAveragePool", ["d"], ["y"]),
    ]
    constants = [weight("w", 8, 2, 3, 3, 3), weight("v", 8, 8, 3, 3, 3)]
    return model(nodes, constants, inputs=[value("x", ("N", 2, 8, 8, 8))]), samples(1, 2, 8, 8, 8)


def transposed_convolutions_in_groups() -> Odd:
    nodes = [
        node("Conv", ["x", "w"], ["c"], strides=[2, 2]),
        node("Relu", ["c"], ["r"]),
        node("ConvTranspose", ["r", "v"], ["d"], strides=[2, 2], group=2),
        node("Sigmoid", ["d"], ["y"]),
    ]
    return model(nodes, [weight("w", 8, 3, 3, 3), weight("v", 8, 2, 3, 3)]), samples()


def recurrent_layers() -> Odd:
    nodes = [
        node("LSTM", ["x", "lw", "lr"], ["l", "", ""], hidden_size=16),
        node("Squeeze", ["l", "one"], ["s"]),
        node("GRU", ["s", "gw", "gr"], ["", "g"], hidden_size=8, linear_before_reset=1),
        node("Squeeze", ["g", "zero"], ["h"]),
        node("MatMul", ["h", "w"], ["y"]),
    ]
    constants = [weight("lw", 1, 64, 12), weight("lr", 1, 64, 16), weight("gw", 1, 24, 16), weight("gr", 1, 24, 8)]
    constants += [weight("w", 8, 5), tensor(np.array([1]), "one"), tensor(np.array([0]), "zero")]
    return model(nodes, constants, inputs=[value("x", ("T", 1, 12))]), samples(10, 1, 12)


def names_twice_and_an_input_for_nothing() -> Odd:
    nodes = [
        node("Conv", ["x", "w"], ["a_quantized"], "same", pads=[1, 1, 1, 1]),
        node("Conv", ["a_quantized", "v"], ["a"], "same", pads=[1, 1, 1, 1]),
        node("Conv", ["a", "v"], ["a_DequantizeLinear_Output"]),
        node("GlobalAveragePool", ["a_DequantizeLinear_Output"], ["y"]),
    ]
    inputs = [value("x", ("N", 3, 16, 16)), value("unread", ("N", 2))]
    constants = [weight("w", 8, 3, 3, 3), weight("v", 8, 8, 3, 3), weight("nobody", 4, 4)]
    feeds = [feed | {"unread": np.zeros((1, 2), np.float32)} for feed in samples()]
    return model(nodes, constants, inputs=inputs), feeds


def outputs_that_are_inputs_and_constants() -> Odd:
    inputs = [value("x", ("N", 8))]
    outputs = [value("y"), value("x", ("N", 8)), value("k", (3,))]
    constants = [weight("w", 8, 4), tensor(np.ones(3, np.float32), "k")]
    return model([node("MatMul", ["x", "w"], ["y"])], constants, inputs=inputs, outputs=outputs), samples(1, 8)


def an_output_without_axes() -> Odd:
    nodes = [node("MatMul", ["x", "w"], ["p"]), node("ReduceSum", ["p"], ["y"], keepdims=0)]
    inputs, outputs = [value("x", (1, 8))], [value("y", ())]
    return model(nodes, [weight("w", 8, 4)], inputs=inputs, outputs=outputs), samples(1, 8)


def an_old_file() -> Odd:
    """Operator set 7 and file format 3, in which constants are inputs too."""
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", "g", "g", "g", "g"], ["n"]),
        node("Upsample", ["n"], ["u"], mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]),
        node("Dropout", ["u"], ["d"]),
        node("Slice", ["d"], ["s"], starts=[0], ends=[30], axes=[2]),
        node("Clip", ["s"], ["k"], min=0.0, max=6.0),
        node("ReduceMean", ["k"], ["m"], axes=[2, 3], keepdims=0),
        node("Gemm", ["m", "v", "b"], ["z"], transB=1),
        node("Softmax", ["z"], ["y"]),
    ]
    constants = [weight("w", 8, 3, 3, 3), tensor(np.ones(8, np.float32), "g"), weight("v", 10, 8), weight("b", 1, 10)]
    inputs = [value("x", ("N", 3, 16, 16)), *(value(entry.name, entry.dims) for entry in constants)]
    return model(nodes, constants, inputs=inputs, opset=7, ir_version=3), samples()


def of_type(dtype: type, kind: int) -> Odd:
    nodes = [node("MatMul", ["x", "w"], ["p"]), node("Relu", ["p"], ["r"]), node("MatMul", ["r", "v"], ["y"])]
    constants = [weight("w", 32, 64, dtype=dtype), weight("v", 64, 8, dtype=dtype)]
    inputs, outputs = [value("x", ("N", 32), kind)], [value("y", None, kind)]
    return model(nodes, constants, inputs=inputs, outputs=outputs), samples(1, 32, dtype=dtype)


def in_half_precision() -> Odd:
    return of_type(np.float16, TensorProto.FLOAT16)


def in_double_precision() -> Odd:
    return of_type(np.float64, TensorProto.DOUBLE)


def quantized_already() -> Odd:
    scale, zero = tensor(np.array(0.02, np.float32), "scale"), tensor(np.array(128, np.uint8), "zero")
    eight = tensor(random.integers(-90, 90, (8, 3, 3, 3)).astype(np.int8), "eight")
    nodes = [
        node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        node("DequantizeLinear", ["eight", "scale"], ["w"]),
        node("Conv", ["d", "w"], ["c"]),
        node("GlobalAveragePool", ["c"], ["y"]),
    ]
    return model(nodes, [scale, zero, eight]), samples()


def an_answer_that_never_changes() -> Odd:
    nodes = [node("MatMul", ["x", "w"], ["p"]), node("Mul", ["p", "nothing"], ["y"])]
    constants = [weight("w", 8, 4), tensor(np.array(0, np.float32), "nothing")]
    return model(nodes, constants, inputs=[value("x", ("N", 8))]), samples(1, 8)


ODD: tuple[Callable[[], Odd], ...] = (
    branches_that_read_outside,
    a_loop_that_reads_outside,
    a_scan_that_reads_outside,
    an_axis_of_no_length,
    convolutions_in_space,
    transposed_convolutions_in_groups,
    recurrent_layers,
    names_twice_and_an_input_for_nothing,
    outputs_that_are_inputs_and_constants,
    an_output_without_axes,
    an_old_file,
    in_half_precision,
    in_double_precision,
    quantized_already,
    an_answer_that_never_changes,
)
