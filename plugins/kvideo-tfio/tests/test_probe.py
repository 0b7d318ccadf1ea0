"""Whether the decoder works is found out by decoding, when it is asked for."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from kvideo_tfio import decoder, native
from kvideo_tfio.native import Stream, TfioUnavailableError

from kvideo.cli import cli
from kvideo.registry import DECODERS, find


def test_it_is_registered_and_works() -> None:
    entry = find(DECODERS, "tfio")
    assert entry.distribution == "kvideo-tfio"
    assert entry.load() is decoder.open_video
    decoder.probe()


def test_doctor_shows_it() -> None:
    found = json.loads(CliRunner().invoke(cli, ["doctor", "--json"]).stdout)["findings"]
    (mine,) = [each for each in found if each["name"].strip() == "tfio"]
    assert mine["value"].startswith("works: ") and not mine["problem"]


def test_wrong_pictures_are_found_out(monkeypatch) -> None:
    right = Stream.next
    monkeypatch.setattr(Stream, "next", lambda self: right(self)[:, :, ::-1])
    with pytest.raises(TfioUnavailableError, match="differ from PyAV's.*Use --decoder pyav"):
        decoder.probe()


def test_lost_pictures_are_found_out(monkeypatch) -> None:
    right = Stream.next
    monkeypatch.setattr(Stream, "next", lambda self: right(self)[:0])
    with pytest.raises(TfioUnavailableError, match="of 9 frames made to try it, it gives 0"):
        decoder.probe()


def test_what_is_missing_is_named(monkeypatch) -> None:
    def lacks(name: str):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(native, "version", lacks)
    with pytest.raises(TfioUnavailableError, match="pip install tensorflow-io==0.37.1"):
        native._load.__wrapped__()
    monkeypatch.setattr(native, "version", lambda name: "0.99")
    with pytest.raises(TfioUnavailableError, match="needs tensorflow-io 0.37.1, and this is 0.99"):
        native._load.__wrapped__()
    monkeypatch.setattr(native.platform, "machine", lambda: "aarch64")
    with pytest.raises(TfioUnavailableError, match="needs Linux on x86-64"):
        native._load.__wrapped__()


def test_a_damaged_decord_is_named(monkeypatch, tmp_path) -> None:
    class Damaged:
        def locate_file(self, name: str):
            return tmp_path / name

    monkeypatch.setattr(native, "distribution", lambda name: Damaged())
    with pytest.raises(TfioUnavailableError, match="decord's libz is missing"):
        native._load_ffmpeg()


def run(code: str, folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


def test_a_process_with_another_tensorflow_is_told_so_at_once(tmp_path: Path) -> None:
    """The command ends with one sentence, before it looks at any data."""
    done = run(
        "import sys, tensorflow as tf\n"
        "tf.__version__ = '2.18.0'\n"
        "from kvideo.cli import main\n"
        "sys.argv = ['kvideo', 'fit', 'demo', '--model', 'c3d', '--decoder', 'tfio']\n"
        "main()\n",
        tmp_path,
    )
    assert done.returncode == 1, done.stderr
    assert "needs TensorFlow 2.17.*, and this is 2.18.0" in done.stderr
    assert "Use --decoder pyav" in done.stderr and "Traceback" not in done.stderr


def test_without_decord_the_library_is_named(tmp_path: Path) -> None:
    """Where the system has no FFmpeg 4 of its own."""
    done = run(
        "import kvideo_tfio.native as native\n"
        "native._load_ffmpeg = lambda: False\n"
        "try:\n"
        "    native.operations()\n"
        "except native.TfioUnavailableError as error:\n"
        "    print(error)\n"
        "else:\n"
        "    print('the system has one')\n",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    if "the system has one" not in done.stdout:
        assert "libavformat.so.58" in done.stdout and "pip install decord==0.6.0" in done.stdout
