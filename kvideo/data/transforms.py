"""Changes to the pixels of training clips, in TensorFlow: one draw per clip, from its seed."""

from __future__ import annotations

import tensorflow as tf

from kvideo.data.sampling import Augmentation

# Luma weights of ITU-R BT.601, which greyscale conversions of images use.
_LUMA = (0.299, 0.587, 0.114)


def augment_clip(
    clip: tf.Tensor, seed: tf.Tensor, augmentation: Augmentation, modality: str = "rgb"
) -> tf.Tensor:
    """Mirrors and recolours a clip; all of its frames alike.

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
    if modality == "flow":
        return clip
    if augmentation.brightness or augmentation.contrast or augmentation.saturation:
        pictures = _recolour(clip[..., :3], draws[1:] * 2 - 1, augmentation)
        if modality == "rgb":
            return pictures
        return tf.concat([tf.cast(pictures, clip.dtype), clip[..., 3:]], axis=-1)
    return clip


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
