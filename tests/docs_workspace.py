"""The folder in which the documentation's blocks are run: small files of the names they use."""

import csv
import dataclasses
import json
import os
import shutil
from pathlib import Path

import kvideo
from kvideo.data import demo, demo_actors, demo_sequences

CLASSES = {"diving": "up_left", "sailing": "down_right"}
# Names of the oracles' checkpoints, which are narrow networks, and those that pages use.
CHECKPOINTS = {
    "SLOWFAST_8x8_R50.pyth": "slowfast_r50.pyth",
    "C2D_8x8_R50.pyth": "c2d_r50.pyth",
    "my_slow.pyth": "slow_r50.pyth",
    "nice.pyth": "malicious.pyth",
}


def small_demos(monkeypatch) -> None:
    """Fewer and shorter videos in the demo data sets."""
    motion = dataclasses.replace(
        demo.SETTINGS,
        size=48,
        train=5,
        val=2,
        untrimmed=(2, 1),
        untrimmed_seconds=(14.0, 15.0),
        action_seconds=(1.0, 1.5),
        background_seconds=(0.5, 0.8),
    )
    actors = dataclasses.replace(demo_actors.ACTORS, train=3, val=1, seconds=4.0)
    sequences = dataclasses.replace(demo_sequences.SEQUENCES, train=4, val=2)
    monkeypatch.setattr(demo, "SETTINGS", motion)
    monkeypatch.setattr(demo, "ACTORS", actors)
    monkeypatch.setattr(demo_sequences, "SEQUENCES", sequences)


def make_workspace(top: Path) -> None:
    """Writes the files that pages speak of."""
    motion, actors = demo.demo_folder(), demo.demo_folder(variant="actors")
    for folder, split in {
        "holiday": "train",
        "more_videos": "val",
        "new_data": "train",
        "videos": "train",
    }.items():
        for name, drift in CLASSES.items():
            shutil.copytree(motion / split / drift, top / folder / name)
    shutil.copytree(top / "more_videos", top / "my_videos" / "test")
    for path in ("new.mp4", "clip.mp4", "holiday.mp4", "videos/x.mp4"):
        shutil.copy(motion / "val" / "up_left" / "000.mp4", top / path)
    (top / "videos" / "x.mp4").rename(top / "videos" / "diving" / "x.mp4")
    shutil.copy(motion / "val" / "down_right" / "000.mp4", top / "another.mp4")
    (top / "broken.mp4").write_bytes(b"This is no video. " * 50)
    for folder in ("matches", "long"):
        shutil.copytree(motion / "untrimmed", top / folder)
    for path in ("match.mp4", "new_match.mp4"):
        shutil.copy(top / "matches" / "002.mp4", top / path)
    shutil.copy(top / "matches" / "annotations.json", top)
    for folder in ("scene", "more"):
        shutil.copytree(actors, top / folder)
    shutil.copy(actors / "val" / "000.mp4", top / "actors.mp4")
    _write_lists(top)
    _write_benchmarks(top)
    _write_stream(top / "new.mp4", top / "recording.ts")
    results = {"002": [{"label": "up_left", "score": 0.5, "segment": [1.0, 2.0]}]}
    (top / "their_results.json").write_text(json.dumps({"results": results}), encoding="utf-8")
    kvideo.fit(
        top / "holiday", "slow_fusion", out=top / "run", epochs=1, num_frames=4, frame_rate=8,
        size=(32, 32), model_options={"widths": (4, 6)}, batch_size=4, precision="float32",
        tensorboard="none", verbose=False,
    )  # fmt: skip
    for name in ("clips", "other-run", "spatial", "temporal", "run-1", "run-2", "run-3"):
        shutil.copytree(top / "run", top / name)


def _write_lists(top: Path) -> None:
    files = sorted((top / "videos").rglob("*.mp4"))
    rows = [(str(path.relative_to(top / "videos")), path.parent.name) for path in files]
    for name in ("train.csv", "val.csv", "test.csv", "list.csv", "clips.csv"):
        _write_table(top / name, [("path", "label"), *rows])
    for name in ("kinetics.csv", "videos.csv"):
        _write_table(top / name, [("path", "label"), *((f"videos/{p}", c) for p, c in rows)])
    head = ("video", "start", "end", "label")
    parts = [(path, start, start + 1, label) for path, label in rows for start in (0, 1)]
    _write_table(top / "segments.csv", [head, *parts])
    lines = [("new.mp4", 0, 1, "diving"), ("new.mp4", 1, 2, "sailing")]
    _write_table(top / "new_segments.csv", [head, *lines])


def _write_table(path: Path, rows: list[tuple]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _write_benchmarks(top: Path) -> None:
    """UCF101's and HMDB51's folders and split files, of two classes."""
    lists, splits = top / "ucfTrainTestlist", top / "testTrainMulti_7030_splits"
    lists.mkdir()
    splits.mkdir()
    numbers = range(1, 3)
    (lists / "classInd.txt").write_text("1 Diving\n2 Sailing\n")
    for split in numbers:
        for part, groups in (("train", (1, 2)), ("test", (3,))):
            lines = []
            for label, name in enumerate(("Diving", "Sailing"), start=1):
                for group in groups:
                    path = f"{name}/v_{name}_g{group:02d}_c01.mp4"
                    lines.append(f"{path} {label}" if part == "train" else path)
                    _copy(top, name, group, top / "UCF-101" / path)
            (lists / f"{part}list{split:02d}.txt").write_text("\n".join(lines) + "\n")
    for name in ("diving", "sailing"):
        for group in range(3):
            _copy(top, name, group, top / "hmdb51" / name / f"{group}.mp4")
        lines = [f"{group}.mp4 {1 + (group == 2)}" for group in range(3)]
        for split in (*numbers, 3):
            (splits / f"{name}_test_split{split}.txt").write_text("\n".join(lines) + "\n")


def _copy(top: Path, name: str, number: int, target: Path) -> None:
    files = sorted((top / "holiday" / name.lower()).iterdir())
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(files[number % len(files)], target)


def _write_stream(video: Path, target: Path) -> None:
    """The same packets as an MPEG transport stream."""
    import av

    with av.open(str(video)) as source, av.open(str(target), "w", format="mpegts") as sink:
        stream = sink.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                sink.mux(packet)


def add_checkpoints(top: Path, oracles: Path) -> None:
    """Puts published checkpoints, narrow ones, where pages speak of them."""
    for name, source in CHECKPOINTS.items():
        shutil.copy(oracles / source, top / name)
        os.chmod(top / name, 0o644)
    (top / "names.txt").write_text("\n".join(f"action {n}" for n in range(7)), encoding="utf-8")
