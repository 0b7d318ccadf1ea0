"""What `keras.ops` in a functional model become: the rules for what is not a layer."""

from __future__ import annotations

from typing import Any

from kvideo.inflation.rule import refuse, shifted_axes

# Operations by class name; Keras does not export the classes.
_ELEMENTWISE = frozenset(
    "Abs Absolute Add Cast Celu Clip Cos Divide Elu Exp Expm1 Gelu HardSigmoid HardSilu HardTanh "
    "LeakyRelu Log Log1p LogSigmoid Maximum Minimum Multiply Negative Power Reciprocal Relu Relu6 "
    "Rsqrt Selu Sigmoid Silu Sin Softplus Softsign Sqrt Square SquaredDifference Subtract Tanh "
    "TrueDivide".split()
)
_REDUCTIONS = {"Max": "max", "Mean": "mean", "Min": "mean", "Sum": "mean"}  # and how over time
_ALONG_AXIS = frozenset(("Concatenate", "LogSoftmax", "Normalize", "Softmax"))


def kind(operation: Any) -> str:
    """The class name of one of Keras's own operations, else nothing."""
    cls = type(operation)
    return cls.__name__ if cls.__module__.startswith("keras.src.ops.") else ""


def fresh(operation: Any, name: str, **changes: Any) -> Any:
    """A copy of an operation."""
    return type(operation).from_config({**operation.get_config(), "name": name, **changes})


def squeezes(operation: Any) -> bool:
    """Whether an operation on a map (B, H, W, C) leaves no height and width."""
    if kind(operation) == "Reshape":
        return len(operation.newshape) == 2
    if kind(operation) not in _REDUCTIONS or operation.axis is None:
        return False
    axes = operation.axis if isinstance(operation.axis, list | tuple) else [operation.axis]
    return {axis % 4 for axis in axes} >= {1, 2}


def mode_over_time(operation: Any) -> str:
    """How time is pooled before an operation that squeezes maps."""
    return _REDUCTIONS.get(kind(operation), "mean")


def inflate_operation(
    operation: Any, name: str, args: tuple[Any, ...], rank: int, frames: int
) -> tuple[Any, tuple[Any, ...]]:
    """The operation for tensors with a time axis, and its arguments.

    Args:
        operation: of the 2D network.
        name: of the copy.
        args: positional arguments, tensors already with time.
        rank: of the 2D operation's largest input.
        frames: the length of the clip.

    Raises:
        UsageError: there is no rule; names the operation.
    """
    what = kind(operation)
    if what in _ELEMENTWISE:
        return fresh(operation, name), args
    if what in _ALONG_AXIS or (what in _REDUCTIONS and operation.axis is not None):
        return fresh(operation, name, axis=shifted_axes(operation.axis, rank)), args
    if what == "GetItem":
        return fresh(operation, name), (args[0], _with_time(args[1]), *args[2:])
    if what == "Reshape":
        batch, *sizes = operation.newshape
        shape = (-1 if batch is None else batch, frames, *sizes)
        return fresh(operation, name, newshape=shape), args
    if what == "Transpose" and operation.axes is not None:
        axes = [axis % rank for axis in operation.axes]
        if axes[0] == 0:
            return fresh(operation, name, axes=(0, 1, *(axis + 1 for axis in axes[1:]))), args
    raise refuse(
        operation,
        "there is no rule for it. Put it into a layer of your own, which "
        "per_frame=[its name] runs on each frame by itself.",
    )


def _with_time(key: Any) -> Any:
    """A key for (B, H, ...) as one for (B, T, H, ...)."""
    if not isinstance(key, tuple) or not key or key[0] is Ellipsis:
        return key
    return (key[0], slice(None), *key[1:])
