"""A cut graph answers what the graph of the old size answers when nothing reads the channels any more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.converter.graphs import DIGITS
from tests.converter.pruning.networks import BLOCKS, network, pictures

from autoglm_edge_converter.pruning.cut import cut, mask
from autoglm_edge_converter.pruning.graph import prepared
from autoglm_edge_converter.pruning.groups import ChannelMap, map_channels
from autoglm_edge_converter.runners.onnx import open_session

CLOSE = 2e-5
"""Sums over fewer channels are made in another order: single precision, answers of about 1."""


def answer(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    [found] = open_session(model.SerializeToString()).run(None, feed)
    return np.asarray(found)


def some_of(channels: ChannelMap, random: np.random.Generator) -> list[int]:
    """Classes from every group, at least one of each group staying."""
    chosen: list[int] = []
    for group in channels.groups:
        most = min(len(group.free), group.width - 1)
        if most:
            count = int(random.integers(1, most + 1))
            chosen += random.choice(group.free, count, replace=False).tolist()
    return chosen


def check(model: onnx.ModelProto, feed: dict[str, np.ndarray], seed: int) -> int:
    ready = prepared(model)
    channels = map_channels(ready)
    removed = some_of(channels, np.random.default_rng(seed))
    small, masked = cut(ready, channels, removed), mask(ready, channels, removed)
    np.testing.assert_allclose(answer(ready, feed), answer(model, feed), atol=CLOSE)
    wanted = answer(masked, feed)
    np.testing.assert_allclose(answer(small, feed), wanted, atol=CLOSE * max(1.0, float(np.abs(wanted).max())))
    if removed:
        assert small.ByteSize() < ready.ByteSize() + 200
    return len(removed)


@settings(max_examples=60)
@given(blocks=st.lists(st.sampled_from(sorted(BLOCKS)), max_size=5), seed=st.integers(0, 10**6))
def test_any_channels_of_any_network_can_go(blocks: list[str], seed: int) -> None:
    assert check(network(blocks, seed), pictures(1, seed)[0], seed) > 0


@pytest.mark.parametrize("block", sorted(BLOCKS))
def test_every_block_can_be_pruned(block: str) -> None:
    """Nothing in a block is frozen but the classifier's classes."""
    frozen = [group for group in map_channels(prepared(network([block, "plain"], 1))).groups if group.reason]
    picture_read = {"beside": 0}  # its concatenation holds only channels of layers, the first convolution's included
    assert len(frozen) == 1 + picture_read.get(block, 0)
    assert "output" in (frozen[-1].reason or "")


@pytest.mark.parametrize("name", ["mbn", "res"])
def test_real_networks(name: str, tmp_path: Path) -> None:
    model = onnx.load(DIGITS / f"{name}.onnx")
    with np.load(DIGITS / "digits32.npz") as digits:
        feed = {"x": (digits["test"][:4, None] / 255).astype(np.float32)}
    for seed in range(3):
        assert check(model, feed, seed) > 50


def test_a_channel_that_is_zero_changes_nothing() -> None:
    model = network(["plain", "residual"], 5)
    ready = prepared(model)
    channels = map_channels(ready)
    group = channels.groups[0]
    label = group.free[0]
    for entry in channels.cuts:
        tensor = next(tensor for tensor in ready.graph.initializer if tensor.name == entry.tensor)
        made = any(layer.weight == entry.tensor and layer.made_axis == entry.axis for layer in channels.layers)
        bias = len(tensor.dims) == 1
        if (made or bias) and label in entry.labels:
            values = onnx.numpy_helper.to_array(tensor).copy()
            np.moveaxis(values, entry.axis, 0)[entry.labels == label] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for feed in pictures(3):
        np.testing.assert_allclose(answer(cut(ready, channels, [label]), feed), answer(ready, feed), atol=CLOSE)
