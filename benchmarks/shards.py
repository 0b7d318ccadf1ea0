"""Clips per second: originals decoded by the usual pipeline against shards of 128 pixels.

python benchmarks/shards.py DATA [SHARDS [ROUNDS]]

Both give the same clips (16 frames at 8/s, 112×112, random boxes and colours) in batches of 8, on
as many threads as there are processors. Epochs alternate; medians count. SHARDS is made if it is
not there.
"""

import statistics
import sys
import tempfile
import time

import tensorflow as tf

from kvideo.clip_spec import ClipSpec
from kvideo.data.annotations import read_data
from kvideo.data.pipeline import VideoSource, clip_reader
from kvideo.data.sampling import Augmentation
from kvideo.data.shards.layout import stored_in
from kvideo.data.shards.plan import ShardSettings, plan_shards
from kvideo.data.shards.source import ShardSource
from kvideo.data.shards.writing import prepare, write_shards
from kvideo.data.threads import default_workers
from kvideo.data.training_clips import TrainingClips

SPEC = ClipSpec(16, frame_rate=8.0, size=(112, 112))


def epoch(source, number):
    """Wall clock and processor seconds of an epoch, and its clips."""
    wall, cpu, clips = time.perf_counter(), time.process_time(), 0
    for batch, _ in source.batches(8, epoch=number):
        clips += len(batch)
    return time.perf_counter() - wall, time.process_time() - cpu, clips


def main(data, folder=None, rounds=5):
    folder = folder or tempfile.mkdtemp(prefix="kvideo-shards-")
    if not stored_in(folder):
        plan = plan_shards(data, ShardSettings(short_side=128, num_shards=4))
        begun = time.perf_counter()
        report = write_shards(plan.shards, plan, prepare(plan, folder))
        seconds = time.perf_counter() - begun
        print(f"made {report.made} files, {report.num_bytes / 1e6:.0f} MB, in {seconds:.0f} s")
    originals, augmentation = read_data(data), Augmentation()
    clips = TrainingClips(originals, clip_reader(SPEC), augmentation, workers=default_workers())
    sources = {
        "originals": VideoSource(clips),
        "shards": ShardSource(read_data(folder), SPEC, augmentation),
    }
    figures = {name: [] for name in sources}
    for number in range(int(rounds) + 1):
        for name, source in sources.items():
            result = epoch(source, number)
            if number:  # the first one warms up
                figures[name].append(result)
            print(
                f"{name}, epoch {number}: {result[0]:.1f} s, processor {result[1]:.1f} s",
                flush=True,
            )
    for name, rows in figures.items():
        wall = statistics.median(clips / seconds for seconds, _, clips in rows)
        cpu = statistics.median(1000 * seconds / clips for _, seconds, clips in rows)
        print(f"{name:9}  {wall:7.1f} clips/s  {cpu:7.1f} ms of processor time a clip")
    ratios = [(a[0] / b[0], a[1] / b[1]) for a, b in zip(*figures.values(), strict=True)]
    wall, cpu = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(f"shards are {wall:.1f} times as fast; {cpu:.1f} times by processor time")


if __name__ == "__main__":
    tf.config.set_visible_devices([], "GPU")
    main(*sys.argv[1:])
