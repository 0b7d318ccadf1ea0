"""The walk through a 2D network's graph that lays its inflated layers on clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras

from kvideo.errors import KVideoError, UsageError
from kvideo.graphs import functional_graph
from kvideo.inflation import layer_rules, operation_rules
from kvideo.inflation.rule import Call, Inflated, per_frame, refuse
from kvideo.layers.inflation import FramePooling


@dataclass(frozen=True)
class Settings:
    """What `inflate` was asked for, resolved for each layer.

    Attributes:
        kernel_t: from the id of a convolution to the frames that its kernel spans.
        stride_t: from the id of a convolution or pool to its stride in time; others have 1.
        per_frame: ids of layers that are to run on each frame by themselves.
        edge: whether time is padded by repeating frames.
        centre: whether kernels start as zeros but for their central frame.
    """

    kernel_t: dict[int, int]
    stride_t: dict[int, int]
    per_frame: frozenset[int]
    edge: bool
    centre: bool


@dataclass
class Survey:
    """What a first walk finds out.

    Attributes:
        layers: of the network and of the models in it, in the order of their calls.
        squeezing: ids of the operations that leave no height and width of a map.
        per_frame: those of them whose result meets a map again, as in squeeze-and-excitation.
    """

    layers: list[keras.Layer] = field(default_factory=list)
    squeezing: set[int] = field(default_factory=set)
    per_frame: set[int] = field(default_factory=set)


class _Origin:
    """In the first walk's place of a tensor: None, a map; or which operations squeezed it."""

    def __init__(self, squeezed_by: frozenset[int] | None) -> None:
        self.squeezed_by = squeezed_by


def survey(network: keras.Model) -> Survey:
    """Walks through a functional model without computing anything."""
    found = Survey()
    together: list[frozenset[int]] = []

    def visit(operation: Any) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            graph = functional_graph(operation)
            if graph is not None:
                return graph._run_through_graph(_inputs(args, kwargs), operation_fn=visit)
            if isinstance(operation, keras.Layer):
                found.layers.append(operation)
            origins = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, _Origin)]
            squeezed = [x.squeezed_by for x in origins if x.squeezed_by is not None]
            by: frozenset[int] | None = frozenset().union(*squeezed)
            if by:
                together.append(by)
            if len(squeezed) < len(origins):
                found.per_frame |= by or set()
                by = None
                if _squeezes(operation):
                    by = frozenset([id(operation)])
                    found.squeezing |= by
            return keras.tree.map_structure(lambda _: _Origin(by), operation.output)

        return call

    functional_graph(network)._run_through_graph(_Origin(None), operation_fn=visit)
    while joined := [by for by in together if by & found.per_frame and by - found.per_frame]:
        found.per_frame.update(*joined)  # what is joined to a tensor with time must have time
    return found


def _inputs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an inner model was called with."""
    return args[0] if args else kwargs["inputs"]


def _squeezes(operation: Any) -> bool:
    return layer_rules.squeezes(operation) or operation_rules.squeezes(operation)


class Inflation:
    """The second walk, which makes the 3D layers and calls them.

    Args:
        settings: resolved for the network's layers.
        pooling: ids of operations that squeeze pictures and are to pool time too.
        taken: names that layers must not have.
    """

    def __init__(self, settings: Settings, pooling: set[int], taken: tuple[str, ...]) -> None:
        self._settings, self._pooling = settings, pooling
        self._names = set(taken)
        self._made: dict[tuple[int, bool], Any] = {}  # (id of the 2D one, with time?)
        self._copied: list[tuple[keras.Layer, Inflated]] = []
        self._with_time: dict[int, Any] = {}  # keeps the tensors, so that ids stay theirs
        self._within: list[tuple[str, bool | None]] = []  # name and `training` of inner models

    def run(self, network: keras.Model, clip: Any) -> Any:
        """Lays the network on a 5D tensor; returns its output or outputs."""
        self._note_time(clip)
        outputs = functional_graph(network)._run_through_graph(clip, operation_fn=self._visit)
        self._copy_weights()
        return outputs

    def _visit(self, operation: Any) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            graph = functional_graph(operation)
            if graph is None:
                return self._call(operation, args, kwargs)
            training = kwargs.get("training")
            self._within.append((operation.name, self._training if training is None else training))
            outputs = graph._run_through_graph(_inputs(args, kwargs), operation_fn=self._visit)
            self._within.pop()
            return outputs

        return call

    @property
    def _training(self) -> bool | None:
        return self._within[-1][1] if self._within else None

    def _call(self, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = keras.tree.flatten((args, kwargs))
        tensors = [x for x in given if isinstance(x, keras.KerasTensor)]
        timed = [x for x in tensors if id(x) in self._with_time]
        if timed and len(timed) < len(tensors):
            raise refuse(
                operation, "one of its inputs comes from a pool over the whole clip, another not."
            )
        try:
            if not timed:
                return self._plain(operation)(*args, **self._options(operation, kwargs))
            if isinstance(operation, keras.Layer):
                outputs, ends = self._call_layer(operation, args, kwargs, timed)
            else:
                outputs, ends = self._call_operation(operation, args, kwargs, timed)
        except KVideoError:
            raise
        except (ValueError, TypeError) as cause:
            raise refuse(operation, str(cause)) from cause
        if not ends:
            for x in keras.tree.flatten(outputs):
                self._note_time(x)
        return outputs

    def _note_time(self, tensor: Any) -> None:
        self._with_time[id(tensor)] = tensor

    def _plain(self, operation: Any) -> Any:
        """A copy that stays two-dimensional: time is gone there."""
        key = id(operation), False
        if key not in self._made:
            name = self._free_name(operation.name)
            if isinstance(operation, keras.Layer):
                copy = type(operation).from_config({**operation.get_config(), "name": name})
                self._copied.append((operation, Inflated([copy])))
            else:
                copy = operation_rules.fresh(operation, name)
            self._made[key] = copy
        return self._made[key]

    def _call_layer(
        self,
        layer: keras.Layer,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        inputs: list[Any],
    ) -> tuple[Any, bool]:
        key, by_frame = (id(layer), True), id(layer) in self._settings.per_frame
        ends = id(layer) in self._pooling and not by_frame
        if key not in self._made:
            settings = self._settings
            call = Call(
                layer,
                self._free_name(layer.name),
                inputs,
                kernel_t=settings.kernel_t.get(id(layer), 1),
                stride_t=settings.stride_t.get(id(layer), 1),
                edge=settings.edge,
                centre=settings.centre,
                to_clip=ends,
            )
            rule = per_frame if by_frame else layer_rules.rule_for(layer)
            self._made[key] = rule(call)
            self._copied.append((layer, self._made[key]))
        if isinstance(layer, layer_rules.MERGES):
            args = self._with_equal_ranks(layer, args)
        *first, last = self._made[key].layers
        for step in first:
            args = (step(*args),)
        return last(*args, **self._options(last, kwargs)), ends

    def _with_equal_ranks(self, layer: keras.Layer, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Merging layers add axes behind the batch; of squeezed maps they belong behind time."""
        rank = max(len(x.shape) for x in args[0])
        levelled = []
        for number, x in enumerate(args[0], start=1):
            if len(x.shape) < rank:
                frames, *sizes = x.shape[1:]
                shape = (frames, *(1,) * (rank - len(x.shape)), *sizes)
                name = self._free_name(f"{layer.name}_input{number}")
                x = keras.layers.Reshape(shape, name=name)(x)
            levelled.append(x)
        return (levelled, *args[1:])

    def _call_operation(
        self, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], inputs: list[Any]
    ) -> tuple[Any, bool]:
        name = self._free_name(operation.name)
        if id(operation) in self._pooling:
            pool = FramePooling(operation_rules.mode_over_time(operation), name=f"{name}_time")
            return operation_rules.fresh(operation, name)(pool(args[0]), *args[1:], **kwargs), True
        rank = max(len(x.shape) for x in inputs) - 1
        frames = inputs[0].shape[1]
        copy, args = operation_rules.inflate_operation(operation, name, args, rank, frames)
        return copy(*args, **kwargs), False

    def _options(self, operation: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments; within a model called with `training=False`, that too."""
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        if self._training is None or not getattr(operation, "_call_has_training_arg", False):
            return kwargs
        return {"training": self._training, **kwargs}

    def _free_name(self, name: str) -> str:
        """The name, with that of the inner model or a number before it is used twice."""
        names = [name, *("_".join([inner, name]) for inner, _ in self._within[-1:])]
        names += [f"{name}_{number}" for number in range(2, len(self._names) + 3)]
        free = next(name for name in names if name not in self._names)
        self._names.add(free)
        return free

    def _copy_weights(self) -> None:
        for layer, inflated in self._copied:
            old = layer.get_weights()
            if not old:
                continue
            new = [old] if inflated.weights is None else inflated.weights(old)
            for target, weights in zip(inflated.layers[-len(new) :], new, strict=True):
                target.set_weights(weights)
                if isinstance(target, keras.layers.Normalization):
                    target.finalize_state()  # it computes with what it makes of its weights


def check_network(network: Any) -> None:
    """Whether there is a graph from one picture.

    Raises:
        UsageError: there is not.
    """
    name = getattr(network, "name", network)
    if not isinstance(network, keras.Model) or functional_graph(network) is None:
        raise UsageError(
            f'"{name}" cannot be inflated: it is not a functional model (nor a sequential one of '
            "known input), so its layers are unknown."
        )
    if len(network.inputs) != 1 or len(network.inputs[0].shape) != 4:
        shapes = ", ".join(str(x.shape) for x in network.inputs)
        raise UsageError(
            f'"{name}" cannot be inflated: it must take one picture (B, H, W, C), not {shapes}.'
        )
