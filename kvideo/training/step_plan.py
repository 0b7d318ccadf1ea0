"""How many steps an epoch has, of which clips, and at which learning rate."""

from __future__ import annotations

import math

from kvideo.clip_spec import ClipSpec
from kvideo.errors import UsageError
from kvideo.training.loop_state import LoopOptions
from kvideo.training.multigrid import Multigrid
from kvideo.training.schedules import warmup_cosine


class StepPlan:
    """The steps of a run.

    Args:
        options: of the loop.
        num_clips: in an epoch.
        replicas: devices that share each batch.
        grid_of: the clips, if their shape changes from step to step (see `Multigrid`).

    Attributes:
        batch_size: clips in a step, no more than there are.
        steps_per_epoch: of batches of that size.
        grids: what `Multigrid` makes of it, or None.

    Raises:
        UsageError: the devices cannot share a batch evenly.
    """

    def __init__(
        self, options: LoopOptions, num_clips: int, replicas: int, grid_of: ClipSpec | None = None
    ) -> None:
        if options.batch_size % replicas:
            raise UsageError(
                f"the batch size ({options.batch_size}) must be a multiple of the number of "
                f"devices ({replicas})."
            )
        self._options = options
        # No larger than what there is, so that little is filled up.
        pieces = replicas * options.accumulate
        enough = math.ceil(num_clips / pieces) * pieces
        self.batch_size = min(options.batch_size, enough)
        self.steps_per_epoch = math.ceil(num_clips / self.batch_size)
        self.grids: Multigrid | None = None
        if grid_of is not None:
            self.grids = Multigrid(grid_of, self.batch_size, num_clips, options.epochs)

    def starts(self, epoch: int) -> list[int]:
        """The first clip of each step of an epoch, and where the last step ends."""
        if self.grids is not None:
            return self.grids.starts(epoch)
        return [step * self.batch_size for step in range(self.steps_per_epoch + 1)]

    def learning_rate(self, epoch: int, step: int) -> float:
        """The rate for a step of an epoch, both from 0."""
        place, factor = float(step), 1.0
        if self.grids is not None:  # which has fewer and larger steps in most epochs
            place *= self.steps_per_epoch / self.grids.steps(epoch)
            factor = self.grids.rate(epoch) ** self._options.rate_exponent
        return factor * warmup_cosine(
            epoch * self.steps_per_epoch + place,
            peak=self._options.learning_rate,
            warmup_steps=round(self._options.warmup_epochs * self.steps_per_epoch),
            total_steps=self._options.epochs * self.steps_per_epoch,
        )
