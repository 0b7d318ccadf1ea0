"""`kvideo.data.sampling`'s random choices for a training clip, in TensorFlow's own operations.

The same rules from the same number of draws: what `random_window` asks its generator for, in that
order, `draw_window` takes from a tensor. A Python function cannot run on a `tf.data` service.
"""

from __future__ import annotations

import math

import tensorflow as tf

from kvideo.clip_spec import ClipSpec
from kvideo.data.clip_reader import GREY
from kvideo.data.sampling import BEFORE_END, Augmentation

DRAWS = 4  # uniform numbers that a window needs, at most
_TOLERANCE_SECONDS = 1e-3


def draw_frames(
    num_frames: tf.Tensor, frame_rate: tf.Tensor, spec: ClipSpec, draw: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Which stored frames a clip at a random place shows, see `random_clip_times`.

    Args:
        num_frames: scalar int, stored frames.
        frame_rate: scalar, stored frames per second.
        spec: what a clip is.
        draw: scalar in 0..1.

    Returns:
        Numbers (T,) int32; times (T,) float64 in seconds; and (T,) bool: the time lies behind the
        video's end, so that the clip repeats the last frame.
    """
    rate = tf.cast(frame_rate, tf.float64)
    end = tf.cast(num_frames, tf.float64) / rate
    start = tf.cast(draw, tf.float64) * tf.maximum(end - spec.span, 0.0)
    wanted = start + tf.range(spec.num_frames, dtype=tf.float64) / spec.frame_rate
    latest = tf.maximum(start, end - BEFORE_END)
    times = tf.minimum(wanted, latest)
    padding = (wanted > latest) & (tf.range(spec.num_frames) > 0)
    tolerance = tf.minimum(tf.constant(_TOLERANCE_SECONDS, tf.float64), 0.25 / rate)
    numbers = tf.cast(tf.floor((times + tolerance) * rate), tf.int32)
    return tf.clip_by_value(numbers, 0, tf.cast(num_frames, tf.int32) - 1), times, padding


def draw_window(
    picture: tf.Tensor, spec: ClipSpec, augmentation: Augmentation, draws: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """A random part of a picture, see `kvideo.data.sampling.random_window`.

    Args:
        picture: (2,) int32, height and width.
        spec: what a clip is.
        augmentation: how the part is chosen.
        draws: (4,) float64, in 0..1 without 1.

    Returns:
        (height, width) of the whole picture after resizing, int32 (2,), and where its top left
        corner comes in the clip, int32 (2,); outside of the clip it is negative.
    """
    size = tf.constant(spec.size)
    if spec.framing == "letterbox":
        least = 1.0 if augmentation.crop == "center" else math.sqrt(augmentation.min_area)
        scale = least + draws[0] * (1.0 - least)
        full = _contain(picture, spec.size, scale)
        room = size - full
        if augmentation.crop == "center":
            return full, room // 2
        return full, _integers(draws[1:3], room)
    if augmentation.crop == "center":
        full = _test_size(picture, spec)
        room = tf.cast(full - size, tf.float64)
        return full, -tf.cast(tf.round(0.5 * room), tf.int32)
    if augmentation.crop == "random" and spec.framing == "crop":
        short = max(spec.test_short_side, min(spec.size))
        more = round(1.25 * short) - short
        full = tf.maximum(_cover(picture, short + _integers(draws[0], tf.constant(more))), size)
        return full, -_integers(draws[1:3], full - size)
    full = _resized_box(picture, spec, augmentation, draws)
    return full, -_integers(draws[2:4], full - size)


def cut(pictures: tf.Tensor, full: tf.Tensor, place: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resizes pictures and takes a part of them; what a picture leaves free is grey.

    The filter is a triangle that grows with the shrinking, so that it does not alias, as where
    files are decoded (`kvideo.data.picture`).

    Args:
        pictures: (T, h, w, 3) uint8.
        full: (2,) int32: the size of the whole picture.
        place: (2,) int32: of its top left corner.
        size: (H, W) of the part.

    Returns:
        (T, H, W, 3) uint8.
    """
    time, height, width, _ = tf.unstack(tf.shape(pictures))
    # The times are channels of one picture: the kernel's innermost loop is over channels.
    picture = tf.reshape(tf.transpose(pictures, (1, 2, 0, 3)), (1, height, width, -1))
    scaled = tf.raw_ops.ScaleAndTranslate(
        images=picture,
        size=tf.constant(size),
        scale=tf.cast(full, tf.float32) / tf.cast(tf.stack([height, width]), tf.float32),
        translation=tf.cast(place, tf.float32),
        kernel_type="triangle",
        antialias=True,
    )
    scaled = tf.saturate_cast(tf.round(scaled), tf.uint8)
    clip = tf.transpose(tf.reshape(scaled, (*size, time, 3)), (2, 0, 1, 3))
    rows = _inside(size[0], place[0], full[0])
    columns = _inside(size[1], place[1], full[1])
    shown = rows[:, tf.newaxis, tf.newaxis] & columns[tf.newaxis, :, tf.newaxis]
    clip = tf.cond(
        tf.reduce_all(shown),
        lambda: clip,
        lambda: tf.where(shown, clip, tf.constant(GREY, tf.uint8)),
    )
    return tf.ensure_shape(clip, (None, *size, 3))


def _inside(length: int, first: tf.Tensor, extent: tf.Tensor) -> tf.Tensor:
    places = tf.range(length)
    return (places >= first) & (places < first + extent)


def _integers(draws: tf.Tensor, highest: tf.Tensor) -> tf.Tensor:
    """Whole numbers from 0 to `highest`, all alike probable."""
    return tf.cast(tf.floor(draws * (tf.cast(highest, tf.float64) + 1.0)), tf.int32)


def _rounded(values: tf.Tensor) -> tf.Tensor:
    return tf.maximum(tf.cast(tf.round(values), tf.int32), 1)


def _cover(picture: tf.Tensor, short_side: tf.Tensor | int) -> tf.Tensor:
    scale = tf.cast(short_side, tf.float64) / tf.cast(tf.reduce_min(picture), tf.float64)
    return _rounded(tf.cast(picture, tf.float64) * scale)


def _contain(picture: tf.Tensor, size: tuple[int, int], scale: tf.Tensor) -> tf.Tensor:
    sides = tf.cast(picture, tf.float64)
    factor = scale * tf.reduce_min(tf.constant(size, tf.float64) / sides)
    return tf.minimum(_rounded(sides * factor), tf.constant(size))


def _test_size(picture: tf.Tensor, spec: ClipSpec) -> tf.Tensor:
    if spec.framing == "stretch":
        return tf.constant(spec.size)
    size = tf.constant(spec.size)
    full = _cover(picture, max(spec.test_short_side, min(spec.size)))
    sides = tf.cast(full, tf.float64)
    scale = tf.maximum(tf.reduce_max(tf.cast(size, tf.float64) / sides), 1.0)
    return tf.maximum(_rounded(sides * scale), size)


def _resized_box(
    picture: tf.Tensor, spec: ClipSpec, augmentation: Augmentation, draws: tf.Tensor
) -> tf.Tensor:
    height, width = spec.size
    shape = tf.constant(spec.size) if spec.framing == "stretch" else picture
    sides = tf.cast(shape, tf.float64)
    share = augmentation.min_area + draws[0] * (1.0 - augmentation.min_area)
    limit = math.log(augmentation.max_aspect)
    aspect = width / height * tf.exp((2.0 * draws[1] - 1.0) * limit)
    area = share * sides[0] * sides[1]
    box = tf.minimum(tf.sqrt(tf.stack([area / aspect, area * aspect])), sides)
    wanted = tf.constant(spec.size, tf.float64)
    return tf.maximum(tf.cast(tf.round(sides * wanted / box), tf.int32), tf.constant(spec.size))
