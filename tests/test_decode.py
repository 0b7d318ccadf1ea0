"""Decoding: real files, and files that the tests write."""

import numpy as np

from kvideo.data.decode import open_video


def test_reads_a_clip_by_time(shared):
    path = shared / "data/clips/torchvision/R6llTwEh07w.mp4"
    with open_video(path) as reader:
        assert (reader.info.width, reader.info.height) == (340, 256)
        clip = reader.read([5.0, 0.0, 99.0], size=(128, 170), crop=(8, 29, 112, 112))
        assert clip.shape == (3, 112, 112, 3)
        assert clip.dtype == np.uint8
        assert len(reader.frame_times()) == 303
