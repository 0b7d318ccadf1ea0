"""What a loader must know of a published family of models: its dialects.

A *dialect* is one publisher's way to name the tensors of a family. It says which module of the
file a layer's weights come from; how the tensors within a module are called and how their axes
are ordered is the dialect's `naming` (see `kvideo.weights.transfer`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NameMap = Callable[[str], str | None]

HEAD = "logits"
"""The layer whose size is the number of classes, in every model here."""


@dataclass(frozen=True)
class Dialect:
    """One publisher's names for a family's tensors.

    Args:
        name: the publisher, for messages.
        mark: a regular expression found in some tensor's name in every file of this dialect, and
            in no file of another one.
        modules: from the names of all layers of a model to its name map, a function from a
            layer's name (`"block/sub-layer"` for a layer within a layer) to the name of its
            module in the file, or None for a layer that has no counterpart.
        head: a regular expression for the last layer's bias, whose length is the number of classes.
        naming: `"torch"`, `"tf1"` or `"keras"`: names and axes of the tensors within a module.
        prefix: a regular expression for what may stand before all names and means nothing.
        ignored: a regular expression for names of tensors that no model needs.
        rows: by layer's name, a function of (model, kernel) that puts a kernel, already with the
            model's axes, into the model's order of rows.
        options: from a file's tensors (their shapes alone count) to arguments that the builder
            needs for them: widths other than the published ones, the publisher's normalization
            where it is not the builder's own.
        headless: whether files without the last layer are published too.
    """

    name: str
    mark: str
    modules: Callable[[Collection[str]], NameMap]
    head: str
    naming: str = "torch"
    prefix: str = ""
    ignored: str = r"(^|\.)num_batches_tracked$"
    rows: Mapping[str, Callable[[Any, np.ndarray], np.ndarray]] = field(default_factory=dict)
    options: Callable[[Mapping[str, np.ndarray]], dict[str, Any]] = lambda tensors: {}
    headless: bool = False

    def speaks(self, names: Collection[str]) -> bool:
        """Whether a file with tensors of these names is written in this dialect."""
        return any(re.search(self.mark, name) for name in names)

    def strip(self, name: str) -> str:
        """A tensor's name without the prefix."""
        return re.sub(f"^(?:{self.prefix})", "", name)

    def is_ignored(self, name: str) -> bool:
        """Whether the tensor of that name is none that a model needs."""
        return bool(self.ignored) and re.search(self.ignored, name) is not None

    def count_classes(self, tensors: Mapping[str, np.ndarray]) -> int:
        """Outputs of a file's last layer; 0 if it has none."""
        sizes = (tensor.size for name, tensor in tensors.items() if re.search(self.head, name))
        return next(sizes, 0)


KERAS = Dialect(
    "Keras",
    rf"^{HEAD}/kernel$",
    lambda layers: lambda layer: layer,
    head=rf"^{HEAD}/bias$",
    naming="keras",
    ignored=r"seed_generator",
)
"""A Keras `.h5` file of a model whose layers are named as ours are."""


@dataclass(frozen=True)
class Family:
    """Models whose layers are named alike, and the dialects that their weights come in.

    Args:
        name: for messages.
        dialects: the first that speaks a file's names is taken; `KERAS` is always the last.
        optional: a regular expression for layers that a file may lack altogether; they stay as
            the builder made them.
    """

    name: str
    dialects: tuple[Dialect, ...]
    optional: str = r"(?!)"

    def dialect_of(self, names: Collection[str]) -> Dialect | None:
        """The dialect of a file with tensors of these names, or None."""
        speakers = (dialect for dialect in (*self.dialects, KERAS) if dialect.speaks(names))
        return next(speakers, None)
