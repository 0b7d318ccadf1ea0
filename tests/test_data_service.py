"""A data service as real processes on loopback: workers come and go, the dispatcher too."""

import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from kvideo.clip_spec import ClipSpec
from kvideo.data.annotations import read_data
from kvideo.data.sampling import Augmentation
from kvideo.data.shards.plan import ShardSettings, plan_shards
from kvideo.data.shards.service import ServiceSource, parse_address, wait_for
from kvideo.data.shards.writing import prepare, write_shards
from kvideo.errors import KVideoError, UsageError
from kvideo.ports import check_port

SPEC = ClipSpec(2, frame_rate=10, size=(16, 16))
RECORDS = 60


class Servers:
    """Starts `kvideo serve-data`, waits for its line, and ends what is left."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes = folder, []
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            self.port = probe.getsockname()[1]
        self.address = f"grpc://localhost:{self.port}"

    def start(self, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-c", "from kvideo.cli import main; main()", "serve-data"]
        process = subprocess.Popen(
            [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.processes.append(process)
        return process

    def dispatcher(self) -> subprocess.Popen:
        work_dir = str(self.folder / "journal")
        return self.start("--dispatcher", "--port", str(self.port), "--work-dir", work_dir)

    def worker(self) -> subprocess.Popen:
        return self.start("--worker", "--dispatcher-address", self.address)

    def __enter__(self) -> "Servers":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
            process.stdout.close()


def ready(process: subprocess.Popen) -> None:
    line = process.stdout.readline()
    assert "Ctrl-C ends it" in line, line


@pytest.fixture(scope="module")
def many(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards with sixty records: a list that names the twelve videos five times each."""
    folder = tmp_path_factory.mktemp("many")
    lines = ["path,label,start,end"]
    for start in range(RECORDS // 12):
        for path in sorted(tiny_videos.glob("*/*.mp4")):
            lines.append(f"{path},{path.parent.name},{start / 10},1.2")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    plan = plan_shards(folder / "list.csv", ShardSettings(num_shards=3, short_side=16))
    out = prepare(plan, folder / "shards")
    write_shards(plan.shards, plan, out)
    return folder / "shards"


class Counting(ServiceSource):
    """Keeps the numbers of the records that came."""

    def took(self, numbers: np.ndarray) -> None:
        self.came.update(numbers.tolist())
        super().took(numbers)


@pytest.mark.slow
def test_each_video_once_with_workers_coming_and_going_and_a_dispatcher_that_restarts(
    many: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    with Servers(tmp_path) as servers:
        dispatcher = servers.dispatcher()
        first, second = servers.worker(), servers.worker()  # they wait for the dispatcher
        for process in (dispatcher, first, second):
            ready(process)
        source = Counting(
            read_data(many), SPEC, Augmentation(), say=said.append, service=servers.address
        )

        source.came = Counter()
        batches = [labels.numpy() for _, labels in source.batches(8, epoch=0)]
        assert [len(labels) for labels in batches] == [8] * 8
        assert source.came.pop(-1) == 4  # they fill up the last batch
        assert (np.concatenate(batches) == -1).sum() == 4
        assert source.came == dict.fromkeys(range(RECORDS), 1)
        assert source.missed == {0: 0} and not said

        source.came = Counter()
        third = None
        for step, _ in enumerate(source.batches(4, epoch=1)):
            if step == 2:  # one joins
                third = servers.worker()
            if step == 5:  # the dispatcher goes away and comes back
                dispatcher.kill()
                dispatcher.wait()
                dispatcher = servers.dispatcher()
            if step == 7:
                ready(dispatcher)
                ready(third)
            time.sleep(0.05)
        assert source.came == dict.fromkeys(range(RECORDS), 1)
        assert source.missed[1] == 0

        source.came = Counter()
        for step, _ in enumerate(source.batches(4, epoch=2)):
            if step == 3:  # one leaves without a word, with what it has been given
                second.send_signal(signal.SIGKILL)
                second.wait()
        source.came.pop(-1, None)
        assert set(source.came.values()) == {1}  # nothing twice
        assert source.missed[2] == RECORDS - len(source.came)
        assert len(source.came) >= 16  # those before it left
        assert len(said) == (source.missed[2] > 0)

        source.came = Counter()  # the others go on without it
        assert len(list(source.batches(4, epoch=3))) == RECORDS // 4
        assert source.came == dict.fromkeys(range(RECORDS), 1)


def test_mistakes_are_sentences() -> None:
    for address in ("localhost:1", "grpc://localhost", "http://localhost:1", "grpc://:x"):
        with pytest.raises(UsageError, match="grpc://HOST:PORT"):
            parse_address(address)
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(KVideoError, match=f"port {port}"):
            check_port(port, "Take another.")
    with pytest.raises(KVideoError, match="kvideo serve-data --dispatcher"):
        wait_for(f"grpc://localhost:{port}", 0.0)
