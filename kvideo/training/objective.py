"""What a training step makes smaller: the loss and all that belongs to it, as settings."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from kvideo.errors import UsageError
from kvideo.training.mixing import Mixing

if TYPE_CHECKING:
    from kvideo.training.distillation import Teacher


@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss of a training step.

    Args:
        multi_label: whether labels are (B, num_classes) of 0 and 1 rather than (B,) indices.
        label_smoothing: see `classification_loss`.
        focal_gamma: see `classification_loss`.
        class_weights: (num_classes,) or None.
        mixing: of the clips of a batch.
        teacher: a model whose answers are learnt, too.

    Raises:
        UsageError: a value is out of its range.
    """

    multi_label: bool = False
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    class_weights: np.ndarray | None = None
    mixing: Mixing = Mixing()
    teacher: Teacher | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(f"label_smoothing must be 0 to below 1, not {self.label_smoothing!r}.")
        if not 0 <= self.focal_gamma < math.inf:
            raise UsageError(f"focal_gamma must be at least 0, not {self.focal_gamma!r}.")


@dataclasses.dataclass(frozen=True)
class Distillation:
    """How much a teacher counts (Hinton et al. 2015).

    Args:
        temperature: both models' logits are divided by it: above 1 the classes that the teacher
            thinks less likely count more.
        weight: of the teacher's part in the loss; that of the labels' part is the rest to 1.

    Raises:
        UsageError: a value is out of its range.
    """

    temperature: float = 4.0
    weight: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise UsageError(f"distill_temperature must be above 0, not {self.temperature!r}.")
        if not 0 < self.weight <= 1:
            raise UsageError(f"distill_weight must be above 0 and at most 1, not {self.weight!r}.")
