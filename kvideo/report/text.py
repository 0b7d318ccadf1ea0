"""The result of an evaluation as text for a terminal."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kvideo.results import ClassResult, EvaluationResult
from kvideo.text import cut, display_width, pad, plural, printable

VALUE_NAMES = {
    "frame_accuracy": "Frame accuracy",
    "top1": "Top-1 accuracy",
    "top5": "Top-5 accuracy",
    "mean_class_accuracy": "Mean class accuracy",
    "mAP": "mAP",
    "hit1": "Hit@1",
    "hit5": "Hit@5",
    "edit": "Edit score",
    "f1@10": "F1@10",
    "f1@25": "F1@25",
    "f1@50": "F1@50",
}
OUT_OF_100 = ("edit", "f1@10", "f1@25", "f1@50")  # the others lie in 0..1

_ALL_CLASSES = 30
_WORST_CLASSES = 10
_FAILURES = 10

Column = tuple[str, str, Callable[[ClassResult], str]]  # heading, alignment, text of a cell


def format_result(result: EvaluationResult, width: int | None = None) -> str:
    """Headline figures, the classes, and the videos that failed, as lines of text.

    Args:
        result: what to show.
        width: columns; longer class names are cut, paths are not. By default the terminal's, at
            most 100; 80 where there is none.

    Returns:
        Lines without a newline at the end. Up to 30 classes all are listed in their order, of
        more the ten worst.
    """
    if width is None:
        width = min(shutil.get_terminal_size((80, 24)).columns, 100)
    blocks = [_figures(result), _classes(result, width), _failed(result)]
    return "\n\n".join(block for block in blocks if block)


def value_text(name: str, value: float) -> str:
    """A figure in its usual form: 0.871, or 87.1 where it is out of 100."""
    if math.isnan(value):
        return "not defined"
    return f"{value:.1f}" if name in OUT_OF_100 else f"{value:.3f}"


def describe_views(views: Any) -> str | None:
    """`"10 a video: 10 clips × 1 crop, probabilities averaged"`, from `Views`' plain values."""
    if isinstance(views, Mapping) and {"num_clips", "num_crops"} <= set(views):
        clips, crops = int(views["num_clips"]), int(views["num_crops"])
        return (
            f"{clips * crops} a video ({plural(clips, 'clip')} × {plural(crops, 'crop')}), "
            "probabilities averaged"
        )
    return f"{views} a video, probabilities averaged" if views else None


def describe_clip(spec: Any) -> str | None:
    """`"16 frames at 8 per second (2 s), 112 × 112 pixels, crop"`, from `ClipSpec`'s values.

    Of a late fusion there are several.
    """
    if isinstance(spec, list):
        return "; ".join(filter(None, map(describe_clip, spec)))
    if not isinstance(spec, Mapping) or not {"num_frames", "frame_rate", "size"} <= set(spec):
        return str(spec) if spec else None
    frames, rate = spec["num_frames"], spec["frame_rate"]
    height, width = spec["size"]
    facts = [f"{plural(frames, 'frame')} at {rate:g} per second ({frames / rate:g} s)"]
    facts.append(f"{height} × {width} pixels (height × width)")
    facts += [str(spec[key]) for key in ("framing", "modality") if spec.get(key)]
    if flow := spec.get("flow"):
        facts.append(f"{flow['method']}{', compensated' if flow['compensate'] else ''}")
    return ", ".join(facts)


def _figures(result: EvaluationResult) -> str:
    rows = []
    for name, label in VALUE_NAMES.items():
        if name not in result.metrics:
            continue
        note = ""
        if name in result.intervals:
            low, high = result.intervals[name]
            note = f"  ({low:.3f}–{high:.3f} with 95 % confidence)"
        rows.append(f"{label:<20} {value_text(name, result.metrics[name])}{note}")
    if result.baseline is not None:
        rows.append(f"{'Most frequent class':<20} {result.baseline:.3f}  (if it were always said)")
    rows.append(f"{'Videos':<20} {result.metrics['num_videos']:,}")
    if "num_frames" in result.metrics:
        rows.append(f"{'Frames':<20} {result.metrics['num_frames']:,}  (sampled)")
    if views := describe_views(result.details.get("views") or result.metrics.get("views")):
        rows.append(f"{'Views':<20} {views}")
    return "\n".join(rows)


def _classes(result: EvaluationResult, width: int) -> str:
    everything = len(result.classes) <= _ALL_CLASSES
    shown = result.classes if everything else result.worst_classes(_WORST_CLASSES)
    title = "" if everything else f"The {len(shown)} worst of {len(result.classes)} classes:\n"

    def taken_for(c: ClassResult) -> str:
        return ", ".join(f"{_name(result.class_names[o])} ({n})" for o, n in c.taken_for)

    columns: list[Column] = [("class", "<", lambda c: _name(c.name))]
    columns.append((f"{result.unit}s", ">", lambda c: f"{c.support:,}"))
    if result.multi_label:
        columns.append(("avg. prec.", ">", lambda c: _share(c.average_precision)))
    columns.append(("recall", ">", lambda c: _share(c.recall)))
    columns.append(("precision", ">", lambda c: _share(c.precision)))
    if not result.multi_label:
        columns.append(("taken for", "<", taken_for))
    return title + _table(columns, shown, width)


def _table(columns: Sequence[Column], rows: Sequence[ClassResult], width: int) -> str:
    """Columns as wide as their texts; the first is cut to at most 40 %, the last to the rest."""
    cells = [[heading for heading, _, _ in columns]]
    cells += [[text(row) for _, _, text in columns] for row in rows]
    widths = [max(display_width(row[i]) for row in cells) for i in range(len(columns))]
    widths[0] = min(widths[0], max(12, width * 2 // 5))
    free = width - sum(widths[:-1]) - 2 * (len(columns) - 1)
    if columns[-1][1] == "<":
        widths[-1] = min(widths[-1], free)
        if free < 12:  # too little to say anything
            widths.pop()
    lines = []
    for row in cells:
        texts = [
            pad(cut(text, size), size, align)
            for text, size, (_, align, _) in zip(row, widths, columns, strict=False)
        ]
        lines.append("  ".join(texts).rstrip())
    lines.insert(1, "  ".join("─" * size for size in widths))
    return "\n".join(lines)


def _failed(result: EvaluationResult) -> str:
    failures = result.failures
    if not failures:
        return ""
    number = int(result.metrics["num_failed"])
    counts = ", ".join(f"{len(v)} {r.replace('_', ' ')}" for r, v in failures.items())
    verb = "counts" if number == 1 else "count"
    lines = [
        f"{plural(number, 'video')} could not be evaluated and {verb} in no figure ({counts}):"
    ]
    videos = [video for group in failures.values() for video in group]
    lines += [f"  {printable(v.name)}: {printable(v.error or '')}" for v in videos[:_FAILURES]]
    if len(videos) > _FAILURES:
        lines.append(f"  and {len(videos) - _FAILURES} more, named in evaluation.json")
    return "\n".join(lines)


def _name(name: str) -> str:
    return printable(name)


def _share(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"
