"""A model run a few frames at a time, with what it remembers carried on from call to call.

A *causal* model's output at a frame depends on that frame and those before it. Its layers are then
of four kinds: those that see each frame for itself, recurrent ones, means (or maxima) over time,
and those that pick the last frame. All but the first have a state of fixed size. So the model can
follow a live stream, or be trained on a long clip part by part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from kvideo.errors import UsageError
from kvideo.graphs import functional_graph, graph_nodes
from kvideo.layers.frames import (
    FoldTime,
    FoldWindows,
    LastFrame,
    RepeatFrames,
    SpatialPooling,
    UnfoldTime,
)
from kvideo.layers.inflation import PerFrame
from kvideo.layers.pixels import PixelNormalization

States = tuple[Any, ...]


class NotCausalError(UsageError):
    """The model looks ahead, or has a layer of which that is not known; the message names it."""


@dataclass(frozen=True)
class _Memory:
    """What one layer carries on.

    Attributes:
        first: from a batch size to the states at the beginning.
        run: from (input, states, training) to (output, new states).
    """

    first: Callable[[Any], list[Any]]
    run: Callable[[Any, list[Any], bool], tuple[Any, list[Any]]]


class SteppedModel:
    """Runs a causal model on parts of a clip.

    The outputs of all parts together are those of the model for the whole clip (for a mean over
    time, the mean so far). Weights are those of the model itself.

    Args:
        model: a functional classifier of one clip.
        unroll: whether recurrent layers are laid out step by step, for parts of one or few frames.
        horizon: frames that a mean over time reaches back; None: to the beginning. Up to so many
            frames it is the mean of all, after that older ones fade by 1/horizon a frame.

    Attributes:
        stride: frames that must come together: 1, or the frames of a window.
        per_frame: whether the output is (B, T, …) rather than (B, …).

    Raises:
        NotCausalError: the model cannot be run so; the message names the layer.
    """

    def __init__(
        self, model: keras.Model, *, unroll: bool = False, horizon: float | None = None
    ) -> None:
        if functional_graph(model) is None:
            raise NotCausalError(
                f'the model "{model.name}" is not functional, so its layers are not known.'
            )
        self.model, self._unroll, self._horizon = model, unroll, horizon
        self.stride = 1
        self._memories: dict[int, _Memory] = {}  # by layer
        kinds = {id(model.inputs[0]): "frames"}
        self._calls = graph_nodes(model)
        for call in self._calls:
            if call.outputs[0] is model.inputs[0]:
                continue
            given = {kinds[id(tensor)] for tensor in call.arguments.keras_tensors}
            kind = self._inspect(call.operation, given)
            kinds |= {id(tensor): kind for tensor in call.outputs}
        self.per_frame = kinds[id(model.outputs[0])] == "frames"

    def first_states(self, batch_size: Any) -> States:
        """The states before the first frame."""
        return tuple(
            state for memory in self._memories.values() for state in memory.first(batch_size)
        )

    def run(self, frames: Any, states: States, training: bool = False) -> tuple[Any, States]:
        """The next frames.

        Args:
            frames: (B, T, H, W, C), T any multiple of `stride`.
            states: as this function, or `first_states`, gave them.
            training: whether dropout drops and batch norms go by the batch.

        Returns:
            (B, T, …) or, of a model that gives one output for a clip, (B, …) for all frames so far;
            and the new states.
        """
        values = {id(self.model.inputs[0]): tf.cast(frames, self.model.inputs[0].dtype)}
        given, carried = iter(states), self._memories
        before = {key: [next(given) for _ in memory.first(1)] for key, memory in carried.items()}
        after: dict[int, list[Any]] = {}
        for call in self._calls:
            if id(call.outputs[0]) in values:
                continue
            layer = call.operation
            args, kwargs = call.arguments.fill_in(values)
            if memory := carried.get(id(layer)):
                outputs, after[id(layer)] = memory.run(args[0], before[id(layer)], training)
            elif isinstance(layer, UnfoldTime):
                steps = tf.shape(frames)[1] // self.stride
                outputs = tf.reshape(args[0], [-1, steps, *layer.output.shape[2:]])
            else:
                if isinstance(layer, keras.Layer) and layer._call_has_training_arg:
                    kwargs["training"] = training
                outputs = layer(*args, **kwargs)
            flat = keras.tree.flatten(outputs)
            values |= {id(tensor): x for tensor, x in zip(call.outputs, flat, strict=True)}
        new = tuple(state for key in carried for state in after[key])
        return values[id(self.model.outputs[0])], new

    def part(self, clips: Any, first: Any, count: int) -> Any:
        """(B, count, …): the frames of clips (B, T, …) from `first` on; the length is known."""
        sizes = [tf.shape(clips)[0], count, *clips.shape[2:]]
        begin = [0, first, *[0] * (len(clips.shape) - 2)]
        shown = tf.slice(clips, begin, sizes)  # XLA wants to know the size
        shown.set_shape([clips.shape[0], count, *clips.shape[2:]])
        return shown

    # -- the plan ------------------------------------------------------------------------------

    def _inspect(self, layer: Any, given: set[str]) -> str:
        """What a layer's output is: "frames" (B, T, …), "folded" (B·T, …) or "clip" (B, …)."""
        if isinstance(layer, FoldTime | FoldWindows) and given == {"frames"}:
            if isinstance(layer, FoldWindows):
                self._set_stride(layer)
            return "folded"
        if isinstance(layer, UnfoldTime) and given == {"folded"}:
            return "frames"
        if given in ({"folded"}, {"clip"}, set()):
            return next(iter(given), "clip")
        if given == {"frames"}:
            if memory := _memory(layer, self._unroll, self._steps(layer)):
                if id(layer) in self._memories:
                    raise NotCausalError(f'layer "{layer.name}" is called more than once.')
                self._memories[id(layer)] = memory
                keeps_time = isinstance(layer, keras.layers.RNN) and layer.return_sequences
                return "frames" if keeps_time else "clip"
            if _sees_single_frames(layer):
                return "frames"
        raise NotCausalError(
            f'layer "{layer.name}" ({type(layer).__name__}) looks at several frames at once, or '
            "may do so."
        )

    def _steps(self, layer: Any) -> float:
        """The horizon in steps of a layer's input, which may be windows."""
        if self._horizon is None or self.model.inputs[0].shape[1] is None:
            return self._horizon or float("inf")
        steps = keras.tree.flatten(layer.input)[0].shape[1]
        return max(1.0, self._horizon * steps / self.model.inputs[0].shape[1])

    def _set_stride(self, layer: FoldWindows) -> None:
        if self.stride not in (1, layer.num_frames):
            raise NotCausalError(f'layer "{layer.name}" cuts other windows than one before it.')
        self.stride = layer.num_frames


def _memory(layer: Any, unroll: bool, horizon: float) -> _Memory | None:
    """How a layer that looks back is run; None: it does not, or it looks ahead too."""
    if isinstance(layer, keras.layers.RNN):
        return None if layer.go_backwards or layer.stateful else _recurrent(layer, unroll)
    if isinstance(layer, LastFrame):
        return _Memory(lambda batch: [], lambda x, states, training: (x[:, -1], []))
    if isinstance(layer, keras.layers.GlobalAveragePooling1D | keras.layers.GlobalAveragePooling3D):
        return _running_mean(layer, horizon)
    if isinstance(layer, keras.layers.GlobalMaxPooling1D | keras.layers.GlobalMaxPooling3D):
        return _running_maximum(layer)
    return None


def _recurrent(layer: Any, unroll: bool) -> _Memory:
    """A twin of the layer that shares its cell, and so its weights, and returns its states."""
    twin = type(layer).from_config(
        {**layer.get_config(), "return_state": True, "unroll": unroll or layer.unroll}
    )
    twin.cell, twin.built = layer.cell, True

    def run(x: Any, states: list[Any], training: bool) -> tuple[Any, list[Any]]:
        outputs, *new = twin(x, initial_state=states, training=training)
        return outputs, new

    return _Memory(lambda batch: list(keras.tree.flatten(layer.get_initial_state(batch))), run)


def _running_mean(layer: Any, horizon: float) -> _Memory:
    """The mean over time so far: itself (B, C) and the number of steps that it stands for."""
    channels = layer.output.shape[-1]

    def first(batch: Any) -> list[Any]:
        return [tf.zeros((batch, channels)), tf.zeros(())]

    def run(x: Any, states: list[Any], training: bool) -> tuple[Any, list[Any]]:
        mean, count = states
        new = tf.cast(tf.shape(x)[1], tf.float32)
        count = tf.maximum(tf.minimum(count + new, horizon), new)
        mean += (tf.cast(layer(x), tf.float32) - mean) * (new / count)
        return tf.cast(mean, x.dtype), [mean, count]

    return _Memory(first, run) if not layer.keepdims else _unknown(layer)


def _running_maximum(layer: Any) -> _Memory:
    channels = layer.output.shape[-1]

    def first(batch: Any) -> list[Any]:
        return [tf.fill((batch, channels), tf.cast(-float("inf"), layer.compute_dtype))]

    def run(x: Any, states: list[Any], training: bool) -> tuple[Any, list[Any]]:
        largest = tf.maximum(states[0], layer(x))
        return largest, [largest]

    return _Memory(first, run) if not layer.keepdims else _unknown(layer)


def _unknown(layer: Any) -> _Memory:
    raise NotCausalError(f'layer "{layer.name}" keeps the time axis that it takes the mean of.')


_FRAMEWISE = (
    keras.layers.Activation,
    keras.layers.Add,
    keras.layers.AlphaDropout,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.ELU,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.Identity,
    keras.layers.LeakyReLU,
    keras.layers.Maximum,
    keras.layers.Multiply,
    keras.layers.Normalization,
    keras.layers.PReLU,
    keras.layers.ReLU,
    keras.layers.Rescaling,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout3D,
    keras.layers.Subtract,
    keras.layers.TimeDistributed,
    PerFrame,
    PixelNormalization,
    RepeatFrames,
    SpatialPooling,
)
_BY_WINDOW = (  # those of one frame if their window in time is
    keras.layers.Conv1D,
    keras.layers.Conv3D,
    keras.layers.SeparableConv1D,
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling3D,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling3D,
)


def _sees_single_frames(layer: Any) -> bool:
    """Whether a layer on (B, T, …) gives for each frame what that frame says alone."""
    if isinstance(layer, _BY_WINDOW):
        window = getattr(layer, "kernel_size", None) or layer.pool_size
        steps = layer.strides
        return _first(window) == 1 and _first(steps) == 1
    if isinstance(layer, keras.layers.ZeroPadding3D):
        return layer.padding[0] == (0, 0)
    if isinstance(layer, keras.layers.Dense | keras.layers.LayerNormalization):
        axis = getattr(layer, "axis", -1)
        rank = len(layer.input.shape)
        return all(a in (-1, rank - 1) for a in keras.tree.flatten(axis))
    if isinstance(layer, keras.layers.Softmax | keras.layers.Concatenate):
        return layer.axis in (-1, len(layer.output.shape) - 1)
    return isinstance(layer, _FRAMEWISE)


def _first(value: int | Sequence[int]) -> int:
    return value if isinstance(value, int) else value[0]
