"""Optical flow: estimation, files, colours, and what resizing and mirroring do to it."""

import json
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from kvideo.errors import DataError, KVideoError, UsageError
from kvideo.flow import (
    UNKNOWN,
    FlowEstimator,
    color_wheel,
    end_point_error,
    flip_flow,
    flow_to_rgb,
    known_flow,
    read_flow,
    resize_flow,
    subtract_camera_motion,
    warp,
    write_flow,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def shifted(dx: float, dy: float, side: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Two frames of a texture that moves by (dx, dy)."""
    noise = np.random.default_rng(1).normal(size=(2 * side, 2 * side, 3))
    texture = cv2.GaussianBlur(noise, (0, 0), 2)
    texture = ((texture / np.abs(texture).max() + 1) * 127).astype(np.uint8)
    grid = np.mgrid[:side, :side].astype(np.float32) + side / 2

    def cut(x: float, y: float) -> np.ndarray:
        return cv2.remap(texture, grid[1] - np.float32(x), grid[0] - np.float32(y), cv2.INTER_CUBIC)

    return cut(0, 0), cut(dx, dy)


# -- estimation ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "within"), [("dis", 0.05), ("farneback", 0.1), ("tvl1", 0.1)])
def test_a_shift_is_found(method: str, within: float) -> None:
    if method == "tvl1":
        pytest.importorskip("skimage")
    flow = FlowEstimator(method)(*shifted(2.5, -1.25))
    assert flow.shape == (96, 96, 2) and flow.dtype == np.float32
    inner = flow[16:-16, 16:-16]
    np.testing.assert_allclose(np.median(inner, axis=(0, 1)), [2.5, -1.25], atol=within)


def middlebury(data: Path) -> list[Path]:
    return sorted(path.parent for path in (data / "data/flow").glob("*/flow10.flo"))


def test_errors_are_those_published(shared: Path) -> None:
    """End-point errors of OpenCV's estimators on Middlebury's pairs, to 0.001 pixel."""
    baseline = json.loads((shared / "data/flow/baseline_epe.json").read_text())
    for folder in middlebury(shared):
        first, second = (
            cv2.imread(str(folder / f"frame{number}.png"))[..., ::-1] for number in (10, 11)
        )
        truth = read_flow(folder / "flow10.flo")
        for method, key in (("dis", "EPE_DIS_medium"), ("farneback", "EPE_farneback")):
            error = end_point_error(FlowEstimator(method)(first, second), truth)
            assert error <= baseline[folder.name][key] + 0.001, (folder.name, method)


def test_a_working_size_scales_the_vectors() -> None:
    first, second = shifted(3, 1.5)
    flow = FlowEstimator(size=(48, 64))(first, second)
    assert flow.shape == (48, 64, 2)
    middle = np.median(flow[10:-10, 10:-10], axis=(0, 1))
    np.testing.assert_allclose(middle, [3 * 64 / 96, 1.5 * 48 / 96], atol=0.05)


@pytest.mark.parametrize(("method", "most"), [("dis", 1e-3), ("farneback", 0.2)])
def test_still_frames_do_not_move(method: str, most: float) -> None:
    frame, _ = shifted(0, 0)
    flow = np.abs(FlowEstimator(method)(frame, frame))
    assert flow.max() < most and np.median(flow) < 1e-3  # Farnebäck's borders are never quite still
    flat = np.full((40, 50, 3), 77, np.uint8)
    assert np.abs(FlowEstimator(method)(flat, flat)).max() < 1e-3


@pytest.mark.parametrize("size", [(1, 1), (5, 70), (12, 12), (31, 8), (16, 300), (12, 200)])
def test_small_frames(size: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype(np.uint8)
    for options in ({"preset": "fast"}, {"preset": "medium"}, {"method": "farneback"}):
        flow = FlowEstimator(**options)(*frames)
        assert flow.shape == (*size, 2) and np.isfinite(flow).all()


def test_a_sequence_is_its_pairs() -> None:
    first, second = shifted(2, 0)
    estimator = FlowEstimator()
    flows = estimator.sequence([first, second, first])
    np.testing.assert_array_equal(flows[0], estimator(first, second))
    np.testing.assert_array_equal(flows[1], estimator(second, first))


def test_many_threads_get_what_one_gets() -> None:
    pairs = [shifted(dx, 0, 64) for dx in range(6)]
    estimator, found = FlowEstimator(), {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: estimator(*pairs[i])}))
        for i in range(len(pairs))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, pair in enumerate(pairs):
        np.testing.assert_array_equal(found[number], FlowEstimator()(*pair))


def test_the_camera_is_subtracted() -> None:
    first, second = shifted(2, 1)
    flow = FlowEstimator(compensate=True)(first, second)
    np.testing.assert_allclose(flow.mean(axis=(0, 1)), 0, atol=1e-5)
    plain = FlowEstimator()(first, second)
    np.testing.assert_allclose(flow, subtract_camera_motion(plain))
    assert np.abs(plain.mean(axis=(0, 1))).max() > 0.5


FRAME = np.zeros((20, 20, 3), np.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FlowEstimator("horn"), "method must be one of dis, farneback, tvl1, not 'horn'"),
        (lambda: FlowEstimator(preset="slow"), "preset must be one of"),
        (lambda: FlowEstimator(size=(0, 3)), "size must be"),
        (lambda: FlowEstimator()(FRAME, FRAME[1:]), "must be of one size"),
        (lambda: FlowEstimator()(FRAME / 255, FRAME / 255), "uint8, not .* float64"),
        (lambda: FlowEstimator().sequence([FRAME]), "at least two frames"),
        (lambda: FlowEstimator().sequence([FRAME, FRAME[2:]]), "must be of one size"),
        (lambda: end_point_error(np.zeros((3, 4, 2)), np.zeros((4, 3, 2))), "cannot be compared"),
        (lambda: end_point_error(*np.full((2, 3, 4, 2), UNKNOWN)), "known nowhere"),
        (lambda: warp(FRAME, np.zeros((3, 3, 2))), "of one size"),
        (lambda: flow_to_rgb(np.zeros((3, 3, 2)), longest=0), "longest must be positive"),
        (lambda: resize_flow(np.zeros((3, 3)), (2, 2)), "has the shape"),
    ],
)
def test_mistakes(call, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


def test_a_missing_scikit_image_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.registration", None)
    with pytest.raises(KVideoError, match=r'needs scikit-image: pip install "kvideo\[flow\]"'):
        FlowEstimator("tvl1")


# -- what happens to a flow ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_flipping_a_pair_flips_its_flow(seed: int) -> None:
    dx, dy = np.random.default_rng(seed).uniform(-3, 3, 2)
    first, second = shifted(dx, dy)
    flow = FlowEstimator()(first, second)
    flipped = FlowEstimator()(first[:, ::-1].copy(), second[:, ::-1].copy())
    assert end_point_error(flipped, flip_flow(flow)) < 0.05
    np.testing.assert_array_equal(flip_flow(flip_flow(flow)), flow)


@pytest.mark.parametrize("seed", range(5))
def test_resizing_a_pair_resizes_its_flow(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dx, dy = rng.uniform(-3, 3, 2)
    size = tuple(int(side) for side in rng.integers(64, 150, 2))
    first, second = shifted(dx, dy)
    resized = [
        cv2.resize(frame, size[::-1], interpolation=cv2.INTER_LINEAR) for frame in (first, second)
    ]
    expected = resize_flow(FlowEstimator()(first, second), size)
    found = FlowEstimator()(*resized)
    inner = np.s_[size[0] // 5 : -size[0] // 5, size[1] // 5 : -size[1] // 5]
    assert end_point_error(found[inner], expected[inner]) < 0.15
    np.testing.assert_allclose(
        expected[inner].mean(axis=(0, 1)), [dx * size[1] / 96, dy * size[0] / 96], atol=0.1
    )


def test_resizing_by_the_rule() -> None:
    flow = np.broadcast_to(np.float32([4, 6]), (10, 20, 2))
    np.testing.assert_array_equal(resize_flow(flow, (5, 40))[2, 3], [8, 3])
    assert resize_flow(flow, (10, 20)) is not None


def test_unknown_vectors_stay_unknown() -> None:
    flow = np.zeros((2, 3, 2), np.float32)
    flow[0, 0], flow[1, 1, 1], flow[1, 2, 0] = UNKNOWN, np.nan, 2e9
    assert known_flow(flow).tolist() == [[False, True, True], [True, False, False]]
    assert known_flow(flip_flow(flow)).tolist() == [[True, True, False], [False, False, True]]
    assert flip_flow(flow)[0, 2].tolist() == [UNKNOWN, UNKNOWN]


def test_warping_undoes_the_motion() -> None:
    first, second = shifted(2.5, -1.25)
    pulled = warp(second, np.broadcast_to(np.float32([2.5, -1.25]), (96, 96, 2)))
    inner = np.s_[8:-8, 8:-8]
    before = np.abs(first[inner].astype(int) - second[inner]).mean()
    assert np.abs(first[inner].astype(int) - pulled[inner]).mean() < before / 10
    picture = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(warp(picture, np.full((3, 4, 2), [1, 0]))[0], [1, 2, 3, 3])


# -- files -----------------------------------------------------------------------------------------


def test_flo_to_the_bit(tmp_path: Path, rng: np.random.Generator) -> None:
    flow = rng.normal(size=(5, 7, 2)).astype(np.float32)
    flow[1, 2], flow[3, 3] = UNKNOWN, [np.nan, -0.0]
    write_flow(tmp_path / "a.flo", flow)
    assert read_flow(tmp_path / "a.flo").tobytes() == flow.tobytes()
    content = (tmp_path / "a.flo").read_bytes()
    assert content[:12] == np.float32(202021.25).tobytes() + np.int32([7, 5]).tobytes()


def test_real_flo_files_to_the_bit(shared: Path, tmp_path: Path) -> None:
    for folder in middlebury(shared):
        write_flow(tmp_path / "b.flo", read_flow(folder / "flow10.flo"))
        assert (tmp_path / "b.flo").read_bytes() == (folder / "flow10.flo").read_bytes()


def test_kitti_in_64ths(tmp_path: Path, rng: np.random.Generator) -> None:
    flow = rng.uniform(-500, 500, (6, 9, 2)).astype(np.float32)
    flow[2, 3] = UNKNOWN
    write_flow(tmp_path / "a.png", flow)
    found = read_flow(tmp_path / "a.png")
    np.testing.assert_array_equal(known_flow(found), known_flow(flow))
    known = known_flow(flow)
    assert np.abs(found[known] - flow[known]).max() <= 1 / 128
    write_flow(tmp_path / "b.png", found)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    channels = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)[0, 0, ::-1]  # RGB
    assert channels.tolist() == [*np.rint(flow[0, 0] * 64 + 2**15).astype(int), 1]


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.flo", b"PIEX" + bytes(20), DataError, "not begin with PIEH"),
        ("a.flo", b"PIEH\1", DataError, "cut off"),
        ("a.flo", b"PIEH" + np.int32([4, 4]).tobytes() + bytes(100), DataError, "112 of 140 bytes"),
        ("a.flo", b"PIEH" + np.int32([-4, 4]).tobytes(), DataError, "it says -4x4 pixels"),
        ("a.flo", b"", DataError, "not begin with PIEH"),
        ("a.png", b"", DataError, "cannot be read"),
        ("a.png", b"\x89PNG none", DataError, "cannot be read"),
        ("a.txt", b"", UsageError, "end in .flo or .png, not as a.txt does"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, error: type, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        read_flow(tmp_path / name)


def test_other_bad_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_flow(tmp_path / "none.flo")
    cv2.imwrite(str(tmp_path / "eight.png"), FRAME)
    with pytest.raises(DataError, match="three channels of 16 bits"):
        read_flow(tmp_path / "eight.png")
    with pytest.raises(UsageError, match="up to 512 pixels"):
        write_flow(tmp_path / "far.png", np.full((2, 2, 2), 600.0))
    with pytest.raises(UsageError, match="holds one flow"):
        write_flow(tmp_path / "many.flo", np.zeros((2, 2, 2, 2)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eight.png"]


# -- colours ---------------------------------------------------------------------------------------


def test_the_wheel() -> None:
    wheel = color_wheel()
    assert wheel.shape == (55, 3)
    for place, color in ((0, (1, 0, 0)), (15, (1, 1, 0)), (21, (0, 1, 0)), (25, (0, 1, 1)),
                         (36, (0, 0, 1)), (49, (1, 0, 1))):  # fmt: skip
        np.testing.assert_array_equal(wheel[place], color)


def test_colors_by_hand() -> None:
    """Still is white, hue is direction, far is full, farther is darker, unknown is black."""
    right, left = (1, 0), (-1, 0)
    vectors = np.array([[(0, 0), right, left, (2, 0), (UNKNOWN, 0)]], np.float32)
    picture = flow_to_rgb(vectors, longest=1)
    assert picture[0, 0].tolist() == [255, 255, 255]
    assert picture[0, 4].tolist() == [0, 0, 0]
    red, green, blue = picture[0, 1].astype(int)
    assert red == 255 and max(green, blue) < 30
    red, green, blue = picture[0, 2].astype(int)
    assert red == 0 and min(green, blue) > 130
    assert (picture[0, 3] <= picture[0, 1]).all() and picture[0, 3, 0] == int(255 * 0.75)
    half = flow_to_rgb(np.array([[(0.5, 0)]]), longest=1)[0, 0].astype(int)
    assert half[0] == 255 and abs(half[1] - (255 + picture[0, 1, 1]) / 2) <= 1
    assert flow_to_rgb(np.zeros((2, 2, 2))).min() == 255


def test_unknown_flow_stays_unknown_when_it_is_resized_or_compensated() -> None:
    flow = np.full((40, 60, 2), 3, np.float32)
    flow[10:14, 20:26] = UNKNOWN
    for size in ((20, 30), (17, 25), (80, 120), (33, 71)):
        resized = resize_flow(flow, size)
        known = known_flow(resized)
        assert not known.all() and known.mean() > 0.8
        expected = np.array([3 * size[1] / 60, 3 * size[0] / 40])
        np.testing.assert_allclose(
            resized[known], np.broadcast_to(expected, (known.sum(), 2)), rtol=1e-4
        )
        assert (resized[~known] == UNKNOWN).all()
    rest = subtract_camera_motion(flow)
    np.testing.assert_allclose(rest[known_flow(flow)], 0, atol=1e-6)
    assert (rest[~known_flow(flow)] == UNKNOWN).all()
    stack = np.stack([flow, 2 * flow])
    np.testing.assert_array_equal(resize_flow(stack, (20, 30))[0], resize_flow(flow, (20, 30)))
    with pytest.raises(UsageError, match="size must be"):
        resize_flow(flow, (0, 10))


def test_a_flo_file_with_something_behind_it(tmp_path: Path) -> None:
    write_flow(tmp_path / "a.flo", np.zeros((4, 5, 2), np.float32))
    (tmp_path / "a.flo").write_bytes((tmp_path / "a.flo").read_bytes() + b"more")
    with pytest.raises(DataError, match="is damaged"):
        read_flow(tmp_path / "a.flo")
