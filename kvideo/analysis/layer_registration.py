"""Tells kvideo about layers of other packages that have no methods for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kvideo.analysis.costs import MACS
from kvideo.analysis.field_rules import RULES
from kvideo.analysis.fields import Field
from kvideo.errors import UsageError

Shape = tuple[int, ...]


def register_layer(
    kind: type,
    *,
    macs: Callable[[Any, Shape, Shape], int] | None = None,
    receptive_field: Callable[[Any, Sequence[Field], Shape, Shape], Field | None] | None = None,
) -> None:
    """Says what the layers of a class cost and see, where the class is not one's own.

    Of a class of one's own, methods of these names and arguments say the same. Subclasses take
    part. A later call replaces what an earlier one said.

    Args:
        kind: the layers' class.
        macs: the multiply-adds, from a built layer and the shapes of its first input and of its
            output, with the batch; biases not counted.
        receptive_field: what its output depends on, from a built layer, what its inputs depend on,
            and the two shapes of one clip; None where it is not known.

    Raises:
        UsageError: `kind` is no class, or one that kvideo knows by itself.
    """
    if not isinstance(kind, type):
        raise UsageError(f"register_layer takes a class of layers, not {kind!r}.")
    if kind in RULES and kind.__module__.partition(".")[0] in ("keras", "kvideo"):
        raise UsageError(f"kvideo knows layers of the class {kind.__name__} by itself.")
    if macs is not None:
        MACS[kind] = macs
    if receptive_field is not None:
        RULES[kind] = receptive_field
