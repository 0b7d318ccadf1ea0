"""Functional models as graphs of calls."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import keras

from kvideo.errors import UnknownNameError, UsageError
from kvideo.text import enumerate_words

# Of a call: its name (of a layer in a nested model `outer/inner`), the operation, the Keras tensors
# that it is called with, and what it gives.
Visit = Callable[[str, Any, list[Any], Any], None]


def graph_nodes(model: keras.Model) -> list[Any]:
    """The calls that a functional or sequential model consists of, in an order they can run in.

    Each has an `operation` (a layer, mostly), `outputs`, and `arguments.keras_tensors`: the tensors
    that it was called with.
    """
    by_depth = functional_graph(model)._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def layer_output(model: keras.Model, layer: str) -> keras.KerasTensor:
    """What a layer of a functional model gives for each clip.

    Raises:
        UnknownNameError: there is no such layer; the message suggests a near one.
        UsageError: it gives no row for each clip.
    """
    names = [each.name for each in model.layers]
    if layer not in names:
        near = difflib.get_close_matches(layer, names, n=1)
        hooks = [name for name in ("features", "feature_map", "logits") if name in names]
        hint = f'Did you mean "{near[0]}"?' if near else f"It has {enumerate_words(hooks)}."
        raise UnknownNameError(f'the model "{model.name}" has no layer "{layer}". {hint}')
    output = model.get_layer(layer).output
    if not isinstance(output, keras.KerasTensor) or len(output.shape) < 2:
        raise UsageError(f'the layer "{layer}" of "{model.name}" gives no row for each clip.')
    return output


def functional_graph(operation: Any) -> Any:
    """The graph of a functional or sequential model; None of a layer."""
    graph = getattr(operation, "_functional", None) or operation
    return graph if hasattr(graph, "_run_through_graph") else None


def as_functional(model: Any) -> keras.Model | None:
    """A functional or sequential model as a functional one of the same layers; None of others."""
    if not isinstance(model, keras.Model) or not model.built or functional_graph(model) is None:
        return None
    graph = functional_graph(model)
    return graph if graph is model else keras.Model(graph.input, graph.output, name=model.name)


def clip_tensor(model: keras.Model, input_shape: Sequence[int] | None = None) -> keras.KerasTensor:
    """What stands for a batch of one clip of a model, (1, T, H, W, C).

    Args:
        model: of one input.
        input_shape: of one clip, where the model leaves sizes open.

    Raises:
        UsageError: the model is not functional, has several inputs, or a size is unknown.
    """
    if as_functional(model) is None:
        raise UsageError(f'the model "{model.name}" is not functional, or has not been built.')
    if len(model.inputs) != 1:
        raise UsageError(
            f'the model "{model.name}" has {len(model.inputs)} inputs; only models of one clip '
            "can be analyzed."
        )
    shape = tuple(input_shape or model.input_shape[1:])
    if None in shape:
        raise UsageError(f'the model "{model.name}" has no fixed size: give input_shape.')
    return keras.KerasTensor((1, *shape), dtype=model.inputs[0].dtype)


def trace(model: keras.Model, clip: keras.KerasTensor, visit: Visit) -> None:
    """Goes through a model call by call, with shapes only.

    Args:
        model: a functional or sequential model of one input; nested ones are gone into.
        clip: see `clip_tensor`.
        visit: is told of each call.

    Raises:
        UsageError: the model or a nested one is not functional.
    """
    _run(model, clip, "", visit)


def _run(model: keras.Model, inputs: Any, prefix: str, visit: Visit) -> Any:
    def calling(operation: Any) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if functional_graph(operation) is not None:
                return _run(operation, args[0], f"{prefix}{operation.name}/", visit)
            outputs = operation.compute_output_spec(*args, **kwargs)
            given = [x for x in keras.tree.flatten((args, kwargs)) if hasattr(x, "shape")]
            visit(prefix + operation.name, operation, given, outputs)
            return outputs

        return call

    graph = functional_graph(model)
    if graph is None:
        raise UsageError(f'the model "{model.name}" is not functional, so its layers are unknown.')
    return graph._run_through_graph(inputs, operation_fn=calling)
