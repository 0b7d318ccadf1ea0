"""The learning rate over a run: plain functions of the step."""

from __future__ import annotations

import math


def warmup_cosine(step: float, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up from 0, then half a cosine down to 0 (Loshchilov & Hutter 2017).

    Args:
        step: steps done, from 0.
        peak: the rate at the end of the warm-up.
        warmup_steps: may be 0.
        total_steps: where the rate reaches 0.

    Returns:
        The rate for the step that follows.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    rest = max(1, total_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup_steps) / rest)))
