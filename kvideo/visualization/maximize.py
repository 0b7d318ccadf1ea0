"""Activation maximization: the clip that a class, or a channel of a layer, likes best.

The clip is found by gradient ascent on the mean logit, under penalties on differences between
neighbouring pixels and between neighbouring frames. The weight of the latter picks out slow motion
(large) or fast motion (none), as Feichtenhofer et al. 2018, "What have we learned from deep
representations for action recognition?", section 3, have it for two-stream networks. The clip is a
sum of clips of several sizes, so that large shapes grow as quickly as small ones, and is moved a
little at random in each step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from kvideo.errors import UsageError
from kvideo.graphs import layer_output

LOGITS = "logits"
_FLOW_LIMIT = 10.0  # pixels per frame
_RANGE = 55.0  # of pixels around grey, for one unit of the clip before it is squashed
_GREY = 127.5
# A network likes flow the better the longer it is, so that it needs a price; and flow is smooth.
_FLOW_ENERGY = 60.0  # weight of its mean square, in units of the clip before it is squashed
_FLOW_SMOOTHNESS = 100.0  # times that of pixels
_SMALLEST = 4  # pixels of the smallest size


@dataclasses.dataclass(frozen=True)
class MaximizeSettings:
    """How a clip is sought.

    Args:
        steps: of gradient ascent.
        rate: of Adam, for each step.
        smoothness: weight of the differences between neighbouring pixels.
        temporal_smoothness: weight of the differences between neighbouring frames: with 0 the clip
            may change as fast as it likes (fast motion), with 10 and more it hardly may (slow).
        jitter: pixels by which the clip is moved, at most, in each step.
        scales: sizes that the clip is the sum of, each half of the one before.
        seed: of the beginning and the jitter: the same seed, the same clip.

    Raises:
        UsageError: a value is out of its range.
    """

    steps: int = 200
    rate: float = 0.05
    smoothness: float = 30.0
    temporal_smoothness: float = 0.0
    jitter: int = 4
    scales: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("scales", 1), ("jitter", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}, not {getattr(self, name)}.")
        for name in ("smoothness", "temporal_smoothness"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"{name} must be 0 or more, not {getattr(self, name)}.")
        if not 0 < self.rate < float("inf"):
            raise UsageError(f"rate must be above 0, not {self.rate}.")


@dataclasses.dataclass(frozen=True, eq=False)
class Maximized:
    """A clip that activates a unit.

    Attributes:
        clip: (T, H, W, C) float32: RGB from 0 to 255, flow in pixels per frame.
        before: the unit's activation by the clip that the search began with.
        after: by this one.
        seen: (T, C) bool: what the unit depends on. The spatial stream of two sees one frame.
    """

    clip: np.ndarray
    before: float
    after: float
    seen: np.ndarray

    def pictures(self) -> dict[str, np.ndarray]:
        """By `"rgb"` and `"flow"`, what there is of it: (T', H, W, 3) uint8.

        Frames that the unit does not depend on are left out. Pictures of little contrast are shown
        with all that there is room for.
        """
        found = {}
        if self.clip.shape[-1] in (1, 3, 5):
            seen = self.seen[:, :3].any(axis=1)
            clip = self.clip[seen, ..., :3]
            rgb = np.broadcast_to(clip, (*clip.shape[:3], 3)) - _GREY
            most = max(float(np.percentile(np.abs(rgb), 99.5)), 1e-6)
            found["rgb"] = np.clip(rgb / most * _GREY + _GREY, 0, 255).astype(np.uint8)
        if self.clip.shape[-1] in (2, 5):
            from kvideo.flow.colors import flow_to_rgb

            flow = self.clip[self.seen[:, -2:].any(axis=1), ..., -2:]
            longest = max(float(np.linalg.norm(flow, axis=-1).max()), 1e-6)
            found["flow"] = np.stack([flow_to_rgb(frame, longest) for frame in flow])
        return found


def maximize(
    model: keras.Model,
    unit: int,
    layer: str = LOGITS,
    settings: MaximizeSettings | None = None,
    *,
    on_step: Callable[[], None] | None = None,
) -> Maximized:
    """A clip that makes a unit as active as possible.

    Args:
        model: a functional model of clips of fixed size, RGB, flow, or both.
        unit: number of a class, or of a channel of another layer.
        layer: `"logits"`, or a layer whose last axis are channels; its mean over places counts.
        settings: see there.
        on_step: is called after each step.

    Raises:
        UnknownNameError: there is no such layer.
        UsageError: there is no such unit, or the clip's size is open.
    """
    how = settings or MaximizeSettings()
    output = layer_output(model, layer)
    if not 0 <= unit < output.shape[-1]:
        raise UsageError(
            f'the layer "{layer}" has units 0 to {output.shape[-1] - 1}, and no {unit}.'
        )
    shape = tuple(model.input_shape[1:])
    if None in shape:
        raise UsageError(f'the model "{model.name}" takes clips of any size; give it one.')
    network = keras.Model(model.input, output)
    sizes = _sizes(shape, how.scales)
    rng = np.random.default_rng(how.seed)
    parts = [
        tf.Variable(rng.normal(0, 0.1, (1, shape[0], *size, shape[3])).astype("float32"))
        for size in sizes
    ]
    moments = [(tf.Variable(tf.zeros_like(p)), tf.Variable(tf.zeros_like(p))) for p in parts]

    def assembled() -> tf.Tensor:
        """(1, T, H, W, C), without bounds."""
        return tf.add_n([_enlarged(part, shape) for part in parts])

    def activation(clip: tf.Tensor) -> tf.Tensor:
        found = network(clip, training=False)
        return tf.reduce_mean(tf.cast(found, tf.float32)[..., unit])

    @tf.function(jit_compile=False)
    def step(number: tf.Tensor, move: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            raw = assembled()
            moved = tf.roll(raw, move, axis=[2, 3])
            loss = -activation(_bounded(moved))
            loss += how.smoothness * _roughness(raw)
            if shape[0] > 1:
                loss += how.temporal_smoothness * _change(raw, 1)
            if channels_of_flow := shape[3] - _pixel_channels(shape[3]):
                flow = raw[..., -channels_of_flow:]
                loss += _FLOW_ENERGY * tf.reduce_mean(flow**2)
        for part, gradient, (first, second) in zip(
            parts, tape.gradient(loss, parts), moments, strict=True
        ):
            _adam(part, gradient, first, second, number, how.rate)

    with tf.GradientTape() as tape:
        first_clip = _bounded(assembled())
        tape.watch(first_clip)
        before = activation(first_clip)
    seen = np.abs(tape.gradient(before, first_clip)).max(axis=(0, 2, 3)) > 0
    seen |= not seen.any()  # nothing is known of a unit that is not active at all
    for number in range(how.steps):
        move = rng.integers(-how.jitter, how.jitter + 1, 2)
        step(tf.constant(number + 1.0), tf.constant(move, tf.int32))
        if on_step is not None:
            on_step()
    clip = _bounded(assembled())
    return Maximized(clip.numpy()[0], float(before), float(activation(clip)), seen)


def _adam(
    part: tf.Variable,
    gradient: tf.Tensor,
    first: tf.Variable,
    second: tf.Variable,
    number: tf.Tensor,
    rate: float,
) -> None:
    first.assign(0.9 * first + 0.1 * gradient)
    second.assign(0.999 * second + 0.001 * gradient**2)
    mean, square = first / (1 - 0.9**number), second / (1 - 0.999**number)
    part.assign_sub(rate * mean / (tf.sqrt(square) + 1e-12))


def _sizes(shape: tuple[int, ...], scales: int) -> list[tuple[int, int]]:
    found = [(shape[1], shape[2])]
    while len(found) < scales and min(found[-1]) // 2 >= _SMALLEST:
        found.append((found[-1][0] // 2, found[-1][1] // 2))
    return found


def _enlarged(part: tf.Variable, shape: tuple[int, ...]) -> tf.Tensor:
    """(1, T, h, w, C) -> (1, T, H, W, C)."""
    frames, height, width, channels = shape
    pictures = tf.reshape(part, (frames, *part.shape[2:]))
    pictures = tf.image.resize(pictures, (height, width))
    return tf.reshape(pictures, (1, frames, height, width, channels))


def _bounded(raw: tf.Tensor) -> tf.Tensor:
    """Any numbers as pixels around grey, and as flow."""
    channels = raw.shape[-1]
    rgb = _pixel_channels(channels)
    pixels = _GREY + _GREY * tf.tanh(raw[..., :rgb] * _RANGE / _GREY)
    if rgb == channels:
        return pixels
    flow = _FLOW_LIMIT * tf.tanh(raw[..., rgb:])
    return tf.concat([pixels, flow], axis=-1) if rgb else flow


def _pixel_channels(channels: int) -> int:
    """How many of a clip's channels are pixels; the others are optical flow."""
    return channels if channels in (1, 3) else channels - 2


def _change(raw: tf.Tensor, axis: int, among: slice = slice(None)) -> tf.Tensor:
    """The mean square of differences between neighbours along an axis, of some channels."""
    size = raw.shape[axis]
    index: list[slice] = [slice(None)] * 4 + [among]
    later, sooner = list(index), list(index)
    later[axis], sooner[axis] = slice(1, size), slice(0, size - 1)
    return tf.reduce_mean((raw[tuple(later)] - raw[tuple(sooner)]) ** 2)


def _roughness(raw: tf.Tensor) -> tf.Tensor:
    """The differences between neighbouring pixels, those of flow weighted more."""
    channels = raw.shape[-1]
    rgb = _pixel_channels(channels)
    found = tf.constant(0.0)
    for among, weight in ((slice(0, rgb), 1.0), (slice(rgb, channels), _FLOW_SMOOTHNESS)):
        if among.stop > among.start:
            found += weight * (_change(raw, 2, among) + _change(raw, 3, among))
    return found
