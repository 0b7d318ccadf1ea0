"""What SIGTERM does to a command: it cleans up, says so, and ends with status 143."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import drifting, write_video

import kvideo
from kvideo.clip_spec import ClipSpec, Views
from kvideo.saving import ModelInfo, save_model
from kvideo.training import interruption

COMMAND = [sys.executable, "-c", "from kvideo.cli import main; main()"]


def test_a_signal_is_noticed_while_clips_do_not_come(monkeypatch) -> None:
    monkeypatch.setattr(interruption, "PATIENCE", 0.1)
    never = threading.Event()
    with interruption.Interruptible() as interrupted:
        assert interrupted.call(lambda: 3) == 3
        with pytest.raises(ZeroDivisionError):
            interrupted.call(lambda: 1 / 0)
        killer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
        killer.start()
        with pytest.raises(interruption.StillWaiting):
            interrupted.call(never.wait)
        assert interrupted.number == signal.SIGTERM
        killer.join()
    never.set()


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts commands, or other programs, that do not outlive the test."""
    begun: list[subprocess.Popen] = []

    def run(*arguments: str | Path, program: list[str] = COMMAND) -> subprocess.Popen:
        command = [*program, *map(str, arguments)]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        pipe = subprocess.PIPE
        options = {"env": environment, "stdout": pipe, "stderr": pipe, "text": True}
        begun.append(subprocess.Popen(command, **options))
        return begun[-1]

    yield run
    for process in begun:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], object], process: subprocess.Popen) -> None:
    end = time.monotonic() + 90
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def temporary_files(folder: Path) -> list[Path]:
    return list(folder.rglob(".tmp-*"))


def test_features_leave_nothing_behind(start, tmp_path: Path) -> None:
    model = kvideo.models.slow_fusion(2, input_shape=(4, 16, 16, 3), widths=(4, 6))
    info = ModelInfo(ClipSpec(4, 10.0, (16, 16)), ("a", "b"), views=Views(3))
    save_model(model, tmp_path / "model.keras", info)
    video = write_video(tmp_path / "videos" / "long.mp4", drifting(1, 0, frames=400))
    out = tmp_path / "out"
    command = ["features", tmp_path / "model.keras", video, "-o", out, "-b", 1, "--clips", 9000]
    process = start(*command)
    wait_for(lambda: temporary_files(out), process)
    process.terminate()
    process.terminate()  # as `timeout` does
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    assert said.splitlines()[-1] == "Terminated." and "Traceback" not in said
    assert "the same command goes on from there" in said
    assert temporary_files(out) == []


# A library may make an error of its own of what a signal raises inside of it.
UNWINDING = """
import contextlib, os, signal, sys, time
import click
import kvideo.cli
import kvideo.errors

@contextlib.contextmanager
def slow():
    try:
        yield
    finally:
        time.sleep(0.3)
        print("cleaned up")

@kvideo.cli.cli.command("wait")
def wait():
    with slow():
        print("ready", flush=True)
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            if instead := os.environ.get("INSTEAD"):
                raise {"TypeError": TypeError, "KVideoError": kvideo.errors.KVideoError}[instead]
            raise

kvideo.cli.COMMANDS["wait"] = ""
kvideo.cli.LazyGroup.get_command = lambda self, context, name: wait
"""


@pytest.mark.parametrize(
    ("prepare", "number", "status", "word"),
    [
        ("", signal.SIGTERM, 143, "Terminated."),
        ("", signal.SIGINT, 1, "Interrupted."),
        ("os.environ['INSTEAD'] = 'TypeError';", signal.SIGTERM, 143, "Terminated."),
        ("os.environ['INSTEAD'] = 'TypeError';", signal.SIGINT, 1, "Interrupted."),
        ("os.environ['INSTEAD'] = 'KVideoError';", signal.SIGTERM, 143, "Terminated."),
        ("signal.signal(signal.SIGTERM, lambda *_: os._exit(7));", signal.SIGTERM, 7, ""),
    ],
)
def test_a_signal_unwinds(start, prepare: str, number: int, status: int, word: str) -> None:
    # A program that is started in the background has SIGINT ignored.
    prepare = f"signal.signal(signal.SIGINT, signal.default_int_handler);{prepare}"
    code = f"{UNWINDING}\n{prepare}\nkvideo.cli.main()"
    process = start("wait", program=[sys.executable, "-c", code])
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    if number == signal.SIGTERM and word:
        time.sleep(0.1)
        process.send_signal(number)  # must not stop what cleans up
    out, said = process.communicate(timeout=20)
    assert (process.returncode, said.strip()) == (status, word)
    assert out == ("cleaned up\n" if word else "")


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the system has no /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_benchmark_ends_the_process_that_measures(start, number: int) -> None:
    process = start("benchmark", "model", "slow_fusion", "--repeats", 100_000)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_for(lambda: children.read_text(), process)
    child = Path("/proc", children.read_text().split()[0])
    wait_for(lambda: b"kvideo.measuring" in (child / "cmdline").read_bytes(), process)
    if number == signal.SIGKILL:  # then nobody but the child itself can end it
        wait_for(lambda: "tensorflow" in (child / "maps").read_text(), process)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == (143 if number == signal.SIGTERM else -number), said
    end = time.monotonic() + 10
    while child.exists() and "State:\tZ" not in (child / "status").read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    if number == signal.SIGTERM:
        assert said.splitlines()[-1] == "Terminated." and "Traceback" not in said
