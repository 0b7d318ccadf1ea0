"""Several processes and devices that train as one: equality, faults, wrong settings."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import drifting, write_video

import kvideo
from kvideo.cluster import Addresses, Cluster, find_addresses
from kvideo.cluster.addresses import parse_tf_config
from kvideo.cluster.launcher import Launcher
from kvideo.cluster.messages import pack, unpack
from kvideo.errors import KVideoError, UsageError
from kvideo.hardware import join_cluster
from kvideo.ports import check_port, free_ports
from kvideo.results import VideoResult

# -- who takes part --------------------------------------------------------------------------------


def tf_config(kind: str = "worker", index: int = 0, **cluster: list[str]) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


def test_tf_config_tells_who_takes_part() -> None:
    hosts = ["a:1", "b:2"]
    assert parse_tf_config(tf_config(index=1, worker=hosts)) == Addresses(("a:1", "b:2"), 1)
    with_chief = parse_tf_config(tf_config(index=1, chief=["c:3"], worker=hosts))
    assert with_chief == Addresses(("c:3", "a:1", "b:2"), 2)
    assert parse_tf_config(Addresses(("a:1", "b:2"), 1).to_json()).index == 1
    assert find_addresses({}) is None
    assert find_addresses({"TF_CONFIG": tf_config(worker=["a:1"])}) is None  # alone


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "must have the form"),
        ('{"cluster": {"worker": ["a:1"]}}', "must have the form"),
        (tf_config(index=2, worker=["a:1", "b:2"]), "is worker 2, which the cluster does not have"),
        (tf_config("chief", worker=["a:1", "b:2"]), "is chief 0"),
        (tf_config(worker=["a:1", "b"]), 'the address "b"; it must be host:port'),
        (tf_config(worker=["a:1", "b:99999"]), "must be host:port"),
        (tf_config(worker=["a:1", "a:1"]), "the same address"),
        (tf_config(ps=["a:1"], worker=["b:1"]), 'tasks of type "ps"'),
    ],
)
def test_a_wrong_tf_config_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_addresses({"TF_CONFIG": text})


def test_slurm_tells_who_takes_part() -> None:
    """TensorFlow's resolver reads the variables of a step of two tasks on two hosts."""
    code = "from kvideo.cluster import find_addresses; print(find_addresses())"
    slurm = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "node[1-2]",
        "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
        "SLURM_PROCID": "1",
    }
    environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**environment, **slurm}, capture_output=True, text=True
    )
    assert "hosts=('node1:8888', 'node2:8888'), index=1" in done.stdout, done.stderr
    slurm["SLURM_STEP_NODELIST"] = "node[1-"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**environment, **slurm}, capture_output=True, text=True
    )
    assert "UsageError: SLURM's variables do not describe a cluster" in done.stderr


def test_a_taken_port_is_told() -> None:
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(KVideoError, match=f"on port {port}: address already in use. Take an"):
            check_port(port, "Take another.")
        with pytest.raises(KVideoError, match=f"on port {port}.*this worker has in TF_CONFIG"):
            join_cluster(Addresses((f"127.0.0.1:{port}", "127.0.0.1:1"), 0))
    for free in free_ports(3):
        check_port(free, "")


def test_multiworker_needs_workers(tiny_videos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(UsageError, match="kvideo launch --workers 2 -- fit"):
        kvideo.fit(tiny_videos, "slow_fusion", out=tmp_path / "run", strategy="multiworker")
    assert not (tmp_path / "run").exists()


def test_results_come_back_from_bytes() -> None:
    results = [
        VideoResult("a.mp4", (1,), np.array([0.25, 0.75]), start=1.5),
        VideoResult("b.mp4", (), None, "cut off", "truncated"),
    ]
    one, two = unpack(VideoResult, pack(results))
    np.testing.assert_array_equal(one.probabilities, results[0].probabilities)
    assert (one.path, one.labels, one.start, one.end) == ("a.mp4", (1,), 1.5, None)
    assert two.probabilities is None and two.reason == "truncated" and two.labels == ()


def test_one_process_alone_needs_nothing() -> None:
    alone = Cluster()
    assert alone.gather({"a": [1]}) == [{"a": [1]}] and alone.is_chief
    with pytest.raises(UsageError, match="wrong"), alone.together():
        raise UsageError("wrong")


# -- real processes on loopback --------------------------------------------------------------------

DROPOUT = ["--set", "dropout=0.5"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven training videos and five to test on: neither divides by two workers or by four."""
    folder = tmp_path_factory.mktemp("videos")
    for part, count in (("train", (6, 5)), ("test", (3, 2))):
        for (name, step), number in zip((("left", -2), ("right", 2)), count, strict=True):
            for seed in range(number):
                frames = drifting(step, seed + 10 * (part == "test"))
                write_video(folder / part / name / f"{seed}.mp4", frames)
    return folder


def arguments(videos: Path, out: str, *more: str, epochs: int = 7) -> list[str]:
    return [
        *("fit", str(videos / "train"), "--val", str(videos / "test"), "--out", out),
        *("--model", "slow_fusion", "--set", "widths=[4,6]", *DROPOUT),
        *("--frames", "4", "--size", "16", "-b", "4", "--epochs", str(epochs)),
        *("--precision", "float32", "--deterministic", "--seed", "5", "--workers", "2", *more),
    ]


def start(command: list[str], cwd: Path, program: str = "", **environment: str):
    code = f"{program}\nfrom kvideo.cli import main\nmain()"
    kept = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *command],
        cwd=cwd,
        env={**kept, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen, status: int = 0, seconds: float = 300) -> str:
    text, _ = process.communicate(timeout=seconds)
    assert process.returncode == status, text
    assert "Traceback" not in text, text
    return text


def newest(run: Path) -> dict[str, np.ndarray]:
    with np.load(max((run / "checkpoint").glob("step-*.npz"))) as archive:
        return {name: archive[name] for name in archive.files if name not in ("digest", "state")}


def assert_same(one: Path, two: Path) -> None:
    """Every variable of model and optimizer, and the history."""
    first, second = newest(one), newest(two)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], atol=1e-5, err_msg=name)
    for a, b in zip(history(one), history(two), strict=True):
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert float(a[name]) == pytest.approx(float(b[name]), abs=1e-5)


def history(run: Path) -> list[dict[str, str]]:
    with open(run / "history.csv") as file:
        return list(csv.DictReader(file))


TWO_DEVICES = """
import tensorflow as tf
device = tf.config.list_physical_devices("CPU")[0]
halves = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(device, halves)
"""


@pytest.fixture(scope="module")
def alone(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 steps in one process on one device: what all others are compared with."""
    folder = tmp_path_factory.mktemp("alone")
    finish(start(arguments(videos, "run"), folder))
    return folder / "run"


@pytest.mark.slow
def test_two_devices_train_like_one(videos: Path, alone: Path, tmp_path: Path) -> None:
    command = arguments(videos, "run", "--strategy", "mirrored")
    assert "2 device(s)" in finish(start(command, tmp_path, TWO_DEVICES))
    assert_same(tmp_path / "run", alone)
    assert max(newest(alone)) and len(history(alone)) == 7


@pytest.mark.slow
def test_two_devices_train_one_model_after_the_other(videos: Path, tmp_path: Path) -> None:
    """What the devices add up in one run does not get into the next one, of other steps."""
    program = f"""{TWO_DEVICES}
import kvideo
def fit(**parts):
    return kvideo.fit(
        {str(videos / "train")!r}, "slow_fusion", model_options={{"widths": (4, 6)}},
        num_frames=4, size=(16, 16), batch_size=4, epochs=2, val_fraction=0, overwrite=True,
        strategy="mirrored", precision="float32", deterministic=True, out="run", **parts
    ).history[-1]["loss"]
first = fit()
fit(accumulate=2, optimizer="lamb")
fit(unfreeze_epochs=1, ema=0.9, repeats=2)
print("equal" if fit() == first else "not equal", flush=True)
raise SystemExit
"""
    assert "\nequal\n" in finish(start([], tmp_path, program))


@pytest.mark.slow
def test_a_killed_worker_is_started_again_and_nothing_is_lost(
    videos: Path, alone: Path, tmp_path: Path
) -> None:
    """Two processes, one of which is killed in the middle of an epoch, end as one alone does."""
    command = ["launch", "--workers", "2", "--restarts", "2", "--", *arguments(videos, "run")]
    launcher = start([*command, "--checkpoint-minutes", "0.0001"], tmp_path)
    checkpoints = tmp_path / "run" / "checkpoint"
    end = time.monotonic() + 200
    while not list(checkpoints.glob("step-*[1-9].npz")):
        assert launcher.poll() is None and time.monotonic() < end, launcher.communicate()
        time.sleep(0.05)
    os.kill(worker_process(launcher.pid, 1), signal.SIGKILL)
    text = finish(launcher)
    assert "Worker 1 was killed by SIGKILL." in text
    assert "Starting all 2 workers again (2 of 2 left)." in text
    assert re.search(r"another worker is gone or does not answer \(epoch \d, step \d\)", text)
    assert "Resuming run at epoch" in text and "[worker 1] Traceback" not in text
    assert_same(tmp_path / "run", alone)
    assert len(list(checkpoints.iterdir())) == 2
    # One writes, and the others' lines are marked.
    assert text.count("Training on 11 videos") == 2


def worker_process(launcher: int, index: int) -> int:
    """The process number of a worker."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (path / "environ").read_bytes()
        except OSError:
            continue
        if parent == launcher and f'"worker", "index": {index}'.encode() in variables:
            return int(path.name)
    raise AssertionError("no such worker")


@pytest.mark.slow
def test_workers_test_a_model_together(videos: Path, alone: Path, tmp_path: Path) -> None:
    (videos / "test" / "left" / "bad.mp4").write_bytes(b"no video")
    try:
        command = ["evaluate", str(alone), str(videos / "test"), "--json", "--out"]
        together = start(["launch", "-n", "2", "--", *command, "together"], tmp_path)
        text = finish(together, 0)
        finish(start([*command, "one"], tmp_path))
    finally:
        (videos / "test" / "left" / "bad.mp4").unlink()
    assert text.count('"figures"') <= 1
    files = [tmp_path / name / "evaluation.json" for name in ("one", "together")]
    one, two = (json.loads(file.read_text()) for file in files)
    assert one["metrics"] == two["metrics"]
    for a, b in zip(one["videos"], two["videos"], strict=True):
        assert a["path"] == b["path"] and a.get("error") == b.get("error")
        if a.get("probabilities"):
            np.testing.assert_allclose(a["probabilities"], b["probabilities"], atol=1e-6)


@pytest.mark.slow
def test_workers_with_other_settings_are_found_out(videos: Path, tmp_path: Path) -> None:
    hosts = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = [
        start(
            arguments(videos, "run", "--lr", f"0.{index + 1}"),
            tmp_path,
            TF_CONFIG=tf_config(index=index, worker=hosts),
        )
        for index in range(2)
    ]
    for process in processes:
        text = finish(process, 1)
        assert "different settings: learning_rate is 0.1 for worker 0 (chief), 0.2 for" in text


@pytest.mark.slow
def test_workers_with_other_data_are_found_out(videos: Path, tmp_path: Path) -> None:
    hosts = [f"127.0.0.1:{port}" for port in free_ports(2)]
    other = tmp_path / "other" / "train"
    for name in ("left", "right"):
        for path in (videos / "train" / name).iterdir():
            if path.stem != "3":
                (other / name).mkdir(parents=True, exist_ok=True)
                (other / name / path.name).write_bytes(path.read_bytes())
    processes = []
    for index, data in enumerate((videos / "train", other)):
        (tmp_path / str(index)).mkdir()
        (tmp_path / str(index) / "data").symlink_to(data)
        command = ["fit", "data", "-m", "slow_fusion", "--out", "run", "--val-fraction", "0"]
        config = {"TF_CONFIG": tf_config(index=index, worker=hosts)}
        processes.append(start(command, tmp_path / str(index), **config))
    for process in processes:
        text = finish(process, 1)
        assert "the workers have different data: worker 0 (chief) has 11 videos" in text
        assert "worker 1 has 9 videos" in text
    assert not (tmp_path / "0" / "run").exists()


def test_a_chief_that_never_comes_is_named(videos: Path, tmp_path: Path) -> None:
    hosts = [f"127.0.0.1:{port}" for port in free_ports(2)]
    program = "import kvideo.hardware; kvideo.hardware._JOIN_SECONDS = 1"
    config = {"TF_CONFIG": tf_config(index=1, worker=hosts)}
    text = finish(start(arguments(videos, "run"), tmp_path, program, **config), 75)
    assert f"did not all come together in time: nobody answers at {hosts[0]}." in text


def test_the_launcher_says_what_it_cannot_run(tmp_path: Path) -> None:
    text = finish(start(["launch", "--", "predict", "x.mp4"], tmp_path), 2)
    assert 'launch runs "fit" or "evaluate", not "predict"' in text
    said: list[str] = []
    status = Launcher(["fit", str(tmp_path / "none"), "-m", "slow_fusion"], 2, 3, said.append).run()
    assert status in (1, 2) and not said  # wrong data is not tried again
