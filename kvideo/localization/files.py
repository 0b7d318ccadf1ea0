"""What was found, as files: ActivityNet's JSON, CSV, SRT subtitles, a picture, a labelled video."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from kvideo.data.untrimmed import UntrimmedSet
from kvideo.errors import UsageError
from kvideo.files import check_file_target, write_bytes_atomic, write_text_atomic
from kvideo.localization.results import FoundSegment, Localization, results_document

ENDINGS = (".json", ".csv", ".srt", ".png")
OF_ONE = (".srt", ".png")  # files of one video
_MILLISECONDS = 1000

Truth = Mapping[str, Sequence[tuple[float, float, str]]]


def check_outputs(paths: Sequence[str], num_videos: int) -> None:
    """Refuses names that cannot be written for so many videos, before any work is done.

    Raises:
        UsageError: another ending, no such folder, or a file of one video for several.
    """
    for path in paths:
        ending = Path(path).suffix.lower()
        if ending not in ENDINGS:
            raise UsageError(f"segments are written as {', '.join(ENDINGS)}, not as {path}.")
        check_file_target(path)
        if ending in OF_ONE and num_videos > 1:
            raise UsageError(
                f"{path} would be of one video, but there are {num_videos}; --out-dir writes such "
                "a file for each."
            )


def write_segments(
    path: str | os.PathLike[str],
    found: Sequence[Localization],
    *,
    class_names: Sequence[str] = (),
    threshold: float = 0.0,
    truth: Truth | None = None,
) -> None:
    """Writes what was found; videos that failed are left out.

    Args:
        path: its ending says what is written. `.json`: ActivityNet's form of results, all
            segments. `.csv`: rows `video,start,end,label,score`, all segments. `.srt`: subtitles,
            those above the threshold. `.png`: a picture of these.
        found: of one video or several; of the first one for `.srt` and `.png`.
        class_names: for the picture's colours.
        threshold: the least score for subtitles and pictures.
        truth: true segments by the videos' names, for the picture.

    Raises:
        UsageError: another ending.
        KVideoError: it cannot be written.
    """
    kind = Path(path).suffix.lower()
    good = [each for each in found if each.error is None]
    if kind == ".json":
        document = results_document(found)
        write_text_atomic(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    elif kind == ".csv":
        write_text_atomic(path, csv_text(good))
    elif kind == ".srt":
        for each in good[:1]:
            write_text_atomic(path, srt_text(each.above(threshold)))
    elif kind == ".png":
        for each in good[:1]:
            write_bytes_atomic(path, picture(each, class_names, threshold, truth))
    else:
        raise UsageError(f"segments are written as {', '.join(ENDINGS)}, not as {path}.")


def truth_of(videos: UntrimmedSet) -> dict[str, list[tuple[float, float, str]]]:
    """The true segments by the videos' names."""
    names = videos.class_names
    return {
        video.name: [(s.start, s.end, names[s.label]) for s in video.segments]
        for video in videos.videos
    }


def csv_text(found: Sequence[Localization]) -> str:
    """Rows `video,start,end,label,score`, by falling score in each video."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("video", "start", "end", "label", "score"))
    for each in found:
        for segment in each.segments:
            times = f"{segment.start:.3f}", f"{segment.end:.3f}"
            writer.writerow((each.path or each.name, *times, segment.label, f"{segment.score:.6f}"))
    return text.getvalue()


def srt_text(segments: Sequence[FoundSegment]) -> str:
    """SubRip subtitles. Players show one after the other, so where several hold, one names all."""
    edges = sorted({time for s in segments for time in (s.start, s.end)})
    cues: list[tuple[float, float, str]] = []
    for start, end in zip(edges, edges[1:], strict=False):
        active = [s for s in segments if s.start <= start and s.end >= end]
        active.sort(key=lambda s: (s.label, -s.score))
        lines = "\n".join(f"{_one_line(s.label)} {s.score:.0%}" for s in active)
        if not lines or round(start * _MILLISECONDS) >= round(end * _MILLISECONDS):
            continue
        if cues and cues[-1][1:] == (start, lines):
            cues[-1] = (cues[-1][0], end, lines)
        else:
            cues.append((start, end, lines))
    blocks = (
        f"{number}\n{_srt_time(start)} --> {_srt_time(end)}\n{lines}\n"
        for number, (start, end, lines) in enumerate(cues, 1)
    )
    return "\n".join(blocks)


def picture(
    found: Localization, class_names: Sequence[str], threshold: float, truth: Truth | None
) -> bytes:
    """One video's segments above the threshold as a PNG file, below the true ones if known."""
    from kvideo.report.segments_plot import segments_png

    known = None if truth is None else truth.get(found.name)
    duration = found.duration
    if not math.isfinite(duration):
        ends = [*(s.end for s in found.segments), *(end for _, end, _ in known or ())]
        duration = max((end for end in ends if math.isfinite(end)), default=1.0)
    return segments_png(
        [(s.start, s.end, s.label, s.score) for s in found.above(threshold)],
        class_names,
        duration=duration,
        truth=None if known is None else [(a, min(b, duration), c, None) for a, b, c in known],
        title=os.path.basename(found.path) or found.name,
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _srt_time(seconds: float) -> str:
    total = round(seconds * _MILLISECONDS)
    hours, rest = divmod(total, 3600 * _MILLISECONDS)
    minutes, rest = divmod(rest, 60 * _MILLISECONDS)
    whole, thousandths = divmod(rest, _MILLISECONDS)
    return f"{hours:02d}:{minutes:02d}:{whole:02d},{thousandths:03d}"
