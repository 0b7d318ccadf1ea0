"""Which videos an epoch takes, in which order: two numbers determine it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

SAMPLINGS = ("random", "balanced")


def epoch_order(num_records: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the records in an epoch: a permutation that the two numbers determine."""
    return np.random.default_rng([seed, epoch]).permutation(num_records)


def balanced_order(labels: Sequence[tuple[int, ...]], seed: int, epoch: int) -> np.ndarray:
    """Records of an epoch in which every class comes equally often (Shen et al. 2016).

    There are as many as there are records. Of a class with more than its share others come in the
    next epoch; one with fewer begins again when all have come. A record of several classes may
    come for each of them. Numbers of two classes differ by one at most.

    Args:
        labels: classes of each record, at least one.
        seed: determines the order, with
        epoch: its number.

    Returns:
        Numbers of records, (len(labels),) int.
    """
    rng = np.random.default_rng([seed, epoch])
    members: dict[int, list[int]] = {}
    for number, several in enumerate(labels):
        for label in several:
            members.setdefault(label, []).append(number)
    share, rest = divmod(len(labels), len(members))
    chosen: list[np.ndarray] = []
    for place, label in enumerate(rng.permutation(sorted(members)).tolist()):
        count = share + (place < rest)
        rounds = math.ceil(count / len(members[label]))
        drawn = [rng.permutation(members[label]) for _ in range(rounds)]
        chosen += [numbers[: count - i * len(numbers)] for i, numbers in enumerate(drawn)]
    return rng.permutation(np.concatenate(chosen))
