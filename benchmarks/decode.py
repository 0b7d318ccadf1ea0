"""Decoding 32 frames of a short H.264 clip with two workers: kvideo, decord and torchcodec in turn.

The peers live in an environment of their own (they need other versions of FFmpeg):

    python3.11 -m venv PEERS
    PEERS/bin/pip install decord==0.6.0 torch==2.14.1 torchcodec==0.17.0 numpy
    apt-get install libavcodec59 libavformat59 libavutil57 libavfilter8 libavdevice59 \
        libswscale6 libswresample4
    python benchmarks/decode.py VIDEO --peers PEERS/bin/python

Each decoder runs in a process of its own, which stays alive; the rounds alternate (A B C A B C), so
that a change of the machine's load meets all of them. Throughput is clips per second of wall time
with two threads, each opening the file, reading its clip and closing the file again. Printed are
medians over the rounds, the ratios to each peer round by round, and processor time per clip, which
other programs on the machine disturb less. Before timing, the pixels are compared.

Two threads of one Python hand its lock to each other thousands of times a second, so wall time says
little where other programs want the processors too. On Linux, root can take precedence for a while:

    setsid --wait sh -c 'echo -20 > /proc/self/autogroup; exec python benchmarks/decode.py …'
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np


def kvideo_reader(threads):
    from kvideo.data.decode import open_video

    def read(path, indices, rate):
        with open_video(path, threads=threads) as reader:
            return reader.read([index / rate for index in indices])

    return read


def decord_reader(threads):
    import decord

    def read(path, indices, rate):
        return decord.VideoReader(path, num_threads=threads).get_batch(indices).asnumpy()

    return read


def torchcodec_reader(threads):
    from torchcodec.decoders import VideoDecoder

    def read(path, indices, rate):
        decoder = VideoDecoder(
            path,
            dimension_order="NHWC",
            num_ffmpeg_threads=threads,
            seek_mode="approximate",  # its fast way: no scan of the file
        )
        return decoder.get_frames_at(indices).data.numpy()

    return read


READERS = {"kvideo": kvideo_reader, "decord": decord_reader, "torchcodec": torchcodec_reader}


def serve(name, threads):
    """Answers requests, one JSON line each, until the input ends."""
    read = READERS[name](threads)
    for line in sys.stdin:
        request = json.loads(line)
        clips = request.get("clips", 1)
        jobs = [[request[key]] * clips for key in ("path", "indices", "rate")]
        if "save" in request:
            np.save(request["save"], read(*(values[0] for values in jobs)))
            answer = {}
        else:
            with ThreadPoolExecutor(request["workers"]) as pool:
                wall, cpu = time.perf_counter(), time.process_time()
                for clip in pool.map(read, *jobs):
                    del clip
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            answer = {"clips_per_s": clips / wall, "cpu_ms": 1e3 * cpu / clips}
        print(json.dumps(answer), flush=True)


class Decoder:
    """A process that serves one reader."""

    def __init__(self, name, python, threads):
        command = [python, __file__, "--serve", name, "--threads", str(threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("a decoder's process ended; see its message above")
        return json.loads(answer)


def compare(clips, indices, decoders, request):
    """Prints how far the pixels lie apart, and how far those of the next frames do."""
    with tempfile.TemporaryDirectory() as folder:
        pixels = {}
        for name, decoder in decoders.items():
            file = str(Path(folder, f"{name}.npy"))
            decoder.ask(save=file, indices=indices, **request)
            pixels[name] = np.load(file).astype(np.int16)
    ours = pixels.pop("kvideo")
    for name, theirs in pixels.items():
        apart = np.abs(ours - theirs)
        shifted = np.abs(ours[1:] - theirs[:-1])
        print(
            f"{clips}: RGB of kvideo and {name} differ by {apart.mean():.3f} on average, "
            f"{apart.max()} at most (frames next to each other: {shifted.mean():.2f})"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("video", nargs="?")
    parser.add_argument("--peers", help="the Python that has decord and torchcodec")
    parser.add_argument("--frames", type=int, default=303, help="frames in the video")
    parser.add_argument("--rate", type=float, default=30.0, help="its frames per second")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clips", type=int, default=24, help="clips per round")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each decoder, per file")
    parser.add_argument("--serve", choices=READERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.serve, arguments.threads)
    if not arguments.video:
        parser.error("name a video")

    names = list(READERS) if arguments.peers else ["kvideo"]
    decoders = {
        name: Decoder(
            name, sys.executable if name == "kvideo" else arguments.peers, arguments.threads
        )
        for name in names
    }
    middle = arguments.frames // 2
    kinds = {
        "spread": [i * arguments.frames // 32 for i in range(32)],
        "dense": list(range(middle - 16, middle + 16)),
    }
    request = {"path": arguments.video, "rate": arguments.rate}
    for kind, indices in kinds.items():
        compare(kind, indices, decoders, request)
    for kind, indices in kinds.items():
        rounds = {name: [] for name in names}
        for number in range(arguments.rounds + 1):
            for name, decoder in decoders.items():
                asked = dict(indices=indices, clips=arguments.clips, workers=arguments.workers)
                answer = decoder.ask(**asked, **request)
                if number:  # the first one warms up
                    rounds[name].append(answer)
        for name, answers in rounds.items():
            speed = [answer["clips_per_s"] for answer in answers]
            cpu = statistics.median(answer["cpu_ms"] for answer in answers)
            ours = [answer["clips_per_s"] for answer in rounds["kvideo"]]
            ratio = statistics.median(a / b for a, b in zip(ours, speed, strict=True))
            print(
                f"{kind:7} {name:10} {statistics.median(speed):6.1f} clips/s, "
                f"{cpu:6.1f} ms of processor per clip; kvideo is {ratio:.2f} times as fast"
            )


if __name__ == "__main__":
    main()
