"""Pruning of Keras models: what is left is the same network without some channels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tests.converter.tensorflow.roads import DIGITS, go

from autoglm_edge_converter.errors import BadOption, UserCodeFailed
from autoglm_edge_converter.roads.finetuning import Finetuning
from autoglm_edge_converter.roads.keras_pruning import Study, copied, multiplications, prune, reach
from autoglm_edge_converter.roads.keras_walk import plain, rebuild, walk
from autoglm_edge_converter.roads.pruning_schedule import Schedule
from autoglm_edge_converter.runners import open_runner

TUNING = Path(__file__).with_name("tuning.py")
L = keras.layers

# Keras 3 saves through numpy arrays that TensorFlow makes in the way of numpy 1
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def _finetuning(function: str, budget: float = 0.4, steps: int = 2) -> Finetuning:
    return Finetuning(f"{TUNING}:{function}", Schedule(budget, steps))


def _silent(step: str) -> None:
    pass


def _plain() -> Any:
    return keras.Sequential(
        [keras.Input((8, 8, 3)), L.Conv2D(16, 3, activation="relu"), L.Flatten(), L.Dense(32, "gelu"), L.Dense(4)]
    )


def _residual() -> Any:
    image = keras.Input((8, 8, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(24, 3, padding="same", use_bias=False)(image)))
    y = L.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(L.Conv2D(40, 1, activation="relu6")(x))
    x = x + L.BatchNormalization(scale=False)(L.Conv2D(24, 1)(y))
    gate = L.Reshape((1, 1, 24))(L.Dense(24, "sigmoid")(L.Dense(8, "relu")(L.GlobalAveragePooling2D()(x))))
    return keras.Model(image, L.Dense(5)(L.GlobalMaxPooling2D()(L.Multiply()([x, gate]))))


def _joined() -> Any:
    image = keras.Input((8, 8, 3))
    left = L.MaxPooling2D()(L.Conv2D(16, 3, padding="same")(image))
    right = L.SeparableConv2D(24, 3, strides=2, padding="same", depth_multiplier=2)(L.Conv2D(20, 1)(image))
    x = L.LeakyReLU()(L.Concatenate()([left, right]))
    return keras.Model(image, [L.Conv2D(6, 3, name="map")(x), L.Dense(3, name="scores")(L.Flatten()(x))])


def _shared() -> Any:
    image = keras.Input((8, 8, 3))
    first, again = L.Conv2D(16, 3, padding="same"), L.Conv2D(16, 3, padding="same", activation="relu")
    x = again(again(first(image)))
    return keras.Model(image, L.Dense(2)(L.GlobalAveragePooling2D()(x)))


def _nested() -> Any:
    inner_image = keras.Input((8, 8, 3))
    inner = keras.Model(inner_image, L.Conv2D(32, 3, activation="relu")(L.Conv2D(16, 3)(inner_image)), name="backbone")
    return keras.Sequential([keras.Input((8, 8, 3)), inner, L.GlobalAveragePooling2D(), L.Dense(2)])


MODELS = [_plain, _residual, _joined, _shared, _nested]


def _stirred(make: Callable[[], Any]) -> Any:
    """Return a model whose every weight is noise, so that no two channels are alike."""
    keras.utils.set_random_seed(0)
    model = make()
    noise = np.random.default_rng(0)
    model.set_weights([array + 0.1 * np.abs(noise.standard_normal(array.shape)) for array in model.get_weights()])
    return model


def _dead(model: Any, found: Any, kept: Any) -> None:
    """Make the channels that go count for nothing, by the weights that read them."""
    for name, cut in found.cuts.items():
        layer = model.get_layer(name)
        arrays = layer.get_weights()
        if cut.width is not None and arrays:
            axis = arrays[0].ndim - 2
            stays = kept[cut.reads].reshape([-1 if at == axis else 1 for at in range(arrays[0].ndim)])
            layer.set_weights([arrays[0] * stays, *arrays[1:]])


@pytest.mark.parametrize("make", MODELS)
def test_what_is_left_computes_what_it_did(make: Callable[[], Any]) -> None:
    """Where the layers behind do not read what goes, taking it out changes nothing."""
    model = copied(plain(_stirred(make)))
    study = Study.of(walk(model, {}))
    kept = study.kept(0.5)
    assert not kept.all()
    pruned = rebuild(model, study.map, kept)
    _dead(model, study.map, kept)
    images = np.random.default_rng(1).random((2, 8, 8, 3), np.float32)
    for ours, theirs in zip(_answers(model, images), _answers(pruned, images), strict=True):
        # Sums of some hundred float products, in another order.
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def _answers(model: Any, images: Any) -> list[Any]:
    return [np.asarray(answer) for answer in keras.tree.flatten(model(images))]


@pytest.mark.parametrize("make", MODELS)
def test_the_budget_is_met_and_the_ports_stay(make: Callable[[], Any]) -> None:
    model = plain(_stirred(make))
    before = multiplications(walk(model, {}))
    pruned, removed = reach(model, {}, before, 0.4)
    # One step of a width is an eighth of it, and a layer may be most of these small networks.
    assert 0.4 <= removed < 0.55
    assert multiplications(walk(pruned, {})) == pytest.approx((1 - removed) * before)
    assert [tensor.shape for tensor in pruned.outputs] == [tensor.shape for tensor in model.outputs]
    assert all(np.isfinite(answer).all() for answer in _answers(pruned, np.ones((1, 8, 8, 3), np.float32)))


def test_multiplications_are_those_of_the_layers() -> None:
    # 6 x 6 places of 3 x 3 x 3 x 16, then 576 x 32, then 32 x 4
    assert multiplications(walk(plain(_plain()), {})) == 36 * 27 * 16 + 576 * 32 + 32 * 4


def test_layers_that_are_not_known_keep_their_channels() -> None:
    image = keras.Input((8, 8, 3))
    x = L.Conv2D(16, 3, name="before")(image)
    x = L.GroupNormalization(4)(x)
    x = L.Conv2D(16, 3, groups=4, name="grouped")(L.Conv2D(16, 1, name="inside")(x))
    x = L.Conv2D(16, 1, activation="softmax", name="softmax")(L.Conv2D(32, 1, name="free")(x))
    model = plain(keras.Model(image, L.Dense(3)(L.GlobalAveragePooling2D()(x))))
    before = multiplications(walk(model, {}))
    pruned, removed = reach(model, {}, before, 0.9)
    widths = {layer.name: layer.filters for layer in pruned.layers if isinstance(layer, L.Conv2D)}
    assert widths == {"before": 16, "inside": 16, "grouped": 16, "softmax": 16, "free": 4}
    assert 0 < removed < 0.9


def test_a_model_without_inner_channels_is_refused() -> None:
    image = keras.Input((4,))
    with pytest.raises(BadOption, match="no channels of this model can be taken out"):
        prune(keras.Model(image, L.Dense(3)(image)), _finetuning("leave"), {}, _silent)


def test_free_axes_need_a_size() -> None:
    image = keras.Input((None, None, 3), name="image")
    x = L.Conv2D(16, 3)(L.Conv2D(16, 3)(image))
    model = keras.Model(image, L.GlobalAveragePooling2D()(L.Conv2D(4, 1)(x)))
    with pytest.raises(BadOption, match="--shape image=-1,224,224,3"):
        prune(model, _finetuning("leave"), {}, _silent)
    pruned, removed = prune(model, _finetuning("leave"), {"image": (-1, 16, 16, 3)}, _silent)
    assert removed >= 0.4
    assert pruned.inputs[0].shape == (None, None, None, 3)


@pytest.mark.parametrize(
    ("function", "line"),
    [
        ("other", "other inputs or outputs"),
        ("text", "gives str: give None or the model"),
        ("fail", "tuning.py line .*, in fail: RuntimeError: no data"),
        ("absent", "has no function 'absent'"),
    ],
)
def test_what_a_function_does_wrong_is_said(function: str, line: str) -> None:
    with pytest.raises(UserCodeFailed, match=line):
        prune(_plain(), _finetuning(function), {}, _silent)


def test_the_original_is_left_as_it_was() -> None:
    model = _stirred(_residual)
    before = model.get_weights()
    prune(model, _finetuning("leave"), {}, _silent)
    assert all(map(np.array_equal, before, model.get_weights()))


@pytest.mark.parametrize(
    ("road", "options", "line"),
    [
        ("savedmodel", {"finetune": f"{TUNING}:leave", "prune": "0.4"}, "--finetune needs the layers of the model"),
        ("keras", {"finetune": f"{TUNING}:leave", "prune": "auto"}, "--finetune goes with --prune FRACTION"),
        ("keras", {"finetune": f"{TUNING}:leave", "prune": "1.5"}, "between 0 and 1, not 1.5"),
    ],
)
def test_what_cannot_be_asked_for_is_said(road: str, options: dict[str, str], line: str, tmp_path: Path) -> None:
    journey = go(road, DIGITS / "mbn.keras", tmp_path, formats=[], options=options)
    assert journey.last["kind"] == "BadOption"
    assert line in journey.last["error"]


@pytest.mark.slow
@pytest.mark.timeout(600)  # trains two times
def test_digits_lose_two_fifths_and_at_most_a_point(tmp_path: Path) -> None:
    options = {"finetune": f"{TUNING}:train", "prune": "0.4", "prune_steps": "2"}
    journey = go("keras", DIGITS / "mbn.keras", tmp_path, options=options)
    whole = [entry for entry in journey.departure["renditions"] if "pruning" not in entry]
    pruned = {entry["format"]: entry for entry in journey.departure["renditions"] if "pruning" in entry}
    assert len(whole) == len(pruned) == 2
    with np.load(DIGITS / "digits32.npz") as digits:
        images, labels = digits["test"][..., None].astype(np.float32) / 255, digits["test_labels"]
    original = _accuracy(Path(journey.departure["runnable"]), images, labels)
    for entry in pruned.values():
        assert 0.4 <= entry["pruning"] < 0.45
        assert _accuracy(Path(entry["path"]), images, labels) >= original - 0.01


def _accuracy(path: Path, images: Any, labels: Any) -> float:
    (logits,) = open_runner(path).run({"input_layer": images})
    return float((logits.argmax(1) == labels).mean())
