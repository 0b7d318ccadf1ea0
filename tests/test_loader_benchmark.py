"""The benchmark of the loader: what is timed, what its figures mean, what goes wrong."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from kvideo.cli import cli
from kvideo.clip_spec import ClipSpec
from kvideo.data.check import videos_to_check
from kvideo.data.decode import open_video
from kvideo.data.pipeline import clip_reader
from kvideo.data.records import VideoSet
from kvideo.data.timing import Stopwatch, timed
from kvideo.errors import DataError, UsageError
from kvideo.loader_benchmark import LoaderResult, Throughput, benchmark_loader, worker_counts

SPEC = ClipSpec(4, 8.0, (16, 16))


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(cli, ["benchmark", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


@pytest.fixture(scope="module")
def one_bad(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five videos, one of which is none."""
    folder = tmp_path_factory.mktemp("one_bad")
    for number in range(4):
        shutil.copy(tiny_videos / "left" / f"{number}.mp4", folder)
    (folder / "4.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def measured(one_bad: Path) -> LoaderResult:
    return benchmark_loader(
        videos_to_check(one_bad), clip_reader(SPEC), batch_size=2, workers=2, seconds=0.2
    )


# -- the stopwatch ---------------------------------------------------------------------------------


def test_time_inside_of_a_stage_is_the_inner_ones() -> None:
    ticks = itertools.accumulate([0, 1, 10, 100, 1000, 10000])
    stopwatch = Stopwatch(lambda: next(ticks))
    with stopwatch("outer"):  # 0
        with stopwatch("inner"):  # 1 … 11
            pass
        with pytest.raises(ValueError), stopwatch("inner"):  # 111 … 1111
            raise ValueError
    assert stopwatch.seconds == {"outer": 1 + 100 + 10000, "inner": 10 + 1000}


def test_a_timed_reader_gives_the_same_frames(tiny_videos: Path) -> None:
    path, times = tiny_videos / "left" / "0.mp4", [0.9, 0.1, 0.5]
    stopwatch = Stopwatch()
    with timed(open_video, stopwatch)(path) as reader, open_video(path) as plain:
        seen = reader.read(times, size=(20, 20), crop=(1, 2, 16, 16))
        np.testing.assert_array_equal(seen, plain.read(times, size=(20, 20), crop=(1, 2, 16, 16)))
        assert reader.info == plain.info
    assert {"open", "read", "seek", "decode", "convert"} == set(stopwatch.seconds)
    assert min(stopwatch.seconds.values()) > 0
    assert stopwatch.counts["wanted"] == 3 and 3 <= stopwatch.counts["decoded"] <= 12
    assert stopwatch.pictures == {(32, 32): 1}


def test_readers_of_other_decoders_are_timed_as_a_whole(tiny_videos: Path) -> None:
    stopwatch = Stopwatch()
    other = timed(lambda path, *, opener=None: open_video(path, opener=opener), stopwatch)
    with other(tiny_videos / "left" / "0.mp4") as reader:
        assert reader.read([0.0, 0.5]).shape == (2, 32, 32, 3)
        assert len(reader.frame_times()) == 12
    assert set(stopwatch.seconds) == {"open", "decode"}
    assert stopwatch.counts == {"wanted": 2}


# -- the figures -----------------------------------------------------------------------------------


def test_stages_of_real_clips(measured: LoaderResult) -> None:
    assert {"open", "seek", "decode", "convert", "batch", "other"} <= set(measured.stages)
    assert min(measured.stages.values()) > 0
    assert measured.num_videos == 5 and measured.num_clips > 1 and measured.picture == (32, 32)
    assert 1 <= measured.frames_decoded <= 12
    assert [each.workers for each in measured.throughput] == [1, 2]
    for each in measured.throughput:
        assert each.clips_per_second > 0
        assert each.frames_per_second == pytest.approx(4 * each.clips_per_second)
    assert measured.workers in (1, 2)


def test_bad_videos_are_counted_once(measured: LoaderResult) -> None:
    (failure,) = measured.failures
    assert failure.path.endswith("4.mp4") and failure.reason == "unreadable"


def test_json(measured: LoaderResult) -> None:
    document = json.loads(json.dumps(measured.to_json()))
    assert sum(document["shares"].values()) == pytest.approx(1, abs=0.01)
    assert document["dominant"] == max(document["ms_per_clip"], key=document["ms_per_clip"].get)
    assert document["clip_spec"]["num_frames"] == 4 and len(document["failures"]) == 1


def test_flow_is_a_stage(tiny_videos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("KVIDEO_CACHE", str(tmp_path))
    result = benchmark_loader(
        videos_to_check(tiny_videos / "left" / "0.mp4"),
        clip_reader(SPEC.replace(modality="flow"), keep_flow=True),
        batch_size=1,
        workers=1,
        seconds=0.1,
    )
    assert result.stages["flow"] > 0 and result.clip_spec.has_flow


@pytest.mark.parametrize(
    ("stage", "changes", "words"),
    [
        ("seek", {"frames_decoded": 7.5}, r"7.5 frames are decoded .*ffmpeg -g 12.*kvideo shard"),
        ("decode", {"picture": (1080, 1920)}, r"1920×1080, the clips 16×16: a short side of 24"),
        ("decode", {"picture": (16, 16), "frames_decoded": 3.0}, r"3.0 frames are decoded"),
        ("decode", {"picture": (16, 16), "frames_decoded": None}, "kvideo shard"),
        ("convert", {"picture": (480, 854)}, "854×480"),
        ("flow", {}, "kvideo flow DATA --frame-rate 8"),
        ("transform", {}, "--jitter 0"),
        ("read", {}, "local disk"),
        ("open", {}, "kvideo shard"),
    ],
)
def test_advice(measured: LoaderResult, stage: str, changes: dict, words: str) -> None:
    import re

    result = dataclasses.replace(measured, stages={"batch": 1.0, stage: 3.0}, **changes)
    assert result.dominant == stage and "takes 75% of the time" in result.advice
    assert re.search(words, result.advice), result.advice


def test_suggested_are_the_fewest_threads_near_the_best(measured: LoaderResult) -> None:
    speeds = {1: 10.0, 2: 19.0, 4: 20.0, 8: 20.5}
    rates = tuple(Throughput(count, speed, 4 * speed) for count, speed in speeds.items())
    assert dataclasses.replace(measured, throughput=rates).workers == 2


def test_numbers_of_threads() -> None:
    assert worker_counts(1) == [1]
    assert {1, 2, 4, 6} <= set(worker_counts(6)) and max(worker_counts(6)) == 6


# -- the command -----------------------------------------------------------------------------------

CLIP = ["--frames", "4", "--size", "16", "--seconds", "0.1", "--workers", "1", "-b", "2"]


def test_command(one_bad: Path) -> None:
    result = run("loader", one_bad, *CLIP)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "5 videos, mostly 32×32; clips of 4 frames at 8/s, 16×16" in lines[0]
    assert "1 of them could not be read" in lines[1] and "4.mp4" in lines[2]
    stages = {line.split()[0] for line in lines if line.endswith("%")}
    assert {"open", "seek", "decode", "convert", "batch"} <= stages
    assert lines[-1] == "Suggested: --workers 1"
    assert "in one thread" in result.stderr


def test_command_takes_a_models_clips_and_a_list_as_data(one_bad: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path\n0.mp4\n1.mp4\n")
    options = ["--root", one_bad, "--model", "slow_fusion", *CLIP[2:], "--json"]
    result = run("loader", tmp_path / "list.csv", *options)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["num_videos"] == 2 and not document["failures"]
    assert document["clip_spec"]["num_frames"] == 20 and document["clip_spec"]["size"] == [16, 16]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["loader", "EMPTY"], 1, "is empty"),
        (["loader", "NOWHERE"], 1, "there is no file or folder"),
        (["loader", "DATA", "--seconds", "0"], 2, "seconds must be a number above 0"),
        (["loader", "DATA", "--frame-rate", "-1"], 2, "frame_rate must be"),
        (["loader", "DATA", "--model", "slowfats"], 2, 'Did you mean "slowfast"'),
        (["loader", "DATA", "--model", "no.keras"], 1, "there is no model file"),
        (["loader", "DATA", "--decoder", "none"], 2, "there is no decoder"),
        (["loader", "DATA", "--split", "val"], 2, "no part"),
        (["slowfast"], 2, "kvideo benchmark model slowfast"),
    ],
)
def test_wrong_usage(
    tiny_videos: Path, tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    places = {"EMPTY": tmp_path, "NOWHERE": tmp_path / "nowhere", "DATA": tiny_videos}
    result = run(*[places.get(word, word) for word in arguments])
    assert result.exit_code == status and result.stdout == ""
    assert message in result.stderr, result.stderr


def test_nothing_to_measure(one_bad: Path) -> None:
    reader = clip_reader(SPEC)
    with pytest.raises(DataError, match="has no videos"):
        benchmark_loader(VideoSet((), (), source="nothing"), reader)
    bad = videos_to_check(one_bad / "4.mp4")
    with pytest.raises(DataError, match="no video could be read"):
        benchmark_loader(bad, reader, seconds=0.1)
    with pytest.raises(UsageError, match="at least 1"):
        benchmark_loader(bad, reader, batch_size=0)
