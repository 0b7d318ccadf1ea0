"""Annotations with labels over time: rows of segments, or a label for each frame.

One record comes of each video, with a `LabelTrack`. What no segment covers is background: a class
of that name, which is added where the annotations leave gaps and have no such class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from kvideo.data.class_names import ClassNames
from kvideo.data.entries import Entry
from kvideo.data.records import VideoRecord
from kvideo.data.tracks import (
    BACKGROUND,
    SLACK,
    UNLABELLED,
    LabelTrack,
    Segment,
    ordered,
    runs_of_frames,
)
from kvideo.errors import DataError
from kvideo.text import plural

LABEL_FILE_ENDINGS = (".txt",)
_AMBIGUOUS = ("ambiguous", "-1")  # THUMOS14's class of what nobody is to be judged by
_NOTHING_KNOWN = "-1"  # in a file of frame labels
_SHORTEST_BACKGROUND = 1.0  # seconds, of a clip of nothing


def read_label_files(entries: Iterable[Entry], read: Callable[[str], str]) -> None:
    """Replaces the label of entries without a segment, where it names a file, by what it holds.

    Args:
        entries: of an annotation file; changed in place.
        read: gives the text of a file from its name.

    Raises:
        DataError: such a file is not there, or has an empty line.
    """
    for entry in entries:
        if name := label_file(entry):
            lines = [line.strip() for line in read(name).rstrip().split("\n")]
            if not all(lines):
                raise DataError(
                    f"{name}, line {lines.index('') + 1}: there is no label; write one for "
                    f"each frame, or {_NOTHING_KNOWN} where it is not known."
                )
            entry.frames = tuple(lines)
            entry.labels = tuple(dict.fromkeys(line for line in lines if line != _NOTHING_KNOWN))
            entry.label_text = ""


def label_file(entry: Entry) -> str | None:
    """The file of frame labels that an entry names in the place of a label; None if it does not."""
    if entry.start is None and entry.end is None and len(entry.labels) == 1:
        name = entry.label_text or entry.labels[0]
        return name if name.lower().endswith(LABEL_FILE_ENDINGS) else None
    return None


def require_labels_over_time(entries: Sequence[Entry], source: str) -> None:
    """Refuses annotations with one label for each whole video.

    Raises:
        DataError: there is neither a segment nor a file of labels.
    """
    if any(e.over_time or e.has_segment or e.frames for e in entries):
        return
    if any(e.start is not None or e.end is not None for e in entries):
        return
    raise DataError(no_labels_over_time(source))


def no_labels_over_time(source: str) -> str:
    """What to say of data with one label for each whole video."""
    return (
        f"{source} has one label for each video, not one for each frame. List segments as CSV, "
        "`path,start,end,label`, or take a model with one output for each video."
    )


def check_match(model_name: str, per_frame_model: bool, source: str, per_frame_data: bool) -> None:
    """Refuses a model and data of which one has a label for each frame and the other has not.

    Raises:
        DataError: with a sentence that names both, and the remedy.
    """
    if per_frame_model and not per_frame_data:
        raise DataError(
            f"{model_name} gives a label for each frame, but {source} has one for each video. "
            "Give segments (`path,start,end,label`), or take a model with output=video."
        )
    if per_frame_data and not per_frame_model:
        raise DataError(
            f"{source} has a label for each frame, but {model_name} gives one for each video. "
            "Take a model with output=frames (`--set output=frames`)."
        )


def without_faults(entries: Sequence[Entry], keep: bool = False) -> tuple[list[Entry], list[str]]:
    """Segments of untrimmed videos without those that are none, and notes about these.

    A segment that begins before its video is cut; one that is over by then, or ends before it
    starts, is left out, and so is THUMOS14's class Ambiguous. A video of which every segment is
    left out stays, as one in which nothing happens.

    Args:
        entries: of an annotation.
        keep: whether segments stay that nothing can find; official evaluations count them.
    """
    notes, result, faults, ambiguous = [], [], [], 0
    for entry in entries:
        nothing = dataclasses.replace(entry, labels=(), label_text="", start=None, end=None)
        if entry.labels and entry.labels[0].lower() in _AMBIGUOUS:
            ambiguous += 1
            result.append(nothing)
        elif (entry.start or 0) < 0 < (entry.end or 0) and entry.labels:
            faults.append(entry.fault)
            result.append(dataclasses.replace(entry, start=0.0))
        elif entry.fault:
            faults.append(entry.fault)
            result.append(entry if keep and entry.labels else nothing)
        else:
            result.append(entry)
    if faults:
        what = "counted, though nothing can find it" if keep else "left out or cut"
        notes.append(f"{plural(len(faults), 'segment')} {what}; the first: {faults[0]}")
    if ambiguous:
        notes.append(f"{plural(ambiguous, 'segment')} of the class Ambiguous left out.")
    return result, notes


def clips_of(entries: Sequence[Entry], background: bool) -> list[Entry]:
    """The segments of untrimmed videos as clips of their own, for a model of clips.

    Those of one video are a group, which stays together when a part is set aside.

    Args:
        entries: of an annotation in ActivityNet's form.
        background: whether the times between segments are clips, too, of a class of that name.
    """
    clips: list[Entry] = []
    videos: dict[str, list[Entry]] = {}
    for entry in entries:
        grouped = dataclasses.replace(entry, group=entry.group or entry.path)
        videos.setdefault(entry.path, []).append(grouped)
    for rows in videos.values():
        labelled = [row for row in rows if row.labels]
        clips += labelled
        if not background:
            continue
        ends = [0.0]
        for row in sorted(labelled, key=lambda row: row.start or 0.0):
            clips += _gap(row, ends[-1], row.start or 0.0)
            ends.append(max(ends[-1], float("inf") if row.end is None else row.end))
        clips += _gap(rows[0], ends[-1], rows[0].duration or 0.0)
    return clips


def _gap(entry: Entry, start: float, end: float) -> list[Entry]:
    if end - start < _SHORTEST_BACKGROUND:
        return []
    return [
        dataclasses.replace(
            entry, labels=(BACKGROUND,), label_text="", start=start, end=end, others=()
        )
    ]


def nothing_as_background(
    entries: Sequence[Entry], expected: Sequence[str] | None
) -> tuple[list[Entry], list[str]]:
    """Videos of a table of segments in which nothing happens, as clips of the class background.

    Args:
        entries: of a table in which each row is a clip.
        expected: the classes, where they are given; without background, such videos are left out.

    Returns:
        Entries, and notes about what became of them.
    """

    def empty(entry: Entry) -> bool:
        return entry.has_segment and not entry.labels

    labels = list(dict.fromkeys(label for entry in entries for label in entry.labels))
    nothing = sum(map(empty, entries))
    if not labels or not nothing:
        return list(entries), []
    count = f"{plural(nothing, 'video')} without a label"
    known = labels if expected is None else expected
    name = next((label for label in known if label.lower() == BACKGROUND), None)
    if name is None and expected is not None:
        kept = [entry for entry in entries if not empty(entry)]
        return kept, [f'{count} left out: there is no class "{BACKGROUND}".']
    name = name or BACKGROUND
    clips = [
        dataclasses.replace(entry, labels=(name,)) if empty(entry) else entry for entry in entries
    ]
    return clips, [f'{count}: a clip each, of the class "{name}".']


def build_records(
    found: Sequence[tuple[Entry, str | None]], names: ClassNames, *, may_add: bool
) -> tuple[list[VideoRecord], ClassNames, list[str]]:
    """One record for each video.

    Args:
        found: entries with their files; None: it is not there.
        names: the classes of the labels.
        may_add: whether the class "background" may be added.

    Returns:
        Records, class names, sentences about what was found.

    Raises:
        DataError: an unknown class, several at one time, or overlapping segments.
    """
    videos: dict[str, list[Entry]] = {}
    for entry, path in found:
        if path is not None:
            videos.setdefault(path, []).append(entry)
    tracks = {path: _track(path, entries, names) for path, entries in videos.items()}
    background = next((i for i, n in enumerate(names.names) if n.lower() == BACKGROUND), None)
    notes: list[str] = []
    gaps = sum(_has_gap(tracks[path], entries) for path, entries in videos.items())
    if background is None and gaps and may_add:
        names, background = _with_background(names), 0
        tracks = {path: _shifted(track) for path, track in tracks.items()}
        notes.append(
            f"{gaps} of {plural(len(videos), 'video')} with times that no segment covers: they are "
            f'of the class "{BACKGROUND}", which is number 0.'
        )
    elif background is None and gaps:
        notes.append(
            f"{gaps} of {plural(len(videos), 'video')} with times that no segment covers. There is "
            f'no class "{BACKGROUND}", so they are left out.'
        )
    records = []
    for path, entries in videos.items():
        track = tracks[path]
        if background is not None:
            track = dataclasses.replace(track, background=background)
        labels = track.labels
        if background is not None and background not in labels and _has_gap(track, entries):
            labels = tuple(sorted((background, *labels)))
        records.append(VideoRecord(path, labels, group=entries[0].group, track=track))
    return records, names, notes


def _track(path: str, entries: Sequence[Entry], names: ClassNames) -> LabelTrack:
    if labelled := [entry for entry in entries if entry.frames]:
        if len(entries) > 1:
            raise DataError(f"{entries[1].where}: {path} has labels for its frames already.")
        frames = labelled[0].frames
        numbers = {name: _index(labelled[0], name, names) for name in dict.fromkeys(frames)}
        return LabelTrack(runs_of_frames(numbers[n] for n in frames), num_frames=len(frames))
    segments = []
    for entry in entries:
        if len(entry.labels) > 1:
            raise DataError(
                f"{entry.where}: {len(entry.labels)} labels for one segment; labels over time "
                "must not overlap."
            )
        for label in entry.labels:
            end = float("inf") if entry.end is None else entry.end
            segments.append(Segment(entry.start or 0.0, end, _index(entry, label, names)))
    try:
        return LabelTrack(ordered(segments, lambda label: names.names[label]))
    except DataError as error:
        raise DataError(
            f"{entries[0].where}: {error} in {path}; there can be one label at a time."
        ) from error


def _index(entry: Entry, label: str, names: ClassNames) -> int:
    if entry.frames and label == _NOTHING_KNOWN:
        return UNLABELLED
    index = names.index(label)
    if index is None:
        raise DataError(f"{entry.where}: {names.unknown(label)}")
    return index


def _has_gap(track: LabelTrack, entries: Sequence[Entry]) -> bool:
    """Whether annotations alone show a time without a segment; where files end, they rarely say."""
    if track.num_frames is not None:
        return False
    ends = [0.0, *(segment.end for segment in track.segments)]
    inside = any(s.start > end for s, end in zip(track.segments, ends, strict=False))
    duration = entries[0].duration
    return inside or not track.segments or (duration is not None and ends[-1] < duration - SLACK)


def _with_background(names: ClassNames) -> ClassNames:
    numbers = {number: index + 1 for number, index in (names.numbers or {}).items()}
    return ClassNames((BACKGROUND, *names.names), numbers, names.source)


def _shifted(track: LabelTrack) -> LabelTrack:
    highest = max((segment.label for segment in track.segments), default=-1)
    return track.renumbered([label + 1 for label in range(highest + 1)])
