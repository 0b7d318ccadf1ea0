"""A registered model's builder, called under a precision's policy; its refusals in one sentence."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from kvideo.errors import KVideoError, UsageError
from kvideo.registry import Entry
from kvideo.saving import PRECISIONS


def build_model(
    entry: Entry,
    num_classes: int,
    input_shape: Sequence[int],
    *,
    classifier_activation: str = "softmax",
    precision: str = "float32",
    options: Mapping[str, Any] | None = None,
) -> keras.Model:
    """A fresh model.

    Args:
        entry: of the registry.
        num_classes: classes.
        input_shape: (T, H, W, 3).
        classifier_activation: `"softmax"` or `"sigmoid"`.
        precision: what the layers compute in: `"float32"`, `"bfloat16"` or `"float16"`. The
            process's own policy is left as it was.
        options: further arguments of the builder.

    Raises:
        UsageError: the builder does not take the arguments.
        PluginLoadError: the builder cannot be imported; or it is a plugin's and fails, or gives no
            model.
    """
    builder, given = entry.load(), dict(options or {})
    _check_switches(builder, given)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(PRECISIONS[precision])
    try:
        model = builder(
            num_classes,
            input_shape=tuple(input_shape),
            classifier_activation=classifier_activation,
            **given,
        )
    except KVideoError:
        raise
    except (TypeError, ValueError) as cause:
        raise UsageError(
            f'the model "{entry.name}" cannot be built for clips of {tuple(input_shape)}'
            + (f" with {given}" if given else "")
            + f": {cause}. Its arguments are {', '.join(_arguments(builder))}."
        ) from cause
    except Exception as cause:
        if entry.builtin:
            raise
        raise entry.failure("could not build its model", cause) from cause
    finally:
        keras.config.set_dtype_policy(before)
    if not isinstance(model, keras.Model):
        other = TypeError(f"it gave {model!r}, which is no keras.Model")
        raise entry.failure("could not build its model", other)
    return model


def _check_switches(builder: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Refuses other than true and false for arguments that are switches: any word would be true."""
    for name, parameter in inspect.signature(builder).parameters.items():
        if isinstance(parameter.default, bool) and given.get(name, False) not in (True, False):
            raise UsageError(f"{name} must be true or false, not {given[name]!r}.")


def _arguments(builder: Callable[..., Any]) -> list[str]:
    """What `--set` may name."""
    given = {"num_classes", "input_shape", "classifier_activation"}
    return [name for name in inspect.signature(builder).parameters if name not in given]
