"""Video files for the tests, written with PyAV; each picture carries its number."""

from fractions import Fraction

import av
import numpy as np

BITS, BLOCK = 8, 8


def picture(number: int, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8: colours that move, with the number in black and white blocks."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin((x + 3 * number) / 9), np.cos((y - number) / 7), np.sin((x - y) / 11)]
    image = (128 + 60 * np.stack(waves, axis=-1)).astype(np.uint8)
    for bit in range(BITS):
        image[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 235 if number >> bit & 1 else 20
    return image


def number_in(image: np.ndarray) -> int:
    """The number that `picture` wrote."""
    blocks = [image[2:6, bit * BLOCK + 2 : bit * BLOCK + 6].mean() > 128 for bit in range(BITS)]
    return sum(1 << bit for bit, white in enumerate(blocks) if white)


def write(
    path,
    codec="libx264",
    *,
    frames=40,
    size=(96, 64),
    pix_fmt="yuv420p",
    options=None,
    stamps=None,
    container=None,
    setup=None,
):
    """Writes a video of 25 frames a second, or with `stamps` in milliseconds."""
    rate = 25
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        base = Fraction(1, 1000) if stamps else Fraction(1, rate)
        stream.codec_context.time_base = base
        if setup is not None:
            setup(stream)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = stamps[number] if stamps else number, base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path
