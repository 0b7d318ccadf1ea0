"""Text and boxes drawn into pictures. NumPy arrays (H, W, 3) uint8, changed in place."""

from __future__ import annotations

import functools

import numpy as np

Colour = tuple[int, int, int]
_DARK = 0.55  # what is left of the picture's brightness behind a label


def draw_label(
    picture: np.ndarray, text: str, place: tuple[int, int], height: int, colour: Colour
) -> int:
    """Writes white text on a darkened ground, with a bar of a colour at its left.

    Args:
        picture: (H, W, 3) uint8.
        text: one line.
        place: (top, left).
        height: of the letters, in pixels, or so.
        colour: of the bar.

    Returns:
        The pixels that it takes from top to bottom; 0 if there is no room.
    """
    top, left = place
    mask = text_mask(text, height)
    rows, width = mask.shape[0], min(mask.shape[1], picture.shape[1] - left)
    if top < 0 or left < 0 or top + rows > picture.shape[0] or width < 1:
        return 0
    area = picture[top : top + rows, left : left + width]
    paint = np.array(colour, np.float32)
    letters = mask[:, :width, np.newaxis]
    dark = area * (1 - _DARK) + 0.35 * paint * _DARK
    area[:] = np.clip(dark * (1 - letters) + 255.0 * letters, 0, 255).astype(np.uint8)
    area[:, : max(2, rows // 8)] = np.array(colour, np.uint8)
    return rows


def draw_box(
    picture: np.ndarray, box: tuple[int, int, int, int], colour: Colour, thickness: int
) -> None:
    """Draws the outline of a box (left, top, right, bottom), in pixels, inside of the picture."""
    height, width = picture.shape[:2]
    left, right = (min(max(side, 0), width - 1) for side in (box[0], box[2]))
    top, bottom = (min(max(side, 0), height - 1) for side in (box[1], box[3]))
    paint = np.array(colour, np.uint8)
    picture[top : top + thickness, left : right + 1] = paint
    picture[max(top, bottom + 1 - thickness) : bottom + 1, left : right + 1] = paint
    picture[top : bottom + 1, left : left + thickness] = paint
    picture[top : bottom + 1, max(left, right + 1 - thickness) : right + 1] = paint


def rgb(colour: str) -> Colour:
    """`#rrggbb` as numbers."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


@functools.lru_cache(maxsize=256)
def text_mask(text: str, height: int) -> np.ndarray:
    """(h, w) float32, 0 to 1: text with a margin around it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1), dpi=72)
    canvas = FigureCanvasAgg(figure)
    drawn = figure.text(0, 0, text, fontsize=height * 0.72, color="black", parse_math=False)
    box = drawn.get_window_extent(canvas.get_renderer())
    width = int(np.ceil(box.width)) + round(0.9 * height)
    whole = round(1.45 * height)
    figure.set_size_inches(width / 72, whole / 72)
    drawn.set_position((0.5 * height / width, 0.36))
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., 0]
    return 1 - picture.astype(np.float32) / 255
