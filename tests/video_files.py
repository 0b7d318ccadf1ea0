"""Video files for the tests of decoding, written with PyAV.

Every picture carries its number as twelve black or white blocks, so that a test can tell which
frame it got without trusting another decoder.
"""

from fractions import Fraction

import av
import numpy as np

BITS = 12
BLOCK = 8


def picture(number: int, width: int = 96, height: int = 64) -> np.ndarray:
    """A moving texture with the number written over it, (height, width, 3) uint8."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack(
        [
            np.sin((x + 3 * number) / 5.0) * np.cos(y / 7.0),
            np.sin((x - y + 2 * number) / 9.0),
            np.cos((x + y - number) / 4.0),
        ],
        axis=-1,
    )
    noise = np.random.default_rng(number).integers(-12, 12, (height, width, 3))
    image = np.clip(128 + 60 * waves + noise, 0, 255).astype(np.uint8)
    for bit in range(BITS):
        row, column = divmod(bit, 6)
        value = 235 if number >> bit & 1 else 20
        block = image[row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK]
        block[...] = value
    return image


def number_in(image: np.ndarray) -> int:
    """The number that `picture` wrote, from a picture of the size it was written in."""
    number = 0
    for bit in range(BITS):
        row, column = divmod(bit, 6)
        block = image[
            row * BLOCK + 2 : (row + 1) * BLOCK - 2, column * BLOCK + 2 : (column + 1) * BLOCK - 2
        ]
        number |= int(block.mean() > 128) << bit
    return number


def write(
    path,
    codec="libx264",
    *,
    frames=60,
    rate=25,
    pix_fmt="yuv420p",
    options=None,
    stamps=None,
    time_base=None,
    size=(96, 64),
    container=None,
    container_options=None,
    setup=None,
):
    """Writes a video of numbered pictures.

    Args:
        path: of the file.
        codec: FFmpeg's encoder.
        frames: how many.
        rate: frames per second.
        pix_fmt: pixel format.
        options: of the encoder.
        stamps: presentation stamps in units of `time_base`; None: at the constant rate.
        time_base: of the stamps.
        size: (width, height).
        container: format, where the file ending does not tell.
        container_options: of the muxer.
        setup: called with the stream before the first frame.
    """
    with av.open(
        str(path), "w", format=container, container_options=container_options or {}
    ) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        if time_base is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(time_base)
        if setup is not None:
            setup(stream)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame = frame.reformat(format=pix_fmt)
            if stamps is None:
                frame.pts, frame.time_base = number, Fraction(1, rate)
            else:
                frame.pts, frame.time_base = stamps[number], Fraction(time_base)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path
