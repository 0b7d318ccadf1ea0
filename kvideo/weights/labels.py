"""The class names of the data sets that published weights were trained on, in their order."""

from __future__ import annotations

from pathlib import Path

LABEL_SETS = {"kinetics400": 400, "sports1m": 487}
"""Name to number of classes; the names are in the file of that name beside this module."""


def published_class_names(name: str) -> tuple[str, ...]:
    """The names, in the order of the outputs of the published models.

    Args:
        name: `"kinetics400"` (Kay et al. 2017; the order is that of the alphabet) or `"sports1m"`
            (Karpathy et al. 2014; the order is the data set's own).

    Raises:
        KeyError: another name.
    """
    if name not in LABEL_SETS:
        raise KeyError(name)
    text = (Path(__file__).parent / f"{name}.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
