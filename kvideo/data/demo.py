"""The demo data: six classes of real H.264 files that differ by motion alone.

Every video shows a random texture that drifts in one of six directions, 60 degrees apart. Each
texture is shown once in every class, from the same first picture on, at the same speed. The six
videos consist of *the same pictures*, bit for bit, in another order, each picture once (see
`kvideo.data.textures`, and `_encode`). So neither one frame nor the unordered set of all frames
says anything about the class; a classifier that does not look at the order is at chance however
clever it is.

The files are written at first use into a cache folder (`demo_folder`):

    train/CLASS/NNN.mp4   val/CLASS/NNN.mp4   untrimmed/NNN.mp4
    untrimmed/annotations.json (ActivityNet's form)   untrimmed/segments.csv   demo.json

Two variants have motions one after the other, see `kvideo.data.demo_sequences`; in a third dots
move, see `kvideo.data.demo_dots`; in a fourth there are several actors, see
`kvideo.data.demo_actors`.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from kvideo.data import demo_dots, demo_sequences
from kvideo.data.demo_actors import ACTORS, ActorDemoSettings, actor_jobs, write_boxes
from kvideo.data.demo_dots import DotSettings, dot_jobs
from kvideo.data.demo_sequences import (
    Job,
    SequenceSettings,
    frames_records,
    sequence_jobs,
    write_segments,
)
from kvideo.data.encoding import h264_encoder
from kvideo.data.records import VideoRecord, VideoSet
from kvideo.data.textures import DIRECTIONS, DemoSettings, Texture
from kvideo.errors import DataError, UsageError
from kvideo.files import cache_folder, is_disk_full

SPLITS = ("train", "val", "untrimmed")
VARIANTS = ("motion", "frames", "order", "dots", "actors")
MANIFEST = "demo.json"

Settings = DemoSettings | SequenceSettings | DotSettings | ActorDemoSettings

SETTINGS = DemoSettings()
_CLASSES: dict[str, Iterable[str]] = {
    "motion": DIRECTIONS,
    "frames": DIRECTIONS,
    "order": demo_sequences.ORDERS,
    "dots": demo_dots.MOTIONS,
}


def demo_data(
    split: str = "train",
    *,
    folder: str | os.PathLike[str] | None = None,
    variant: str = "motion",
    seed: int = 0,
) -> VideoSet:
    """The demo videos; written at first use (some ten seconds, a few megabytes).

    Args:
        split: `"train"` or `"val"`: one record for each video. `"untrimmed"` (of `"motion"` only):
            one record for each labelled segment (`start`, `end`) of the untrimmed videos.
        folder: where to keep demo data; by default `$KVIDEO_CACHE` or `~/.cache/kvideo`.
        variant: `"motion"`: six drifts. `"frames"`: sequences of drifts, with a label for each
            frame (`track`). `"order"`: two drifts 3 s apart; the label is which came first.
            `"dots"`: dots that drift or turn.
        seed: of everything random in the videos.

    Returns:
        The videos. A record's `group` is its texture, which all classes share; `flip_safe` is
        False, because a mirrored video belongs to another class, or to none.

    Raises:
        UsageError: there is no such split or variant.
        DataError: the files cannot be written.
    """
    if variant == "actors":
        raise UsageError(
            "the demo's actors have boxes rather than labels: `kvideo detect` takes demo-actors."
        )
    splits = SPLITS if variant == "motion" else SPLITS[:2]
    if split not in splits:
        raise UsageError(f"the demo data has no part {split!r}; it has {', '.join(splits)}.")
    top = demo_folder(folder, variant=variant, seed=seed)
    names = tuple(sorted(_CLASSES[variant]))
    records = []
    if variant == "frames":
        records = frames_records(top, split)
    elif split == "untrimmed":
        with open(top / split / "segments.csv", newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                records.append(
                    VideoRecord(
                        path=str(top / split / row["video"]),
                        labels=(names.index(row["label"]),),
                        start=float(row["start"]),
                        end=float(row["end"]),
                        group=row["video"],
                    )
                )
    else:
        alone = variant == "dots"  # no two classes show the same pictures
        for label, name in enumerate(names):
            for path in sorted((top / split / name).glob("*.mp4")):
                group = f"{split}/{path.relative_to(top / split) if alone else path.stem}"
                records.append(VideoRecord(path=str(path), labels=(label,), group=group))
    word = "demo" if variant == "motion" else f"demo-{variant}"
    return VideoSet(tuple(records), names, source=f"{word} ({split})", flip_safe=False)


def demo_folder(
    folder: str | os.PathLike[str] | None = None, *, variant: str = "motion", seed: int = 0
) -> Path:
    """The folder that holds the demo data, which is written if it is not there yet.

    Several processes may ask at once: each writes into a temporary folder of its own, and the first
    to finish renames it. An interrupted write leaves nothing that counts.

    Args:
        folder: see `demo_data`.
        variant: see `demo_data`.
        seed: see `demo_data`.

    Raises:
        UsageError: there is no such variant.
        DataError: the files cannot be written.
    """
    if variant not in VARIANTS:
        raise UsageError(f"the demo data has no variant {variant!r}; it has {', '.join(VARIANTS)}.")
    cache = Path(folder or cache_folder())
    settings = _settings(variant)
    top = Path(os.path.abspath(cache)) / "demo" / f"{variant}-v{settings.version}-seed{seed}"
    if _is_complete(top):
        return top
    try:
        top.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(top.parent)
        _write_and_rename(top, variant, settings, seed)
    except OSError as error:
        reason = "the disk is full" if is_disk_full(error) else (error.strerror or str(error))
        raise DataError(
            f"cannot write the demo data to {top}: {reason}. "
            "Set KVIDEO_CACHE to a folder with 20 MB of room."
        ) from error
    return top


def _settings(variant: str) -> Settings:
    if variant == "motion":
        return SETTINGS
    if variant == "actors":
        return ACTORS
    return demo_dots.DOTS if variant == "dots" else demo_sequences.SEQUENCES


def _is_complete(top: Path) -> bool:
    """Whether all files are there in the sizes in which they were written."""
    try:
        sizes = json.loads((top / MANIFEST).read_text(encoding="utf-8"))["files"]
        return all((top / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def _remove_abandoned(parent: Path, hours: float = 6.0) -> None:
    """Remove temporary folders of processes that were killed."""
    for path in parent.glob(".tmp-*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > hours * 3600:
                shutil.rmtree(path, ignore_errors=True)


def _write_and_rename(top: Path, variant: str, settings: Settings, seed: int) -> None:
    temporary = top.parent / f".tmp-{top.name}-{secrets.token_hex(4)}"
    try:
        _write(temporary, variant, settings, seed)
        if top.exists() and not _is_complete(top):  # somebody removed a part of it
            damaged = top.parent / f".tmp-damaged-{secrets.token_hex(4)}"
            with suppress(OSError):  # another process may have been quicker
                os.rename(top, damaged)
            shutil.rmtree(damaged, ignore_errors=True)
        try:
            os.rename(temporary, top)
        except OSError:
            if not _is_complete(top):  # otherwise another process has written the same files
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(top: Path, variant: str, settings: Settings, seed: int) -> None:
    """Write all files below `top`, two or more at a time (encoding releases the GIL)."""
    jobs: list[Job]
    if isinstance(settings, SequenceSettings):
        jobs = sequence_jobs(top, variant, settings, seed, _encode)
    elif isinstance(settings, DotSettings):
        jobs = dot_jobs(top, settings, seed, _encode)
    elif isinstance(settings, ActorDemoSettings):
        jobs = actor_jobs(top, settings, seed, _encode)
    else:
        jobs = _motion_jobs(top, settings, seed)
    # Products of matrices this small are slower on several threads, much slower on a busy machine.
    from threadpoolctl import threadpool_limits  # scikit-learn requires it

    with (
        threadpool_limits(limits=1),
        ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 2)) as pool,
    ):
        running = [pool.submit(function, *arguments) for function, arguments in jobs]
        try:
            results = [job.result() for job in running]
        except BaseException:  # Ctrl-C, a full disk: do not finish the queue first
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if isinstance(settings, DemoSettings):
        segments = [result for result in results if result is not None]
        _write_segments(top / "untrimmed", segments, settings)
    elif variant == "frames":
        write_segments(top, results)
    elif variant == "actors":
        write_boxes(top, results)
    files = {
        str(path.relative_to(top).as_posix()): path.stat().st_size
        for path in sorted(top.rglob("*"))
        if path.is_file()
    }
    manifest = {"settings": dataclasses.asdict(settings), "seed": seed, "files": files}
    (top / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _motion_jobs(top: Path, settings: DemoSettings, seed: int) -> list[Job]:
    """Makes the folders; gives functions and arguments that write the files."""
    for split in ("train", "val"):
        for name in DIRECTIONS:
            (top / split / name).mkdir(parents=True)
    (top / "untrimmed").mkdir()
    trimmed: list[Job] = [
        (_write_texture, (top / split, settings, (seed, number, index), index))
        for number, split in enumerate(("train", "val"))
        for index in range(getattr(settings, split))
    ]
    return trimmed + [
        (_write_untrimmed, (top / "untrimmed" / f"{index:03d}.mp4", settings, (seed, 2, index)))
        for index in range(sum(settings.untrimmed))
    ]


def _write_texture(folder: Path, settings: DemoSettings, key: tuple[int, ...], index: int) -> None:
    """Write the six videos of one texture, one in each class: the same pictures in six orders."""
    texture = Texture(settings, np.random.default_rng(key))
    pictures = list(texture.frames(texture.places()))
    for name, degrees in DIRECTIONS.items():
        frames = (pictures[place] for place in texture.order(degrees))
        (folder / name / f"{index:03d}.mp4").write_bytes(_encode(frames, settings))


def _write_untrimmed(
    path: Path, settings: DemoSettings, key: tuple[int, ...]
) -> list[tuple[float, float, str | None]]:
    """Write one long video; gives its segments (start, end, class or None), seconds.

    Background is the same texture, still or "boiling" (see `Texture.boil`).
    """
    rng = np.random.default_rng(key)
    texture = Texture(settings, rng)
    rate, length = settings.frame_rate, rng.uniform(*settings.untrimmed_seconds)
    classes = list(DIRECTIONS)
    phases, first = [texture.phases], 0
    segments: list[tuple[int, int, str | None, np.ndarray]] = []
    queue: list[str] = []
    while True:
        still = rng.random() < 0.5
        background = np.zeros_like(texture.phases) if still else texture.boil(rng)
        count = round(rng.uniform(*settings.background_seconds) * rate)
        segments.append((first, count, None, background))
        first += count
        if first >= length * rate:
            break
        if not queue:
            queue = [classes[i] for i in rng.permutation(len(classes))]
        name = queue.pop()
        count = round(rng.uniform(*settings.action_seconds) * rate)
        segments.append((first, count, name, texture.drift(DIRECTIONS[name])))
        first += count
    for _, count, _, turns in segments:
        phases.extend(phases[-1] + np.arange(1, count + 1)[:, None] * turns)
    frames = texture.frames(np.stack(phases[:-1]))
    path.write_bytes(_encode(frames, settings, keyframes=settings.frame_rate))
    return [(start / rate, (start + count) / rate, name) for start, count, name, _ in segments]


def _write_segments(
    folder: Path, videos: list[list[tuple[float, float, str | None]]], settings: DemoSettings
) -> None:
    """Write `annotations.json` (ActivityNet's form) and `segments.csv`."""
    database = {}
    rows = [("video", "start", "end", "label", "subset")]
    for index, segments in enumerate(videos):
        subset = "training" if index < settings.untrimmed[0] else "validation"
        actions = [(start, end, name) for start, end, name in segments if name is not None]
        database[f"{index:03d}"] = {
            "duration": segments[-1][1],
            "subset": subset,
            "resolution": f"{settings.size}x{settings.size}",
            "url": "",
            "annotations": [{"segment": [s, e], "label": name} for s, e, name in actions],
        }
        rows += [(f"{index:03d}.mp4", f"{s:g}", f"{e:g}", name, subset) for s, e, name in actions]
    document = {"version": f"kvideo demo {settings.version}", "taxonomy": [], "database": database}
    (folder / "annotations.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    with open(folder / "segments.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _encode(frames: Iterator[np.ndarray], settings: DemoSettings, *, keyframes: int = 1) -> bytes:
    """H.264 in MP4, without sound.

    In trimmed videos every picture is a keyframe with the same quantizer. Otherwise a picture would
    carry traces of those before it (what enters at a border cannot be predicted from them, and is
    coded in another way), which tell the direction.
    """
    import av

    name = h264_encoder()
    options = {"g": str(keyframes)}
    if name == "libx264":
        options |= {"preset": "veryfast", "qp": str(settings.quantizer)}
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream(name, rate=settings.frame_rate, options=options)
        stream.width = stream.height = settings.size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # the same bytes on every machine
        for planes in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())
    return buffer.getvalue()
