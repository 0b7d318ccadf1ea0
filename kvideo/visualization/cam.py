"""Grad-CAM over space and time: which places and moments of a video speak for a class.

The weight of each channel of a map is the mean, over the map, of the gradient of the class's logit;
what is shown is the positive part of the weighted sum (Selvaraju et al. 2017, "Grad-CAM"). Maps of
video models have a time axis, so that they also say when.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvideo.data.clip_reader import ClipReader
from kvideo.data.encoding import Draw, write_drawn_film
from kvideo.data.records import VideoRecord
from kvideo.data.sampling import Window, clip_times
from kvideo.errors import UsageError
from kvideo.graphs import layer_output
from kvideo.report.drawing import draw_label
from kvideo.report.plots import drawable
from kvideo.visualization.heat import heat_picture, over_picture

FEATURE_MAP, LOGITS = "feature_map", "logits"
_BATCH = 4  # clips at once
_KEPT_BYTES = 256 * 2**20  # of maps, while the class is sought; those of longer films are made anew
_SAMPLES = 8  # times that a mean is taken over
_SHORTEST_SIDE = 240  # pixels; smaller pictures are enlarged, or nothing would be readable
_LONGEST_SIDE = 640  # larger ones are shrunk: a film of HD would take minutes
_TEXT = 0.05  # of the picture's height
_STRONGEST = 0.6  # of the colours, over the picture
_DARK = 0.55  # of the brightness is taken where the model sees nothing
_COLOUR = (230, 80, 50)


@dataclasses.dataclass(frozen=True, eq=False)
class Activation:
    """What speaks for a class in a video.

    Attributes:
        path: the video.
        label: the class's name.
        number: of the class.
        times: (N, T) seconds of the frames of N clips; each begins in the middle of the last one.
        maps: (N, T', H', W') from 0 to 1, the largest value of the video; a map's places cover the
            clip's frames and pixels evenly.
        probabilities: (N,) the model's, of the class, for each clip.
        span: of a clip, seconds.
        window: which part of the picture the clips show.
        size: (H, W) of a clip.
        end: of the video, seconds.
    """

    path: str
    label: str
    number: int
    times: np.ndarray
    maps: np.ndarray
    probabilities: np.ndarray
    span: float
    window: Window
    size: tuple[int, int]
    end: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the maps themselves."""
        times, strength, probabilities = self.curve()
        return {
            "path": self.path,
            "class": self.label,
            "clips": [
                {"start": row[0], "end": row[-1], "probability": probability}
                for row, probability in zip(
                    self.times.tolist(), self.probabilities.tolist(), strict=True
                )
            ],
            "times": times.tolist(),
            "strength": strength.tolist(),
            "probability": probabilities.tolist(),
        }

    def at(self, seconds: float) -> tuple[np.ndarray, float]:
        """The map (H', W') and the class's probability around a time; see `curve`."""
        around = self._around(np.array([seconds]))
        steady = self.probabilities[:, None]
        return self._seen(self.maps, around)[0], float(self._seen(steady, around)[0])

    def curve(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Seconds (M,), rising; how much speaks for the class (M,); its probability (M,).

        How much speaks for it is the mean over the map. Of the clips that show a moment each counts
        by how far it is from that clip's ends, where a network sees padding; and all is averaged
        over the time from one clip to the next, so that what comes of a moment's place in its clip
        alone is the same all along the video.
        """
        times = np.unique(self.moments.round(4))
        around = self._around(times)
        strength = self._seen(self.maps.mean(axis=(2, 3)), around)
        return times, strength, self._seen(self.probabilities[:, None], around)

    @property
    def moments(self) -> np.ndarray:
        """(N, T') seconds that the maps stand for."""
        return np.stack([_moments(row, self.maps.shape[1]) for row in self.times])

    @functools.cached_property
    def _centres(self) -> np.ndarray:
        """(N,) the middles of the clips, rising."""
        return self.times.mean(axis=1)

    def _around(self, seconds: np.ndarray) -> np.ndarray:
        """(M, S) times around each, evenly over the time from one clip to the next."""
        places = (np.arange(_SAMPLES) + 0.5) / _SAMPLES - 0.5
        around = seconds[:, None] + places * self.span / 2
        return np.clip(around, self.times[0, 0], self.times[-1, -1])

    def _seen(self, values: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Means (M, ...) over times (M, S) of what clips' values (N, T', ...) are there."""
        order = np.argsort(times, axis=None)
        seconds, half = times.reshape(-1)[order], self.span / 2
        ones = [1] * (values.ndim - 2)
        total = np.zeros((len(seconds), *values.shape[2:]))
        weights = np.zeros((len(seconds), *ones))
        first, last = np.searchsorted(self._centres, (seconds[0] - half, seconds[-1] + half))
        for number in range(first, last):
            centre, rows = self._centres[number], values[number]
            shown = slice(*np.searchsorted(seconds, (centre - half, centre + half)))
            moments = _moments(self.times[number], len(rows))
            place = np.interp(seconds[shown], moments, np.arange(len(rows)))
            low = place.astype(int)
            high = np.minimum(low + 1, len(rows) - 1)
            share = (place - low).reshape(-1, *ones)
            weight = (1 - np.abs(seconds[shown] - centre) / half).reshape(-1, *ones)
            total[shown] += weight * (rows[low] * (1 - share) + rows[high] * share)
            weights[shown] += weight
        found = np.empty_like(total)
        found[order] = total / np.maximum(weights, 1e-12)
        return found.reshape(*times.shape, *values.shape[2:]).mean(axis=1)


def _moments(times: np.ndarray, count: int) -> np.ndarray:
    """Seconds that `count` values stand for which cover a clip's frames evenly."""
    places = (np.arange(count) + 0.5) * len(times) / count - 0.5
    return np.interp(places, np.arange(len(times)), times)


def class_activation(
    model: keras.Model,
    path: str,
    reader: ClipReader,
    class_names: tuple[str, ...],
    *,
    label: int | None = None,
    layer: str = FEATURE_MAP,
    on_clips: Callable[[int], None] | None = None,
) -> Activation:
    """Grad-CAM of a video of any length, over clips that overlap by half.

    Args:
        model: a functional classifier with a layer `logits`.
        path: the video.
        reader: reads clips as the model takes them.
        class_names: of the model.
        label: number of the class; None: the one that the video most probably shows.
        layer: whose output (B, T', H', W', C) is weighted.
        on_clips: is called after each block of clips with their number.

    Raises:
        UnknownNameError: there is no such layer.
        UsageError: the layer has no maps.
        DecodeError: the video gives no frames.
    """
    explain = _explainer(model, layer)
    record = VideoRecord(path)
    first, last, _ = reader.span(record)
    starts = _starts(first, last, reader.spec.span)

    def seen() -> Iterator[Any]:
        for clips in reader.clips_at(record, starts, last, block_size=_BATCH):
            yield explain.until_map(tf.cast(clips, model.input.dtype))

    blocks: Iterable[Any] = seen()
    if label is None:
        kept: list[Any] = []
        scores, room = [], _KEPT_BYTES
        for block in seen():
            scores.append(explain.scores(block).numpy())
            room -= block.dtype.size * math.prod(block.shape)
            if room >= 0:
                kept.append(block)
            else:
                kept.clear()
        label = int(np.concatenate(scores).mean(axis=0).argmax())
        blocks = kept if room >= 0 else seen()
    maps, probabilities = [], []
    for block in blocks:
        heat, chances = explain.of_map(block, tf.constant(label))
        maps.append(heat.numpy())
        probabilities.append(chances.numpy()[:, label])
        if on_clips is not None:
            on_clips(len(block))
    joined = np.concatenate(maps)
    return Activation(
        path,
        class_names[label],
        label,
        clip_times(starts, last, reader.spec),
        joined / max(float(joined.max()), 1e-12),
        np.concatenate(probabilities),
        reader.spec.span,
        reader.window(record),
        reader.spec.size,
        last,
    )


def write_activation_video(
    target: str | os.PathLike[str],
    activation: Activation,
    open_video: Callable[..., Any],
) -> None:
    """The video with the class's activation over it, H.264 in MP4 without sound.

    What the model is not shown (outside of its crop) is darker. Pictures of more than 640 pixels
    are shrunk to that. Frames pass one by one.

    Args:
        target: ends in `.mp4`.
        activation: of the video.
        open_video: a decoder.

    Raises:
        UsageError: another ending, or the video itself.
        DecodeError: the video gives no frames.
        KVideoError: it cannot be written.
    """

    def drawing(size: tuple[int, int], duration: float) -> Draw:
        margin, letters = max(2, size[0] // 60), max(11, round(size[0] * _TEXT))

        def draw(frame: np.ndarray, seconds: float) -> None:
            heat, probability = activation.at(seconds)
            _paint(frame, over_picture(heat, activation.window, activation.size, size))
            text = f"{drawable(activation.label, activation.number, limit=40)}  {probability:.0%}"
            draw_label(frame, text, (margin, margin), letters, _COLOUR)

        return draw

    write_drawn_film(
        target, activation.path, open_video, drawing,
        shortest_side=_SHORTEST_SIDE, longest_side=_LONGEST_SIDE,
    )  # fmt: skip


def _paint(frame: np.ndarray, heat: np.ndarray) -> None:
    """Lays heat (H, W), NaN where nothing is known, over a picture, in place."""
    import cv2

    unseen = np.isnan(heat)
    shown = np.where(unseen, 0.0, heat).astype(np.float32)
    colours, weight = heat_picture(shown), _STRONGEST * shown
    colours[unseen], weight[unseen] = 0, _DARK
    frame[:] = cv2.blendLinear(np.ascontiguousarray(frame), colours, 1 - weight, weight)


def _starts(first: float, last: float, span: float) -> np.ndarray:
    """Each clip begins in the middle of the one before; the last one ends with the video."""
    room, hop = max(0.0, last - first - span), span / 2
    starts = first + np.arange(int(room / hop + 1e-6) + 1) * hop
    if room - (starts[-1] - first) > 0.05 * span:
        starts = np.append(starts, first + room)
    return starts


@dataclasses.dataclass(frozen=True)
class _Explainer:
    """A classifier in parts: to the map, from there to scores and to what speaks for a class."""

    until_map: Callable[[Any], Any]
    of_map: Callable[[Any, Any], Any]
    scores: Callable[[Any], Any]


def _explainer(model: keras.Model, layer: str) -> _Explainer:
    names = [each.name for each in model.layers]
    found = layer_output(model, layer) if layer in names or layer != FEATURE_MAP else None
    if found is None or (layer == FEATURE_MAP and len(found.shape) != 5):
        raise UsageError(
            f'"{model.name}" has no layer "{FEATURE_MAP}" with a map over time and space, such as '
            "convolutions give; without one no place of a video can be said to speak for a class."
        )
    if len(found.shape) != 5:
        raise UsageError(
            f'the layer "{layer}" of "{model.name}" has no maps (B, T, H, W, C) but '
            f"{tuple(found.shape)}; the activation of a class is seen in maps, such as those of "
            f'"{FEATURE_MAP}".'
        )
    first = keras.Model(model.input, found)
    second = keras.Model(found, [layer_output(model, LOGITS), model.output])

    # For any number of clips at once: the last block's is another, and to trace takes seconds.
    any_clips = tf.TensorSpec((None, *model.input_shape[1:]), model.input.dtype)

    @tf.function(jit_compile=False, autograph=False, input_signature=[any_clips])
    def until_map(clips: Any) -> Any:
        return first(clips, training=False)

    @tf.function(jit_compile=False, autograph=False, reduce_retracing=True)
    def of_map(maps: Any, label: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(maps)
            logits, scores = second(maps, training=False)
            chosen = tf.reduce_sum(tf.gather(logits, label, axis=-1))
        gradient = tf.cast(tape.gradient(chosen, maps), tf.float32)
        weights = tf.reduce_mean(gradient, axis=(1, 2, 3), keepdims=True)
        heat = tf.nn.relu(tf.reduce_sum(weights * tf.cast(maps, tf.float32), axis=-1))
        return heat, _of_clip(scores)

    @tf.function(jit_compile=False, autograph=False, reduce_retracing=True)
    def scores(maps: Any) -> Any:
        return _of_clip(second(maps, training=False)[1])

    return _Explainer(until_map, of_map, scores)


def _of_clip(scores: Any) -> Any:
    """(B, C) float32; of a model with an output for each frame their mean."""
    scores = tf.cast(scores, tf.float32)
    return tf.reduce_mean(scores, axis=1) if len(scores.shape) == 3 else scores
