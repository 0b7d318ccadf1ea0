"""The report of an evaluation: one HTML file that needs nothing else, no network, no script.

Needs neither a model nor a decoder: pictures of the videos come from a function that the caller
hands in.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np

from kvideo.errors import KVideoError, UsageError
from kvideo.files import write_text_atomic
from kvideo.report.films import webp_bytes
from kvideo.report.tables import (
    calibration_section,
    class_section,
    confusion_section,
    data_url,
    escape,
)
from kvideo.report.text import (
    OUT_OF_100,
    VALUE_NAMES,
    describe_clip,
    describe_views,
    value_text,
)
from kvideo.report.timeline import timeline_section
from kvideo.results import EvaluationResult, Mistake, VideoResult
from kvideo.segmentation.results import SegmentationResult
from kvideo.text import cut, plural

Thumbnail = Callable[[VideoResult], np.ndarray]

_FRAMES = 3
_FILM_FRAMES = 12
_FILM_RATE = 5.0  # frames per second of what plays
_THUMBNAIL = (144, 192)  # the largest height and width of one frame, in pixels
_FAILURES_SHOWN = 100
# Nothing may be loaded, whatever a file name or a class name holds.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(
    result: EvaluationResult,
    path: str | os.PathLike[str],
    *,
    thumbnail: Thumbnail | None = None,
    title: str = "",
    num_mistakes: int = 24,
) -> None:
    """Write `report_html(…)` to a file, whole or not at all.

    Raises:
        KVideoError: it cannot be written.
        UsageError: `thumbnail` gave something else than pictures.
    """
    page = report_html(result, thumbnail=thumbnail, title=title, num_mistakes=num_mistakes)
    write_text_atomic(path, page)


def report_html(
    result: EvaluationResult,
    *,
    thumbnail: Thumbnail | None = None,
    title: str = "",
    num_mistakes: int = 24,
) -> str:
    """The report as one HTML page: headline, confusion matrix, classes, worst mistakes, how.

    Args:
        result: what to report.
        thumbnail: gives frames of a video, (T, H, W, 3) or (H, W, 3), uint8 RGB; three of them
            are shown, and where there are more they play under the pointer or a finger. It is
            called only for the worst mistakes; where it raises `KVideoError`, the report shows the
            sentence instead of a picture.
        title: by default it names the model and the data, as far as the result knows them.
        num_mistakes: how many of the worst mistakes to show, each about 15 KB, and
            with 12 frames 50 KB.

    Raises:
        UsageError: `thumbnail` gave something else than pictures.
    """
    title = title or _title(result)
    folder = _common_folder([video.path for video in result.videos])
    style = resources.files("kvideo.report").joinpath("page.css").read_text("utf-8")
    parts = [
        _header(result, title),
        _headline(result),
        _failures(result, folder),
        _over_time(result, folder),
        confusion_section(result),
        _mistakes(result, thumbnail, num_mistakes, folder),
        class_section(result),
        calibration_section(result),
        _how(result, folder),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def thumbnail_jpeg(frames: np.ndarray) -> bytes:
    """Three frames of a video side by side, as JPEG.

    Args:
        frames: (T, H, W, 3) or (H, W, 3), uint8 RGB; of more than three those in the middle of
            each third are taken. Each is shrunk to fit into 144 × 192 pixels.

    Raises:
        UsageError: another shape or type.
    """
    import cv2

    frames = np.asarray(frames)
    clip = frames[None] if frames.ndim == 3 else frames
    if clip.ndim != 4 or clip.shape[-1] != 3 or clip.dtype != np.uint8 or not clip.size:
        raise UsageError(
            "a thumbnail must be uint8 RGB of the shape (H, W, 3) or (T, H, W, 3), "
            f"not {frames.dtype} {frames.shape}."
        )
    count = min(len(clip), _FRAMES)
    chosen = clip[[(2 * i + 1) * len(clip) // (2 * count) for i in range(count)]]
    height, width = chosen.shape[1:3]
    scale = min(1.0, _THUMBNAIL[0] / height, _THUMBNAIL[1] / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    gap = np.zeros((size[1], 2, 3), np.uint8)
    row: list[np.ndarray] = []
    for frame in chosen:
        row += [gap, cv2.resize(frame, size, interpolation=cv2.INTER_AREA)]
    picture = np.ascontiguousarray(np.concatenate(row[1:], axis=1)[..., ::-1])
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return data.tobytes()


# The parts of the page. `_e` escapes everything that comes from outside.


def _title(result: EvaluationResult) -> str:
    model, data = result.details.get("model"), result.details.get("data")
    if not model:
        return f"Evaluation on {_last(data, 1)}" if data else "Evaluation"
    return f"{_last(model, 2)} on {_last(data, 1)}" if data else _last(model, 2)


def _last(path: Any, parts: int) -> str:
    """The end of a path; "How the figures were made" has it whole."""
    return "/".join(str(path).replace("\\", "/").rstrip("/").split("/")[-parts:])


def _header(result: EvaluationResult, title: str) -> str:
    count = plural(int(result.metrics["num_videos"]), "video")
    classes = plural(len(result.class_names), "class")
    kind = "several labels a video" if result.multi_label else f"one label a {result.unit}"
    facts = f'<p class="soft">{count}, {classes}, {kind}</p>'
    return f"<header>\n<h1>{escape(title)}</h1>\n{facts}\n</header>"


def _headline(result: EvaluationResult) -> str:
    cards = []
    for name, label in VALUE_NAMES.items():
        if name not in result.metrics:
            continue
        value = float(result.metrics[name])
        share = 0.0 if math.isnan(value) else value if name in OUT_OF_100 else 100 * value
        marks, notes = f'<i style="width:{share:.2f}%"></i>', []
        if name in result.intervals:
            low, high = result.intervals[name]
            marks += f'<u style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></u>'
            notes.append(f"{low:.3f}–{high:.3f} with 95\u00a0% confidence")
        if name in ("top1", "frame_accuracy") and result.baseline is not None:
            notes.append(f"always the most frequent class: {result.baseline:.3f}")
        lines = "".join(f'<p class="soft">{note}</p>' for note in notes)
        cards.append(
            f'<section><h2>{label}</h2><p class="value">{value_text(name, value)}</p>'
            f'<div class="track" aria-hidden="true">{marks}</div>{lines}</section>'
        )
    return '<div class="figures">\n' + "\n".join(cards) + "\n</div>"


def _over_time(result: EvaluationResult, folder: str) -> str:
    if not isinstance(result, SegmentationResult):
        return ""
    return timeline_section(result, lambda path: _short(path, folder))


def _failures(result: EvaluationResult, folder: str) -> str:
    failed = result.failures
    if not failed:
        return ""
    number = int(result.metrics["num_failed"])
    rows, left = [], _FAILURES_SHOWN
    for reason, videos in failed.items():
        names = [_failure(video, folder) for video in videos[:left]]
        left -= len(names)
        if len(videos) > len(names):
            names.append(f"<li>and {len(videos) - len(names)} more, named in evaluation.json</li>")
        opened = " open" if number <= 10 else ""
        rows.append(
            f"<details{opened}><summary>{escape(reason.replace('_', ' '))}: {len(videos)}</summary>"
            f"<ul>{''.join(names)}</ul></details>"
        )
    return (
        f'<section class="warning">\n<h2>{plural(number, "video")} could not be evaluated</h2>\n'
        f"<p>{'It counts' if number == 1 else 'They count'} in none of the figures.</p>\n"
        + "\n".join(rows)
        + "\n</section>"
    )


def _failure(video: VideoResult, folder: str) -> str:
    name = escape(_short(video.name, folder))
    return f'<li><span class="path">{name}</span>: {escape(video.error)}</li>'


def _mistakes(
    result: EvaluationResult, thumbnail: Thumbnail | None, number: int, folder: str
) -> str:
    worst = result.worst(number)
    if not worst:
        return ""
    cards = "\n".join(_mistake(result, mistake, thumbnail, folder) for mistake in worst)
    return (
        "<section>\n<h2>The worst mistakes</h2>\n"
        '<p class="soft">Wrong videos of which the model was surest; '
        "the figures are its probabilities.</p>\n"
        f'<div class="mistakes">\n{cards}\n</div>\n</section>'
    )


def _mistake(
    result: EvaluationResult, mistake: Mistake, thumbnail: Thumbnail | None, folder: str
) -> str:
    name = _short(mistake.video.name, folder)
    others = [result.class_names[c] for c in mistake.video.labels if c != mistake.truth]
    also = f'<span class="soft">also true: {escape(", ".join(others))}</span>' if others else ""
    return (
        f"<figure>{_picture(mistake.video, thumbnail, name)}<figcaption>"
        + _guess("said", result.class_names[mistake.predicted], mistake.probability)
        + _guess("true", result.class_names[mistake.truth], mistake.truth_probability)
        + f'{also}<span class="path">{escape(name)}</span></figcaption></figure>'
    )


def _guess(kind: str, name: str, probability: float) -> str:
    share = min(max(100 * probability, 0), 100)
    return (
        f'<div class="guess {kind}" style="--v:{share:.1f}%"><span class="soft">{kind}</span>'
        f"<span>{escape(name)}</span><span>{probability:.3f}</span></div>"
    )


def _picture(video: VideoResult, thumbnail: Thumbnail | None, name: str) -> str:
    if thumbnail is None:
        return ""
    try:
        frames = thumbnail(video)
        data = thumbnail_jpeg(frames)
    except UsageError:
        raise
    except KVideoError as error:
        return f'<div class="none">no picture: {escape(cut(str(error), 200))}</div>'
    still = (
        f'<img src="{data_url("jpeg", data)}" alt="{escape(f"Frames of {name}")}" loading="lazy">'
    )
    if np.ndim(frames) < 4 or len(frames) <= _FRAMES:
        return still
    frames = frames[:: -(-len(frames) // _FILM_FRAMES)]
    film = data_url("webp", webp_bytes(frames, _FILM_RATE, largest=_THUMBNAIL[1]))
    return (
        f'<label class="film"><input type="checkbox" aria-label="{escape(f"Play {name}")}">{still}'
        f'<img class="moving" src="{film}" alt="{escape(f"A film of {name}")}" loading="lazy">'
        "</label>"
    )


def _how(result: EvaluationResult, folder: str) -> str:
    facts = dict(result.details)
    rows = {"Model": facts.pop("model", None), "Data": facts.pop("data", None)}
    rows["Folder"] = folder or None
    rows["Views"] = describe_views(facts.pop("views", None) or result.metrics.get("views"))
    rows["Clip"] = describe_clip(facts.pop("clip_spec", None))
    rows["Made"] = str(facts.pop("created", "")).replace("T", " ") or None
    versions = facts.pop("versions", None)
    if isinstance(versions, Mapping):
        rows["Versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    rows |= {key.replace("_", " ").capitalize(): value for key, value in facts.items()}
    items = "".join(
        f"<dt>{escape(key)}</dt><dd>{escape(_plain_text(value))}</dd>\n"
        for key, value in rows.items()
        if value not in (None, "", [], {})
    )
    meaning = "".join(f"<li>{line}</li>\n" for line in _meanings(result))
    return (
        f"<section>\n<h2>How the figures were made</h2>\n<dl>\n{items}</dl>\n</section>\n"
        "<section><details><summary>What the figures mean</summary>\n"
        f"<ul>\n{meaning}</ul></details></section>"
    )


def _meanings(result: EvaluationResult) -> list[str]:
    if isinstance(result, SegmentationResult):
        return _meanings_over_time()
    shared = [
        "The probabilities of all views of a video are averaged; that gives one answer per video.",
        "Videos that could not be read count in no figure.",
        "Precision of a class: of the videos said to be of it, the share that is. Recall: of its "
        "videos, the share that was recognized.",
    ]
    if result.multi_label:
        return [
            *shared,
            "mAP: for each class the videos are ranked by their probability; the area under the "
            "curve of precision over recall, without interpolation, is its average precision; "
            "mAP is the mean over the classes that occur.",
            "Hit@k: share of the videos with a true label among the k most probable classes.",
            "Precision and recall here count a class as said from a probability of 0.5 on.",
        ]
    return [
        *shared,
        "Top-k: share of the videos whose true class is among the k most probable ones.",
        "Mean class accuracy: the mean of the classes' recalls; classes without videos are left "
        "out.",
        "The interval (Wilson) says how far chance reaches with so few videos, if each was filmed "
        "on its own. For several clips of one filming it is wider.",
    ]


def _meanings_over_time() -> list[str]:
    return [
        "Every video is covered by clips that overlap by half; each sampled frame has the mean of "
        "the clips that see it. Frames without a true label count nowhere.",
        "Videos that could not be read count in no figure.",
        "Frame accuracy: share of the frames whose most probable class is the true one. Mean class "
        "accuracy: the mean of the classes' recalls.",
        "Edit score: 100 for the right segments in the right order, whatever their length; 0 if "
        "nothing fits. F1@k: a predicted segment is right if it overlaps a true one of its class "
        "with an IoU of k % at least, and no other did before; precision and recall of that over "
        "all videos, as their harmonic mean, out of 100. Both leave out the class background.",
    ]


def _plain_text(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _common_folder(paths: Sequence[str]) -> str:
    """The folder that all videos are in; "" where there is none, or only one video."""
    if len(set(paths)) < 2:
        return ""
    try:
        folder = os.path.commonpath(paths)
    except ValueError:  # some absolute, some not; or on different drives
        return ""
    return "" if folder in ("/", "") else folder


def _short(name: str, folder: str) -> str:
    return name[len(folder) :].lstrip("/\\") if folder and name.startswith(folder) else name
