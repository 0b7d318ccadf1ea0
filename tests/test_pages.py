"""The HTML pages in a browser: they show themselves without a network, also on a phone."""

import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from kvideo.report import report_html
from kvideo.scores import VideoResult, describe_run, summarize
from kvideo.visualization.embedding import Placed, map_html

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PHONE, DESK = (390, 1600), (1200, 1600)
MARK = (230, 60, 10)  # of the films, RGB

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


def browse(page: Path, *options: str) -> str:
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--hide-scrollbars", *options, page.as_uri(),
    ]  # fmt: skip
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return found.stdout + found.stderr


def screenshot(page: Path, size: tuple[int, int]) -> np.ndarray:
    picture = page.with_suffix(f".{size[0]}.png")
    browse(page, f"--screenshot={picture}", f"--window-size={size[0]},{size[1]}")
    return cv2.imread(str(picture))[..., ::-1].astype(int)


def coloured(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(picture - colour).max(axis=-1) < 30).sum())


@pytest.fixture
def report(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    names = [f"a rather long class name {number}" for number in range(6)]
    videos = []
    for number in range(60):
        scores = rng.dirichlet(np.ones(6))
        videos.append(VideoResult(f"/data/{number}.mp4", (int(rng.integers(6)),), scores))
    frames = np.full((8, 90, 120, 3), MARK, np.uint8)
    details = describe_run(model="m.keras", data="data")
    path = tmp_path / "report.html"
    result = summarize(videos, names, details=details)
    path.write_text(report_html(result, thumbnail=lambda video: frames, num_mistakes=3))
    return path


@pytest.mark.slow
def test_a_report(report: Path) -> None:
    for size in (DESK, PHONE):
        picture = screenshot(report, size)
        assert picture.shape[:2] == (size[1], size[0])
        assert coloured(picture, (29, 98, 208)) > 50  # the accent of figures and bars
    assert "Refused" not in browse(report, "--enable-logging=stderr", "--dump-dom")
    # A film plays when it is ticked: its box is then checked, and the moving picture is seen.
    page = report.read_text()
    only = re.search(r'<label class="film">.*?</label>', page, re.S)[0]
    style = re.search(r"<style>.*?</style>", page, re.S)[0]
    for ticked in (False, True):
        box = only.replace("<input ", "<input checked ") if ticked else only
        still = re.sub(r'(<img) src="data:image/jpeg[^"]*"', r"\1", box)
        report.write_text(f"{style}<figure>{still}</figure>")
        assert (coloured(screenshot(report, (400, 400)), MARK) > 5000) == ticked


@pytest.mark.slow
def test_a_map(tmp_path: Path) -> None:
    _, jpeg = cv2.imencode(".jpg", np.full((40, 40, 3), MARK[::-1], np.uint8))
    rng = np.random.default_rng(0)
    videos = [
        Placed(f"/data/{n}.mp4", n % 3, *rng.uniform(0, 1, 2), jpeg.tobytes()) for n in range(30)
    ]
    path = tmp_path / "map.html"
    path.write_text(map_html(videos, ["a", "b", "c"], title="A <map>"))
    for size, least in ((DESK, 20_000), (PHONE, 2_000)):
        assert coloured(screenshot(path, size), MARK) > least
