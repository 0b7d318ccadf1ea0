"""A Keras model as one TensorFlow graph without variables, whose operations can be exchanged.

File formats know fewer operations than TensorFlow. A *rewrite* says the same with others: it is
called with an operation's attributes and inputs, and returns a tensor that takes the place of the
operation's output, or None to leave the operation as it is. That reaches every operation, whatever
layer, of whatever package, it comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kvideo.layers.conv3d import plain_convolutions

Rewrite = Callable[..., Any]

# A gradient of a layer's own, which would lead back to the variables.
_GRADIENT = "_gradient_op_type"


@dataclass(frozen=True)
class FrozenGraph:
    """What a model computes when it predicts, with its weights as constants.

    Attributes:
        graph_def: the operations, a `tf.compat.v1.GraphDef`.
        specs: shape, type and name of each input.
        output: the name of the tensor that is the result.
    """

    graph_def: Any
    specs: Sequence[tf.TensorSpec]
    output: str

    def function(self, name: str) -> Any:
        """A concrete function of the inputs that returns the result as `{name: tensor}`."""

        def run(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            given = {spec.name: tensor for spec, tensor in zip(self.specs, inputs, strict=True)}
            (result,) = tf.graph_util.import_graph_def(
                self.graph_def, input_map=given, return_elements=[self.output], name=""
            )
            return {name: result}

        function = tf.function(run, input_signature=list(self.specs), autograph=False)
        return function.get_concrete_function()


def frozen_graph(
    model: keras.Model, specs: Sequence[tf.TensorSpec], rewrites: Mapping[str, Rewrite]
) -> FrozenGraph:
    """The graph of a model.

    Args:
        model: a built model with one output.
        specs: shape, type and name of each of its inputs.
        rewrites: by the type of the operation that each one replaces, such as `"MaxPool3D"`.
    """

    def run(*inputs: tf.Tensor) -> tf.Tensor:
        return model(inputs[0] if len(inputs) == 1 else list(inputs), training=False)

    function = tf.function(run, input_signature=list(specs), autograph=False)
    with plain_convolutions():
        concrete = function.get_concrete_function()
    frozen = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    graph_def = frozen.graph.as_graph_def()
    nodes: list[Any] = []
    for node in graph_def.node:
        node.attr.pop(_GRADIENT, None)
        rewrite = rewrites.get(node.op)
        changed = rewrite and _rewritten(frozen.graph.get_operation_by_name(node.name), rewrite)
        nodes += changed or [node]
    result = type(graph_def)(versions=graph_def.versions, library=graph_def.library)
    result.node.extend(nodes)
    return FrozenGraph(result, specs, frozen.outputs[0].name)


def _rewritten(operation: tf.Operation, rewrite: Rewrite) -> list[Any] | None:
    """The nodes that stand for an operation, the last of them under its name; None: as it is."""
    with tf.Graph().as_default() as graph:
        inputs = [
            tf.compat.v1.placeholder(tensor.dtype, tensor.shape, name=f"input{number}")
            for number, tensor in enumerate(operation.inputs)
        ]
        result = rewrite(operation.node_def.attr, *inputs)
        if result is None:
            return None
        tf.identity(result, name="output")
    nodes = list(graph.as_graph_def().node)
    for node, source in zip(nodes, operation.node_def.input, strict=False):
        node.op, node.input[:] = "Identity", [source]  # placeholders were made first
        dtype = node.attr["dtype"]
        node.ClearField("attr")
        node.attr["T"].CopyFrom(dtype)
    for node in nodes[len(inputs) :]:
        node.input[:] = [_inside(operation.name, source) for source in node.input]
    for node in nodes:
        node.name = operation.name if node.name == "output" else f"{operation.name}/{node.name}"
    return nodes


def _inside(scope: str, source: str) -> str:
    """The name of an input after its node was moved into a scope; `^` marks control inputs."""
    return f"^{scope}/{source[1:]}" if source.startswith("^") else f"{scope}/{source}"
