"""Importance and least squares: what can be made up for is made up for, and what can be spared goes first."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from tests.converter.pruning.networks import Network, network, pictures

from autoglm_edge_converter.pruning import prune, prune_to, study
from autoglm_edge_converter.pruning.importance import Reading, order
from autoglm_edge_converter.pruning.moments import run_here
from autoglm_edge_converter.pruning.refit import refit
from autoglm_edge_converter.runners.onnx import open_session


def moments_of(rows: np.ndarray) -> np.ndarray:
    full = np.append(rows, np.ones((len(rows), 1)), axis=1)
    return np.asarray(full.T @ full / len(full))


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_rows_that_others_tell_cost_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    free = random.normal(size=(500, 6)) + random.normal(size=6)
    rows = np.append(free, free @ random.normal(size=(6, 3)) + random.normal(size=3), axis=1)
    matrix = random.normal(size=(9, 4))
    keep = np.arange(9) < 6
    fitted, shift = refit(moments_of(rows), matrix, keep)
    error = free @ fitted[:6] + shift - rows @ matrix
    # The ridge, a hundredth of the moments, draws towards the old weights and costs a little even here.
    assert np.square(error).mean() < 0.02 * np.var(rows @ matrix)
    np.testing.assert_array_equal(fitted[6:], matrix[6:])


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_a_refit_is_never_worse_than_none(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(300, 8)) @ random.normal(size=(8, 8)) + 1
    matrix = random.normal(size=(8, 3))
    keep = random.random(8) < 0.6
    keep[0] = True
    fitted, shift = refit(moments_of(rows), matrix, keep)
    wanted = rows @ matrix
    after = np.square(rows[:, keep] @ fitted[keep] + shift - wanted).sum()
    # The second term is for rounding where everything is kept.
    assert after <= np.square(rows[:, keep] @ matrix[keep] - wanted).sum() * (1 + 1e-9) + 1e-18


def test_what_nobody_needs_goes_first_and_twins_go_one_by_one() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(2000, 5))
    rows[:, 3] = rows[:, 2]
    matrix = np.array([[3.0], [0.0], [2.0], [2.0], [1.0]])
    found = order((0, 1, 2, 3, 4), [Reading(moments_of(rows), matrix, np.arange(5))], 4)
    assert found[0] == 1  # its weight is nothing
    assert set(found[:3]) > {1}
    assert len({2, 3} & set(found[:2])) == 1  # the other twin takes over
    assert found.index(4) < 4


def test_errors_of_all_readers_count() -> None:
    random = np.random.default_rng(1)
    moments = moments_of(random.normal(size=(2000, 2)))
    first = Reading(moments, np.array([[1.0], [0.1]]), np.array([0, 1]))
    second = Reading(moments, np.array([[0.1], [1.0]]), np.array([0, 1]))
    assert order((0, 1), [first], 1) == (1,)
    assert order((0, 1), [second], 1) == (0,)
    assert order((0, 1), [first, second, second], 1) == (0,)


def noise(model: onnx.ModelProto, other: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> float:
    one, two = (open_session(entry.SerializeToString()) for entry in (model, other))
    pairs = [(one.run(None, feed)[0], two.run(None, feed)[0]) for feed in feeds]
    return float(sum(np.square(a - b).sum() for a, b in pairs) / sum(np.square(a).sum() for a, _ in pairs))


def test_twin_channels_are_merged_without_loss() -> None:
    """Every channel of the first layer is there twice, so half of them can go, whatever reads them."""
    model = network(["plain", "grouped"], 4)
    for name in ("w0", "w1"):
        tensor = next(entry for entry in model.graph.initializer if entry.name == name)
        values = numpy_helper.to_array(tensor).copy()
        values[4:] = values[:4]
        tensor.CopyFrom(numpy_helper.from_array(values, name))
    known = study(model, pictures(20), multiple=4)
    found = prune_to(known, {known.groups[0].name: 4})
    assert found.groups[0].after == 4
    assert noise(model, found.proto, pictures(5, 9)) < 1e-4


def test_pruning_again_gives_the_same_bytes() -> None:
    model, feeds = network(["residual", "depthwise", "beside"], 8), pictures(12)
    ratios = {group.name: 0.5 for group in study(model, feeds, multiple=2).groups}
    first, second = (prune(model, feeds, ratios, multiple=2) for _ in range(2))
    assert first.proto.SerializeToString(deterministic=True) == second.proto.SerializeToString(deterministic=True)
    assert first.groups == second.groups
    assert 0.2 < first.weights_removed < 0.9
    assert 0.2 < first.multiplications_removed < 0.9


def test_refitting_on_what_is_left_helps() -> None:
    """Layer by layer, each fitted to what is left before it: nearly always less noise at the end, never much more."""
    kinds = [[], ["plain"], ["residual"], ["grouped"], ["plain", "residual"], ["residual", "grouped"]]
    ratios = []
    for seed, blocks in enumerate(kinds * 2):
        model, feeds = network(["plain", *blocks], seed), pictures(24, seed)
        known = study(model, feeds, multiple=2)
        widths = {
            group.name: known.widths(group)[len(known.widths(group)) // 2] for group in known.groups if group.free
        }
        once, again = prune_to(known, widths, propagate=False), prune_to(known, widths)
        ratios.append(noise(model, again.proto, feeds) / noise(model, once.proto, feeds))
    # 0.77 in the geometric mean of 48 such networks, of which one was above 1; single unlucky ones reach 1.13.
    assert np.exp(np.mean(np.log(ratios))) < 0.9
    assert max(ratios) < 1.2


def test_a_normalisation_behind_pruned_layers_gets_new_statistics() -> None:
    net = Network(2)
    net.conv(8)
    net.add("Relu", [net.here])
    net.conv(8)
    before = net.here
    ones, zeros = net.constant(np.ones(8, np.float32)), net.constant(np.zeros(8, np.float32))
    scale, shift = net.constant(np.ones(8, np.float32)), net.constant(np.zeros(8, np.float32))
    net.add("BatchNormalization", [before, scale, shift, zeros, ones])
    model, feeds = net.model(), pictures(16)
    known = study(model, feeds, multiple=2)
    found = prune_to(known, {known.groups[0].name: 2}, propagate=False)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in found.proto.graph.initializer}
    spread = {
        name: np.concatenate([values[before].reshape(8, -1) for values in run_here(proto, [before], feeds)], axis=1)
        for name, proto in (("old", model), ("new", found.proto))
    }
    np.testing.assert_allclose(tensors[zeros], spread["new"].mean(axis=1) - spread["old"].mean(axis=1), atol=1e-4)
    assert (tensors[ones] < 1).all()  # a refitted layer answers with less variance


@pytest.mark.parametrize(
    ("ratios", "feeds", "reason"),
    [({"nothing": 0.5}, 4, "no group of channels is called 'nothing'"), ({}, 0, "needs calibration samples")],
)
def test_what_cannot_be_asked(ratios: dict[str, float], feeds: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        prune(network([], 0), pictures(feeds), ratios)


def test_uneven_padding_strides_and_dilations_are_seen_as_the_layer_sees_them() -> None:
    """A refit without anything removed gives the weights back, so rows and matrix must be those of the layer."""
    net = Network(6)
    net.conv(8)
    source = net.here
    for attributes in (
        {"pads": [0, 1, 2, 1], "strides": [2, 1]},
        {"dilations": [2, 1], "pads": [1, 1, 1, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [3, 2]},
        {"auto_pad": "VALID"},
    ):
        net.nodes.append(
            helper.make_node("Conv", [source, net.normal(2, 8, 3, 3)], [f"y{len(net.nodes)}"], **attributes)
        )
    model = net.model(head=False)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(node.output[0], 1, None) for node in model.graph.node[1:])
    known = study(model, pictures(3), multiple=4)
    values = next(iter(run_here(known.proto, [reader.layer.node for reader in known.readers], known.feeds[:1])))
    inputs = next(iter(run_here(known.proto, [source], known.feeds[:1])))
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in known.proto.graph.initializer}
    for reader in known.readers:
        answer = values[reader.layer.node]
        rows = reader.rows(inputs[source], 0, 10**6, 0)
        matrix = tensors[reader.layer.weight].reshape(2, -1).T
        np.testing.assert_allclose(rows[:, :-1] @ matrix, np.moveaxis(answer, 1, -1).reshape(-1, 2), atol=1e-5)
