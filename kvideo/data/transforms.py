"""Changes to the pixels of training clips, in TensorFlow: one draw per clip, from its seed."""

from __future__ import annotations

import tensorflow as tf

from kvideo.data.sampling import Augmentation

# Luma weights of ITU-R BT.601, which greyscale conversions of images use.
_LUMA = (0.299, 0.587, 0.114)


def augment_clip(clip: tf.Tensor, seed: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """Mirrors and recolours a clip; all of its frames alike.

    Args:
        clip: (T, H, W, 3) uint8.
        seed: (2,) int32; the same seed gives the same change.
        augmentation: which changes, and how strong.

    Returns:
        (T, H, W, 3) uint8.
    """
    draws = tf.random.stateless_uniform((4,), seed)
    if augmentation.flip:
        clip = tf.cond(draws[0] < 0.5, lambda: tf.reverse(clip, axis=[2]), lambda: clip)
    if augmentation.brightness or augmentation.contrast or augmentation.saturation:
        clip = _recolour(clip, draws[1:] * 2 - 1, augmentation)
    return clip


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
