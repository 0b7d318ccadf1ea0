"""The files that `kvideo localize predict` writes: checked beforehand, written as videos come."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from kvideo.data.encoding import check_film_targets
from kvideo.data.untrimmed import read_untrimmed, video_name
from kvideo.errors import UsageError
from kvideo.files import make_folder
from kvideo.localization.files import (
    ENDINGS,
    OF_ONE,
    Truth,
    check_outputs,
    truth_of,
    write_segments,
)
from kvideo.localization.overlay import write_labelled_video
from kvideo.localization.results import Localization
from kvideo.progress import say_to_stderr
from kvideo.registry import get_decoder


class Outputs:
    """Where the segments of some videos go.

    Args:
        files: names with one of `ENDINGS`.
        folder: for a file of each kind, of each video or of all of them; or None.
        video: of the only video, labelled; or None.
        videos: whether the folder gets a labelled one of each.
        threshold: the least score of what is shown.
        truth: see `read_untrimmed`; or None.
        paths: the videos.

    Raises:
        UsageError: names that cannot be written.
    """

    def __init__(
        self,
        files: Sequence[str],
        folder: str | None,
        video: str | None,
        videos: bool,
        threshold: float,
        truth: str | None,
        paths: Sequence[str],
    ) -> None:
        check_outputs(files, len(paths))
        if not 0 <= threshold <= 1:
            raise UsageError(f"the threshold must be from 0 to 1, not {threshold}.")
        if videos and folder is None:
            raise UsageError("--videos go into a folder; give --out-dir as well.")
        if truth is not None and folder is None and not any(f.endswith(".png") for f in files):
            raise UsageError("the truth goes into timelines; give -o FILE.png or --out-dir.")
        names = [video_name(path) for path in paths]
        check_film_targets(video, folder, paths, names, films=videos)
        self.files, self.folder, self.video = files, folder, video
        self.videos, self.threshold = videos, threshold
        self._data, self._names = truth, names
        self._truth: Truth | None = None

    def read_truth(self, class_names: Sequence[str]) -> None:
        """Reads the true segments, which must be of the model's classes.

        Raises:
            DataError: they are not, or cannot be read.
        """
        if self._data is not None:
            known = read_untrimmed(
                self._data, split="all", class_names=class_names, must_exist=False
            )
            self._truth = truth_of(known)
            for name in self._names:
                if name not in self._truth:
                    say_to_stderr(f"Note: {self._data} does not say what is true of {name}.")

    def write_one(
        self, found: Localization, class_names: Sequence[str], decoder: str
    ) -> Iterator[str]:
        """Writes what is of one video; gives the files' names."""
        wanted = [file for file in self.files if Path(file).suffix.lower() in OF_ONE]
        if self.folder is not None:
            make_folder(self.folder)
            wanted += [os.path.join(self.folder, found.name + ending) for ending in OF_ONE]
        for file in wanted:
            write_segments(
                file, [found], class_names=class_names, threshold=self.threshold, truth=self._truth
            )
            yield file
        target = self.video
        if self.videos and self.folder is not None:
            target = os.path.join(self.folder, found.name + ".mp4")
        if target is not None:
            write_labelled_video(
                target,
                found.path,
                found.above(self.threshold),
                class_names,
                open_video=get_decoder(decoder),
            )
            yield target

    def write_all(self, found: Sequence[Localization], class_names: Sequence[str]) -> Iterator[str]:
        """Writes what is of all videos together; gives the files' names."""
        kinds = [ending for ending in ENDINGS if ending not in OF_ONE]
        wanted = [file for file in self.files if Path(file).suffix.lower() in kinds]
        if self.folder is not None:
            wanted += [os.path.join(self.folder, "results" + ending) for ending in kinds]
        for file in wanted:
            write_segments(file, found, class_names=class_names)
            yield file
