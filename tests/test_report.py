"""The report's page, its pictures, and the text for the terminal."""

import base64
import io
import re
import subprocess
import sys
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from PIL import Image

from kvideo.clip_spec import ClipSpec, Views
from kvideo.errors import DecodeError, UsageError
from kvideo.report import format_result, report_html, thumbnail_jpeg, write_report
from kvideo.report.plots import confusion_png
from kvideo.scores import VideoResult, describe_run, summarize
from kvideo.text import display_width

NAMES = ("hug", "kick", "<script>alert('x')</script> & \"more\"", "$a_b$", "パンチ", "push")
EVIL = "/data/<img src=x onerror=alert(1)>\u202egpm.mp4"
VOID = {"meta", "img", "input", "br"}


class Page(HTMLParser):
    """Reads a page strictly: every tag closed in order; collects texts, tags and attributes."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def make(num_videos=60, names=NAMES, multi_label=False, failed=1, seed=0):
    rng = np.random.default_rng(seed)
    videos = []
    for i in range(num_videos):
        p = rng.dirichlet(np.ones(len(names)))
        label = int(p.argmax()) if i % 3 else int(rng.integers(len(names)))
        path = f"/data/{names[0]}/{i}.mp4"
        if i == 0:  # the surest mistake of all
            path, label, p = EVIL, 0, np.full(len(names), 0.01 / (len(names) - 1))
            p[-1] = 0.99
        labels = (label, (label + 1) % len(names)) if multi_label else (label,)
        videos.append(VideoResult(path, labels, p))
    for i in range(failed):
        error = DecodeError("x", "truncated", "no frame could be decoded <at all>")
        videos.append(VideoResult.failed(f"/data/bad/{i}.mp4", (0,), error, start=1.0, end=2.5))
    details = describe_run(model="m.keras", data="d <b>.csv", clip_spec=ClipSpec(16), flip=False)
    return summarize(videos, names, multi_label=multi_label, views=Views(10, 3), details=details)


def red_then_blue(video):
    clip = np.zeros((9, 40, 60, 3), np.uint8)
    clip[:3, ..., 0] = 255
    clip[6:, ..., 2] = 255
    return clip


@pytest.fixture(scope="module")
def page():
    return Page(report_html(make(), thumbnail=red_then_blue, num_mistakes=5))


def test_the_page_needs_nothing_else(page):
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "action", "background"):
            assert attributes.get(name, "data:image/").startswith("data:image/")
    policy = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    style = report_html(make(6)).split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style


def test_the_page_works_on_a_phone_and_in_the_dark(page):
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all(
        "meta"
    )
    assert page.all("html") == [{"lang": "en"}]
    style = report_html(make(6))
    assert "prefers-color-scheme: dark" in style and "max-width: 40rem" in style


def test_names_and_paths_come_out_as_they_are(page):
    for name in NAMES:
        assert name in page.text
    assert "no frame could be decoded <at all>" in page.text
    assert "<img src=x onerror=alert(1)>?gpm.mp4" in page.text  # the change of direction is gone
    assert "d <b>.csv" in page.text


def test_every_picture_says_what_it_shows(page):
    pictures = page.all("img")
    assert len(pictures) == 1 + 2 * 5
    assert pictures[0]["alt"].startswith("Confusion matrix of 6 classes, ")
    assert "taken for" in pictures[0]["alt"]
    assert all(picture["alt"].startswith(("Frames of ", "A film of ")) for picture in pictures[1:])
    for control in page.all("input"):
        assert "aria-label" in control or {"for": control["id"]} in page.all("label")


def test_headline_failures_and_how(page):
    result = make()
    for name in ("top1", "top5", "mean_class_accuracy"):
        assert f"{result.metrics[name]:.3f}" in page.text
    low, high = result.intervals["top1"]
    assert f"{low:.3f}–{high:.3f}" in page.text
    assert "1 video could not be evaluated" in page.text and "truncated: 1" in page.text
    assert "bad/0.mp4 [1–2.5 s]" in page.text
    for fact in (
        "30 a video (10 clips × 3 crops), probabilities averaged",
        "16 frames at 8 per second (2 s), 112 × 112 pixels",
        "m.keras on d <b>.csv",
        f"numpy {np.__version__}",
        "Flip",
    ):
        assert fact in page.text


def test_classes_can_be_sorted_without_a_script(page):
    result = make()
    rows = [a["style"] for a in page.all("tr") if "style" in a]
    assert len(rows) == len(NAMES)
    orders = {}
    for row in rows:
        for key, rank in re.findall(r"--(\w+):(\d+)", row):
            orders.setdefault(key, []).append(int(rank))
    assert all(sorted(ranks) == list(range(len(NAMES))) for ranks in orders.values())
    by_score = [result.classes[i].name for i in np.argsort(orders["score"])]
    assert by_score == [c.name for c in result.worst_classes()]
    by_name = [result.classes[i].name for i in np.argsort(orders["name"])]
    assert by_name == sorted(NAMES)
    by_videos = [result.classes[i].support for i in np.argsort(orders["videos"])]
    assert by_videos == sorted(by_videos, reverse=True)
    style = report_html(make(6))
    choices = [a["id"] for a in page.all("input") if a["type"] == "radio"]
    assert sorted(choices) == ["by-given", *(f"by-{key}" for key in sorted(orders))]
    for key in orders:
        assert f".classes:has(#by-{key}:checked) tbody tr {{ order: var(--{key}); }}" in style


def test_thumbnails_are_asked_for_the_worst_mistakes_only():
    result, asked = make(), []

    def thumbnail(video):
        asked.append(video.path)
        return red_then_blue(video)

    report_html(result, thumbnail=thumbnail, num_mistakes=3)
    assert asked == [m.video.path for m in result.worst(3)]


def test_a_video_that_gives_no_picture_does_not_spoil_the_report():
    def thumbnail(video):
        raise DecodeError(video.path, "missing", "there is no such <file>")

    page = Page(report_html(make(), thumbnail=thumbnail, num_mistakes=2))
    assert len(page.all("img")) == 1
    assert page.text.count("there is no such <file>") == 2
    with pytest.raises(ZeroDivisionError):  # a fault of the caller's is not hidden
        report_html(make(), thumbnail=lambda video: 1 / 0)


def test_without_mistakes_failures_or_details():
    videos = [VideoResult("a.mp4", (0,), np.array([1.0, 0])), VideoResult("b", (1,), [0.1, 0.9])]
    page = Page(report_html(summarize(videos, ["x", "y"])))
    assert "No video was taken for another class." in page.text
    assert "worst mistakes" not in page.text and "could not be evaluated" not in page.text


def test_classes_without_videos_and_predictions():
    videos = [VideoResult("a.mp4", (0,), np.array([1.0, 0, 0]))]
    page = Page(report_html(summarize(videos, ["x", "y", "z"])))
    assert page.text.count("not defined") == 4


def test_multi_label_page():
    page = Page(report_html(make(multi_label=True), thumbnail=red_then_blue, num_mistakes=2))
    assert "mAP" in page.text and "Hit@1" in page.text and "average precision" in page.text
    assert len(page.all("img")) == 2 * 2  # no confusion matrix
    assert "also true" in page.text


def test_many_failures_are_shown_in_part():
    page = Page(report_html(make(failed=130)))
    assert "130 videos could not be evaluated" in page.text
    assert "and 30 more, named in evaluation.json" in page.text


def test_a_large_report_stays_small(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "report.html"
    names = [f"class number {c}" for c in range(60)]
    write_report(
        make(5_000, names, failed=500),
        path,
        thumbnail=lambda video: rng.integers(0, 256, (30, 360, 640, 3), np.uint8),
        title="A title",
    )
    assert path.stat().st_size < 20_000_000  # of pure noise
    page = Page(path.read_text("utf-8"))
    assert len(page.all("img")) == 49 and "A title" in page.text


def test_mistakes_play(page):
    """A still picture of three frames, and under it all frames as a film."""
    images = [image["src"] for image in page.all("img")]
    films = [base64.b64decode(src.split(",")[1]) for src in images if "image/webp" in src]
    assert len(films) == 5 and len([src for src in images if "image/jpeg" in src]) == 5
    film = Image.open(io.BytesIO(films[0]))
    assert film.n_frames == 3 and film.size == (60, 40)  # what is alike is one longer frame
    assert sum(box.get("aria-label", "").startswith("Play ") for box in page.all("input")) == 5


def test_calibration_is_shown(page):
    assert "Expected calibration error" in page.text and "on the whole the model is" in page.text
    (chart,) = [svg for svg in page.all("svg") if svg.get("class") == "calibration"]
    assert "expected error of" in chart["aria-label"]
    assert "Expected calibration" not in Page(report_html(make(multi_label=True))).text


def decoded(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)


def test_a_thumbnail_is_three_frames_side_by_side():
    picture = decoded(thumbnail_jpeg(red_then_blue(None)))
    assert picture.shape == (40, 3 * 60 + 2 * 2, 3)
    for centre, colour in [(30, [255, 0, 0]), (92, [0, 0, 0]), (154, [0, 0, 255])]:
        assert np.abs(picture[20, centre] - colour).max() < 12


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((50, 80, 3), (50, 80)),
        ((1, 50, 80, 3), (50, 80)),
        ((2, 50, 80, 3), (50, 162)),
        ((7, 1080, 1920, 3), (108, 580)),
        ((3, 1920, 1080, 3), (144, 3 * 81 + 4)),
        ((3, 1, 3000, 3), (1, 580)),
    ],
)
def test_thumbnails_of_all_shapes(shape, expected):
    assert decoded(thumbnail_jpeg(np.full(shape, 99, np.uint8))).shape[:2] == expected


@pytest.mark.parametrize(
    "frames",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 4, 3), np.uint8)],
)
def test_what_is_no_thumbnail(frames):
    with pytest.raises(UsageError, match="a thumbnail must be uint8 RGB"):
        thumbnail_jpeg(frames)


def share_of(picture, colour):
    return np.mean(np.abs(picture - colour).max(axis=-1) <= 2)


@pytest.mark.filterwarnings("error")
def test_the_confusion_picture():
    picture = decoded(confusion_png(np.diag([5, 5, 5, 0]), ["a$^", "パンチ", "c" * 90, "d\n"]))
    darkest, lightest, grey = [8, 48, 107], [247, 251, 255], [217, 217, 217]
    cell = share_of(picture, darkest) / 3
    assert cell > 0.005
    # Of 16 cells, three hold all of their row, nine nothing, and four have no row to speak of. The
    # colour bar and the counts in the cells account for the rest.
    assert share_of(picture, lightest) / cell == pytest.approx(9, rel=0.15)
    assert share_of(picture, grey) / cell == pytest.approx(4, rel=0.15)
    assert max(picture.shape[:2]) < 1200


@pytest.mark.parametrize(("count", "smallest", "largest"), [(2, 300, 900), (120, 1200, 2200)])
def test_the_confusion_picture_grows_with_the_classes(count, smallest, largest):
    matrix = np.random.default_rng(0).integers(0, 9, (count, count))
    height, width, _ = decoded(confusion_png(matrix, [f"class {i}" for i in range(count)])).shape
    assert smallest < height < largest and smallest < width < largest


def test_names_that_do_not_fit_the_matrix():
    with pytest.raises(UsageError, match="3 class names do not fit a matrix of 2 classes"):
        confusion_png(np.eye(2), ["a", "b", "c"])


def test_text_for_the_terminal():
    text = format_result(make(), 80)
    lines = text.splitlines()
    result = make()
    low, high = result.intervals["top1"]
    assert lines[0] == (
        f"Top-1 accuracy       {result.metrics['top1']:.3f}"
        f"  ({low:.3f}–{high:.3f} with 95 % confidence)"
    )
    assert "Views                30 a video (10 clips × 3 crops), probabilities averaged" in lines
    table = lines[lines.index("") + 1 :]
    assert table[0].split() == ["class", "videos", "recall", "precision", "taken", "for"]
    assert [row.split()[0] for row in table[2:4]] == ["hug", "kick"]
    assert lines[-2:] == [
        "1 video could not be evaluated and counts in no figure (1 truncated):",
        "  /data/bad/0.mp4 [1–2.5 s]: no frame could be decoded <at all>",
    ]
    assert not text.endswith("\n")


@pytest.mark.parametrize("width", [30, 40, 60, 80, 140])
def test_tables_keep_to_the_width(width):
    lines = format_result(make(failed=0), width).split("\n\n")[1].splitlines()
    assert len(lines) == 2 + len(NAMES)
    # Five narrow columns of figures need 44 columns; below that the names are all that gives way.
    assert max(display_width(line) for line in lines) <= max(width, 44)


def test_the_terminal_s_width_is_the_default(monkeypatch):
    for columns, width in [("60", 60), ("500", 100)]:
        monkeypatch.setenv("COLUMNS", columns)
        assert format_result(make()) == format_result(make(), width)
    assert format_result(make(), 60) != format_result(make(), 100)


def test_of_many_classes_the_worst_are_shown():
    names = [f"class {c}" for c in range(31)]
    result = make(300, names, failed=14)
    text = format_result(result)
    assert "The 10 worst of 31 classes:" in text
    assert text.index(result.worst_classes()[0].name) < text.index(result.worst_classes()[9].name)
    assert text.count("no frame could be decoded") == 10 and "  and 4 more, named in" in text


def test_multi_label_text():
    text = format_result(make(multi_label=True, failed=0))
    assert text.startswith("mAP ") and "avg. prec." in text and "taken for" not in text


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = (
        "import sys; import kvideo.report, kvideo.scores, kvideo.report.plots\n"
        "print([m for m in ('tensorflow', 'keras', 'cv2', 'sklearn', 'matplotlib', 'av')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
