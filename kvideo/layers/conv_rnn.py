"""Recurrent layers whose states are maps: `ConvRNN2D`, `ConvGRU2D`, and their base `ConvRNN`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from kvideo.errors import UsageError
from kvideo.layers.conv_rnn_cells import ConvGRU2DCell, ConvRNN2DCell, ConvRNNCell
from kvideo.text import plural

Shape = tuple[int | None, ...]
_OF_LAYER = (
    "return_sequences return_state go_backwards stateful unroll zero_output_for_mask".split()
)


@keras.saving.register_keras_serializable("kvideo")
class ConvRNN(keras.layers.RNN):
    """Runs a cell whose states are maps over the frames of a clip.

    It has the conventions of `keras.layers.RNN` (which wants flat states itself): masks, where a
    masked step leaves state and output as they were; `initial_state`; states that are returned, or
    kept from batch to batch. The input's convolutions of all steps are one call; only those of the
    state are in the loop.

    Args:
        cell: a `ConvRNNCell`.
        return_sequences: whether to return the outputs of all steps.
        return_state: whether to return the last states too.
        go_backwards: whether to begin at the clip's end; outputs come in that order.
        stateful: whether a batch begins with the states in which the last one ended. The batch size
            must be known.
        unroll: whether the steps are laid out one by one instead of looped over; for short clips.
        zero_output_for_mask: whether a masked step's output is 0.
        **kwargs: of the layer.

    Call arguments:
        sequences: (B, T, H, W, C).
        initial_state: (B, H', W', filters), or a list of it; zeros by default.
        mask: (B, T), False for steps to be left out.
        training: whether dropout drops; the same at all steps of a clip.

    Raises:
        UsageError: `cell` is something else.

    Input shape:
        (B, T, H, W, C); all but B and T known.

    Output shape:
        (B, T, H', W', filters) with `return_sequences`, else (B, H', W', filters); with
        `return_state` a tuple of that and the states.
    """

    def __init__(self, cell: ConvRNNCell, **kwargs: Any) -> None:
        if not isinstance(cell, ConvRNNCell):
            given = "a list" if isinstance(cell, list | tuple) else type(cell).__name__
            raise UsageError(
                "cell must be one ConvRNNCell, such as ConvGRU2DCell or one derived from it, not "
                f"{given}."
            )
        super().__init__(cell, **kwargs)
        self.input_spec = keras.InputSpec(ndim=5)

    def compute_output_shape(self, sequences_shape: Shape, initial_state_shape: Any = None) -> Any:
        """See the class."""
        batch, steps = sequences_shape[:2]
        self._check_steps(steps)
        one = self.cell.compute_output_shape((batch, *sequences_shape[2:]))
        outputs = (batch, steps, *one[1:]) if self.return_sequences else one
        return (outputs, one) if self.return_state else outputs

    def compute_mask(self, _: Any, mask: Any) -> Any:
        """The mask, for outputs of all steps."""
        mask = keras.tree.flatten(mask)[0]
        of_outputs = mask if self.return_sequences else None
        return [of_outputs, None] if self.return_state else of_outputs

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        """See the class.

        Raises:
            UsageError: `unroll` with an unknown number of frames, a clip without frames, or states
                of another shape than the clips need.
        """
        self._check_steps(sequences.shape[1])
        batch = ops.shape(sequences)[0]
        if initial_state is None:
            initial_state = self.states if self.stateful else self.get_initial_state(batch)
        states = [
            tf.cast(ops.convert_to_tensor(state), self.compute_dtype)
            for state in keras.tree.flatten(initial_state)
        ]
        self._check_states(states, sequences.shape)
        of_input = of_state = None
        if training and self.cell.dropout:
            of_input = self.cell.dropout_mask(
                (batch, 1, *ops.shape(sequences)[2:]), self.cell.dropout
            )
        if training and self.cell.recurrent_dropout:
            of_state = self.cell.dropout_mask(ops.shape(states[0]), self.cell.recurrent_dropout)
        projected = self._project(sequences if of_input is None else sequences * of_input)
        last, outputs, states = self._run(projected, states, mask, of_state)
        if self.stateful:
            for variable, state in zip(keras.tree.flatten(self.states), states, strict=True):
                variable.assign(state)
        result = outputs if self.return_sequences else last
        return (result, *states) if self.return_state else result

    def _check_steps(self, steps: int | None) -> None:
        if steps == 0:
            raise UsageError(f'layer "{self.name}" got a clip without frames.')
        if self.unroll and steps is None:
            raise UsageError(f'layer "{self.name}" must know the number of frames to unroll them.')

    def _check_states(self, states: list[Any], shape: Any) -> None:
        wanted = [state.shape for state in keras.tree.flatten(self.get_initial_state(1))]
        if len(states) != len(wanted):
            raise UsageError(
                f'layer "{self.name}" has {plural(len(wanted), "state")}, not {len(states)}.'
            )
        for state, one in zip(states, wanted, strict=True):
            if not state.shape.is_compatible_with((shape[0], *one[1:])):
                raise UsageError(
                    f'layer "{self.name}" begins with a state of the shape {tuple(state.shape)}, '
                    f"but its clips of the shape {tuple(shape)} need {(shape[0], *one[1:])}"
                    + ("; a stateful layer keeps its batch size." if self.stateful else ".")
                )

    def macs(self, input_shape: Shape, output_shape: Any) -> int:
        """Multiply-adds of clips of that shape, with the batch."""
        return self.cell.macs((input_shape[0] or 1) * (input_shape[1] or 1))

    def _project(self, sequences: Any) -> Any:
        """(B, T, H, W, C) -> (T, B, H', W', G): all steps' convolutions of the input in one."""
        steps = sequences.shape[1] or tf.shape(sequences)[1]
        by_time = tf.transpose(sequences, [1, 0, 2, 3, 4])
        folded = tf.reshape(by_time, [-1, *sequences.shape[2:]])
        projected = self.cell.project(folded)
        return tf.reshape(projected, [steps, -1, *projected.shape[1:]])

    def _run(
        self, projected: Any, states: list[Any], mask: Any, of_state: Any
    ) -> tuple[Any, Any, list[Any]]:
        """The last output (B, …), all outputs (B, T, …), the last states."""
        if self.go_backwards:
            projected = tf.reverse(projected, [0])
        if mask is not None:
            mask = tf.transpose(tf.cast(mask, tf.bool))
            mask = tf.reverse(mask, [0]) if self.go_backwards else mask

        weights = self.cell.recurrent_weights()

        def step(now: Any, keep: Any, last: Any, states: list[Any]) -> tuple[Any, Any, list[Any]]:
            """Output as it is returned, output that a masked step repeats, states."""
            output, new = self.cell.step(now, states, weights, of_state)
            if keep is None:
                return output, output, new
            keep = tf.reshape(keep, [-1] + [1] * (len(output.shape) - 1))
            new = [tf.where(keep, a, b) for a, b in zip(new, states, strict=True)]
            kept = tf.where(keep, output, last)
            shown = tf.where(keep, output, tf.zeros_like(output))
            return (shown if self.zero_output_for_mask else kept), kept, new

        run = _unrolled if self.unroll else _looped
        last, outputs, states = run(step, projected, mask, states, self.return_sequences)
        if outputs is not None:
            outputs = tf.transpose(outputs, [1, 0, 2, 3, 4])
        return last, outputs, states


Step = Callable[[Any, Any, Any, list[Any]], tuple[Any, Any, list[Any]]]


def _unrolled(
    step: Step, projected: Any, mask: Any, states: list[Any], keep_all: bool
) -> tuple[Any, Any, list[Any]]:
    last, outputs = tf.zeros_like(states[0]), []
    shown = last
    for index, now in enumerate(tf.unstack(projected)):
        shown, last, states = step(now, None if mask is None else mask[index], last, states)
        outputs.append(shown)
    return shown, tf.stack(outputs) if keep_all else None, states


def _looped(
    step: Step, projected: Any, mask: Any, states: list[Any], keep_all: bool
) -> tuple[Any, Any, list[Any]]:
    steps = projected.shape[0] or tf.shape(projected)[0]
    dtype, shape = states[0].dtype, states[0].shape
    inputs = tf.TensorArray(projected.dtype, steps, element_shape=projected.shape[1:])
    inputs = inputs.unstack(projected)
    masks = None
    if mask is not None:
        masks = tf.TensorArray(tf.bool, steps, element_shape=mask.shape[1:]).unstack(mask)
    # A list of at most one: XLA cannot take the gradient past an array that stays empty.
    outputs = [tf.TensorArray(dtype, steps, element_shape=shape)] if keep_all else []
    first = tf.zeros_like(states[0])

    def body(index: Any, shown: Any, last: Any, states: Any, outputs: Any) -> tuple[Any, ...]:
        keep = None if masks is None else masks.read(index)
        shown, last, states = step(inputs.read(index), keep, last, states)
        return index + 1, shown, last, states, [array.write(index, shown) for array in outputs]

    _, shown, _, states, outputs = tf.while_loop(
        lambda index, *_: index < steps,
        body,
        (tf.constant(0), first, first, states, outputs),
        maximum_iterations=steps,
    )
    return shown, outputs[0].stack() if keep_all else None, states


class _ConvRNN2DBase(ConvRNN):
    """A `ConvRNN` that is made with its cell's arguments."""

    cell_class: type[ConvRNNCell]

    def __init__(self, filters: int, kernel_size: int | Sequence[int], **kwargs: Any) -> None:
        of_layer = {name: kwargs.pop(name) for name in _OF_LAYER if name in kwargs}
        for name in ("name", "trainable", "activity_regularizer"):
            if name in kwargs:
                of_layer[name] = kwargs.pop(name)
        dtype = kwargs.pop("dtype", None)
        cell = self.cell_class(filters, kernel_size, dtype=dtype, name="cell", **kwargs)
        super().__init__(cell, dtype=dtype, **of_layer)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        config = super().get_config()
        del config["cell"]
        of_cell = self.cell.get_config()
        for name in ("name", "trainable", "dtype"):
            of_cell.pop(name)
        return {**config, **of_cell}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """The inverse of `get_config`."""
        return cls(**config)


@keras.saving.register_keras_serializable("kvideo")
class ConvRNN2D(_ConvRNN2DBase):
    """A recurrent layer on maps: h_t = tanh(W_h ∗ h_{t-1} + W_x ∗ x_t + b).

    Args:
        filters: channels of state and output.
        kernel_size: one size or (H, W).
        **kwargs: those of `ConvRNN2DCell` (strides, padding, dilation_rate, activation, use_bias,
            layer_norm, initializers, regularizers, constraints, dropout, recurrent_dropout, seed)
            and those of `ConvRNN` (return_sequences, return_state, go_backwards, stateful, unroll).

    Input shape:
        (B, T, H, W, C); see `ConvRNN` for it and for call arguments.

    Output shape:
        (B, T, H', W', filters) with `return_sequences`, else (B, H', W', filters).
    """

    cell_class = ConvRNN2DCell


@keras.saving.register_keras_serializable("kvideo")
class ConvGRU2D(_ConvRNN2DBase):
    """A gated recurrent unit on maps; the equations are `ConvGRU2DCell`'s.

    Args:
        filters: channels of state and output.
        kernel_size: one size or (H, W).
        **kwargs: those of `ConvGRU2DCell` (reset_after, recurrent_activation and all of
            `ConvRNNCell`) and those of `ConvRNN`.

    Input shape:
        (B, T, H, W, C); see `ConvRNN` for it and for call arguments.

    Output shape:
        (B, T, H', W', filters) with `return_sequences`, else (B, H', W', filters).

    References:
        Ballas et al. 2016, "Delving Deeper into Convolutional Networks for Learning Video
        Representations", section 3.
    """

    cell_class = ConvGRU2DCell
