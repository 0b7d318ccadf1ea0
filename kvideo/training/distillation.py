"""Knowledge distillation: a trained model answers for the clips that another is trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from kvideo.clip_spec import ClipSpec
from kvideo.errors import UsageError
from kvideo.folding import fold_batch_norm
from kvideo.hardware import suits_precision
from kvideo.saving import ModelInfo, check_single, load_model, model_file, model_info
from kvideo.training.objective import Distillation
from kvideo.training.step import logits_of


class Teacher:
    """A model that answers for a student's clips; nothing of it is trained.

    It runs as in prediction: no dropout, batch norms by what they have stored (Hinton et al. 2015;
    that it sees the very clip that the student sees, with all its changes, is what matters by
    Beyer et al. 2022).

    Args:
        network: from clips to logits.
        how: how much its answers count.
        stride: it takes every so many of the student's frames.
        size: (height, width) to which the student's pictures are resized; None: as they are.
        order: for each of the student's classes its number among the network's; None: the same.
    """

    def __init__(
        self,
        network: keras.Model,
        how: Distillation,
        stride: int = 1,
        size: tuple[int, int] | None = None,
        order: Sequence[int] | None = None,
    ) -> None:
        self.network, self.how = network, how
        self._stride, self._size, self._order = stride, size, order

    def __call__(self, clips: tf.Tensor) -> tf.Tensor:
        """Logits (B, C), or (B, T, C), float32, of the student's clips (B, T, H, W, C)."""
        shown = clips[:, :: self._stride]
        if self._size is not None:
            shape = tf.shape(shown)
            flat = tf.reshape(shown, [-1, *clips.shape[2:]])
            flat = tf.image.resize(flat, self._size, antialias=True)
            shown = tf.reshape(flat, [shape[0], shape[1], *self._size, clips.shape[-1]])
        logits = tf.cast(self.network(shown, training=False), tf.float32)
        return logits if self._order is None else tf.gather(logits, self._order, axis=-1)


def load_teacher(
    path: str | os.PathLike[str], how: Distillation, student: ModelInfo, precision: str
) -> Teacher:
    """The teacher of a file, for a student of the same classes.

    The student's clip must contain the teacher's: it lasts as long, and has as many frames or a
    multiple of them, of which the teacher gets every second, third and so on. Pictures of another
    size are resized, if their shape is the same.

    Args:
        path: a `.keras` file, or a run's folder.
        how: how much it counts.
        student: what the student is; `per_frame` is that of its output.
        precision: `"float32"` or `"bfloat16"`, which is taken where the teacher gains from it.

    Raises:
        UsageError: the teacher has other classes, or clips that the student's do not contain.
        ModelFileError: it cannot be loaded.
    """
    info = model_info(path)
    name = str(model_file(path))
    check_single(info, f"{name}: a teacher is")
    _check_kind(name, info, student)
    order = _class_order(name, info, student)
    stride, size = _fit(name, info.clip_spec, student.clip_spec, student.per_frame)
    model = load_model(path, precision=precision)
    if not suits_precision(model, precision):
        model = load_model(path)
    folded: Any = fold_batch_norm(model)
    network = keras.Model(folded.input, logits_of(folded))
    network.trainable = False
    return Teacher(network, how, stride, size, order)


def _check_kind(name: str, teacher: ModelInfo, student: ModelInfo) -> None:
    if teacher.per_frame != student.per_frame:
        kinds = {True: "a label for each frame", False: "one label for the clip"}
        raise UsageError(
            f"the teacher {name} gives {kinds[teacher.per_frame]}, the model that is trained "
            f"{kinds[student.per_frame]}."
        )
    if teacher.multi_label != student.multi_label:
        kinds = {True: "several labels", False: "one label"}
        raise UsageError(
            f"the teacher {name} gives {kinds[teacher.multi_label]} a video, the data has "
            f"{kinds[student.multi_label]}."
        )


def _class_order(name: str, teacher: ModelInfo, student: ModelInfo) -> list[int] | None:
    known = {label: number for number, label in enumerate(teacher.class_names)}
    if missing := [label for label in student.class_names if label not in known]:
        raise UsageError(
            f'the teacher {name} does not know the class "{missing[0]}": a teacher must have the '
            "classes of the data."
        )
    if more := sorted(set(known) - set(student.class_names)):
        raise UsageError(
            f'the teacher {name} has the class "{more[0]}", which the data has not: a teacher must '
            "have the classes of the data."
        )
    if teacher.class_names == student.class_names:
        return None
    return [known[label] for label in student.class_names]


def _fit(
    name: str, teacher: ClipSpec, student: ClipSpec, per_frame: bool
) -> tuple[int, tuple[int, int] | None]:
    """Stride of frames and size of pictures that make a student's clip a teacher's."""
    stride, rest = divmod(student.num_frames, teacher.num_frames)
    same_span = not rest and abs(student.frame_rate / teacher.frame_rate - stride) < 1e-6
    (height, width), (high, wide) = teacher.size, student.size
    same_aspect = height * wide == width * high
    alike = teacher.modality == student.modality and teacher.framing == student.framing
    if student.has_flow and teacher.flow is not None:
        # Vectors follow from the rate, the size and the method.
        stride_one = stride == 1 and teacher.size == student.size
        alike = alike and stride_one and teacher.flow == student.flow
    if per_frame and stride != 1:
        alike = False
    if not (same_span and same_aspect and alike):
        raise UsageError(
            f"the teacher {name} takes clips of {_words(teacher)}, which those of the model that "
            f"is trained, of {_words(student)}, do not contain: the same time, shape of picture, "
            "framing and modality are needed, and a multiple of the frames"
            + (" (for flow or a label for each frame the same)." if stride != 1 else ".")
        )
    return stride, None if teacher.size == student.size else teacher.size


def _words(spec: ClipSpec) -> str:
    return (
        f"{spec.num_frames} frames at {spec.frame_rate:g}/s, {spec.size[0]}×{spec.size[1]}, "
        f"{spec.framing}, {spec.modality}"
    )
