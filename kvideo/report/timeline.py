"""The part of the report's page that shows labels over time: strips of truth and prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvideo.report.tables import escape
from kvideo.report.text import VALUE_NAMES, value_text
from kvideo.report.timeline_plot import class_colours
from kvideo.segmentation.results import FrameResult, SegmentationResult, TimeSegment
from kvideo.text import cut, plural

_SHOWN = 100
_LONGEST_NAME = 40
_WIDTH = 1000  # units of the strips' drawings


def timeline_section(result: SegmentationResult, short: Callable[[str], str]) -> str:
    """A strip of the truth and one of the prediction for each video, the worst first.

    Args:
        result: what to show.
        short: shortens a video's path.
    """
    colours = class_colours(result.class_names)
    videos = result.worst_videos(_SHOWN)
    total = int(result.metrics["num_videos"])
    more = f" The {len(videos)} worst of {plural(total, 'video')}." if len(videos) < total else ""
    rows = "\n".join(
        _video(video, figures, result.class_names, colours, short) for video, figures in videos
    )
    used = sorted(
        {s.label for video, _ in videos for s in (*video.true_segments(), *video.segments())}
    )
    legend = "".join(
        f'<span><i style="background:{colours[label]}"></i>'
        f"{escape(cut(result.class_names[label], _LONGEST_NAME))}</span>"
        for label in used
    )
    return (
        "<section>\n<h2>Over time</h2>\n"
        '<p class="soft">Above the truth, below what the model said; the video with the lowest '
        f"frame accuracy first.{more} Point at a part to see what it is.</p>\n"
        f'<div class="legend">{legend}</div>\n{rows}\n</section>'
    )


def _video(
    video: FrameResult,
    figures: dict[str, float],
    names: Sequence[str],
    colours: Sequence[str],
    short: Callable[[str], str],
) -> str:
    shown = ("frame_accuracy", "edit", "f1@25")
    values = ", ".join(
        f"{VALUE_NAMES[name].lower() if name != 'f1@25' else 'F1@25'} "
        f"{value_text(name, figures[name])}"
        for name in shown
    )
    strips = _strip(video.true_segments(), 0, video, names, colours)
    strips += _strip(video.segments(), 17, video, names, colours)
    label = escape(f"Truth and prediction over time of {short(video.path)}")
    return (
        f'<div class="timeline"><p><span class="path">{escape(short(video.path))}</span> '
        f'<span class="soft">{values}</span></p>'
        f'<svg viewBox="0 0 {_WIDTH} 32" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}">{strips}</svg>'
        f'<div class="soft scale"><span>0 s</span><span>{video.end / 2:.1f} s</span>'
        f"<span>{video.end:.1f} s</span></div></div>"
    )


def _strip(
    segments: Sequence[TimeSegment],
    top: int,
    video: FrameResult,
    names: Sequence[str],
    colours: Sequence[str],
) -> str:
    scale = _WIDTH / max(video.end, 1e-9)
    parts = []
    for segment in segments:
        left, width = segment.start * scale, (segment.end - segment.start) * scale
        sure = "" if segment.probability is None else f", probability {segment.probability:.2f}"
        text = f"{names[segment.label]}, {segment.start:.2f}–{segment.end:.2f} s{sure}"
        parts.append(
            f'<rect x="{left:.1f}" y="{top}" width="{max(width, 1):.1f}" height="15" '
            f'fill="{colours[segment.label]}"><title>{escape(text)}</title></rect>'
        )
    return "".join(parts)
