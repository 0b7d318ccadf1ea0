"""Cells of recurrent convolutional networks: one step in time, with convolutions for products.

A cell's step has two parts. What it makes of the input does not depend on the past, so a layer
computes it for all steps in one call (`project`); what depends on the state is computed step by
step (`step`). Called by itself, as `keras.layers.RNN` calls cells, a cell does both.
"""

from __future__ import annotations

import abc
import numbers
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kvideo.errors import UsageError, check_choice
from kvideo.layers.dropout import shared_uniform

Sizes = int | Sequence[int]


class ConvRNNCell(keras.Layer, abc.ABC):
    """Base of the cells; a subclass says how many gates there are and what a step does.

    Args:
        filters: channels of the state and the output.
        kernel_size: one size or (H, W), of both convolutions.
        strides: of the convolution of the input.
        padding: of the convolution of the input, `"same"` or `"valid"`, in any case. That of the
            state is always "same", with a stride of 1.
        dilation_rate: of the convolution of the input.
        activation: of the new state.
        use_bias: whether there is a bias.
        layer_norm: whether the input's and the state's part of each gate are normalized over the
            channels, at each position for itself, and scaled (Ba et al. 2016).
        kernel_initializer: of the input's kernel.
        recurrent_initializer: of the state's kernel.
        bias_initializer: of the bias.
        kernel_regularizer: likewise.
        recurrent_regularizer: likewise.
        bias_regularizer: likewise.
        kernel_constraint: likewise.
        recurrent_constraint: likewise.
        bias_constraint: likewise.
        dropout: share of the input set to 0 in training.
        recurrent_dropout: share of the state set to 0 in training, before its convolution.
        seed: of the dropout.
        data_format: None or `"channels_last"`, which is all that there is.

    Call arguments:
        inputs: (B, H, W, C).
        states: [(B, H', W', filters)].
        training: whether to drop.

    Raises:
        UsageError: an argument is out of its range.
    """

    gates = 1

    def __init__(
        self,
        filters: int,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "same",
        dilation_rate: Sizes = 1,
        activation: Any = "tanh",
        use_bias: bool = True,
        layer_norm: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if data_format not in (None, "channels_last"):
            raise UsageError(f'data_format must be "channels_last", not {data_format!r}.')
        if filters < 1:
            raise UsageError(f"filters must be at least 1, not {filters}.")
        self.filters = int(filters)
        self.kernel_size = _pair("kernel_size", kernel_size)
        self.strides = _pair("strides", strides)
        self.dilation_rate = _pair("dilation_rate", dilation_rate)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise UsageError("strides and dilation_rate cannot both be greater than 1.")
        padding = padding.lower() if isinstance(padding, str) else padding
        check_choice("padding", padding, ("same", "valid"))
        self.padding, self.use_bias, self.layer_norm = padding, use_bias, layer_norm
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = keras.regularizers.get(recurrent_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.recurrent_constraint = keras.constraints.get(recurrent_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        for name, share in (("dropout", dropout), ("recurrent_dropout", recurrent_dropout)):
            if not isinstance(share, numbers.Real) or not 0 <= share < 1:
                raise UsageError(f"{name} must be at least 0 and less than 1, not {share!r}.")
        self.dropout, self.recurrent_dropout = float(dropout), float(recurrent_dropout)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.state_size = self.filters  # of each position
        self.state_shape: tuple[Any, ...] | None = None

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Makes the weights; (B, H, W, C), of which all but B must be known.

        Raises:
            UsageError: a size is unknown.
        """
        if None in input_shape[1:]:
            raise UsageError(
                f'layer "{self.name}" must know height, width and channels of its input, which is '
                f"{tuple(input_shape)}."
            )
        channels, width = int(input_shape[-1] or 0), self.gates * self.filters
        self.state_shape = self.compute_output_shape(input_shape)[1:]
        self.kernel = self.add_weight(
            shape=(*self.kernel_size, channels, width),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
        )
        self.recurrent_kernel = self.add_weight(
            shape=(*self.kernel_size, self.filters, width),
            initializer=self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
            name="recurrent_kernel",
        )
        if self.use_bias:
            self.bias = self._add_bias("bias", width)
        if self.layer_norm:
            self.input_scale = self._add_scale("input_scale")
            self.recurrent_scale = self._add_scale("recurrent_scale")
        self.built = True

    def _add_bias(self, name: str, width: int) -> Any:
        return self.add_weight(
            shape=(width,),
            initializer=self.bias_initializer,
            regularizer=self.bias_regularizer,
            constraint=self.bias_constraint,
            name=name,
        )

    def _add_scale(self, name: str) -> Any:
        return self.add_weight(shape=(self.gates, self.filters), initializer="ones", name=name)

    def compute_output_shape(
        self, input_shape: Sequence[int | None], *_: Any
    ) -> tuple[int | None, ...]:
        """(B, H', W', filters)."""
        sizes = zip(
            input_shape[1:3], self.kernel_size, self.strides, self.dilation_rate, strict=True
        )
        return (input_shape[0], *(_length(self.padding, *size) for size in sizes), self.filters)

    def get_initial_state(self, batch_size: Any = None) -> list[Any]:
        """Zeros."""
        return [ops.zeros((batch_size, *self._state_shape()), dtype=self.compute_dtype)]

    def _state_shape(self) -> tuple[Any, ...]:
        if self.state_shape is None:
            raise UsageError(f'layer "{self.name}" has not seen an input yet.')
        return self.state_shape

    def project(self, inputs: Any) -> Any:
        """The input's part of all gates: (N, H, W, C) -> (N, H', W', gates*filters)."""
        projected = ops.conv(
            inputs,
            self.kernel,
            strides=self.strides,
            padding=self.padding,
            data_format="channels_last",
            dilation_rate=self.dilation_rate,
        )
        if self.layer_norm:
            projected = self._normalize(projected, self.input_scale)
        return projected + ops.cast(self.bias, projected.dtype) if self.use_bias else projected

    def recurrent_weights(self) -> tuple[Any, ...]:
        """What `step` needs of the weights, cut into its parts once for all steps."""
        return (ops.convert_to_tensor(self.recurrent_kernel),)

    @abc.abstractmethod
    def step(
        self, projected: Any, states: list[Any], weights: tuple[Any, ...], mask: Any = None
    ) -> tuple[Any, list[Any]]:
        """One step.

        Args:
            projected: (B, H', W', gates*filters), what `project` gave.
            states: of the step before.
            weights: what `recurrent_weights` gave.
            mask: what the state is multiplied with before its convolutions (dropout), or None.

        Returns:
            (B, H', W', filters), and the new states.
        """

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Any, list[Any]]:
        """One step with its input as it is; dropout drops anew in each call."""
        states = list(states) if isinstance(states, list | tuple) else [states]
        if training and self.dropout:
            inputs = inputs * self.dropout_mask(ops.shape(inputs), self.dropout)
        mask = None
        if training and self.recurrent_dropout:
            mask = self.dropout_mask(ops.shape(states[0]), self.recurrent_dropout)
        return self.step(self.project(inputs), states, self.recurrent_weights(), mask)

    def dropout_mask(self, shape: Any, share: float) -> Any:
        """0 for a share of the values, 1 / (1 - share) for the others."""
        kept = ops.cast(shared_uniform(shape, self.seed_generator) >= share, self.compute_dtype)
        return kept / ops.cast(1 - share, self.compute_dtype)

    def _convolve_state(self, state: Any, kernel: Any, scale: Any = None) -> Any:
        """A part of the gates from the state; with `scale` (gates, filters) normalized."""
        convolved = ops.conv(state, kernel, padding="same", data_format="channels_last")
        return convolved if scale is None else self._normalize(convolved, scale)

    def _normalize(self, x: Any, scale: Any) -> Any:
        """Each gate's channels at each position: mean 0, variance 1, then scaled; in float32."""
        shape = (*ops.shape(x)[:-1], *scale.shape)
        y = ops.reshape(ops.cast(x, "float32"), shape)
        mean = ops.mean(y, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(y - mean), axis=-1, keepdims=True)
        y = (y - mean) * ops.rsqrt(variance + 1e-3) * ops.cast(scale, "float32")
        return ops.cast(ops.reshape(y, ops.shape(x)), x.dtype)

    def macs(self, steps: int) -> int:
        """Multiply-adds of that many steps of one clip."""
        height, width, _ = self._state_shape()
        kernels = (self.kernel, self.recurrent_kernel)
        per_position = sum(_product(kernel.shape) for kernel in kernels)
        return steps * height * width * per_position

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        serialized = {}
        for part in ("kernel", "recurrent", "bias"):
            for kind in (keras.initializers, keras.regularizers, keras.constraints):
                name = f"{part}_{kind.__name__.rsplit('.', 1)[-1].removesuffix('s')}"
                serialized[name] = kind.serialize(getattr(self, name))
        plain = (
            "filters kernel_size strides padding dilation_rate use_bias layer_norm dropout "
            "recurrent_dropout seed"
        )
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in plain.split()},
            "activation": keras.activations.serialize(self.activation),
            **serialized,
        }


@keras.saving.register_keras_serializable("kvideo")
class ConvRNN2DCell(ConvRNNCell):
    """h' = tanh(W_h ∗ h + W_x ∗ x + b). Arguments: see `ConvRNNCell`."""

    def step(
        self, projected: Any, states: list[Any], weights: tuple[Any, ...], mask: Any = None
    ) -> tuple[Any, list[Any]]:
        """See `ConvRNNCell.step`."""
        (state,), (kernel,) = states, weights
        seen = state if mask is None else state * mask
        scale = self.recurrent_scale if self.layer_norm else None
        new = self.activation(projected + self._convolve_state(seen, kernel, scale))
        return new, [new]


@keras.saving.register_keras_serializable("kvideo")
class ConvGRU2DCell(ConvRNNCell):
    """A gated recurrent unit with convolutions for products.

        r = σ(W_xr ∗ x + W_hr ∗ h + b_r)
        z = σ(W_xz ∗ x + W_hz ∗ h + b_z)
        g = tanh(W_xh ∗ x + W_hh ∗ (r ⊙ h) + b_h)
        h' = z ⊙ h + (1 − z) ⊙ g

    Args:
        filters: see `ConvRNNCell`, and so for all others.
        kernel_size: see there.
        recurrent_activation: of the gates r and z.
        reset_after: whether the gate r is applied to the state's convolution, r ⊙ (W_hh ∗ h + c_h),
            rather than to the state before it. Then there is one convolution of the state instead
            of two, and a bias of the state's part as well.
        **kwargs: see `ConvRNNCell`.

    References:
        Ballas et al. 2016, "Delving Deeper into Convolutional Networks for Learning Video
        Representations"; Cho et al. 2014 for the unit.
    """

    gates = 3  # z, r, g: the order of `keras.layers.GRU`

    def __init__(
        self,
        filters: int,
        kernel_size: Sizes,
        *,
        recurrent_activation: Any = "sigmoid",
        reset_after: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, kernel_size, **kwargs)
        self.recurrent_activation = keras.activations.get(recurrent_activation)
        self.reset_after = reset_after

    def build(self, input_shape: Sequence[int | None]) -> None:
        """See `ConvRNNCell.build`."""
        super().build(input_shape)
        if self.use_bias and self.reset_after:
            self.recurrent_bias = self._add_bias("recurrent_bias", self.gates * self.filters)

    def recurrent_weights(self) -> tuple[Any, ...]:
        """See `ConvRNNCell.recurrent_weights`."""
        kernel = ops.convert_to_tensor(self.recurrent_kernel)
        if self.reset_after:
            return (kernel,)
        return tuple(ops.split(kernel, [2 * self.filters], axis=-1))

    def step(
        self, projected: Any, states: list[Any], weights: tuple[Any, ...], mask: Any = None
    ) -> tuple[Any, list[Any]]:
        """See `ConvRNNCell.step`."""
        (state,) = states
        seen = state if mask is None else state * mask
        scale = self.recurrent_scale if self.layer_norm else None
        # `split`, not slices: the gradients of these are many times slower.
        of_gates, of_new = ops.split(projected, [2 * self.filters], axis=-1)
        if self.reset_after:
            convolved = self._convolve_state(seen, weights[0], scale)
            if self.use_bias:
                convolved += ops.cast(self.recurrent_bias, convolved.dtype)
            to_gates, to_new = ops.split(convolved, [2 * self.filters], axis=-1)
        else:
            to_gates = self._convolve_state(seen, weights[0], None if scale is None else scale[:2])
        gates = self.recurrent_activation(of_gates + to_gates)
        update, reset = ops.split(gates, 2, axis=-1)
        if self.reset_after:
            to_new = reset * to_new
        else:
            scale = None if scale is None else scale[2:]
            to_new = self._convolve_state(reset * seen, weights[1], scale)
        new = self.activation(of_new + to_new)
        new = new + update * (state - new)
        return new, [new]

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            **super().get_config(),
            "recurrent_activation": keras.activations.serialize(self.recurrent_activation),
            "reset_after": self.reset_after,
        }


def _pair(name: str, value: Sizes) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or any(not isinstance(size, int) or size < 1 for size in pair):
        raise UsageError(f"{name} must be one or two whole numbers of at least 1, not {value!r}.")
    return pair


def _length(padding: str, size: int | None, kernel: int, stride: int, dilation: int) -> int | None:
    if size is None:
        return None
    if padding == "valid":
        size -= dilation * (kernel - 1)
        if size < 1:
            raise UsageError("the kernel is larger than the picture.")
    return -(-size // stride)


def _product(shape: Sequence[int]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result
