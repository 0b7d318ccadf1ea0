"""Shards: decoded videos as JPEG frames in TFRecord files, with an index.

`layout` says what lies where, `writing` makes shards, `reading` opens a stored video, `clips` is
the training pipeline in TensorFlow's own operations, `service` runs it on other machines.
"""
