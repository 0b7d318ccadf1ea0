"""RandAugment on clips: some operations of Keras's layers, drawn once for all frames of a clip.

`keras.layers.RandAugment` draws from a generator of its own, whose state moves with each call: what
a clip gets would depend on which clips came before it, and on the threads of the pipeline. So each
operation's parameters are drawn here, from the clip's seed, and given to the layer that carries it
out, by `transform_images`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from kvideo.data.clip_reader import GREY

LARGEST_MAGNITUDE = 10.0

Operation = Callable[[tf.Tensor, float, tf.Tensor], tf.Tensor]


def rand_augment(
    clip: tf.Tensor, seed: tf.Tensor, num_ops: int, magnitude: float = 9.0
) -> tf.Tensor:
    """Changes a clip by a few operations drawn at random, all frames alike (Cubuk et al. 2020).

    Each is one of 14: identity, auto-contrast, equalization, rotation, solarization, colour,
    posterization, contrast, brightness, sharpness, shear along x or y, translation along x or y.
    Those with two directions go in either one by chance. What geometric operations leave free is
    grey. Strengths at magnitude 10, to which lower ones are proportional: 30 degrees; shear 0.3;
    translation by 0.45 of the side; solarization of all pixels; 4 of 8 bits left; colour, contrast
    and sharpness scaled by 1 ± 0.9; brightness moved by 0.4 of the range, since Keras's layer adds
    where that of the paper multiplies.

    Args:
        clip: (T, H, W, 3) uint8.
        seed: (2,) int32; the same seed gives the same change.
        num_ops: how many operations, one after the other; the same one may come twice.
        magnitude: 0 to 10.

    Returns:
        As `clip`.
    """
    level = magnitude / LARGEST_MAGNITUDE
    draws = tf.random.stateless_uniform((num_ops, 2), seed)
    frames = tf.cast(clip, tf.float32)
    for number in range(num_ops):
        which = tf.cast(draws[number, 0] * len(_operations()), tf.int32)
        sign = tf.where(draws[number, 1] < 0.5, -1.0, 1.0)
        frames = tf.ensure_shape(_operate(frames, which, sign, level), clip.shape)
    return tf.saturate_cast(tf.round(frames), tf.uint8)


@tf.function(autograph=False)  # traced once for a shape, not once for each pipeline
def _operate(frames: tf.Tensor, which: tf.Tensor, sign: tf.Tensor, level: float) -> tf.Tensor:
    branches = [
        functools.partial(operation, frames, level, sign) for operation in _operations().values()
    ]
    return tf.switch_case(which, branches)


@functools.cache
def _operations() -> dict[str, Operation]:
    """By name: from frames (T, H, W, 3) float32, level 0 to 1 and sign to changed frames."""
    # None of the layers draws anything; their seeds and largest factors have no effect.
    common: dict[str, Any] = {"dtype": "float32", "data_format": "channels_last"}
    seeded = {**common, "seed": 0}
    fill = {"fill_mode": "constant", "fill_value": GREY, "interpolation": "bilinear"}
    with tf.init_scope():
        turn = keras.layers.RandomRotation(0.5, **fill, **seeded)
        shear = keras.layers.RandomShear(1.0, 1.0, **fill, **seeded)
        move = keras.layers.RandomTranslation(1.0, 1.0, **fill, **seeded)
        colour = keras.layers.RandomColorDegeneration(1.0, **seeded)
        contrast = keras.layers.RandomContrast(1.0, **seeded)
        brightness = keras.layers.RandomBrightness(1.0, **seeded)
        sharpness = keras.layers.RandomSharpness(1.0, **seeded)
        posterize = keras.layers.RandomPosterization(8, **seeded)
        solarize = keras.layers.Solarization(**seeded)
        stretch = keras.layers.AutoContrast(**common)
        equalize = keras.layers.Equalization(**common)

    def scaled(level: float, sign: tf.Tensor) -> tf.Tensor:
        return 1.0 + 0.9 * level * sign

    def rotated(frames: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
        matrix = _rotation(sign * level * math.pi / 6, frames.shape[1], frames.shape[2])
        return turn.transform_images(frames, {"rotation_matrix": matrix})

    def sheared(x: float, y: float) -> Operation:
        def run(frames: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
            factors = sign * level * 0.3 * tf.constant([[x, y]])
            return shear.transform_images(frames, {"shear_factor": factors})

        return run

    def moved(x: float, y: float) -> Operation:
        def run(frames: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
            pixels = tf.constant([[x * frames.shape[2], y * frames.shape[1]]])
            by = sign * level * 0.45 * pixels
            return move.transform_images(frames, {"translations": by})

        return run

    def coloured(frames: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
        factor = 1.0 - scaled(level, sign)  # of the way to grey
        return colour.transform_images(frames, {"factor": factor})

    def contrasted(frames: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
        factor = {"contrast_factor": scaled(level, sign)}
        return _as_one_picture(lambda whole: contrast.transform_images(whole, factor), frames)

    def brightened(frames: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
        return brightness.transform_images(frames, {"rgb_delta": sign * level * 0.4 * 255.0})

    def sharpened(frames: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
        return sharpness.transform_images(frames, {"factor": scaled(level, sign) / 2})

    def posterized(frames: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
        shift = {"shift_factor": tf.constant([round(4 * level)], tf.uint8)}
        return posterize.transform_images(frames, shift)

    def solarized(frames: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
        threshold = 256.0 * (1.0 - level)
        return solarize.transform_images(frames, {"thresholds": threshold, "additions": 0.0})

    def stretched(frames: tf.Tensor, level: float, sign: tf.Tensor) -> tf.Tensor:
        return _as_one_picture(lambda whole: stretch.transform_images(whole, None), frames)

    return {
        "identity": lambda frames, level, sign: tf.identity(frames),
        "auto_contrast": stretched,
        "equalize": lambda frames, level, sign: equalize.transform_images(frames, None),
        "rotate": rotated,
        "solarize": solarized,
        "color": coloured,
        "posterize": posterized,
        "contrast": contrasted,
        "brightness": brightened,
        "sharpness": sharpened,
        "shear_x": sheared(1.0, 0.0),
        "shear_y": sheared(0.0, 1.0),
        "translate_x": moved(1.0, 0.0),
        "translate_y": moved(0.0, 1.0),
    }


def _as_one_picture(change: Callable[[tf.Tensor], tf.Tensor], frames: tf.Tensor) -> tf.Tensor:
    """A change that goes by a picture's own extremes or mean: here those of the whole clip."""
    shape = frames.shape
    whole = tf.reshape(frames, (1, shape[0] * shape[1], *shape[2:]))
    return tf.reshape(change(whole), shape)


def _rotation(angle: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """(1, 8): the projective transform that turns pictures about their middle, in radians."""
    x, y = (width - 1) / 2, (height - 1) / 2
    cos, sin = tf.cos(angle), tf.sin(angle)
    zero = tf.zeros_like(cos)
    row = [cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y, zero, zero]
    return tf.stack(row)[tf.newaxis]
