"""Changes to the pixels of training clips, in TensorFlow: one draw per clip, from its seed."""

from __future__ import annotations

import math

import tensorflow as tf

from kvideo.data.rand_augment import rand_augment
from kvideo.data.sampling import Augmentation

# Luma weights of ITU-R BT.601, which greyscale conversions of images use.
_LUMA = (0.299, 0.587, 0.114)


# Of Zhong et al. 2020: shares of the picture's area, and the largest side over the other.
_ERASED_AREA = (0.02, 0.4)
_ERASED_ASPECT = 1 / 0.3


def augment_clip(
    clip: tf.Tensor, seed: tf.Tensor, augmentation: Augmentation, modality: str = "rgb"
) -> tf.Tensor:
    """Mirrors and recolours a clip, and more that was asked for; all of its frames alike.

    Where a flow is mirrored, dx changes its sign. Flow has no colours.

    Args:
        clip: (T, H, W, 3) uint8, or (T, H, W, C) float32 with flow in the last two channels.
        seed: (2,) int32; the same seed gives the same change.
        augmentation: which changes, and how strong.
        modality: of the clip, see `ClipSpec`.

    Returns:
        As `clip`.
    """
    draws = tf.random.stateless_uniform((4,), seed)
    if augmentation.flip:
        clip = tf.cond(draws[0] < 0.5, lambda: _mirror(clip, modality), lambda: clip)
    if augmentation.num_ops and modality == "rgb":
        inner = _inner_seed(seed, 1)
        clip = rand_augment(clip, inner, augmentation.num_ops, augmentation.magnitude)
    recolour = augmentation.brightness or augmentation.contrast or augmentation.saturation
    if recolour and modality != "flow":
        pictures = _recolour(clip[..., :3], draws[1:] * 2 - 1, augmentation)
        if modality == "rgb":
            clip = pictures
        else:
            clip = tf.concat([tf.cast(pictures, clip.dtype), clip[..., 3:]], axis=-1)
    if augmentation.erase:
        clip = erase_box(clip, _inner_seed(seed, 2), augmentation.erase, modality)
    return clip


def erase_box(
    clip: tf.Tensor, seed: tf.Tensor, probability: float, modality: str = "rgb"
) -> tf.Tensor:
    """Random erasing (Zhong et al. 2020): a box of a clip becomes noise, by chance.

    The box is the same in all frames, and so is its noise: it is a thing that stands still. There
    is no flow in it. It takes 2 to 40 % of the area, its sides are at most as 3 to 10; as far as
    it would be longer than the picture, it is cut off.

    Args:
        clip: see `augment_clip`.
        seed: (2,) int32.
        probability: 0 to 1.
        modality: of the clip.

    Returns:
        As `clip`.
    """
    _, height, width, channels = clip.shape
    draws = tf.random.stateless_uniform((5,), seed)
    area = height * width * (_ERASED_AREA[0] + draws[1] * (_ERASED_AREA[1] - _ERASED_AREA[0]))
    aspect = tf.exp((2 * draws[2] - 1) * math.log(_ERASED_ASPECT))
    sides = tf.stack([tf.sqrt(area * aspect), tf.sqrt(area / aspect)])
    whole = tf.constant([height, width], tf.float32)
    sides = tf.clip_by_value(tf.round(sides), 1.0, whole)
    first = tf.floor(draws[3:] * (whole - sides + 1))
    last = first + sides
    inside = [
        (numbers >= first[axis]) & (numbers < last[axis])
        for axis, numbers in enumerate((tf.range(height * 1.0), tf.range(width * 1.0)))
    ]
    box = inside[0][:, tf.newaxis] & inside[1] & (draws[0] < probability)  # (H, W)
    noise = tf.random.stateless_uniform((height, width, channels), seed, 0, 256, tf.int32)
    if modality != "rgb":
        still = tf.range(channels) < channels - 2
        noise = tf.where(still, noise, tf.zeros_like(noise))
    return tf.where(box[..., tf.newaxis], tf.cast(noise, clip.dtype), clip)


def _inner_seed(seed: tf.Tensor, number: int) -> tf.Tensor:
    """Another seed for each number, that the given one determines."""
    return tf.random.experimental.stateless_fold_in(tf.convert_to_tensor(seed), number)


def _mirror(clip: tf.Tensor, modality: str) -> tf.Tensor:
    mirrored = tf.reverse(clip, axis=[2])
    if modality == "rgb":
        return mirrored
    signs = [1.0] * (clip.shape[-1] - 2) + [-1.0, 1.0]
    return mirrored * tf.constant(signs, clip.dtype)


def _recolour(clip: tf.Tensor, draws: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """Brightness, contrast about the clip's mean, saturation; `draws` (3,) are in -1..1."""
    pixels = tf.cast(clip, tf.float32)
    brightness = draws[0] * augmentation.brightness * 255.0
    contrast = 1.0 + draws[1] * augmentation.contrast
    saturation = 1.0 + draws[2] * augmentation.saturation
    grey = tf.tensordot(pixels, tf.constant(_LUMA), axes=1)[..., tf.newaxis]  # (T, H, W, 1)
    # Both changes are linear, so they are one pass over the pixels.
    offset = brightness + (1.0 - contrast) * tf.reduce_mean(grey)
    pixels = contrast * (saturation * pixels + (1.0 - saturation) * grey) + offset
    return tf.saturate_cast(tf.round(pixels), tf.uint8)
