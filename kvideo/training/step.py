"""One training step, compiled: forward, loss, gradients, update. The loop and benchmarks run it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from kvideo.errors import UsageError
from kvideo.graphs import functional_graph, graph_nodes
from kvideo.hardware import use_xla
from kvideo.training.accumulation import added_up
from kvideo.training.objective import Objective
from kvideo.training.remat import rematerialized
from kvideo.training.remat_over_time import rematerialized_over_time
from kvideo.training.targets import Draw, Targets, targets_of
from kvideo.training.truncated import TruncatedBackpropagation


def compile_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    strategy: tf.distribute.Strategy,
    *,
    batch_size: int,
    objective: Objective | None = None,
    clip_norm: float | None = None,
    remat: bool = False,
    bptt: int | None = None,
    accumulate: int = 1,
) -> Any:
    """A function that takes one step of training on a batch.

    Args:
        model: a classifier with a layer `logits`, built under `strategy`'s scope.
        optimizer: built under `strategy`'s scope.
        strategy: a `tf.distribute` strategy.
        batch_size: clips in a step, over all replicas.
        objective: the loss; by default the cross-entropy of one label a clip.
        clip_norm: largest norm of the whole gradient; None for no limit.
        remat: whether most activations are computed twice instead of kept; see
            `kvideo.training.remat` and, for recurrent networks, `kvideo.training.remat_over_time`.
        bptt: frames after which back-propagation through time is cut off; None: never. See
            `kvideo.training.truncated`.
        accumulate: parts that each device's share of the batch is run in, one after the other, to
            save memory: the gradients are added up for one update. The loss is that of the whole
            batch; batch norms take their statistics from one part at a time.

    Returns:
        A function from clips (B, T, H, W, 3), labels and perhaps a flag () to (4,) float32: sum of
        the losses, clips whose best class is right, clips; and the sum of the flags of all
        replicas, by which one process can tell the others something. Of a model with an output for
        each frame, labels are (B, T), and what is counted are frames. Labels of -1 (nothing is
        known, or the clip only fills up a batch) do not count.

    Raises:
        UsageError: the model has no layer `logits`; `remat`, `bptt` or the mixing of clips does not
            suit it or the batch; or `accumulate` does not divide the batch.
    """
    num_replicas = strategy.num_replicas_in_sync
    if batch_size % (num_replicas * accumulate):
        raise UsageError(
            f"accumulate ({accumulate}) must divide the clips of a step on each device "
            f"({batch_size / num_replicas:g})."
        )
    aim = objective or Objective()
    weights = None if aim.class_weights is None else tf.constant(aim.class_weights)
    network = keras.Model(model.inputs, logits_of(model))
    forward: Callable[[Any], Any] = functools.partial(network, training=True)
    if remat:
        forward = rematerialized_over_time(network) or rematerialized(network)
    variables = model.trainable_variables
    per_frame = len(network.output_shape) == 3
    in_parts = None if bptt is None else TruncatedBackpropagation(network, bptt)

    clip_shape = network.input_shape[1:]
    aim.mixing.check(clip_shape, batch_size // num_replicas)

    def replica_step(
        clips: tf.Tensor, labels: tf.Tensor, flag: tf.Tensor, draw: Draw | None
    ) -> tf.Tensor:
        clips, targets = targets_of(clips, labels, aim, per_frame, draw)
        count = tf.reduce_sum(tf.cast(targets.known(per_frame), tf.float32))
        total = tf.constant(batch_size, tf.float32)
        if per_frame:
            total = tf.maximum(_over_replicas(count, num_replicas), 1.0)

        def backward(run: Callable[[], Any], targets: Targets) -> tuple[list[Any], Any]:
            """Gradients; and the sum of the losses and the number of hits, (2,)."""
            with tf.GradientTape() as tape:
                logits = run()
                losses = targets.losses(logits, aim, weights)
                loss = tf.reduce_sum(losses) / total
                if network.losses:
                    share = 1 if in_parts is None else logits.shape[1] / clips.shape[1]
                    loss += tf.add_n(network.losses) * share / (num_replicas * accumulate)
            found = tape.gradient(loss, [variable.value for variable in variables])
            hits = targets.hits(logits, aim.multi_label)
            return found, tf.stack([tf.reduce_sum(losses), hits])

        def gradients_of(clips: tf.Tensor, targets: Targets) -> tuple[list[Any], Any]:
            if in_parts is None:
                return backward(lambda: forward(clips), targets)
            values = [variable.value for variable in variables]
            return in_parts(clips, targets, backward, values)

        if accumulate == 1:
            gradients, figures = gradients_of(clips, targets)
        else:
            gradients, figures = added_up(
                network, gradients_of, (clips, targets), accumulate, variables
            )
        if clip_norm:
            gradients = clip_gradients(gradients, clip_norm, num_replicas)
        optimizer.apply(gradients, variables)
        return tf.concat([figures, [count, flag]], axis=0)

    # XLA cannot compile the collectives of several replicas into one program.
    @tf.function(jit_compile=use_xla() and num_replicas == 1)
    def step(clips, labels, flag=None, draw=None):
        flag = tf.constant(0.0) if flag is None else flag
        sums = strategy.run(replica_step, args=(clips, labels, flag, draw))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

    if not aim.mixing.active:
        return step

    def mixing_step(clips: Any, labels: Any, flag: Any = None) -> tf.Tensor:
        number = int(keras.ops.convert_to_numpy(optimizer.iterations))
        draw = tuple(tf.constant(part) for part in aim.mixing.draw(number, clip_shape))
        return step(clips, labels, flag, draw)

    return mixing_step


def logits_of(model: keras.Model) -> Any:
    """The output of the layer `logits` in this model's graph; other graphs may have it too."""
    calls = graph_nodes(model) if functional_graph(model) is not None else []
    for call in calls:
        if call.operation.name == "logits":
            return call.outputs[0]
    raise UsageError(
        f'the model "{model.name}" has no layer named "logits"; every classifier must name its '
        "layers feature_map, features and logits."
    )


def _over_replicas(value: tf.Tensor, num_replicas: int) -> tf.Tensor:
    if num_replicas == 1:
        return value
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)


def clip_gradients(gradients: list[tf.Tensor], limit: float, num_replicas: int) -> list[tf.Tensor]:
    """Gradients clipped by the norm of the whole (Pascanu et al. 2013), over all replicas."""
    context = tf.distribute.get_replica_context()
    if num_replicas > 1:
        gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
    clipped, _ = tf.clip_by_global_norm(gradients, limit)
    # The optimizer sums over replicas once more.
    return [gradient / num_replicas for gradient in clipped]
