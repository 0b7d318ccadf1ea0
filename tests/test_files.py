"""Files appear whole or not at all."""

import os
import shutil
import stat
import subprocess
import sys
import time

import pytest

from kvideo.errors import KVideoError, UsageError
from kvideo.files import (
    atomic_path,
    check_writable,
    is_disk_full,
    make_folder,
    remove_abandoned,
    write_bytes_atomic,
    write_text_atomic,
)


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "a.json"
    write_text_atomic(path, "one\n")
    assert path.read_bytes() == b"one\n"
    write_text_atomic(str(path), "größer")
    assert path.read_text("utf-8") == "größer"
    write_bytes_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert names(tmp_path) == ["a.json"]


def test_undecodable_file_names_can_be_written(tmp_path):
    write_text_atomic(tmp_path / "a.txt", os.fsdecode(b"caf\xe9.mp4"))
    assert (tmp_path / "a.txt").read_text("utf-8") == "caf\\udce9.mp4"


def test_the_old_file_stays_until_the_block_ends(tmp_path):
    path = tmp_path / "model.weights.h5"
    path.write_text("old")
    with atomic_path(path) as temporary:
        assert temporary.parent == tmp_path and temporary.name.endswith("model.weights.h5")
        assert temporary.name.startswith(".tmp-") and not temporary.exists()
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["model.weights.h5"]


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), OSError(5, "elsewhere")])
def test_a_failing_block_changes_nothing_and_its_error_passes(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)) as caught, atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert caught.value is error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_modes_follow_the_umask_and_the_file_that_was_there(tmp_path):
    path = tmp_path / "a.txt"
    before = os.umask(0o022)
    try:
        write_text_atomic(path, "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    path.chmod(0o640)
    write_text_atomic(path, "y")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_symbolic_link_is_followed(tmp_path):
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "there" / "real.txt")
    write_text_atomic(link, "x")
    assert link.is_symlink() and (tmp_path / "there" / "real.txt").read_text() == "x"


def test_long_names(tmp_path):
    path = tmp_path / ("é" * 120 + ".txt")
    write_text_atomic(path, "x")
    assert path.read_text() == "x"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_full_disk_is_one_sentence(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(KVideoError, match=r"report\.html: the disk is full") as caught:
        with atomic_path(path) as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_bytes(b"x" * 100)
    assert is_disk_full(caught.value.__cause__)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["report.html"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_one_inside_another_names_the_file_that_the_user_knows(tmp_path):
    with pytest.raises(KVideoError, match=r"cannot write \S*/model\.keras: the disk") as caught:
        with atomic_path(tmp_path / "model.keras") as outer:
            outer.write_text("whole")
            with atomic_path(outer) as inner:
                inner.symlink_to("/dev/full")
                inner.write_text("x")
    assert ".tmp-" not in str(caught.value)
    assert names(tmp_path) == []


def test_a_size_limit_in_a_process_of_its_own(tmp_path):
    pytest.importorskip("resource")
    code = (
        "import resource, sys; from kvideo.errors import KVideoError; from kvideo.files import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_bytes_atomic(sys.argv[1], b'x' * 100_000)\n"
        "except KVideoError as error: print(error); sys.exit(error.exit_status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "big.bin"], capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert "big.bin: the disk is full" in done.stdout
    assert names(tmp_path) == []


def test_a_full_disk_in_another_library_s_words(tmp_path):
    with pytest.raises(KVideoError, match="the disk is full"), atomic_path(tmp_path / "a"):
        raise RuntimeError("Unable to write dataset (errno = 28, 'No space left on device')")


def test_a_missing_folder_is_one_sentence_everywhere(tmp_path, monkeypatch):
    path = tmp_path / "nowhere" / "a.txt"
    sentence = f"^cannot write {path}: there is no folder {path.parent}\\.$"

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    with pytest.raises(UsageError, match=sentence):
        write_text_atomic(path, "x")
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write anywhere
    monkeypatch.setattr(os, "mkdir", refuse)
    for function in (check_writable, make_folder):
        with pytest.raises(UsageError, match=sentence):
            function(path)
        with pytest.raises(KVideoError) as caught:
            function(tmp_path / "forbidden")
        assert caught.value.exit_status == 1


def test_other_things_that_cannot_be_written(tmp_path):
    with pytest.raises(KVideoError, match="there is no folder .*nowhere"):
        write_text_atomic(tmp_path / "nowhere" / "a.txt", "x")
    with pytest.raises(KVideoError, match="it is a folder"):
        write_text_atomic(tmp_path, "x")
    with pytest.raises(KVideoError, match="nothing was written"), atomic_path(tmp_path / "a.txt"):
        pass
    with pytest.raises(KVideoError, match=r"cannot write .*a\.txt: is a directory"):
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.mkdir()
            try:
                temporary.write_text("x")
            finally:
                temporary.rmdir()


def test_a_folder_is_seen_to_be_writable_without_making_it(tmp_path):
    check_writable(tmp_path / "new" / "deep")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(KVideoError, match="cannot write into the folder .*file"):
        check_writable(tmp_path / "file" / "inside")


KILLED = """
import os, sys
from kvideo.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os._exit(9)
"""


@pytest.mark.skipif(os.name != "posix", reason="other systems do not tell whether a process runs")
def test_what_a_killed_process_left_goes_with_the_next_writing(tmp_path):
    path = tmp_path / "a.txt"
    subprocess.run([sys.executable, "-c", KILLED, path])
    (left,) = names(tmp_path)
    assert left.startswith(".tmp-") and left.endswith("a.txt")
    # A process that lives is writing just now, and nobody knows of one in another container.
    living = left.replace(f"-{left.split('-')[2]}-", f"-{os.getpid()}-")
    elsewhere = left.replace(left.split("-")[1], "00000000")
    for name in (living, elsewhere):
        shutil.copy(tmp_path / left, tmp_path / name)
    write_text_atomic(tmp_path / "b.txt", "whole")
    assert names(tmp_path) == sorted([living, elsewhere, "b.txt"])


def test_what_nobody_has_touched_for_an_hour_is_abandoned(tmp_path):
    folders = [".tmp-0123abcd-saved", ".tmp-0123abcd-busy", ".tmp-0123abcd-old"]
    kept = [".tmp-of-somebody-else", "0123abcd-a.txt", ".tmp-0123abcd-young.onnx"]
    for name in folders:
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "data").write_text("x")
    for name in (".tmp-0123abcd-model.onnx", ".tmp-00000000-17-0123abcd-model.onnx", *kept):
        (tmp_path / name).write_text("x")
    then = time.time() - 3700
    for path in [*tmp_path.rglob("*")]:
        if path.parent.parent.name != folders[1] and "young" not in path.name:
            os.utime(path, (then, then))
    remove_abandoned(tmp_path)
    assert names(tmp_path) == sorted([*kept, *folders[1:]])
    remove_abandoned(tmp_path / "nowhere")
