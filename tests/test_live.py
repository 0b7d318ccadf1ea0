"""Live sources: real sockets, pipes and files; what is late, cut, silent, gone or comes back."""

import os
import socket
import struct
import threading
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import video_files
from stream_servers import (
    Server,
    feed,
    free_port,
    over_http,
    over_tcp,
    pieces,
    read_request,
    silent,
    transport_stream,
)

from kvideo import ClipSpec
from kvideo.data.decode import open_video
from kvideo.data.live import FrameGrid, LiveFrame, LiveSource, StreamError
from kvideo.data.live_inputs import kind_of, shown
from kvideo.errors import DecodeError, UsageError

# Pictures as they are, so that their numbers can be read.
SPEC = ClipSpec(8, 10.0, (64, 96), framing="stretch")


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds, 20 frames a second, as MPEG-TS."""
    folder = tmp_path_factory.mktemp("live")
    options = {"g": "10", "bf": "0"}
    return video_files.write(folder / "numbered.ts", frames=60, rate=20, options=options)


@pytest.fixture(scope="module")
def data(numbered: Path) -> bytes:
    return numbered.read_bytes()


def numbers(frames: list[LiveFrame]) -> list[int]:
    return [video_files.number_in(frame.picture) for frame in frames]


def times(frames: list[LiveFrame]) -> list[float]:
    return [round(frame.time, 6) for frame in frames]


def collect(source, *, slow: float = 0.0, **options) -> tuple[list[LiveFrame], LiveSource]:
    frames = []
    with LiveSource(source, SPEC, **options) as live:
        for frame in live:
            frames.append(frame)
            time.sleep(slow)
    return frames, live


# -- which frames --------------------------------------------------------------------------------


def test_moments_come_before_the_frame_that_ends_them() -> None:
    grid = FrameGrid(10.0)
    assert list(grid.before(0.0)) == []
    assert list(grid.before(0.05)) == [0.0]
    assert list(grid.before(0.1004)) == []  # up to 1 ms: containers round
    np.testing.assert_allclose(list(grid.before(0.45)), [0.1, 0.2, 0.3, 0.4])
    assert list(grid.before(0.4)) == []


@pytest.mark.parametrize("way", ["file", "url", "http", "pipe"])
def test_frames_are_chosen_by_their_time(
    way: str, numbered: Path, data: bytes, tmp_path: Path
) -> None:
    if way == "file":
        frames, live = collect(numbered)
    elif way == "pipe":
        os.mkfifo(tmp_path / "pipe")
        feed(tmp_path / "pipe", data)
        frames, live = collect(tmp_path / "pipe", reconnect=0)
    else:
        serve = over_http(data) if way == "http" else over_tcp(data)
        with Server(serve) as server:
            url = server.url("http", "/x.ts") if way == "http" else server.url()
            frames, live = collect(url, reconnect=0)
    assert numbers(frames) == list(range(0, 60, 2))
    assert times(frames) == [round(0.1 * index, 6) for index in range(30)]
    assert (live.frames, live.dropped, live.reconnects) == (30, 0, 0)
    assert live.live == (way != "file")


@pytest.mark.parametrize("live", [False, True])
def test_a_variable_frame_rate(live: bool, tmp_path: Path) -> None:
    stamps = [0, 10, 20, 500, 510, 520, 1500, 1510, 1520, 1900]  # ms
    path = video_files.write(
        tmp_path / "variable.mkv",
        frames=len(stamps),
        stamps=stamps,
        time_base=Fraction(1, 1000),
        options={"bf": "0"},
    )
    expected = [int(np.searchsorted(stamps, 100 * k + 1, side="right")) - 1 for k in range(20)]
    if live:
        with Server(over_tcp(path.read_bytes())) as server:
            frames, _ = collect(server.url(), reconnect=0)
    else:
        frames, _ = collect(path)
    assert numbers(frames)[:19] == expected[:19]
    assert times(frames)[:19] == [round(0.1 * k, 6) for k in range(19)]


@pytest.mark.parametrize("name", ["imageio/newtonscradle.gif", "mmaction2/demo_skeleton.mp4"])
def test_real_files_of_variable_rate_give_what_reading_them_gives(name: str, shared: Path) -> None:
    path = shared / "data/clips" / name
    frames, live = collect(path)
    with open_video(path) as video:
        expected = video.read([frame.time for frame in frames], size=SPEC.size)
        assert len(frames) == pytest.approx(video.info.duration * 10, abs=1)
    np.testing.assert_array_equal(np.stack([frame.picture for frame in frames]), expected)
    assert live.dropped == 0


def test_a_live_stream_gives_the_pixels_that_its_file_gives(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/clips/mmaction2/demo.mp4"  # pixels are not square
    path = transport_stream(source, tmp_path / "demo.ts")
    spec = ClipSpec(8, 7.0, (48, 48))
    of_file = list(LiveSource(source, spec))
    with Server(over_tcp(path.read_bytes())) as server:
        live = list(LiveSource(server.url(), spec, reconnect=0))
    assert abs(len(live) - len(of_file)) <= 1 and len(of_file) == 70
    for a, b in zip(of_file, live, strict=False):
        assert a.time == pytest.approx(b.time)
        np.testing.assert_array_equal(a.picture, b.picture)


def test_a_clock_that_jumps_goes_on(tmp_path: Path) -> None:
    parts = []
    for first in (0, 90, 0):  # seconds
        stamps = [1000 * first + 100 * index for index in range(10)]
        path = video_files.write(
            tmp_path / f"{len(parts)}.ts", frames=10, rate=10, stamps=stamps,
            time_base=Fraction(1, 1000), options={"bf": "0", "g": "5"},
        )  # fmt: skip
        parts.append(path.read_bytes())
    with Server(over_tcp(b"".join(parts))) as server:
        frames, live = collect(server.url(), reconnect=0)
    assert 28 <= live.frames <= 31 and live.reconnects == 0
    assert np.diff(times(frames)).max() < 0.11
    assert {number for number in numbers(frames)} == set(range(10))


def test_pictures_without_times_are_timed_by_the_clock() -> None:
    """Motion JPEG over HTTP, as web cameras send it."""

    def serve(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(
            b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=next\r\n\r\n"
        )
        for index in range(24):
            picture = video_files.picture(index)[..., ::-1]
            data = cv2.imencode(".jpg", picture)[1].tobytes()
            head = b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
            connection.sendall(head % len(data) + data + b"\r\n")
            time.sleep(1 / 8)  # not the 25 a second that FFmpeg takes them for

    with Server(serve) as server:
        frames, live = collect(server.url("http", "/mjpeg"), reconnect=0, timeout=5)
    assert live.live and 2.0 < frames[-1].time < 4.5
    assert numbers(frames) == sorted(numbers(frames)) and numbers(frames)[-1] >= 20


# -- late consumers ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_late_consumer_loses_the_oldest_frames_of_a_live_stream(data: bytes) -> None:
    with Server(over_tcp(data, seconds=3.0)) as server:
        frames, live = collect(server.url(), slow=0.25, reconnect=0)
    assert live.dropped >= 8 and live.frames == len(frames) == 30 - live.dropped
    assert numbers(frames)[-1] == 58, "the newest frames are there"
    assert numbers(frames) == sorted(numbers(frames))


@pytest.mark.slow
def test_of_a_file_nothing_is_dropped_unless_it_is_paced(numbered: Path) -> None:
    frames, live = collect(numbered, slow=0.04)
    assert live.frames == 30 and live.dropped == 0
    begun = time.monotonic()
    frames, live = collect(numbered, realtime=True)
    assert 2.8 < time.monotonic() - begun < 6 and live.frames + live.dropped == 30
    frames, live = collect(numbered, realtime=True, slow=0.25)
    assert live.dropped >= 8 and numbers(frames)[-1] == 58


def test_a_source_that_is_faster_than_its_clock_waits(data: bytes) -> None:
    with Server(over_tcp(data)) as server:
        frames, live = collect(server.url(), slow=0.02, reconnect=0)
    assert live.dropped == 0 and numbers(frames) == list(range(0, 60, 2))


def test_a_live_source_that_is_kept_whole(data: bytes) -> None:
    with Server(over_tcp(data)) as server:
        frames, live = collect(server.url(), slow=0.15, reconnect=0, keep_all=True)
    assert live.dropped == 0 and numbers(frames) == list(range(0, 60, 2))


def test_a_file_on_a_server_is_a_file(data: bytes) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        request = read_request(connection).decode()
        first = int(request.split("bytes=")[1].split("-")[0]) if "bytes=" in request else 0
        rest = data[first:]
        connection.sendall(
            b"HTTP/1.1 206 Partial Content\r\nAccept-Ranges: bytes\r\nConnection: close\r\n"
            b"Content-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n"
            % (first, len(data) - 1, len(data), len(rest))
        )
        connection.sendall(rest)

    with Server(serve) as server:
        frames, live = collect(server.url("http", "/numbered.ts"), slow=0.12)
    assert not live.live and live.dropped == live.reconnects == 0
    assert numbers(frames) == list(range(0, 60, 2))


# -- streams that break off ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["tcp", "http"])
def test_a_stream_that_stops_and_comes_back(scheme: str, data: bytes) -> None:
    half = data[: len(data) // 2]
    servers = []
    first_port = free_port()

    def serve(connection: socket.socket, number: int) -> None:
        once = over_tcp if scheme == "tcp" else over_http
        once(half, 1.5)(connection, number)
        servers[-1].close()  # for a while nobody answers

    def come_back() -> None:
        servers.append(Server(serve, first_port))

    come_back()
    later = threading.Timer(3.0, come_back)
    later.start()
    lines: list[str] = []
    url = servers[0].url(scheme, "/live.ts")
    frames, live = collect(url, reconnect=3, timeout=5, say=lines.append)
    later.join()
    assert len(servers) == 2 and live.reconnects == 1, lines
    before, after = ([frame for frame in frames if frame.connection == number] for number in (0, 1))
    assert numbers(before) == numbers(after) and len(before) >= 12
    assert after[0].time - before[-1].time > 1.0, "times go on by the clock"
    assert any("refused" in line or "attempt 2" in line for line in lines)


@pytest.mark.slow
def test_times_go_on_by_the_clock_after_an_interruption(data: bytes) -> None:
    lines: list[str] = []

    def serve(connection: socket.socket, number: int) -> None:
        if number == 2:
            return  # nothing, this time
        for piece in pieces(data[: len(data) // 2], 1.5):
            connection.sendall(piece)
        if number == 3:
            server.close()

    with Server(serve) as server:
        frames, live = collect(server.url(), reconnect=2, timeout=3, say=lines.append)
    assert live.reconnects == 1 and live.dropped == 0
    connections = [frame.connection for frame in frames]
    assert sorted(set(connections)) == [0, 1] and connections == sorted(connections)
    before, after = ([frame for frame in frames if frame.connection == number] for number in (0, 1))
    assert numbers(before) == numbers(after) == list(range(0, 2 * len(before), 2))
    gap = after[0].time - before[-1].time
    assert 0.5 < gap < 4, "two pauses, by the clock"
    assert np.all(np.diff(times(frames)) > 0)
    assert sum("connected anew" in line for line in lines) == 1
    assert sum("attempt" in line for line in lines) == 4


def test_a_stream_that_is_reset_for_good_is_an_error(data: bytes) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        connection.sendall(data[: len(data) // 2])
        time.sleep(0.3)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.close()

    with Server(serve) as server, LiveSource(server.url(), SPEC, reconnect=2) as live:
        with pytest.raises(StreamError, match=r"reset.*did not come back in 2 attempts"):
            list(live)
    assert live.frames > 10


def test_a_stream_that_falls_silent_is_an_error(data: bytes) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        connection.sendall(data[: len(data) // 2])
        silent(connection, number)

    with Server(serve) as server, LiveSource(server.url(), SPEC, reconnect=0, timeout=1) as live:
        with pytest.raises(StreamError, match="nothing came within 1 s"):
            list(live)
    assert live.frames > 10


def test_a_recording_over_http_ends_although_the_server_would_send_it_again(data: bytes) -> None:
    with Server(over_http(data)) as server:
        frames, live = collect(server.url("http", "/x.ts"), reconnect=5)
        assert server.connections == 1
    assert len(frames) == 30 and live.reconnects == 0


# -- sources that cannot be had ------------------------------------------------------------------


def failure(source: str, **options) -> tuple[str, float]:
    begun = time.monotonic()
    with LiveSource(source, SPEC, **options) as live, pytest.raises(StreamError) as error:
        list(live)
    assert live.frames == 0
    text = str(error.value)
    assert text.startswith(shown(source)) and text[-1] in ".?" and "\n" not in text
    return text, time.monotonic() - begun


@pytest.mark.parametrize("scheme", ["tcp", "http", "rtsp"])
def test_a_port_that_nobody_listens_at(scheme: str) -> None:
    text, took = failure(f"{scheme}://127.0.0.1:{free_port()}/x")
    assert "refused" in text and took < 2


@pytest.mark.parametrize("scheme", ["tcp", "http", "rtsp", "udp"])
def test_a_server_that_says_nothing(scheme: str) -> None:
    with Server(silent) as server:
        text, took = failure(server.url(scheme, "/x"), timeout=1.0)
    assert "within 1 s" in text and 0.9 < took < 3.5


def test_an_empty_stream(tmp_path: Path) -> None:
    with Server(lambda connection, number: None) as server:
        text, took = failure(server.url())
    assert "ended before the first frame" in text and took < 2
    os.mkfifo(tmp_path / "pipe")
    text, took = failure(str(tmp_path / "pipe"), timeout=1.0)  # nobody writes
    assert "within 1 s" in text and took < 3
    feed(tmp_path / "pipe", b"x")
    assert "ended before the first frame" in failure(str(tmp_path / "pipe"), timeout=3.0)[0]


def test_a_page_is_no_stream() -> None:
    with Server(over_http(b"<html><body>" + b"words " * 3000)) as server:
        assert "nothing that FFmpeg can play" in failure(server.url("http", "/"))[0]

    def missing(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    with Server(missing) as server:
        assert "404" in failure(server.url("http", "/"))[0]


def test_cameras_that_are_none() -> None:
    if not Path("/dev/video7").exists():
        assert "no such camera" in failure("/dev/video7")[0]
    assert "cannot be opened" in failure("/dev/zero")[0]


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    for path in (tmp_path / "missing.mp4", tmp_path / "empty.mp4", tmp_path):
        with pytest.raises(DecodeError):
            list(LiveSource(path, SPEC))


def test_a_truncated_file(numbered: Path, tmp_path: Path) -> None:
    data = numbered.read_bytes()
    cut = tmp_path / "cut.ts"
    cut.write_bytes(data[: 2 * len(data) // 3 + 77])
    frames, live = collect(cut)
    assert 15 <= live.frames <= 22 and numbers(frames)[:15] == list(range(0, 30, 2))
    mp4 = video_files.write(tmp_path / "whole.mp4", frames=30)
    mp4.write_bytes(mp4.read_bytes()[:-400])
    with pytest.raises(DecodeError, match="cut off"):
        list(LiveSource(mp4, SPEC))


# -- the rest ------------------------------------------------------------------------------------


def test_kinds_of_sources(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert kind_of(str(tmp_path / "pipe")) == "pipe"
    assert kind_of(str(tmp_path / "no such file")) == "file"
    assert kind_of("RTSP://host/stream") == "url" and kind_of("udp://@:1234") == "url"
    assert kind_of("gs://bucket/video.mp4") == "file"
    assert kind_of("/dev/video9") == "camera" == kind_of("/dev/null")


def test_passwords_are_not_shown() -> None:
    assert shown("rtsp://me:secret@host:554/a") == "rtsp://me:***@host:554/a"
    assert shown("http://host/a@b:c") == "http://host/a@b:c"
    text, _ = failure(f"http://me:secret@127.0.0.1:{free_port()}/x")
    assert "secret" not in text


def test_stopping_ends_the_iteration(numbered: Path) -> None:
    with Server(silent) as server:
        live = LiveSource(server.url(), SPEC, timeout=30)
        threading.Timer(0.3, live.stop).start()
        begun = time.monotonic()
        assert list(live) == [] and time.monotonic() - begun < 2
    source = LiveSource(numbered, SPEC)
    for count, _ in enumerate(source, start=1):
        if count == 3:
            source.stop()
    assert count == 3
    with pytest.raises(UsageError, match="has been read"):
        list(source)


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"reconnect": -1}, {"realtime": True, "keep_all": True}]
)
def test_wrong_values_are_refused(options: dict) -> None:
    with pytest.raises(UsageError):
        LiveSource("-", SPEC, **options)
    with pytest.raises(UsageError, match="flow"):
        LiveSource("-", ClipSpec(4, modality="flow"))


def test_memory_of_a_long_stream_stays(tmp_path: Path) -> None:
    """Frames wait in a short queue, however fast they come."""
    path = video_files.write(tmp_path / "long.ts", "mpeg2video", frames=600, rate=25)
    spec = ClipSpec(8, 25.0, (64, 96), framing="stretch")
    with Server(over_tcp(path.read_bytes())) as server:
        live = LiveSource(server.url(), spec, reconnect=0)
        for count, _ in enumerate(live, start=1):
            assert len(live._queue) <= 32
            if count == 50:
                time.sleep(0.5)  # the source waits
    assert live.frames + live.dropped == 600
