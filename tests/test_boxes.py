"""Boxes go where the pixels go: a white rectangle in a black picture, through every framing."""

import cv2
import numpy as np
import pytest

from kvideo.clip_spec import ClipSpec
from kvideo.data.boxes import boxes_in_clip, boxes_in_picture, mirror_boxes
from kvideo.data.sampling import Augmentation, Window, random_window, view_windows

PICTURE = (240, 360)


def shown(picture: np.ndarray, window: Window, size: tuple[int, int]) -> np.ndarray:
    """The clip's frame that a window makes of a picture."""
    resized = cv2.resize(picture, window.size[::-1], interpolation=cv2.INTER_AREA)
    top, left, height, width = window.crop
    cut = resized[top : top + height, left : left + width]
    frame = np.zeros(size, picture.dtype)
    top, left = window.place
    frame[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return frame


def painted(frame: np.ndarray) -> np.ndarray | None:
    """The white rectangle, as fractions."""
    rows, columns = np.nonzero(frame > 127)
    if not len(rows):
        return None
    height, width = frame.shape
    return np.array([
        columns.min() / width, rows.min() / height,
        (columns.max() + 1) / width, (rows.max() + 1) / height,
    ])  # fmt: skip


@pytest.mark.parametrize("framing", ["crop", "letterbox", "stretch"])
@pytest.mark.parametrize("size", [(112, 112), (96, 160)])
def test_as_the_pixels(framing: str, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    spec = ClipSpec(4, 8.0, size, framing=framing)
    for _ in range(40):
        x1, y1 = rng.integers(0, 280), rng.integers(0, 180)
        x2, y2 = x1 + rng.integers(20, 80), y1 + rng.integers(20, 60)
        picture = np.zeros(PICTURE, np.uint8)
        picture[y1:y2, x1:x2] = 255
        box = np.array([[x1 / 360, y1 / 240, x2 / 360, y2 / 240]])
        windows = [
            random_window(PICTURE, spec, Augmentation(), rng),
            *view_windows(PICTURE, spec, 3),
        ]
        for window in windows:
            frame = shown(picture, window, size)
            moved, seen = boxes_in_clip(box, window, size)
            found = painted(frame)
            if found is not None and seen[0]:
                np.testing.assert_allclose(moved[0], found, atol=1.01 / min(size))
            elif found is not None:
                assert (found[2] - found[0]) * (found[3] - found[1]) < 0.1
            else:
                assert not seen[0] or np.ptp(moved[0][::2]) * size[1] < 1.5
            other, _ = boxes_in_clip(box, window, size, mirrored=True)
            np.testing.assert_allclose(other, mirror_boxes(moved))
            if seen[0] and np.allclose(
                boxes_in_clip(box, window, size, least=0.999)[1], True
            ):  # wholly to be seen: there and back
                np.testing.assert_allclose(boxes_in_picture(moved, window, size), box, atol=1e-9)
                back = boxes_in_picture(other, window, size, mirrored=True)
                np.testing.assert_allclose(back, box, atol=1e-9)


def test_what_is_mostly_cut_off_does_not_count() -> None:
    window = Window((100, 200), (0, 50, 100, 100))
    boxes = [[0.0, 0, 0.3, 1], [0.2, 0, 0.3, 1], [0.0, 0, 0.25, 1], [0.4, 0.2, 0.6, 0.8]]
    moved, seen = boxes_in_clip(boxes, window, (100, 100))
    assert seen.tolist() == [False, True, False, True]
    np.testing.assert_allclose(moved[0], [0, 0, 0.1, 1])
    np.testing.assert_allclose(moved[3], [0.3, 0.2, 0.7, 0.8])
    assert boxes_in_clip(boxes, window, (100, 100), least=0.1)[1].tolist() == [
        True,
        True,
        False,
        True,
    ]
    assert boxes_in_clip(np.zeros((0, 4)), window, (100, 100))[0].shape == (0, 4)
