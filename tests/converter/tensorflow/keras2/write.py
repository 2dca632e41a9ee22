"""Write the `.h5` files of this folder, and answers to noise, by Keras 2: `python write.py`.

Needs TensorFlow and tf_keras, the last release of Keras 2, which asks for another build of TensorFlow than the tests
use; so its files are kept here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras  # type: ignore[import-not-found,unused-ignore]  # see above

HERE = Path(__file__).parent
layers = tf_keras.layers


def mobile() -> Any:
    """Return a network with depthwise layers, ReLU6 by name, and functions of TensorFlow among its layers."""
    image = tf_keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(image * 2.0 - 1.0)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", activation=tf.nn.relu6)(x)
    x = layers.Conv2D(8, 1, activation="swish")(x) + x
    x = tf.concat([1.0 - x, tf.nn.relu6(x)[:, :, :, 2:6]], axis=-1)
    x = x * tf.nn.sigmoid(layers.Conv2D(12, 1)(tf.reduce_mean(x, axis=[1, 2], keepdims=True)))
    x = layers.SeparableConv2D(6, 3, depth_multiplier=2)(x)
    x = layers.Conv2DTranspose(4, 2, strides=2)(x)
    return tf_keras.Model(image, layers.Dense(3, name="scores")(layers.Flatten()(x)))


def stack() -> Any:
    """Return a Sequential network that says its input in the first layer."""
    return tf_keras.Sequential(
        [
            layers.Conv2D(4, 3, input_shape=(8, 8, 1), activation="relu", kernel_regularizer="l2"),
            layers.MaxPooling2D(),
            layers.LayerNormalization(),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(5, activation="softmax", kernel_constraint="max_norm"),
        ]
    )


def sequence() -> Any:
    """Return a network on tokens, with recurrent layers in both directions and attention."""
    tokens = tf_keras.Input((10,), dtype="int32", name="tokens")
    x = layers.Embedding(20, 8)(tokens)
    x = layers.Bidirectional(layers.LSTM(6, return_sequences=True))(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x)])
    x = layers.TimeDistributed(layers.Dense(4, activation="tanh"))(x)
    return tf_keras.Model(tokens, layers.Dense(2)(layers.GRU(5)(x)))


def nested() -> Any:
    """Return a network with a whole model as one of its layers, compiled and trained for one step."""
    inner_image = tf_keras.Input((8, 8, 3))
    inner = tf_keras.Model(inner_image, layers.Conv2D(4, 3, activation="relu")(inner_image), name="backbone")
    model = tf_keras.Sequential([inner, layers.GlobalAveragePooling2D(), layers.Dense(2)])
    model.compile("adam", "mse")
    model.fit(np.ones((2, 8, 8, 3)), np.ones((2, 2)), verbose=0)
    return model


def wrapped() -> Any:
    """Return a network that calls another one twice."""
    inner_image = tf_keras.Input((8, 8, 3))
    inner = tf_keras.Model(inner_image, layers.Conv2D(4, 3)(layers.ZeroPadding2D()(inner_image)), name="backbone")
    image, other = tf_keras.Input((8, 8, 3), name="image"), tf_keras.layers.AveragePooling2D(1)
    both = layers.Concatenate()([inner(image), inner(other(image) * image)])
    return tf_keras.Model(image, layers.Dense(2)(layers.GlobalMaxPooling2D()(both)))


def main() -> None:
    """Write each network, an input of two samples, and what Keras 2 answers."""
    for number, make in enumerate((mobile, stack, sequence, nested, wrapped)):
        tf_keras.utils.set_random_seed(number)
        model = make()
        for array in model.weights:  # statistics and biases are not what they start as
            array.assign(array + 0.1 * tf.abs(tf.random.normal(array.shape)))
        noise = np.random.default_rng(number)
        (tensor,) = model.inputs
        shape = (2, *tensor.shape[1:])
        given = noise.integers(0, 20, shape).astype(np.int32) if tensor.dtype == tf.int32 else noise.random(shape, "f4")
        model.save(HERE / f"{make.__name__}.h5")
        np.savez(HERE / f"{make.__name__}.npz", given=given, answer=np.asarray(model(given)))


if __name__ == "__main__":
    main()
