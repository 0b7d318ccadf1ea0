"""`kvideo predict --stream`, as a user runs it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import video_files
from click.testing import CliRunner, Result
from stream_servers import Server, free_port, over_tcp, silent

import kvideo
from kvideo.cli import cli
from kvideo.saving import ModelInfo

COMMAND = [sys.executable, "-c", "from kvideo.cli import main; main()"]
CLASSES = ("up", "down", "still")


def save(folder: Path, name: str, num_frames: int, **options) -> Path:
    model = getattr(kvideo.models, name)(
        3, input_shape=(num_frames, 32, 32, 3), widths=(4, 6), **options
    )
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(weight + 0.2 * rng.standard_normal(weight.shape))
    info = ModelInfo(kvideo.ClipSpec(num_frames, 10.0, (32, 32)), CLASSES)
    kvideo.save_model(model, folder / f"{name}.keras", info)
    return folder / f"{name}.keras"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models"), "recurrent_conv", 8)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds, 20 frames a second, as MPEG-TS."""
    folder = tmp_path_factory.mktemp("videos")
    return video_files.write(folder / "video.ts", frames=60, rate=20, options={"g": "10"})


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(cli, ["predict", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def outputs(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def start(*arguments: str | Path, **options) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [*COMMAND, "predict", *map(str, arguments)]
    return subprocess.Popen(command, **{**pipes, **options})


# -- what is printed -----------------------------------------------------------------------------


def test_a_line_for_each_output(model: Path, video: Path) -> None:
    result = run(model, "--stream", video, "--top", 2)
    lines = outputs(result.stdout)
    assert result.exit_code == 0 and len(lines) == 30
    assert [line["time"] for line in lines] == [round(0.1 * index, 3) for index in range(30)]
    for line in lines:
        assert list(line) == ["time", "label", "probability", "top", "dropped"]
        assert len(line["top"]) == 2 and line["dropped"] == 0
        assert line["top"][0] == {"label": line["label"], "probability": line["probability"]}
    assert re.search(r"30 frames.* frames/s, dropped 0, reconnects 0\n", result.stderr)


def test_the_outputs_are_the_models(model: Path, video: Path) -> None:
    from kvideo.data.live import LiveSource

    lines = outputs(run(model, "--stream", video, "--top", 3).stdout)
    loaded = kvideo.load_model(model)
    pictures = [frame.picture for frame in LiveSource(video, kvideo.model_info(loaded).clip_spec)]
    whole = np.asarray(loaded(np.stack(pictures[:8])[None]))[0]
    given = {each["label"]: each["probability"] for each in lines[7]["top"]}
    np.testing.assert_allclose([given[name] for name in CLASSES], whole, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "num_frames", "count"),
    [("slow_fusion", {}, 8, 30), ("cnn3d_rnn", {"window": 4}, 8, 7)],
)
def test_other_models(
    name: str, options: dict, num_frames: int, count: int, video: Path, tmp_path: Path
) -> None:
    path = save(tmp_path, name, num_frames, **options)
    assert len(outputs(run(path, "--stream", video).stdout)) == count
    lines = outputs(run(path, "--stream", video, "--every", 10).stdout)
    assert len(lines) in (2, 3)


def test_only_changes(model: Path, video: Path) -> None:
    labels = [line["label"] for line in outputs(run(model, "--stream", video).stdout)]
    changes = [label for label, before in zip(labels, [None, *labels], strict=False)
               if label != before]  # fmt: skip
    lines = outputs(run(model, "--stream", video, "--on-change").stdout)
    assert [line["label"] for line in lines] == changes


def test_a_model_with_a_mean_over_time(video: Path, tmp_path: Path) -> None:
    path = save(tmp_path, "late_fusion", 8)
    clip, everything = (
        outputs(run(path, "--stream", video, *options).stdout)
        for options in ([], ["--horizon", "inf"])
    )
    assert clip[7] == everything[7] and clip[-1] != everything[-1]


# -- wrong usage ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing argument 'FILES...'. Name the video files"),
        (["a.mp4", "--stream", "b.mp4"], "not both"),
        (["a.mp4", "--every", "3"], "--every is a stream's"),
        (["a.mp4", "--keep-all"], "--keep-all is a stream's"),
        (["--stream", "b.mp4", "--timeline"], "--timeline is for files"),
        (["--stream", "b.mp4", "--clips", "3"], "--clips is for files"),
        (["--stream", "b.mp4", "--realtime", "--keep-all"], "drops late"),
        (["--stream", "b.mp4", "--timeout", "0"], "--timeout"),
        (["--stream", "b.mp4", "--every", "0"], "--every"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str, model: Path) -> None:
    result = run(model, *arguments)
    assert result.exit_code == 2 and words in result.stderr and not result.stdout


def test_sources_that_cannot_be_had(model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with Server(silent) as server:
        sources = {
            f"tcp://127.0.0.1:{free_port()}": "refused",
            server.url("http", "/x"): "within 1 s",
            str(tmp_path / "missing.mp4"): "no such file",
            str(tmp_path / "empty.mp4"): "empty",
        }
        for source, words in sources.items():
            result = run(model, "--stream", source, "--timeout", 1)
            assert result.exit_code == 1 and not result.stdout, source
            assert words in result.stderr.splitlines()[-1] and source in result.stderr
            assert "Traceback" not in result.stderr
    assert run(tmp_path / "no.keras", "--stream", "x.mp4").exit_code == 1


# -- as a process --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("way", ["pipe", "file", "mp4 file", "cut", "empty"])
def test_standard_input(way: str, model: Path, video: Path, tmp_path: Path) -> None:
    data = video.read_bytes()
    if way == "mp4 file":  # its index is at the end; a file can be sought
        video = video_files.write(tmp_path / "video.mp4", frames=60, rate=20)
    if way.endswith("file"):
        with open(video, "rb") as file:
            command = start(model, "--stream", "-", stdin=file)
            out, err = command.communicate(timeout=120)
    else:
        sent = {"pipe": data, "cut": data[: len(data) // 2 + 50], "empty": b""}[way]
        command = start(model, "--stream", "-", stdin=subprocess.PIPE, text=False)
        out, err = (text.decode() for text in command.communicate(sent, timeout=120))
    if way == "empty":
        assert command.returncode == 1 and not out
        assert "standard input: it ended before the first frame" in err and "Traceback" not in err
        return
    assert command.returncode == 0, err
    lines = outputs(out)
    expected = 30 if way != "cut" else 15
    assert abs(len(lines) + lines[-1]["dropped"] - expected) <= 1
    if way.endswith("file"):
        assert len(lines) == 30
    assert err.count("\n") == 1 and re.search(r"\d+ frames.* frames/s", err)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_stream(number: int, model: Path, video: Path) -> None:
    with Server(over_tcp(video.read_bytes() * 20, seconds=60)) as server:
        command = start(model, "--stream", server.url())
        for _ in range(3):
            assert json.loads(command.stdout.readline())
        begun = time.monotonic()
        os.kill(command.pid, number)
        out, err = command.communicate(timeout=30)
    assert command.returncode == 0, err
    assert time.monotonic() - begun < 10
    outputs(out)  # whole lines
    assert "frames, in" in err and "Traceback" not in err


@pytest.mark.slow
def test_a_reader_that_goes_ends_the_stream_quietly(model: Path, video: Path) -> None:
    with Server(over_tcp(video.read_bytes() * 20, seconds=60)) as server:
        command = start(model, "--stream", server.url())
        assert json.loads(command.stdout.readline())  # at once: lines are flushed
        command.stdout.close()
        assert command.wait(timeout=30) == 0
        err = command.stderr.read()
        command.stderr.close()
    assert "frames, in" in err and "Traceback" not in err and "BrokenPipe" not in err


def test_no_attempts_to_connect_anew(model: Path, video: Path) -> None:
    """0 is a number of attempts like any other, not the default's 5."""
    data = video.read_bytes()

    def serve(connection, number: int) -> None:
        over_tcp(data, 3.0)(connection, number)
        server.close()

    with Server(serve) as server:
        command = start(model, "--stream", server.url(), "--reconnect", 0, "--timeout", 5)
        _, err = command.communicate(timeout=120)
    assert command.returncode == 0 and "attempt" not in err and "reconnects 0" in err


@pytest.mark.slow
def test_a_stream_that_comes_back_and_ends(model: Path, video: Path) -> None:
    data = video.read_bytes()

    def serve(connection, number: int) -> None:
        over_tcp(data, 3.0)(connection, number)
        if number == 2:
            server.close()

    with Server(serve) as server:
        command = start(model, "--stream", server.url(), "--reconnect", 2, "--timeout", 5)
        out, err = command.communicate(timeout=120)
    assert command.returncode == 0, err
    assert "reconnects 1" in err and "connected anew" in err
    moments = [line["time"] for line in outputs(out)]
    assert moments == sorted(moments) and 50 < len(moments) <= 60


SERVE = """
import sys, time
import av
source = av.open(sys.argv[1])
sink = av.open(sys.argv[2], "w", format="mpegts")  # waits for a client
picture = source.streams.video[0]
stream = sink.add_stream_from_template(picture)
begun = time.monotonic()
for packet in source.demux(picture):
    if packet.dts is not None:
        time.sleep(max(0.0, float(packet.dts * packet.time_base) - time.monotonic() + begun))
        packet.stream = stream
        sink.mux(packet)
sink.close()
"""


def serve_file(path: Path, port: int) -> subprocess.Popen:
    """A process in which FFmpeg serves a file at the speed of its clock, once."""
    url = f"tcp://127.0.0.1:{port}?listen=1"
    return subprocess.Popen([sys.executable, "-c", SERVE, str(path), url])


@pytest.mark.slow
def test_ffmpeg_serves_a_real_video_stops_and_comes_back(model: Path, shared: Path) -> None:
    video, port = shared / "data/clips/mmaction2/demo.mp4", free_port()
    server = serve_file(video, port)
    address = f"tcp://127.0.0.1:{port}"
    client = start(model, "--stream", address, "--reconnect", 50, "--timeout", 60)
    try:
        lines = [client.stdout.readline() for _ in range(15)]
        server.kill()
        server.wait()
        server = serve_file(video, port)
        lines += [client.stdout.readline() for _ in range(90)]  # one file has 100 at most
        client.send_signal(signal.SIGINT)
        _, err = client.communicate(timeout=60)
    finally:
        for process in (server, client):
            process.kill()
            process.wait()
    assert client.returncode == 0 and "connected anew" in err, err
    moments = [json.loads(line)["time"] for line in lines]
    assert moments == sorted(moments)
