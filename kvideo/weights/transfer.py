"""Puts the tensors of a foreign checkpoint into a Keras model: all of them, or none.

A name map says which module of the file a layer's weights come from. The kind of layer and the
file's *naming* say which tensors that are and how their axes are ordered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kvideo.errors import ModelFileError
from kvideo.weights.cross_modality import cross_modality_kernel, is_cross_modality

NameMap = Callable[[str], str | None]
_SHOWN = 30


@dataclass(frozen=True)
class Naming:
    """How tensors are called within a module of a file, and how kernels are laid out there.

    Args:
        separator: between the module's name and the tensor's.
        names: from Keras's name of a variable to the file's; where one is missing, the file has no
            such tensor and the model's variable is set to `absent`.
        channels_first: kernels are (out, in, …), as in PyTorch, rather than (…, in, out).
    """

    separator: str
    names: Mapping[str, str]
    channels_first: bool = False


_SAME = {name: name for name in ("kernel", "bias", "gamma", "beta")}
_STATISTICS = {name: name for name in ("moving_mean", "moving_variance")}
NAMINGS = {
    "torch": Naming(
        ".",
        {
            "kernel": "weight",
            "bias": "bias",
            "gamma": "weight",
            "beta": "bias",
            "moving_mean": "running_mean",
            "moving_variance": "running_var",
        },
        channels_first=True,
    ),
    "tf1": Naming("/", {"kernel": "w", "bias": "b", "beta": "beta", **_STATISTICS}),
    "keras": Naming("/", {**_SAME, **_STATISTICS}),
}
_ABSENT = {"gamma": 1.0}  # a batch norm without a scale


@dataclass(frozen=True)
class Wanted:
    """A variable of the model that takes a tensor of the file.

    Args:
        layer: the layer's name.
        variable: the Keras variable.
        axes: the file's axes in the model's order; None: as they are.
        shape: what the file should have. Axes of length 1 at the kernel's places in space and time
            may be missing or too many: a Dense layer and a 1×1×1 convolution are the same.
    """

    layer: str
    variable: Any
    axes: tuple[int, ...] | None
    shape: tuple[int, ...]

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of the file of that shape can be put in."""
        return self._core(shape) == self._core(self.shape)

    def _core(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(self.shape) < 2:  # a vector; old TensorFlow keeps axes of length 1 before it
            return shape[-1:] if all(length == 1 for length in shape[:-1]) else shape
        if self.axes is None:
            return shape[-2:] if all(length == 1 for length in shape[:-2]) else shape
        return shape[:2] if all(length == 1 for length in shape[2:]) else shape

    def differs_in_classes(self, shape: tuple[int, ...]) -> bool:
        """Whether the shape would fit if only it had another number of outputs."""
        place = 0 if self.axes is not None or len(self.shape) == 1 else -1
        core, wanted = list(self._core(shape)), list(self._core(self.shape))
        if len(core) != len(wanted) or core == wanted:
            return False
        core[place] = wanted[place]
        return core == wanted

    def is_cross_modality(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of that shape is the same kernel of a network for RGB."""
        return is_cross_modality(shape, self.shape, self._inputs)

    def cross_modality(self, array: np.ndarray) -> np.ndarray:
        """That kernel for this network's channels."""
        return cross_modality_kernel(array, self.shape[self._inputs], self._inputs)

    @property
    def _inputs(self) -> int:
        """The axis of a kernel's input channels in the file."""
        return 1 if self.axes is not None else -2

    def in_model_order(self, array: np.ndarray) -> np.ndarray:
        """A fitting tensor of the file, with the variable's axes."""
        array = np.reshape(array, self.shape)
        if self.axes is not None:
            array = np.transpose(array, self.axes)
        return np.reshape(array, tuple(self.variable.shape))


def layers_with_weights(model: keras.Model) -> Iterator[tuple[str, keras.Layer]]:
    """(name, layer) of everything that holds weights itself.

    Layers of a nested model go by their own names; a layer within a layer is `"outer/inner"`.
    """
    for layer in model._flatten_layers(include_self=False, recursive=False):
        if not layer.weights:
            continue
        if getattr(layer, "layers", None):  # a nested model
            yield from layers_with_weights(layer)
            continue
        inner = [
            part for part in layer._flatten_layers(include_self=False, recursive=True)
            if part.weights
        ]  # fmt: skip
        if inner:
            yield from ((f"{layer.name}/{part.name}", part) for part in inner)
        else:
            yield layer.name, layer


def wanted_tensors(layer: keras.Layer, name: str, module: str, naming: Naming) -> dict[str, Wanted]:
    """By their names in the file, the tensors that a layer takes.

    Raises:
        ModelFileError: no counterpart of this kind of layer is known.
    """
    wanted = {}
    for role, variable in _variables(layer).items():
        if role in naming.names:
            axes = _axes(layer) if role == "kernel" and naming.channels_first else None
            shape = tuple(int(length) for length in variable.shape)
            if axes is not None:
                shape = tuple(shape[axes.index(axis)] for axis in range(len(axes)))
            key = f"{module}{naming.separator}{naming.names[role]}"
            wanted[key] = Wanted(name, variable, axes, shape)
    return wanted


def fill_absent(layer: keras.Layer, naming: Naming) -> None:
    """Gives variables that the file's publisher does not have the value that changes nothing."""
    for role, variable in _variables(layer).items():
        if role not in naming.names:
            variable.assign(np.full(variable.shape, _ABSENT[role], "float32"))


def _variables(layer: keras.Layer) -> dict[str, Any]:
    """A layer's variables by their roles."""
    if isinstance(layer, keras.layers.BatchNormalization):
        found = {"moving_mean": layer.moving_mean, "moving_variance": layer.moving_variance}
        if layer.scale:
            found["gamma"] = layer.gamma
        if layer.center:
            found["beta"] = layer.beta
        return found
    if not hasattr(layer, "kernel") or not hasattr(layer, "use_bias"):
        raise ModelFileError(
            f'layer "{layer.name}" is a {type(layer).__name__}, which has no counterpart in a '
            "published checkpoint."
        )
    found = {"kernel": layer.kernel}
    if layer.use_bias:
        found["bias"] = layer.bias
    return found


def _axes(layer: keras.Layer) -> tuple[int, ...]:
    """Where a PyTorch kernel's axes go: (out, in, [T,] [H, W]) to ([T,] [H, W,] in, out)."""
    rank = len(layer.kernel.shape)
    in_space = tuple(range(2, rank))
    # A depthwise kernel is (C, 1, …) there and (…, C, 1) here; its shape alone does not tell.
    if "Depthwise" in type(layer).__name__:
        return (*in_space, 0, 1)
    return (*in_space, 1, 0)


def load_torch_state(
    model: keras.Model,
    state: Mapping[str, np.ndarray],
    torch_name: NameMap,
    *,
    unused: Collection[str] = (),
) -> list[str]:
    """Assigns every weight of a PyTorch state dict that the name map knows.

    Args:
        model: any built Keras model; layers of nested models count.
        state: tensors by name, as `kvideo.weights.torch_reader.read_state_dict` gives them.
        torch_name: from a layer's name to its module's in the file; None: not from this file.
        unused: tensors of the file that the model does not need. The counters
            `num_batches_tracked` of batch norms never are.

    Returns:
        The names of the layers with weights that were left as they were.

    Raises:
        ModelFileError: a tensor is missing, has another shape, or is in the file and nowhere in
            the model. Nothing has been assigned then; the message is a table.
    """
    wanted: dict[str, Wanted] = {}
    untouched = []
    for name, layer in layers_with_weights(model):
        module = torch_name(name)
        if module is None:
            untouched.append(name)
        else:
            wanted.update(wanted_tensors(layer, name, module, NAMINGS["torch"]))
    unneeded = [key for key in state if key in unused or key.endswith(".num_batches_tracked")]
    if problems := find_problems(wanted, {k: v.shape for k, v in state.items()}, unneeded):
        raise ModelFileError(problem_table(problems))
    for key, item in wanted.items():
        item.variable.assign(item.in_model_order(state[key]))
    return untouched


@dataclass(frozen=True)
class Problem:
    """One tensor that does not fit: `"missing"`, `"unexpected"` or `"misshaped"`."""

    kind: str
    tensor: str
    in_file: tuple[int, ...] | None
    in_model: tuple[int, ...] | None

    @property
    def shapes(self) -> str:
        """The shapes in words."""
        places = ((self.in_file, "in the file"), (self.in_model, "in the model"))
        return ", ".join(f"{shape} {place}" for shape, place in places if shape is not None)


def find_problems(
    wanted: Mapping[str, Wanted],
    shapes: Mapping[str, tuple[int, ...]],
    unneeded: Collection[str] = (),
) -> list[Problem]:
    """Everything that does not fit.

    Args:
        wanted: by the names in the file.
        shapes: of the tensors in the file.
        unneeded: names of those that may be there for nothing.
    """
    problems = []
    for key, item in wanted.items():
        if key not in shapes:
            problems.append(Problem("missing", key, None, item.shape))
        elif not item.fits(shapes[key]):
            problems.append(Problem("misshaped", key, shapes[key], item.shape))
    skip = {*wanted, *unneeded}
    problems.extend(
        Problem("unexpected", key, shape, None) for key, shape in shapes.items() if key not in skip
    )
    return problems


def problem_table(problems: list[Problem]) -> str:
    """How many of each kind do not fit, and a line per tensor, most left out where many are."""
    kinds = Counter(problem.kind for problem in problems)
    each = max(1, _SHOWN // len(kinds))
    shown = [p for kind in kinds for p in [q for q in problems if q.kind == kind][:each]]
    width = max(len(problem.tensor) for problem in shown)
    rows = [f"  {p.kind:<10}  {p.tensor:<{width}}  {p.shapes}" for p in shown]
    if len(problems) > len(shown):
        rows.append(f"  and {len(problems) - len(shown)} more")
    number = len(problems)
    count = f"{number} tensors do" if number > 1 else "1 tensor does"
    summary = ", ".join(f"{amount} {kind}" for kind, amount in kinds.items())
    return "\n".join([f"{count} not fit the model ({summary}):", *rows])
