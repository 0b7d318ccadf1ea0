"""Tubes of UCF101-24 and JHMDB, in the pickle (`UCF101v2-GT.pkl`, `JHMDB-GT.pkl`) that is in use.

The file holds numbers, texts and arrays only; whatever else a pickle could name is refused, and
nothing of it is run.
"""

from __future__ import annotations

import collections
import os
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kvideo.data.actors import Actor, ActorSet, Frame, mended_box
from kvideo.data.listing import Folders, ListDir, Locator, absolute
from kvideo.data.untrimmed import find_video, note_of
from kvideo.errors import DataError, DecodeError
from kvideo.text import plural

ENDINGS = (".pkl", ".pickle")
_SPLIT = re.compile(r"(train|test)(\d*)")
_NEEDED = ("labels", "gttubes", "resolution", "train_videos", "test_videos")
_ADMITTED: dict[str, Any] = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "collections.OrderedDict": collections.OrderedDict,
    "_codecs.encode": lambda text, encoding: text.encode(encoding),
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _ADMITTED[f"{_module}._reconstruct"] = np.empty(0).__reduce__()[0]
    _ADMITTED[f"{_module}.scalar"] = np.float64(0).__reduce__()[0]
for _module in ("numpy.core.numeric", "numpy._core.numeric"):
    _ADMITTED[f"{_module}._frombuffer"] = np.zeros(1).__reduce_ex__(5)[0]


class _Unpickler(pickle.Unpickler):
    """Builds numbers, texts, containers and arrays."""

    def find_class(self, module: str, name: str) -> Any:
        """The few admitted names."""
        full = f"{module}.{name}"
        if full not in _ADMITTED:
            raise DataError(
                f"refused: it names {full}. A file of tubes may hold numbers, texts and arrays "
                "only; nothing of it was run."
            )
        return _ADMITTED[full]


def read_gt_tubes(
    path: str | os.PathLike[str],
    *,
    split: str | None = None,
    root: str | os.PathLike[str] | None = None,
    frame_rate: float | None = None,
    must_exist: bool = True,
    listdir: ListDir | None = None,
    open_video: Callable[[str], Any] | None = None,
) -> ActorSet:
    """The actors of each frame; each tube is a person.

    Args:
        path: the pickle.
        split: `"train"` or `"test"`, with the number of the split behind it (1 by default); None:
            all videos of the first split.
        root: the folder that holds the videos, at any depth; by default the pickle's own.
        frame_rate: frames per second, which turns the numbers of frames into times; None: that of
            each video's file, and 25 for files that are not looked for.
        must_exist: False: the videos' files are not looked for.
        listdir: see `read_data`.
        open_video: a decoder, which tells the frame rate; by default `open_video`.

    Raises:
        DataError: it is no such file, it names what it must not, or there is no such split.
    """
    source = os.fspath(path)
    content = _load(source)
    videos = _videos(content, split, source)
    names = tuple(str(name) for name in content["labels"])
    folder = absolute(root) if root is not None else os.path.dirname(absolute(source))
    locator = Locator(folder, Folders(listdir))
    frames: dict[Frame, tuple[Actor, ...]] = {}
    paths: dict[str, str] = {}
    missing: list[str] = []
    wrong: dict[str, list[str]] = {}
    for video in videos:
        found = find_video(video, locator, source) if must_exist else None
        if must_exist and found is None:
            missing.append(video)
            continue
        if found is not None:
            paths[video] = found
        rate = frame_rate or (25.0 if found is None else _rate(found, open_video))
        if rate is None:
            missing.append(video)
            continue
        rows = _rows(content, video, source, len(names), wrong)
        frames.update({(video, (n - 1) / rate): tuple(rows[n]) for n in sorted(rows)})
    if not frames:
        first = f" (first: {missing[0]}, below {folder})" if missing else ""
        raise DataError(
            f"{source}: none of its {plural(len(videos), 'video')} is there{first}. Say with "
            "--root which folder holds the videos."
        )
    notes = []
    if missing:
        notes.append(
            f"{len(missing)} of {plural(len(videos), 'video')} in {source}: no such file below "
            f"{folder}, left out (first: {missing[0]})."
        )
    notes += [note_of(places, f"box {what}", f"boxes {what}") for what, places in wrong.items()]
    numbers = tuple(range(1, len(names) + 1))
    return ActorSet(
        frames, paths, names, numbers, source=source, missing=tuple(missing), notes=tuple(notes)
    )


def _load(source: str) -> Mapping[str, Any]:
    try:
        with open(source, "rb") as file:
            content = _unpickled(file)
    except FileNotFoundError:
        raise DataError(f"there is no file {source}.") from None
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    except (pickle.UnpicklingError, EOFError, ValueError, LookupError, TypeError, OSError) as error:
        raise DataError(f"{source} is no whole pickle of tubes ({error}).") from error
    except (AttributeError, ImportError, MemoryError) as error:
        raise DataError(f"{source} is no pickle of tubes ({error}).") from error
    if not isinstance(content, Mapping) or (lacking := [n for n in _NEEDED if n not in content]):
        what = f"it lacks {lacking[0]!r}" if isinstance(content, Mapping) else "it is no dictionary"
        raise DataError(f"{source} is no file of UCF101-24's or JHMDB's tubes: {what}.")
    return content


def _unpickled(file: BinaryIO) -> Any:
    return _Unpickler(file, encoding="latin1").load()


def _videos(content: Mapping[str, Any], split: str | None, source: str) -> list[str]:
    parts = {name: content[f"{name}_videos"] for name in ("train", "test")}
    if split is None:
        return [str(video) for part in parts.values() for video in part[0]]
    found = _SPLIT.fullmatch(split)
    number = int(found[2] or 1) - 1 if found else -1
    if not found or not 0 <= number < len(parts[found[1]]):
        count = len(parts["train"])
        last = f" to train{count} and test{count}" if count > 1 else ""
        raise DataError(f"{source} has no part {split!r}; it has train1, test1{last}.")
    return [str(video) for video in parts[found[1]][number]]


def _rate(path: str, open_video: Callable[[str], Any] | None) -> float | None:
    from kvideo.data import decode

    try:
        with (open_video or decode.open_video)(path) as video:
            return float(video.info.frame_rate)
    except DecodeError:
        return None


def _rows(
    content: Mapping[str, Any],
    video: str,
    source: str,
    num_classes: int,
    wrong: dict[str, list[str]],
) -> dict[int, list[Actor]]:
    """The actors of each frame of a video, by the frame's number from 1.

    Where the file says how many frames the video has, those outside of all tubes have no actors: in
    these data sets nobody does any of the actions there.
    """
    try:
        height, width = (float(side) for side in content["resolution"][video])
        count = int(content.get("nframes", {}).get(video, 0))
        rows: dict[int, list[Actor]] = {number: [] for number in range(1, count + 1)}
        doubtful: set[int] = set()  # somebody is there, nobody knows where
        tubes = [(label, t) for label, own in content["gttubes"][video].items() for t in own]
        for number, (label, tube) in enumerate(tubes, 1):
            known = 0 <= int(label) < num_classes
            for frame, *corners in _table(tube).tolist():
                # Corners are pixels counted from 1 or 0, both ends included.
                scaled = np.array(corners) / [width, height, width, height]
                box, what = mended_box((scaled[0], scaled[1], scaled[2], scaled[3]))
                if box is None:
                    wrong.setdefault(what, []).append(f"{video}, frame {int(frame)}")
                    doubtful.add(int(frame))
                    continue
                if not known:
                    what = f"of a class that {source} lacks: taken without it"
                    wrong.setdefault(what, []).append(f"{video}, frame {int(frame)} ({label})")
                actor = Actor(box, (int(label),) if known else (), str(number))
                rows.setdefault(int(frame), []).append(actor)
    except (KeyError, ValueError, TypeError) as error:
        what = f"the tubes of {video} are not as they should be ({error})"
        raise DataError(f"{source}: {what}.") from error
    return {frame: own for frame, own in rows.items() if own or frame not in doubtful}


def _table(tube: Any) -> np.ndarray:
    """A tube, (K, 5): frame and corners.

    Raises:
        ValueError: it has another form.
    """
    table = np.asarray(tube, np.float64)
    if table.ndim != 2 or table.shape[1] != 5:
        raise ValueError(f"a tube must be (frames, 5), not {table.shape}")
    if not np.isfinite(table[:, 0]).all() or (len(table) and table[:, 0].min() < 1):
        raise ValueError("the frames of a tube must be whole numbers from 1")
    return table


def is_gt_tubes(path: str | os.PathLike[str]) -> bool:
    """Whether a file is such a pickle, by its name."""
    return Path(path).suffix.lower() in ENDINGS
