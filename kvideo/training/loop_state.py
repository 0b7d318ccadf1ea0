"""What the training loop is told, and where it is."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class LoopOptions:
    """What the loop itself needs to know.

    Args:
        epochs: passes over the training videos.
        batch_size: clips in a step, over all replicas.
        learning_rate: at the schedule's peak.
        warmup_epochs: epochs of linear warm-up; may be a fraction.
        clip_norm: largest norm of the whole gradient; None for no limit.
        early_stopping: epochs without a better validation result after which to stop; None: never.
        remat: see `compile_step`.
        bptt: see `compile_step`.
        accumulate: see `compile_step`.
        ema: decay of `WeightAverage`, whose weights are validated and saved; None: no average.
        precise_bn: batches that batch norms' statistics are taken from before a validation, see
            `PreciseStatistics`; None: the running averages serve.
        unfreeze_epochs: see `Thawing`; None: all is trained from the beginning.
        rate_exponent: how the learning rate follows a batch that grows, see `Multigrid.rate`: to
            which power of it.
        checkpoint_minutes: how often to write a checkpoint inside an epoch.
        keep_checkpoints: how many of them to keep.
        tensorboard: see `History`.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    warmup_epochs: float = 1.0
    clip_norm: float | None = None
    early_stopping: int | None = None
    remat: bool = False
    bptt: int | None = None
    accumulate: int = 1
    ema: float | None = None
    precise_bn: int | None = None
    unfreeze_epochs: int | None = None
    rate_exponent: float = 1.0
    checkpoint_minutes: float = 10.0
    keep_checkpoints: int = 2
    tensorboard: str = "all"


@dataclasses.dataclass
class LoopState:
    """Where the loop is: the JSON part of a checkpoint.

    `sums` are loss, hits and examples (or frames) of the epoch's steps so far.
    """

    epoch: int = 0
    step: int = 0
    sums: list[float] = dataclasses.field(default_factory=lambda: [0.0, 0.0, 0.0])
    rows: list[dict[str, float]] = dataclasses.field(default_factory=list)
    best: list[float] | None = None
    best_epoch: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    fingerprint: str = ""
    rate_scale: float = 1.0
