"""The parts of the report's page that show classes: confusion matrix and tables, as HTML."""

from __future__ import annotations

import base64
import html
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kvideo.metrics import calibration
from kvideo.report.plots import confusion_png, drawable, resolution
from kvideo.results import ClassResult, EvaluationResult
from kvideo.text import cut, plural, printable

_PAIRS_SHOWN = 10
_LONGEST_NAME = 40  # where a class is only mentioned


def escape(value: Any) -> str:
    """Text from outside, made harmless for HTML: in elements and in attributes."""
    return html.escape(printable(str(value)))


def data_url(kind: str, data: bytes) -> str:
    """A picture inside the page; kind is `"png"` or `"jpeg"`."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def confusion_section(result: EvaluationResult) -> str:
    """The confusion matrix and the most frequent confusions; nothing for multi-label."""
    if result.confusion is None:
        return ""
    names, count = result.class_names, len(result.class_names)
    pairs = result.confusions(_PAIRS_SHOWN)
    unit = f"{result.unit}s"
    words = [f"{names[t]} taken for {names[p]} ({n})" for t, p, n in pairs[:3]]
    right = int(np.trace(result.confusion))
    alt = (
        f"Confusion matrix of {plural(count, 'class')}, {right} of {int(result.confusion.sum())} "
        f"{unit} on the diagonal. Most frequent: {', '.join(words) or 'no confusion at all'}."
    )
    png = confusion_png(result.confusion, names)
    # The picture's own size, for a sharp screen: see the header of a PNG file.
    wide, high = (round(side * 96 / resolution(count)) for side in struct.unpack(">II", png[16:24]))
    return (
        "<section>\n<h2>What was taken for what</h2>\n"
        f'<p class="soft">Rows: the true class; columns: what the model said. '
        f"{'Click or tap to see it larger. ' if count > 6 else ''}</p>\n"
        '<input type="checkbox" id="zoom" class="zoom" aria-label="Show the matrix in full size">'
        f'<div class="matrix"><label for="zoom"><img src="{data_url("png", png)}" width="{wide}" '
        f'height="{high}" alt="{escape(alt)}"></label></div>\n'
        + _undrawn(result.class_names)
        + _pairs(result, pairs)
        + "\n</section>"
    )


def _undrawn(names: Sequence[str]) -> str:
    """Which names stand as numbers in a picture, because its font lacks their letters."""
    lacking = [i for i, name in enumerate(names) if drawable(name, i) == f"class {i}" != name]
    if not lacking:
        return ""
    listed = ", ".join(f"class {i} is {escape(names[i])}" for i in lacking)
    return f'<p class="soft">In the picture {listed}.</p>\n'


def _pairs(result: EvaluationResult, pairs: Sequence[tuple[int, int, int]]) -> str:
    if not pairs:
        return f"<p>No {result.unit} was taken for another class.</p>"
    rows, units = [], f"{result.unit}s"
    for truth, said, number in pairs:
        share = number / result.classes[truth].support
        rows.append(
            f'<tr role="row"><td role="cell" class="n">{number}</td>'
            f'<td role="cell" data-label="true">{escape(result.class_names[truth])}</td>'
            f'<td role="cell" data-label="taken for">{escape(result.class_names[said])}</td>'
            f'<td role="cell" class="n" data-label="of its {units}">{100 * share:.0f} %</td></tr>'
        )
    head = _head((units, "n"), ("true class", ""), ("taken for", ""), (f"of its {units}", "n"))
    return (
        '<h2 style="margin-top:1.2rem">Most frequent confusions</h2>\n'
        + f'<div class="pairs">{_table(head, rows)}</div>'
    )


def calibration_section(result: EvaluationResult) -> str:
    """How often the model is right when it is so sure; for one label a video."""
    scored = [
        (video.probabilities, video.labels[0])
        for video in result.videos
        if video.probabilities is not None and len(video.labels) == 1
    ]
    if result.multi_label or result.unit != "video" or not scored:
        return ""
    found = calibration([p for p, _ in scored], [label for _, label in scored])
    bars = []
    for place, (count, sure, right) in enumerate(
        zip(found.counts, found.confidence, found.accuracy, strict=True)
    ):
        if not count:
            continue
        x, words = (
            10 * place,
            f"{plural(int(count), result.unit)}: {sure:.0%} sure, {right:.0%} right",
        )
        bars.append(
            f'<g><title>{words}</title><rect class="hit" x="{x}" y="0" width="10" height="100"/>'
            f'<rect class="bar" x="{x + 0.6:.1f}" y="{100 - 100 * right:.1f}" width="8.8" '
            f'height="{100 * right:.1f}"/><rect class="mark" x="{x}" width="10" height="0.9" '
            f'y="{99.55 - 100 * sure:.2f}"/><text x="{x + 5}" y="{98 - 100 * right:.1f}">{count}'
            "</text></g>"
        )
    over = np.nansum((found.confidence - found.accuracy) * found.counts)
    verdict = "too sure" if over > 0 else "not sure enough"
    alt = f"Calibration: an expected error of {found.error:.3f}."
    return (
        "<section>\n<h2>How sure it is, and how often it is right</h2>\n"
        f"<p>Expected calibration error {found.error:.3f}: on the whole the model is "
        f"{verdict}.</p>\n"
        '<p class="soft">Bars: the share that is right of the videos in each range of the largest '
        "probability; lines: how sure the model was of them; above: how many there are. Bars as "
        "high as their lines would be right.</p>\n"
        f'<svg class="calibration" viewBox="-16 -6 124 122" role="img" aria-label="{alt}">'
        '<path d="M0 0V100H100M0 50H100M50 0V100M0 0H100V100"/>'
        + "".join(bars)
        + "".join(
            f'<text x="{x}" y="106">{x}%</text>'
            f'<text class="side" x="-2" y="{101.5 - x}">{x}%</text>'
            for x in (0, 50, 100)
        )
        + '<text x="50" y="114">how sure it is</text>'
        '<text transform="translate(-12 50) rotate(-90)">how often it is right</text>'
        "</svg>\n</section>"
    )


def class_section(result: EvaluationResult) -> str:
    """The table of the classes, which the reader can sort."""
    ranks = _ranks(result.classes)
    score = "average precision" if result.multi_label else "recall"
    rows = [_class_row(result, c, ranks[c.index]) for c in result.classes]
    head = [("class", ""), (f"{result.unit}s", "n"), ("recall", ""), ("precision", "")]
    if result.multi_label:
        head.insert(2, (score, ""))
    else:
        head.append(("most often taken for", ""))
    kinds = {"score": f"lowest {score}", "name": "name", "videos": f"{result.unit}s"}
    kinds |= {"precision": "lowest precision", "given": "order of the classes"}
    choices = "".join(
        f'<input type="radio" name="by" id="by-{key}"{" checked" if key == "score" else ""}>'
        f'<label for="by-{key}">{label}</label>'
        for key, label in kinds.items()
    )
    return (
        '<section>\n<h2>Classes</h2>\n<div class="classes'
        + (" multi" if result.multi_label else "")
        + f'">\n<fieldset><legend>Sort by</legend>{choices}</fieldset>\n'
        + _table(_head(*head), rows)
        + "</div>\n</section>"
    )


def _class_row(result: EvaluationResult, c: ClassResult, ranks: Mapping[str, int]) -> str:
    order = ";".join(f"--{key}:{rank}" for key, rank in ranks.items())
    cells = [f'<td role="cell" class="n" data-label="{result.unit}s">{c.support:,}</td>']
    if c.average_precision is not None:
        cells.append(_bar("avg. precision", c.average_precision))
    cells += [_bar("recall", c.recall), _bar("precision", c.precision)]
    if not result.multi_label:
        taken = ", ".join(
            f"{cut(result.class_names[o], _LONGEST_NAME)} ({n})" for o, n in c.taken_for
        )
        cells.append(f'<td role="cell" data-label="taken for">{escape(taken)}</td>')
    return (
        f'<tr role="row" style="{order}"><th role="rowheader" scope="row">{escape(c.name)}</th>'
        + "".join(cells)
        + "</tr>"
    )


def _bar(label: str, value: float) -> str:
    if np.isnan(value):
        return f'<td role="cell" data-label="{label}" class="soft">not defined</td>'
    return (
        f'<td role="cell" data-label="{label}">{value:.3f}'
        f'<span class="bar" style="--v:{100 * value:.1f}%"></span></td>'
    )


def _ranks(classes: Sequence[ClassResult]) -> list[dict[str, int]]:
    """The place of each class in each order of the table; undefined figures come last."""

    def places(key: Callable[[ClassResult], Any]) -> list[int]:
        order = sorted(classes, key=key)
        return np.argsort([c.index for c in order]).tolist()

    orders = {
        "score": places(lambda c: (np.isnan(c.score), c.score, -c.support)),
        "name": places(lambda c: (c.name.casefold(), c.name)),
        "videos": places(lambda c: -c.support),
        "precision": places(lambda c: (np.isnan(c.precision), c.precision)),
    }
    return [{key: order[i] for key, order in orders.items()} for i in range(len(classes))]


def _head(*columns: tuple[str, str]) -> str:
    cells = "".join(
        f'<th role="columnheader" scope="col"{f" class={kind}" if kind else ""}>{label}</th>'
        for label, kind in columns
    )
    return f'<tr role="row">{cells}</tr>'


def _table(head: str, rows: Sequence[str]) -> str:
    # The roles say what browsers forget about a table whose rows are laid out as a grid.
    return (
        f'<table role="table"><thead role="rowgroup">{head}</thead>\n'
        '<tbody role="rowgroup">\n' + "\n".join(rows) + "\n</tbody></table>"
    )
