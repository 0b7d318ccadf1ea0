"""Other ways to compute a 3D convolution and its gradients, for shapes that oneDNN is slow for."""

from __future__ import annotations

import tensorflow as tf


def over_time_as_products(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """A convolution over time with stride 1 and padding "same", as a matrix product for each tap.

    Args:
        x: (B, T, H, W, C).
        kernel: (taps, 1, 1, C, F).

    Returns:
        (B, T, H, W, F).
    """
    taps = kernel.shape[0]
    shape = tf.concat([tf.shape(x)[:-1], kernel.shape[-1:]], axis=0)
    products = (tf.reshape(tf.matmul(_rows(x), kernel[tap, 0, 0]), shape) for tap in range(taps))
    shifts = ((taps - 1) // 2 - tap for tap in range(taps))
    return sum(later(product, shift) for product, shift in zip(products, shifts, strict=True))


def gradients_over_time(
    x: tf.Tensor, kernel: tf.Tensor, upstream: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Those of the input and of the kernel of a convolution over time (stride 1, "same").

    The kernel's is one matrix product of the input and the upstream's shifted copies.

    Args:
        x: (B, T, H, W, C).
        kernel: (taps, 1, 1, C, F).
        upstream: (B, T, H, W, F).
    """
    of_x = tf.raw_ops.Conv3DBackpropInputV2(
        input_sizes=tf.shape(x),
        filter=kernel,
        out_backprop=upstream,
        strides=[1] * 5,
        padding="SAME",
    )
    taps, _, _, channels, filters = kernel.shape
    shifted = [later(upstream, tap - (taps - 1) // 2) for tap in range(taps)]
    of_taps = tf.matmul(_rows(x), _rows(tf.concat(shifted, axis=-1)), transpose_a=True)
    of_taps = tf.transpose(tf.reshape(of_taps, [channels, taps, filters]), [1, 0, 2])
    return of_x, tf.reshape(of_taps, kernel.shape)


def pointwise_gradients(
    x: tf.Tensor, kernel: tf.Tensor, upstream: tf.Tensor, steps: tuple[int, int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Those of the input and of the kernel of a 1×1×1 convolution.

    Args:
        x: (B, T, H, W, C).
        kernel: (1, 1, 1, C, F).
        upstream: (B, T, ceil(H/s), ceil(W/s), F).
        steps: strides over height and width.
    """
    seen = _every(x, steps)  # the positions that the kernel meets
    of_outputs = _rows(upstream)
    of_seen = tf.matmul(of_outputs, kernel[0, 0, 0], transpose_b=True)
    of_kernel = tf.matmul(_rows(seen), of_outputs, transpose_a=True)
    of_seen = tf.reshape(of_seen, tf.shape(seen))
    return _spread(of_seen, tf.shape(x), steps), tf.reshape(of_kernel, kernel.shape)


def in_blocks(x: tf.Tensor, kernel: tf.Tensor, frames: int) -> tf.Tensor:
    """A "valid" convolution with strides (1, 2, 2) as one of stride 1 over blocks of pixels.

    Blocks of `frames`×2×2 pixels become channels, and as many output frames, so that few input and
    output channels fill the processor's matrix registers.

    Args:
        x: (B, T, H, W, C); all but B known.
        kernel: (kT, kH, kW, C, F).
        frames: output frames that are computed at once.

    Returns:
        (B, T', H', W', F).
    """
    _, length, height, width, channels = x.shape
    taps, rows, columns, _, filters = kernel.shape
    out = (length - taps + 1, (height - rows) // 2 + 1, (width - columns) // 2 + 1)
    groups = -(-out[0] // frames)
    reach = -(-(frames + taps - 1) // frames), -(-rows // 2), -(-columns // 2)  # in blocks
    needed = (
        (groups + reach[0] - 1) * frames,
        *(2 * (o + r - 1) for o, r in zip(out[1:], reach[1:], strict=True)),
    )
    x = tf.pad(
        x,
        [
            [0, 0],
            *([0, max(0, n - size)] for n, size in zip(needed, x.shape[1:4], strict=True)),
            [0, 0],
        ],
    )
    x = x[:, : needed[0], : needed[1], : needed[2]]
    blocks = [n // step for n, step in zip(needed, (frames, 2, 2), strict=True)]
    x = tf.reshape(x, [-1, blocks[0], frames, blocks[1], 2, blocks[2], 2 * channels])
    x = tf.reshape(tf.transpose(x, [0, 1, 3, 5, 2, 4, 6]), [-1, *blocks, frames * 4 * channels])
    y = tf.nn.conv3d(x, _kernel_in_blocks(kernel, frames, reach), [1] * 5, "VALID")
    y = tf.reshape(y, [-1, groups, out[1] * out[2], frames, filters])
    y = tf.reshape(tf.transpose(y, [0, 1, 3, 2, 4]), [-1, groups * frames, *out[1:], filters])
    return y[:, : out[0]] if groups * frames > out[0] else y


def _kernel_in_blocks(kernel: tf.Tensor, frames: int, reach: tuple[int, int, int]) -> tf.Tensor:
    taps, rows, columns, channels, filters = kernel.shape
    spare = [[0, reach[1] * 2 - rows], [0, reach[2] * 2 - columns], [0, 0], [0, 0]]
    span = reach[0] * frames
    shifted = [tf.pad(kernel, [[i, span - taps - i], *spare]) for i in range(frames)]
    wide = tf.concat(shifted, axis=-1)
    wide = tf.reshape(
        wide, [reach[0], frames, reach[1], 2, reach[2], 2 * channels, frames * filters]
    )
    wide = tf.transpose(wide, [0, 2, 4, 1, 3, 5, 6])
    return tf.reshape(wide, [*reach, frames * 4 * channels, frames * filters])


def later(x: tf.Tensor, shift: int) -> tf.Tensor:
    """(B, T, H, W, C) with every frame `shift` frames later (earlier if negative); else zeros."""
    if shift == 0:
        return x
    count = tf.shape(x)[1]
    gone = tf.minimum(abs(shift), count)
    first = 0 if shift > 0 else gone
    kept = tf.slice(x, [0, first, 0, 0, 0], [-1, count - gone, -1, -1, -1])
    return tf.pad(kept, [[0, 0], [gone, 0] if shift > 0 else [0, gone], [0, 0], [0, 0], [0, 0]])


def _rows(x: tf.Tensor) -> tf.Tensor:
    """(B, T, H, W, C) -> (B*T*H*W, C)."""
    return tf.reshape(x, [-1, x.shape[-1]])


def _every(x: tf.Tensor, steps: tuple[int, int]) -> tf.Tensor:
    """(B, T, H, W, C) -> (B, T, ceil(H/s), ceil(W/s), C): every s-th row and column.

    By reshaping and `tf.slice`: TensorFlow's strided slices are several times slower.
    """
    if steps == (1, 1):
        return x
    batch, frames, height, width, channels = tf.unstack(tf.shape(x))
    rows, columns = -(-height // steps[0]), -(-width // steps[1])
    if _may_be_odd(x.shape, steps):
        spare = [rows * steps[0] - height, columns * steps[1] - width]
        x = tf.pad(x, [[0, 0], [0, 0], [0, spare[0]], [0, spare[1]], [0, 0]])
    shape = [batch * frames * rows, steps[0], columns, steps[1] * channels]
    x = tf.slice(tf.reshape(x, shape), [0] * 4, [-1, 1, -1, channels])
    return tf.reshape(x, [batch, frames, rows, columns, channels])


def _spread(x: tf.Tensor, shape: tf.Tensor, steps: tuple[int, int]) -> tf.Tensor:
    """The gradient of `_every`: (B, T, H, W, C) of that shape, zero in between."""
    if steps == (1, 1):
        return x
    batch, frames, rows, columns, channels = tf.unstack(tf.shape(x))
    flat = tf.reshape(x, [batch * frames * rows, 1, columns, channels])
    wide = tf.pad(flat, [[0, 0], [0, steps[0] - 1], [0, 0], [0, (steps[1] - 1) * channels]])
    wide = tf.reshape(wide, [batch, frames, rows * steps[0], columns * steps[1], channels])
    return tf.slice(wide, [0] * 5, shape)


def _may_be_odd(shape: tf.TensorShape, steps: tuple[int, int]) -> bool:
    sizes = zip(shape[2:4], steps, strict=True)
    return any(size is None or size % step for size, step in sizes)
