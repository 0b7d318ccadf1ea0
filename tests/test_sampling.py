"""Which moments and which part of the picture a clip takes; how its colours change."""

import itertools
import math

import numpy as np
import pytest

from kvideo.clip_spec import ClipSpec, Views
from kvideo.data.sampling import (
    CROPS,
    Augmentation,
    Window,
    clip_span,
    clip_times,
    even_clip_times,
    num_views,
    parse_rand_augment,
    random_clip_times,
    random_window,
    view_windows,
)
from kvideo.errors import DataError, UsageError

FRAMINGS = ("crop", "letterbox", "stretch")
CLIP_SIZES = [(112, 112), (64, 96), (96, 64), (7, 224), (1, 1)]
PICTURES = [(240, 320), (320, 240), (112, 112), (1080, 1920), (31, 17), (2, 500), (1, 1)]
LAST_FRAME = 0.002  # a time this little before the end shows the last frame


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed or 0)


# -- moments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("duration", [0.1, 1.0, 3.7, 60.0])
@pytest.mark.parametrize("frame_rate", [2.0, 7.5, 30.0])
@pytest.mark.parametrize("num_frames", [1, 2, 8, 33])
def test_random_clips_lie_inside_the_video(duration, frame_rate, num_frames) -> None:
    spec = ClipSpec(num_frames, frame_rate)
    starts = []
    for seed in range(50):
        times = random_clip_times((0.0, duration), spec, rng(seed))
        assert times.shape == (num_frames,)
        assert times[0] >= 0 and times[-1] <= max(times[0], duration - LAST_FRAME)
        held = times >= duration - LAST_FRAME  # what lies past the end holds the last frame
        np.testing.assert_allclose(np.diff(times[~held]), 1 / frame_rate)
        starts.append(times[0])
        if spec.span <= duration:
            assert times[0] <= duration - spec.span + 1e-9
        else:
            assert times[0] == 0
    if spec.span < duration:  # they are spread over all of the room
        room = duration - spec.span
        assert min(starts) < 0.25 * room and max(starts) > 0.75 * room


def test_random_clips_repeat_with_their_seed() -> None:
    spec, span = ClipSpec(4, 8.0), (0.0, 10.0)
    again = [random_clip_times(span, spec, rng(7)) for _ in range(2)]
    np.testing.assert_array_equal(*again)
    assert not np.allclose(again[0], random_clip_times(span, spec, rng(8)))


def test_a_random_clip_stays_inside_its_segment() -> None:
    spec, span = ClipSpec(8, 8.0), clip_span(2.0, 5.0, 100.0)
    times = np.array([random_clip_times(span, spec, rng(seed)) for seed in range(100)])
    assert times.min() >= 2.0 and times.max() < 5.0
    assert times[:, 0].max() > 3.8 and times[:, 0].min() < 2.2


def test_even_clips_go_from_the_start_to_the_end() -> None:
    spec = ClipSpec(5, 10.0)  # half a second
    times = even_clip_times((0.0, 4.5), spec, 5)
    np.testing.assert_allclose(times[:, 0], [0.0, 1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(times[2], [2.0, 2.1, 2.2, 2.3, 2.4])
    np.testing.assert_allclose(even_clip_times((0.0, 4.5), spec, 1)[:, 0], [2.0])  # the middle
    np.testing.assert_allclose(even_clip_times((10.0, 14.5), spec, 5), times + 10.0)


@pytest.mark.parametrize("num_clips", [1, 2, 3, 10])
@pytest.mark.parametrize("span", [(0.0, 0.3), (0.0, 20.0), (3.0, 3.2), (5.0, 9.0)])
def test_even_clips_lie_inside_the_segment(num_clips, span) -> None:
    for num_frames, frame_rate in itertools.product((1, 4, 16), (5.0, 25.0)):
        times = even_clip_times(span, ClipSpec(num_frames, frame_rate), num_clips)
        assert times.shape == (num_clips, num_frames)
        assert times.min() >= span[0] and times.max() <= span[1] - LAST_FRAME
        assert (np.diff(times, axis=1) >= 0).all() and (np.diff(times[:, 0]) >= 0).all()


def test_a_clip_longer_than_the_video_holds_the_last_frame() -> None:
    spec, end = ClipSpec(10, 10.0), 0.45
    expected = [0.0, 0.1, 0.2, 0.3, 0.4] + [end - LAST_FRAME] * 5
    np.testing.assert_allclose(random_clip_times((0.0, end), spec, rng()), expected)
    for row in even_clip_times((0.0, end), spec, 3):
        np.testing.assert_allclose(row, expected)
    # A video of a single moment gives it over and over.
    np.testing.assert_array_equal(even_clip_times((0.0, 0.0), spec, 2), np.zeros((2, 10)))


def test_clip_times_of_many_starts() -> None:
    times = clip_times(np.array([[0.0, 1.0], [2.0, 2.9]]), 3.0, ClipSpec(2, 4.0))
    last = 3.0 - LAST_FRAME
    np.testing.assert_allclose(times, [[[0, 0.25], [1, 1.25]], [[2, 2.25], [2.9, last]]])


@pytest.mark.parametrize(
    ("start", "end", "duration", "expected"),
    [
        (None, None, 9.0, (0.0, 9.0)),
        (2.0, None, 9.0, (2.0, 9.0)),
        (None, 4.0, 9.0, (0.0, 4.0)),
        (2.0, 99.0, 9.0, (2.0, 9.0)),  # annotations often end a little late
        (-1.0, 4.0, 9.0, (0.0, 4.0)),
        (None, None, 0.0, (0.0, 0.0)),  # a picture: one frame
    ],
)
def test_spans_are_clamped_to_the_file(start, end, duration, expected) -> None:
    assert clip_span(start, end, duration) == expected


@pytest.mark.parametrize("part", [(9.0, None), (12.0, 14.0), (4.0, 4.0), (5.0, 3.0), (None, 0.0)])
def test_a_part_outside_the_file_is_an_error(part) -> None:
    with pytest.raises(DataError, match=r"lies outside the video, which lasts 9\.00 s"):
        clip_span(*part, 9.0)


# -- parts of the picture --------------------------------------------------------------------------


def check_window(window: Window, spec: ClipSpec) -> None:
    """What holds for every window: the crop lies in the resized picture, and fits into the clip."""
    top, left, height, width = window.crop
    assert min(window.size) >= 1 and min(height, width) >= 1 and min(top, left) >= 0
    assert top + height <= window.size[0] and left + width <= window.size[1]
    assert min(window.place) >= 0
    assert window.place[0] + height <= spec.size[0] and window.place[1] + width <= spec.size[1]
    if spec.framing != "letterbox":
        assert (height, width) == spec.size and window.place == (0, 0)
    for value in (*window.size, *window.crop, *window.place):
        assert type(value) is int


def distortion(size: tuple[int, int], picture: tuple[int, int]) -> float:
    """How far a resized picture's aspect is from its own, in pixels of the shorter result."""
    return min(
        abs(size[0] - size[1] * picture[0] / picture[1]),
        abs(size[1] - size[0] * picture[1] / picture[0]),
    )


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("size", CLIP_SIZES)
def test_test_time_windows(framing, size) -> None:
    for short_side in (None, min(size), 2 * max(size)):
        spec = ClipSpec(2, size=size, framing=framing, short_side=short_side)
        for picture, crops in itertools.product(PICTURES, (1, 3)):
            windows = view_windows(picture, spec, crops)
            assert len(windows) == (crops if framing == "crop" else 1)
            assert len({window.size for window in windows}) == 1  # one decode serves all
            for window in windows:
                check_window(window, spec)


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("size", CLIP_SIZES)
def test_training_windows(crop, framing, size) -> None:
    spec = ClipSpec(2, size=size, framing=framing)
    for picture, min_area in itertools.product(PICTURES, (0.01, 0.4, 1.0)):
        augmentation = Augmentation(crop=crop, min_area=min_area)
        for seed in range(20):
            check_window(random_window(picture, spec, augmentation, rng(seed)), spec)


@pytest.mark.parametrize("picture", [(240, 320), (320, 240), (1080, 1920), (480, 640)])
def test_the_aspect_is_kept_by_crop_and_letterbox(picture) -> None:
    square = ClipSpec(2, size=(112, 112))
    (window,) = view_windows(picture, square, 1)
    assert min(window.size) == 128 and distortion(window.size, picture) <= 1
    boxed = square.replace(framing="letterbox")
    (window,) = view_windows(picture, boxed, 1)
    assert max(window.size) == 112 and distortion(window.size, picture) <= 1
    for seed in range(50):
        window = random_window(picture, square, Augmentation(crop="random"), rng(seed))
        assert 128 <= min(window.size) <= 160 and distortion(window.size, picture) <= 1
        window = random_window(picture, boxed, Augmentation(min_area=0.25), rng(seed))
        assert 56 <= max(window.size) <= 112 and distortion(window.size, picture) <= 1
    (window,) = view_windows(picture, square.replace(framing="stretch"), 1)
    assert window == Window((112, 112), (0, 0, 112, 112))


def test_the_three_crops_lie_along_the_long_side() -> None:
    spec = ClipSpec(2, size=(112, 112))
    wide = [window.crop for window in view_windows((240, 320), spec, 3)]
    assert wide == [(8, 0, 112, 112), (8, 30, 112, 112), (8, 59, 112, 112)]
    tall = [window.crop for window in view_windows((320, 240), spec, 3)]
    assert tall == [(left, top, 112, 112) for top, left, _, _ in wide]
    assert view_windows((240, 320), spec, 1)[0].crop == wide[1]  # the centre


def test_letterboxed_pictures_may_be_enlarged_and_cut() -> None:
    spec = ClipSpec(2, size=(60, 100), framing="letterbox")
    augmentation = Augmentation(min_area=0.25, max_scale=2.0)
    rng, scales = np.random.default_rng(0), []
    for _ in range(200):
        window = random_window((90, 100), spec, augmentation, rng)
        top, left, height, width = window.crop
        assert height == min(60, window.size[0]) and width == min(100, window.size[1])
        assert 0 <= top <= window.size[0] - height and 0 <= left <= window.size[1] - width
        assert 0 <= window.place[0] <= 60 - height and 0 <= window.place[1] <= 100 - width
        assert window.size[1] / window.size[0] == pytest.approx(100 / 90, abs=0.03)
        scales.append(window.size[0] / 60)
    assert 0.5 <= min(scales) < 0.6 and 1.9 < max(scales) <= 2.0


def test_letterboxed_pictures_lie_in_the_middle() -> None:
    spec = ClipSpec(2, size=(100, 100), framing="letterbox")
    assert view_windows((100, 200), spec, 3) == [Window((50, 100), (0, 0, 50, 100), (25, 0))]
    assert view_windows((200, 100), spec, 1) == [Window((100, 50), (0, 0, 100, 50), (0, 25))]
    assert num_views(spec, Views(4, 3)) == 4
    assert num_views(spec.replace(framing="crop"), Views(4, 3)) == 12


def test_center_crop_is_the_test_time_crop() -> None:
    for framing, picture in itertools.product(FRAMINGS, PICTURES):
        spec = ClipSpec(2, size=(64, 64), framing=framing)
        window = random_window(picture, spec, Augmentation(crop="center"), rng(3))
        assert window == view_windows(picture, spec, 1)[0]


def test_random_resized_crops_keep_their_limits() -> None:
    """Area and aspect of the box in the picture, which the window says indirectly."""
    spec, picture = ClipSpec(2, size=(100, 100)), (400, 400)
    augmentation = Augmentation(min_area=0.2, max_aspect=1.5)
    areas, aspects = [], []
    for seed in range(400):
        window = random_window(picture, spec, augmentation, rng(seed))
        height = 100 / window.size[0] * picture[0]
        width = 100 / window.size[1] * picture[1]
        areas.append(height * width / (picture[0] * picture[1]))
        aspects.append(width / height)
    slack = 0.02  # sizes are whole pixels
    assert 0.2 - slack < min(areas) < 0.25 and 0.9 < max(areas) <= 1 + slack
    assert 1 / 1.5 - slack < min(aspects) < 0.75 and 1.35 < max(aspects) < 1.5 + slack
    assert abs(np.mean(np.log(aspects))) < 0.05  # wide and tall boxes alike


def test_random_crops_reach_every_border() -> None:
    spec = ClipSpec(2, size=(64, 64))
    seen = set()
    for seed in range(300):
        window = random_window((64, 80), spec, Augmentation(crop="random_resized"), rng(seed))
        top, left, _, _ = window.crop
        seen |= {("top", top == 0), ("left", left == 0)}
        seen.add(("right", left + 64 == window.size[1]))
    assert {("top", True), ("left", True), ("right", True), ("left", False)} <= seen


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": "middle"}, "crop must be one of .*not 'middle'"),
        ({"min_area": 0.0}, "min_area must be above 0 and at most 1, not 0.0"),
        ({"min_area": 1.1}, "min_area"),
        ({"max_aspect": 0.9}, "max_aspect must be at least 1"),
        ({"brightness": -0.1}, "brightness must be at least 0"),
        ({"contrast": 1.0}, "contrast must be .*below 1"),
        ({"saturation": 2.0}, "saturation"),
        ({"brightness": math.nan}, "brightness"),
        ({"min_area": math.nan}, "min_area"),
        ({"max_aspect": math.nan}, "max_aspect"),
        ({"max_aspect": math.inf}, "max_aspect"),
    ],
)
def test_impossible_augmentations_are_named(change, message) -> None:
    with pytest.raises(UsageError, match=message):
        Augmentation(**change)


# -- colours ---------------------------------------------------------------------------------------


def recoloured(clip: np.ndarray, draws: np.ndarray, augmentation: Augmentation) -> np.ndarray:
    """The rule in plain NumPy: saturation about luma, contrast about the mean luma, brightness."""
    pixels = clip.astype(np.float64)
    luma = pixels @ [0.299, 0.587, 0.114]
    pixels = luma[..., None] + (1 + draws[2] * augmentation.saturation) * (pixels - luma[..., None])
    mean = luma.mean()
    pixels = mean + (1 + draws[1] * augmentation.contrast) * (pixels - mean)
    pixels += 255 * draws[0] * augmentation.brightness
    return np.clip(pixels, 0, 255)


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(flip=False),
        Augmentation(flip=False, brightness=0.9, contrast=0.0, saturation=0.0),
        Augmentation(flip=False, brightness=0.0, contrast=0.9, saturation=0.0),
        Augmentation(flip=False, brightness=0.0, contrast=0.0, saturation=0.9),
    ],
)
def test_recolouring_is_the_formula(augmentation) -> None:
    import tensorflow as tf

    from kvideo.data.transforms import augment_clip

    clip = rng(1).integers(0, 256, (3, 5, 7, 3), np.uint8)
    for seed in ((0, 0), (1, 2), (2**31 - 1, 5)):
        draws = tf.random.stateless_uniform((4,), seed).numpy()[1:] * 2 - 1
        changed = augment_clip(tf.constant(clip), tf.constant(seed), augmentation)
        assert changed.dtype == tf.uint8
        expected = recoloured(clip, draws, augmentation)
        assert np.abs(changed.numpy() - expected).max() <= 0.51  # rounding
        assert not np.array_equal(changed, clip)


def test_nothing_to_change_changes_nothing() -> None:
    import tensorflow as tf

    from kvideo.data.transforms import augment_clip

    clip = rng(1).integers(0, 256, (3, 5, 7, 3), np.uint8)
    none = Augmentation(flip=False, brightness=0, contrast=0, saturation=0)
    for seed in range(5):
        np.testing.assert_array_equal(augment_clip(tf.constant(clip), (seed, 0), none), clip)


def test_half_of_the_clips_are_mirrored_and_all_frames_alike() -> None:
    import tensorflow as tf

    from kvideo.data.transforms import augment_clip

    clip = rng(1).integers(0, 256, (3, 5, 7, 3), np.uint8)
    only_flip = Augmentation(flip=True, brightness=0, contrast=0, saturation=0)
    mirrored = 0
    for seed in range(200):
        changed = augment_clip(tf.constant(clip), (seed, 1), only_flip).numpy()
        turned = np.array_equal(changed, clip[:, :, ::-1])
        assert turned or np.array_equal(changed, clip)
        mirrored += turned
    assert 70 < mirrored < 130


def test_one_draw_for_all_frames() -> None:
    """A clip that stands still stands still after every change, and one seed gives one change."""
    import tensorflow as tf

    from kvideo.data.transforms import augment_clip

    still = np.repeat(rng(2).integers(0, 256, (1, 6, 6, 3), np.uint8), 8, axis=0)
    results = set()
    for seed in range(10):
        changed = augment_clip(tf.constant(still), (seed, 0), Augmentation()).numpy()
        assert (changed == changed[:1]).all()
        again = augment_clip(tf.constant(still), (seed, 0), Augmentation()).numpy()
        np.testing.assert_array_equal(changed, again)
        results.add(changed.tobytes())
    assert len(results) == 10


# -- RandAugment and random erasing ----------------------------------------------------------------


def test_operations_of_randaugment_are_those_of_their_names() -> None:
    import tensorflow as tf

    from kvideo.data.clip_reader import GREY
    from kvideo.data.rand_augment import _operations

    blocks = rng(3).integers(60, 200, (8, 8, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    clip = np.repeat(blocks[np.newaxis], 4, axis=0)
    plain = clip.astype(np.float32)

    def changed(name: str, level: float, sign: float = 1.0) -> np.ndarray:
        operation = _operations()[name]
        found = operation(tf.constant(plain), level, tf.constant(sign)).numpy()
        assert found.shape == clip.shape, name
        assert (found == found[:1]).all(), name  # all frames alike
        return found

    assert len(_operations()) == 14
    for name in ("rotate", "contrast", "color", "sharpness", "shear_x", "translate_y", "identity"):
        np.testing.assert_allclose(changed(name, 0.0), plain, atol=1e-2, err_msg=name)
    np.testing.assert_array_equal(changed("solarize", 1.0), 255 - plain)
    np.testing.assert_array_equal(changed("posterize", 1.0), clip // 16 * 16)
    np.testing.assert_allclose(changed("brightness", 0.5, -1.0), np.maximum(plain - 51, 0))
    mean = plain.mean((0, 1, 2))
    np.testing.assert_allclose(
        changed("contrast", 0.5), np.clip(mean + 1.45 * (plain - mean), 0, 255), atol=1e-2
    )
    grey = (plain @ np.array([0.2989, 0.587, 0.114], np.float32))[..., np.newaxis]
    np.testing.assert_allclose(changed("color", 1.0, -1.0), plain + 0.9 * (grey - plain), atol=0.1)
    stretched = changed("auto_contrast", 0.5)
    assert (stretched.min((0, 1, 2)) < 1e-3).all() and (stretched.max((0, 1, 2)) > 254.99).all()
    spread = changed("equalize", 0.5)
    assert spread.min() == 0 and spread.max() == 255
    order = np.argsort(plain[0, ..., 0].ravel(), kind="stable")
    assert (np.diff(spread[0, ..., 0].ravel()[order]) >= 0).all()
    moved = changed("translate_x", 1 / 0.45 / 4)  # a quarter of the side
    np.testing.assert_allclose(moved[:, :, 8:], plain[:, :, :-8], atol=1e-2)
    assert (moved[:, :, :8] == GREY).all()
    sheared = changed("shear_y", 1.0)
    np.testing.assert_allclose(sheared[:, :-9, 20], plain[:, 6:-3, 20], atol=1e-2)  # 20 · 0.3
    turned = changed("rotate", 3.0)  # 90 degrees
    assert min(np.abs(turned - np.rot90(plain, k, (1, 2))).max() for k in (1, 3)) < 1e-2
    assert (changed("rotate", 1.0)[:, 0, 0] == GREY).all()


def test_randaugment_is_one_draw_that_the_seed_determines() -> None:
    import tensorflow as tf

    from kvideo.data.transforms import augment_clip

    still = np.repeat(rng(2).integers(0, 256, (1, 16, 16, 3), np.uint8), 4, axis=0)
    augmentation = Augmentation(
        flip=False, brightness=0, contrast=0, saturation=0, num_ops=2, magnitude=9
    )
    seeds = tf.data.Dataset.range(60).map(lambda n: tf.stack([tf.cast(n, tf.int32), 7]))
    clips = [
        np.stack(list(seeds.map(change, calls, deterministic=True).as_numpy_iterator()))
        for calls in (1, 4)
        for change in [lambda seed: augment_clip(tf.constant(still), seed, augmentation)]
    ]
    np.testing.assert_array_equal(clips[0], clips[1])
    assert clips[0].dtype == np.uint8 and (clips[0] == clips[0][:, :1]).all()
    assert len({clip.tobytes() for clip in clips[0]}) > 40
    alone = augment_clip(tf.constant(still), tf.constant([33, 7]), augmentation)
    np.testing.assert_array_equal(alone, clips[0][33])


def test_erased_boxes_are_the_papers_and_stand_still() -> None:
    import tensorflow as tf

    from kvideo.data.transforms import erase_box

    clip = tf.constant(np.repeat(rng(2).integers(0, 256, (1, 40, 60, 3), np.uint8), 3, axis=0))
    erase = tf.function(lambda seed: erase_box(clip, seed, 0.5))
    erased = 0
    for number in range(200):
        found = erase(tf.constant([number, 1])).numpy()
        assert found.dtype == np.uint8 and (found == found[:1]).all()
        different = (found[0] != clip.numpy()[0]).any(-1)
        if not different.any():
            continue
        erased += 1
        rows, columns = np.flatnonzero(different.any(1)), np.flatnonzero(different.any(0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert different[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.9
        assert 0.015 < height * width / 2400 < 0.42
        assert height / width < 3.6 and width / height < 3.6
    assert 75 < erased < 125
    everywhere = {erase_box(clip, (n, 2), 1.0).numpy().tobytes() for n in range(8)}
    assert len(everywhere) == 8


def test_there_is_no_flow_in_an_erased_box() -> None:
    import tensorflow as tf

    from kvideo.data.transforms import erase_box

    clip = rng(4).normal(1.0, 0.1, (3, 20, 20, 5)).astype(np.float32)
    found = erase_box(tf.constant(clip), (5, 5), 1.0, "rgb+flow").numpy()
    different = (found != clip).any(-1)
    assert different.any() and (found[different][:, 3:] == 0).all()
    assert found[different][:, :3].max() > 200
    only = erase_box(tf.constant(clip[..., 3:]), (5, 5), 1.0, "flow").numpy()
    np.testing.assert_array_equal(only, found[..., 3:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Augmentation(num_ops=11), "0 to 10 operations, not 11"),
        (lambda: Augmentation(magnitude=10.5), "magnitude must be 0 to 10, not 10.5"),
        (lambda: Augmentation(erase=1.5), "random_erasing must be 0 to 1"),
        (lambda: parse_rand_augment("9"), "NUMBERxMAGNITUDE, such as 2x9.*not '9'"),
        (lambda: parse_rand_augment("twoxnine"), "NUMBERxMAGNITUDE"),
        (lambda: Augmentation(num_ops=1).check("rgb+flow"), "clips of rgb.flow have optical flow"),
    ],
)
def test_impossible_augmentations(make, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()
    assert parse_rand_augment("2x9") == (2, 9.0) and parse_rand_augment("1X4.5") == (1, 4.5)
