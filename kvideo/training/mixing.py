"""Mixup and CutMix: pairs of clips become one, and so do their labels.

What is mixed how is drawn from the seed and the number of the step, on the host: it is the same on
every device, in every process, and after a resumption. Nothing here needs TensorFlow; what the
draws do to a batch is in `kvideo.training.targets`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from kvideo.errors import UsageError

_STREAM = 20  # numbers of other random choices, made from the same seed, differ


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How the clips of a batch are mixed.

    The first clip's share λ is drawn from a Beta(α, α) distribution, once for a batch. Mixup
    (Zhang et al. 2018) takes λ of each pixel from the first clip and 1 − λ from the second; CutMix
    (Yun et al. 2019) replaces a box of 1 − λ of the area, the same in all frames, and corrects λ
    by what of the box lies outside. The loss is λ times that for the first clip's label plus 1 − λ
    times that for the second's. With both, each batch is mixed in one of the two ways, by chance.

    A clip is mixed with the one `distance` further on or back: neighbours are as random a pair as
    any other, since the order of the clips is random, and a pair is on one device.

    Args:
        mixup: α of mixup; 0: no mixup.
        cutmix: α of CutMix; 0: no CutMix.
        probability: share of the batches that are mixed.
        seed: determines the draws.
        distance: as many as the clips of one video that follow each other.

    Raises:
        UsageError: a value is out of its range.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    seed: int = 0
    distance: int = 1

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be at least 0, not {getattr(self, name)!r}.")
        if not 0 < self.probability <= 1:
            raise UsageError(
                f"mix_probability must be above 0 and at most 1, not {self.probability!r}."
            )

    @property
    def active(self) -> bool:
        """Whether anything is mixed."""
        return self.mixup > 0 or self.cutmix > 0

    def check(self, shape: Sequence[int | None], clips: int) -> None:
        """Whether such a batch can be mixed.

        Args:
            shape: of a clip, (T, H, W, C), or of its features, (T, C).
            clips: of the batch that one device has.

        Raises:
            UsageError: it cannot.
        """
        if not self.active:
            return
        if clips <= self.distance:
            raise UsageError(
                "mixup and cutmix need clips of two videos at least on each device: take a larger "
                "batch size."
            )
        if self.cutmix and (len(shape) < 4 or None in shape[-3:-1]):
            raise UsageError(
                "cutmix cuts boxes out of pictures of one size; this model is trained on clips of "
                f"shape {tuple(shape)}. mixup takes them."
            )

    def draw(self, step: int, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """How the clips of a step are mixed.

        Args:
            step: its number.
            shape: of a clip, (T, H, W, C), or of its features, (T, C).

        Returns:
            How much of each pixel is the first clip's, float32 (H, W, 1), or (1, 1) for features;
            and how much of the label.
        """
        size = tuple(shape[-3:-1]) if len(shape) > 3 else (1,)
        pixels = np.ones((*size, 1), np.float32)
        rng = np.random.default_rng([self.seed, step, _STREAM])
        mixed, cut = rng.random() < self.probability, rng.random() < 0.5
        if not mixed:
            return pixels, np.asarray(1, np.float32)
        if self.cutmix and (cut or not self.mixup):
            pixels[_box(size, rng.beta(self.cutmix, self.cutmix), rng)] = 0
        else:
            pixels[:] = rng.beta(self.mixup, self.mixup)
        return pixels, np.asarray(pixels.mean(dtype=np.float64), np.float32)


def _box(size: tuple[int, ...], share: float, rng: np.random.Generator) -> tuple[slice, ...]:
    """A box of 1 − share of the area; its centre is anywhere, so it may reach beyond the edge."""
    cuts = []
    for side in size:
        half = side * math.sqrt(1 - share) / 2
        centre = rng.uniform(0, side)
        cuts.append(slice(max(0, round(centre - half)), min(side, round(centre + half))))
    return tuple(cuts)
