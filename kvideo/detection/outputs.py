"""The files that `kvideo detect predict` writes: checked beforehand, written as videos come."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kvideo.data.encoding import check_film_targets
from kvideo.data.untrimmed import video_name
from kvideo.detection.overlay import write_actors_video
from kvideo.detection.result_files import results_csv, tubes_document
from kvideo.detection.results import VideoActors, action_spans, extent
from kvideo.detection.tubes import LinkSettings
from kvideo.errors import UsageError
from kvideo.files import check_file_target, make_folder, write_text_atomic
from kvideo.registry import get_decoder
from kvideo.saving import ModelInfo
from kvideo.text import plural, printable

ENDINGS = (".csv", ".json")
_MOST_TUBES = 12


class Outputs:
    """Where what is seen in some videos goes.

    Args:
        files: names with one of `ENDINGS`.
        folder: for all of them, and a labelled video of each; or None.
        video: of the only video, labelled; or None.
        paths: the videos.
        links: how boxes become tubes.
        threshold: least probability of an action in a tube.
        step: seconds from one moment to the next.
        inputs: other files that are read, and must not be written over.

    Raises:
        UsageError: names that cannot be written.
    """

    def __init__(
        self,
        files: Sequence[str],
        folder: str | None,
        video: str | None,
        paths: Sequence[str],
        links: LinkSettings,
        threshold: float,
        step: float,
        inputs: Sequence[str] = (),
    ) -> None:
        for file in files:
            if Path(file).suffix.lower() not in ENDINGS:
                raise UsageError(f"what is seen is written as .csv or .json, not as {file}.")
            check_file_target(file, inputs)
        if not 0 <= threshold <= 1:
            raise UsageError(f"the threshold must be from 0 to 1, not {threshold}.")
        check_film_targets(video, folder, paths, [video_name(path) for path in paths])
        self.files, self.folder, self.video = list(files), folder, video
        self.links, self.threshold, self.step = links, threshold, step

    def write_one(
        self, found: VideoActors, class_names: Sequence[str], decoder: str
    ) -> Iterator[str]:
        """Writes what is of one video; gives the files' names."""
        target = self.video
        if self.folder is not None:
            target = str(make_folder(self.folder) / f"{found.name}.mp4")
        if target is not None:
            write_actors_video(
                target,
                found,
                found.tubes(self.links),
                class_names,
                threshold=self.threshold,
                step=self.step,
                open_video=get_decoder(decoder),
            )
            yield target

    def write_all(self, found: Sequence[VideoActors], info: ModelInfo) -> Iterator[str]:
        """Writes what is of all videos together; gives the files' names."""
        files = [*self.files]
        if self.folder is not None:
            folder = make_folder(self.folder)
            files += [str(folder / "results.csv"), str(folder / "tubes.json")]
        for file in files:
            if Path(file).suffix.lower() == ".csv":
                text = results_csv(found, info.class_numbers)
            else:
                text = self._document(found, info.class_names)
            write_text_atomic(Path(file), text)
            yield file

    def document(self, found: Sequence[VideoActors], class_names: Sequence[str]) -> Any:
        """The tubes as plain values."""
        return json.loads(self._document(found, class_names))

    def _document(self, found: Sequence[VideoActors], class_names: Sequence[str]) -> str:
        return tubes_document(
            found, class_names, settings=self.links, threshold=self.threshold, step=self.step
        )

    def describe(self, found: VideoActors, class_names: Sequence[str]) -> str:
        """The actors of a video and what they do, for a person."""
        tubes = found.tubes(self.links)
        lines = [f"{found.path}  ({found.duration:.1f} s, {plural(len(tubes), 'actor')})"]
        for number, tube in enumerate(tubes[:_MOST_TUBES], 1):
            left, top, right, bottom = (float(side) for side in tube.boxes.mean(axis=0))
            start, end = extent(found, tube, self.step)
            lines.append(
                f"  actor {number}  {start:7.2f} to {end:7.2f} s  "
                f"at {left:.2f},{top:.2f},{right:.2f},{bottom:.2f}  {tube.score:.2f}"
            )
            for span in action_spans(tube, self.threshold, self.step, until=end):
                name = printable(class_names[span.label])
                times = f"{span.start:9.2f} to {span.end:7.2f} s"
                lines.append(f"  {times}  {name}  {span.probability:.0%}")
        if len(tubes) > _MOST_TUBES:
            lines.append(f"  … and {len(tubes) - _MOST_TUBES} more")
        return "\n".join(lines)
