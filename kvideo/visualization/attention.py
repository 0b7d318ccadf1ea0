"""Where a non-local block looks from a chosen place and moment."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from kvideo.data.clip_reader import ClipReader
from kvideo.data.records import VideoRecord
from kvideo.errors import UnknownNameError, UsageError
from kvideo.graphs import graph_nodes
from kvideo.layers import NonLocalBlock3D
from kvideo.text import enumerate_words
from kvideo.visualization.sheets import row_of_frames, under_heat

_CROSS = (60, 230, 120)


@dataclasses.dataclass(frozen=True, eq=False)
class Attention:
    """What one position of a non-local block looks at in a clip.

    Attributes:
        layer: the block's name.
        position: (t, y, x) of the map, from which it looks.
        map_shape: (T', H', W') of the block's map.
        weights: (T'', H'', W'') of the keys, from 0 to 1: 1 is what it looks at most.
    """

    layer: str
    position: tuple[int, int, int]
    map_shape: tuple[int, int, int]
    weights: np.ndarray


def attention_of(
    model: keras.Model,
    clip: np.ndarray,
    point: tuple[float, float, float],
    layer: str | None = None,
) -> Attention:
    """Where a block looks from a place.

    Args:
        model: a functional model with a `NonLocalBlock3D`.
        clip: (T, H, W, C).
        point: moment and place from which it looks, t, y and x as shares of the clip, 0 to 1.
        layer: the block's name; None: the last one.

    Raises:
        UnknownNameError: there is no such block.
        UsageError: the model has none, or the point lies outside of the clip.
    """
    if not all(0 <= share <= 1 for share in point):
        raise UsageError(f"the point must be three shares of the clip, from 0 to 1, not {point}.")
    blocks = {
        node.operation.name: node
        for node in graph_nodes(model)
        if isinstance(node.operation, NonLocalBlock3D)
    }
    if not blocks:
        raise UsageError(
            f'"{model.name}" has no non-local block. `kvideo.insert_nonlocal` puts some into a '
            "trained model; the ResNets take --set nonlocal_blocks=5."
        )
    name = layer or list(blocks)[-1]
    if name not in blocks:
        raise UnknownNameError(
            f'"{name}" is no non-local block of "{model.name}"; it has '
            f"{enumerate_words(list(blocks))}."
        )
    block = blocks[name].operation
    before = keras.Model(model.input, blocks[name].arguments.keras_tensors[0])
    found = before(clip[None], training=False)
    _, frames, height, width, _ = (int(size) for size in found.shape)
    shape = frames, height, width
    t, y, x = (min(size - 1, int(share * size)) for share, size in zip(point, shape, strict=True))
    row = int(np.ravel_multi_index((t, y, x), shape))
    weights = np.asarray(block.attention(found))[0, row].reshape(block.key_shape(found.shape))
    return Attention(name, (t, y, x), shape, weights / max(float(weights.max()), 1e-12))


def clip_around(reader: ClipReader, path: str, seconds: float | None = None) -> np.ndarray:
    """The clip (T, H, W, C) around a moment of a video; None: around its middle.

    Raises:
        DecodeError: the video gives no frames.
        UsageError: the moment is none of the video's.
    """
    record = VideoRecord(path)
    first, last, _ = reader.span(record)
    centre = (first + last) / 2 if seconds is None else seconds
    if not first <= centre <= last:
        raise UsageError(f"{path} has no moment {seconds:g} s; it lasts {last:.2f} s.")
    (clips,) = reader.clips_around(record, np.array([centre]))
    return clips[0]


def attention_picture(found: Attention, clip: np.ndarray) -> np.ndarray:
    """Frames of the clip, and below them what is looked at, with a cross at the point.

    Args:
        found: of the clip.
        clip: (T, H, W, C) RGB, or with flow behind it.

    Returns:
        (H', W', 3) uint8.

    Raises:
        UsageError: a clip of flow alone, which shows nothing to a person.
    """
    if clip.shape[-1] not in (3, 5):
        raise UsageError("attention is shown over pictures; these clips are of optical flow.")
    shown = np.clip(clip[..., :3], 0, 255).astype(np.uint8)
    painted = under_heat(shown, found.weights)
    frames, height, width = shown.shape[:3]
    t, y, x = (
        min(size - 1, int((place + 0.5) / count * size))
        for place, count, size in zip(
            found.position, found.map_shape, (frames, height, width), strict=True
        )
    )
    arm, thick = max(2, height // 14), max(1, height // 80)
    for film in (shown, painted):
        frame = film[t]
        frame[max(0, y - thick) : y + thick + 1, max(0, x - arm) : x + arm + 1] = _CROSS
        frame[max(0, y - arm) : y + arm + 1, max(0, x - thick) : x + thick + 1] = _CROSS
    rows = [_with(row_of_frames(_chosen(film, t)), 6) for film in (shown, painted)]
    return np.concatenate(rows, axis=0)[:-6]


def _chosen(film: np.ndarray, number: int, most: int = 8) -> np.ndarray:
    """At most eight frames from over the film, the one of that number among them."""
    numbers = np.linspace(0, len(film) - 1, min(most, len(film))).round().astype(int)
    numbers[np.abs(numbers - number).argmin()] = number
    return film[np.unique(numbers)]


def _with(row: np.ndarray, gap: int) -> np.ndarray:
    return np.pad(row, ((0, gap), (0, 0), (0, 0)), constant_values=255)
