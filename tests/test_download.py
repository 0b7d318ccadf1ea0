"""Downloads: from a server on this machine that is slow, breaks off, changes, and refuses."""

import hashlib
import json
import multiprocessing
import os
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from torch_files import write_state

import kvideo
from kvideo.errors import DownloadError, KVideoError
from kvideo.registry import MODELS, entries
from kvideo.weights.checkpoints import read_checkpoint
from kvideo.weights.download import ATTEMPTS, cache_folder, fetch
from kvideo.weights.labels import LABEL_SETS, published_class_names
from kvideo.weights.published import PUBLISHED, Published

CONTENT = np.random.default_rng(0).bytes(3_000_000)
FAST = {"pause": 0.01, "quiet": True}


class Server(ThreadingHTTPServer):
    """Serves one file at every path, as its attributes say; notes every request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.etag: str | None = '"one"'
        self.modified: str | None = None
        self.ranges = True
        self.length = True  # whether the answer says its length
        self.break_after: list[int] = []  # bytes after which each of the next answers breaks off
        self.statuses: list[int] = []  # of the next answers
        self.headers: dict[str, str] = {}
        self.delay = 0.0  # seconds before every piece
        self.requests: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/zoo/slow.pyth"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server = self.server
        server.requests.append(dict(self.headers))
        self.close_connection = True
        if server.statuses and (status := server.statuses.pop(0)) != 200:
            self.send_response(status)
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = self._start()
        if start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        body = server.content[start:]
        if start:
            whole = len(server.content)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        for name, value in (("ETag", server.etag), ("Last-Modified", server.modified)):
            if value:
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        if server.break_after:
            body = body[: server.break_after.pop(0)]
        for begin in range(0, len(body), 200_000):
            time.sleep(server.delay)
            self.wfile.write(body[begin : begin + 200_000])

    def _start(self) -> int:
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        same = condition in (None, self.server.etag, self.server.modified)
        return int(wanted[6:-1]) if wanted and same and self.server.ranges else 0


@pytest.fixture
def server():
    with running() as server:
        yield server


@contextmanager
def running():
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def left_in(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_once_and_then_from_the_cache(server, tmp_path):
    path = fetch(server.url, folder=tmp_path, **FAST)
    assert path == tmp_path / "slow.pyth" and path.read_bytes() == CONTENT
    memory = json.loads((tmp_path / "slow.pyth.json").read_text())
    assert memory["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert memory["url"] == server.url and memory["size"] == len(CONTENT)
    assert fetch(server.url, folder=tmp_path, **FAST) == path
    assert len(server.requests) == 1
    assert server.requests[0]["User-Agent"].startswith("kvideo/")
    assert left_in(tmp_path) == {"slow.pyth", "slow.pyth.json", "slow.pyth.lock"}


@pytest.mark.parametrize("validator", ["etag", "modified"])
def test_a_broken_connection_is_continued(server, tmp_path, validator):
    if validator == "modified":
        server.etag, server.modified = None, "Wed, 21 Oct 2015 07:28:00 GMT"
    server.break_after = [1_000_000, 500_000]
    assert fetch(server.url, folder=tmp_path, **FAST).read_bytes() == CONTENT
    assert [request.get("Range") for request in server.requests] == [
        None,
        "bytes=1000000-",
        "bytes=1500000-",
    ]
    assert all(r["If-Range"] == (server.etag or server.modified) for r in server.requests[1:])


def test_a_later_run_continues(server, tmp_path):
    server.break_after = [1_000_000] + [0] * ATTEMPTS
    with pytest.raises(DownloadError, match=r"the connection ended after 1,000,000 of 3,000,000"):
        fetch(server.url, folder=tmp_path, **FAST)
    assert (tmp_path / "slow.pyth.part").stat().st_size == 1_000_000
    assert not (tmp_path / "slow.pyth").exists()
    server.break_after, before = [], len(server.requests)
    assert fetch(server.url, folder=tmp_path, **FAST).read_bytes() == CONTENT
    assert server.requests[before]["Range"] == "bytes=1000000-"
    assert left_in(tmp_path) == {"slow.pyth", "slow.pyth.json", "slow.pyth.lock"}


def test_attempts_are_counted_anew_after_every_byte(server, tmp_path):
    server.break_after = [100_000] * (3 * ATTEMPTS)
    assert fetch(server.url, folder=tmp_path, pause=0.0, quiet=True).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "change", [{"ranges": False}, {"etag": None}, {"etag": 'W/"weak"'}], ids=str
)
def test_what_cannot_be_continued_begins_anew(server, tmp_path, change):
    """No ranges; nothing to tell whether the file is the same; a tag too weak to tell."""
    for name, value in change.items():
        setattr(server, name, value)
    server.break_after = [1_000_000]
    assert fetch(server.url, folder=tmp_path, **FAST).read_bytes() == CONTENT


def test_the_file_changes_while_it_is_fetched(server, tmp_path):
    other = CONTENT[::-1]
    server.break_after = [1_000_000] + [0] * ATTEMPTS
    with pytest.raises(DownloadError):
        fetch(server.url, folder=tmp_path, **FAST)
    server.break_after, server.content, server.etag = [], other, '"two"'
    assert fetch(server.url, folder=tmp_path, **FAST).read_bytes() == other


def test_the_part_is_longer_than_the_file(server, tmp_path):
    server.break_after = [1_000_000] + [0] * ATTEMPTS
    with pytest.raises(DownloadError):
        fetch(server.url, folder=tmp_path, **FAST)
    server.break_after, server.content = [], CONTENT[:500_000]  # under the same tag
    assert fetch(server.url, folder=tmp_path, **FAST).read_bytes() == CONTENT[:500_000]


def test_a_download_that_never_begins_shows_no_progress(server, tmp_path, capsys):
    server.statuses = [404]
    with pytest.raises(DownloadError, match="could not be downloaded"):
        fetch(server.url, folder=tmp_path, pause=0.01)
    assert capsys.readouterr().err == ""


def test_a_length_that_nobody_tells(server, tmp_path):
    server.length = False
    assert fetch(server.url, folder=tmp_path, **FAST).read_bytes() == CONTENT


def test_a_slow_server(server, tmp_path, capsys):
    server.delay = 0.02
    path = fetch(server.url, folder=tmp_path, pause=0.01, timeout=5)
    assert path.read_bytes() == CONTENT
    assert "slow.pyth, MB: 3/3 (100%)" in capsys.readouterr().err


def test_a_server_that_falls_silent(server, tmp_path):
    server.delay = 1.0
    with pytest.raises(DownloadError, match="the server does not answer"):
        fetch(server.url, folder=tmp_path, timeout=0.05, **FAST)
    assert len(server.requests) == ATTEMPTS


def test_passing_refusals_are_waited_out(server, tmp_path):
    server.statuses, server.headers = [503, 429, 500], {"Retry-After": "0"}
    assert fetch(server.url, folder=tmp_path, **FAST).read_bytes() == CONTENT
    assert len(server.requests) == 4


@pytest.mark.parametrize("status", [404, 403, 410])
def test_final_refusals_are_one_sentence(server, tmp_path, status):
    server.statuses = [status]
    with pytest.raises(DownloadError) as caught:
        fetch(server.url, folder=tmp_path, **FAST)
    sentence = str(caught.value)
    assert sentence.startswith(f"{server.url} could not be downloaded: the server answers {status}")
    assert sentence.endswith(f"Fetch it in another way and put it at {tmp_path / 'slow.pyth'}.")
    assert len(server.requests) == 1


def test_a_file_put_there_by_hand(server, tmp_path):
    (tmp_path / "slow.pyth").write_bytes(CONTENT)
    assert fetch(server.url, folder=tmp_path, **FAST).read_bytes() == CONTENT
    assert not server.requests


def test_no_server(tmp_path):
    with running() as gone:
        url = gone.url
    with pytest.raises(DownloadError, match="could not be downloaded: Connection refused"):
        fetch(url, folder=tmp_path, **FAST)
    began = time.monotonic()
    with pytest.raises(DownloadError, match=r"no\.such\.host\.invalid is not found \(no network\?"):
        fetch("https://no.such.host.invalid/a.pth", folder=tmp_path, pause=60, quiet=True)
    assert time.monotonic() - began < 30  # it does not try again


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://a.b/c", "https://a.b/", "x.pth"])
def test_no_address_of_a_file(tmp_path, url):
    with pytest.raises(DownloadError, match="is no address of a file"):
        fetch(url, folder=tmp_path, **FAST)


# What the file should be.


def checksums():
    blob = b"blob %d\0" % len(CONTENT) + CONTENT
    return {
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "md5": hashlib.md5(CONTENT).hexdigest(),
        "git": hashlib.sha1(blob).hexdigest(),
    }


@pytest.mark.parametrize("algorithm", ["sha256", "md5", "git"])
@pytest.mark.parametrize("digits", [8, None])
def test_the_publishers_checksum(server, tmp_path, algorithm, digits):
    right = checksums()[algorithm][:digits]
    checksum = f"{algorithm}:{right}"
    assert fetch(server.url, checksum=checksum, folder=tmp_path / "a", **FAST).exists()
    wrong = f"{algorithm}:{right[:-1]}{'0' if right[-1] != '0' else '1'}"
    with pytest.raises(DownloadError, match=f"is not the published file: its {algorithm} is"):
        fetch(server.url, checksum=wrong, folder=tmp_path / "b", **FAST)
    assert left_in(tmp_path / "b") == {"slow.pyth.lock"}


def test_gits_checksum_is_gits(server, tmp_path):
    server.content = b"hello\n"
    known = "git:ce013625030ba8dba906f756967f9e9ca394464a"  # what `git hash-object` prints
    assert fetch(server.url, checksum=known, folder=tmp_path, **FAST).exists()


def test_changed_content_is_refused(server, tmp_path):
    """Deleted and downloaded again: the hash of the first time is remembered."""
    fetch(server.url, folder=tmp_path, **FAST).unlink()
    server.content, server.etag = CONTENT[::-1], '"two"'
    with pytest.raises(DownloadError) as caught:
        fetch(server.url, folder=tmp_path, **FAST)
    sentence = str(caught.value)
    assert sentence.startswith(f"what {server.url} gives has changed since 20")
    for content in (CONTENT, CONTENT[::-1]):
        assert hashlib.sha256(content).hexdigest() in sentence
    memory = tmp_path / "slow.pyth.json"
    assert f"delete {memory} as well" in sentence
    assert left_in(tmp_path) == {"slow.pyth.json", "slow.pyth.lock"}
    memory.unlink()
    assert fetch(server.url, folder=tmp_path, **FAST).read_bytes() == CONTENT[::-1]


def test_a_damaged_cache_is_noticed(server, tmp_path):
    path = fetch(server.url, folder=tmp_path, **FAST)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(DownloadError, match=rf"{path} has changed .*Delete {path} to download it"):
        fetch(server.url, folder=tmp_path, **FAST)
    path.unlink()
    assert fetch(server.url, folder=tmp_path, **FAST).read_bytes() == CONTENT


@pytest.mark.skipif(os.name != "posix", reason="needs file permissions")
def test_a_cache_that_cannot_be_written(server, tmp_path):
    path = fetch(server.url, folder=tmp_path, **FAST)
    tmp_path.chmod(0o555)
    try:
        assert fetch(server.url, folder=tmp_path, **FAST) == path
        if not os.access(tmp_path, os.W_OK):  # root may write everywhere
            with pytest.raises((KVideoError, PermissionError)):
                fetch(server.url.replace("slow", "fast"), folder=tmp_path, **FAST)
    finally:
        tmp_path.chmod(0o755)
    (tmp_path / "file").write_text("")
    with pytest.raises(KVideoError, match="cannot make the folder"):
        fetch(server.url, folder=tmp_path / "file" / "cache", **FAST)


def _fetch_elsewhere(url, folder):
    fetch(url, folder=folder, pause=0.01, quiet=True)


def test_several_processes_fetch_it_once(server, tmp_path):
    server.delay = 0.05
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_fetch_elsewhere, args=(server.url, tmp_path)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(server.requests) == 1
    assert (tmp_path / "slow.pyth").read_bytes() == CONTENT


# By name, into a model.


def test_the_cache_is_kerass(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "models" / "kvideo"
    monkeypatch.delenv("KERAS_HOME")
    assert cache_folder().parts[-3:] == (".keras", "models", "kvideo")


def test_the_list_of_published_weights():
    models = entries(MODELS)
    for model, by_name in PUBLISHED.items():
        assert models[model].builtin
        for weights in by_name.values():
            assert weights.url.startswith("https://")
            assert not weights.labels or LABEL_SETS[weights.labels] == weights.classes
            algorithm, _, digits = weights.checksum.partition(":")
            assert algorithm in ("", "sha256", "md5", "git")
            assert algorithm != "sha256" or digits in weights.url


@pytest.fixture
def kinetics(server, shared, tmp_path, monkeypatch) -> Server:
    """The server has a narrow Slow with 400 classes, which `slow` takes for its published one."""
    folder = shared / "oracles" / "torch"
    if not folder.is_dir():
        pytest.skip(f"no PyTorch oracles at {folder}")
    state = dict(read_checkpoint(folder / "slow_r50.pyth"))
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    state["blocks.5.proj.weight"] = np.resize(state["blocks.5.proj.weight"], (400, 128))
    state["blocks.5.proj.bias"] = np.resize(state["blocks.5.proj.bias"], 400)
    server.content = write_state(tmp_path / "zoo.pth", state).read_bytes()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setitem(PUBLISHED, "slow", {"kinetics400": Published(server.url)})
    return server


def test_weights_by_name(kinetics, tmp_path, capsys):
    shape = (4, 32, 32, 3)
    model = kvideo.models.slow(400, weights="kinetics400", input_shape=shape)
    assert model.get_layer("stem").filters == 4
    kvideo.save_model(model, tmp_path / "slow.keras")
    info = kvideo.model_info(tmp_path / "slow.keras")
    assert info.class_names[5] == "archery" and len(info.class_names) == 400
    assert info.clip_spec.shape == shape and info.clip_spec.frame_rate == 30 / 8
    assert info.builder.name == "slow" and info.builder.options == {"stem_filters": 4}
    assert len(info.views) == 30
    other = kvideo.models.slow(5, weights="kinetics400", input_shape=shape)
    assert "slow.pyth has 400 classes" in capsys.readouterr().err
    assert not hasattr(other, "kvideo_info")
    np.testing.assert_array_equal(other.get_layer("stem").kernel, model.get_layer("stem").kernel)
    assert len(kinetics.requests) == 1


def test_a_name_converts_and_predicts_at_once(kinetics, tmp_path, tiny_videos):
    result = kvideo.convert("kinetics400", "slow", tmp_path / "slow.keras", size=(32, 32))
    assert result.labels == "kinetics400" and not result.remarks
    video = sorted(tiny_videos.rglob("*.mp4"))[0]
    (prediction,) = kvideo.predict(tmp_path / "slow.keras", [video], num_clips=1, num_crops=1)
    assert prediction.top(1)[0][0] in published_class_names("kinetics400")


def test_a_download_that_fails_says_where_to_put_the_file(kinetics, tmp_path):
    kinetics.statuses = [404]
    with pytest.raises(DownloadError, match=str(tmp_path / "keras" / "models" / "kvideo")):
        kvideo.models.slow(400, weights="kinetics400")
