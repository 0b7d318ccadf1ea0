"""A model that follows a stream: one frame in, the probabilities so far out."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
import tensorflow as tf

from kvideo.clip_spec import DEFAULT_FRAME_RATE, ClipSpec
from kvideo.data.live import LiveFrame
from kvideo.data.placing import Placer
from kvideo.errors import UsageError
from kvideo.folding import can_fold, fold_batch_norm
from kvideo.hardware import choose_precision, use_xla
from kvideo.inference import Predictor
from kvideo.saving import ModelInfo, check_single, load_model, model_info
from kvideo.stepping import NotCausalError, SteppedModel


class StreamOutput(NamedTuple):
    """What a model says at a time.

    Attributes:
        time: of the newest frame that was seen, seconds from the stream's beginning.
        probabilities: (num_classes,) float32.
    """

    time: float
    probabilities: np.ndarray


def stream(
    model: Any, *, every: int = 1, horizon: float | None = None, precision: str = "float32"
) -> Stream:
    """A model as something that follows a stream; like `kvideo predict --stream`.

    ```python
    stream = kvideo.stream("run")
    for frame in camera:                    # (H, W, 3) uint8, stream.frame_rate of them a second
        probabilities = stream.step(frame)  # (num_classes,)
    ```

    Args:
        model: a `keras.Model`, a `.keras` file or a run's folder. To a model that carries no
            `ModelInfo`, pictures are stretched to its input size, and classes are numbered.
        every: there is a new output at every n-th frame only. Models that look at a window of
            frames run only then; recurrent ones see every frame all the same.
        horizon: for a causal model that takes a mean over time: seconds that it reaches back; by
            default a clip's length, as in training; `math.inf`: to the beginning. For a stream no
            longer than this it is the plain mean.
        precision: `"float32"`, `"bfloat16"` or `"auto"`, of a model that is loaded.

    Returns:
        A `Stream`, compiled.

    Raises:
        ModelFileError: the model cannot be loaded.
        UsageError: a value is out of its range, or the model takes no RGB clips.
    """
    if isinstance(model, str | os.PathLike):
        model = load_model(model, precision=choose_precision(precision))
    return Stream(model, every=every, horizon=horizon)


class _Engine(Protocol):
    """Runs a model on pictures (H, W, 3); `step` gives probabilities, or None: not due."""

    def step(self, picture: np.ndarray, due: bool) -> np.ndarray | None: ...

    def reset(self) -> None: ...


class Stream:
    """A model and what it remembers of a stream. It serves one stream, and one thread at a time.

    A causal model (recurrent over time, or a mean over frames) sees each frame once; its outputs
    are those of the whole clip up to this frame. Any other model runs on the last T frames; before
    T have come, the first one stands for those missing. Either way memory and time for a frame do
    not grow. What becomes of the model's weights afterwards has no effect.

    Args:
        model: as `stream` loads it.
        every: see `stream`.
        horizon: see `stream`.

    Attributes:
        clip_spec: how the model takes its clips.
        class_names: in the order of the probabilities.
        causal: whether the model sees each frame once.
        stride: frames that a causal model takes at once: 1, or those of a window.
        fresh: whether the last step's probabilities were computed in it.

    Raises:
        UsageError: a value is out of its range, or the model takes no RGB clips.
    """

    def __init__(self, model: keras.Model, *, every: int = 1, horizon: float | None = None) -> None:
        info = _info(model)
        if not isinstance(every, int) or every < 1:
            raise UsageError(f"every must be a whole number from 1 on, not {every!r}.")
        if horizon is not None and not (isinstance(horizon, numbers.Real) and horizon > 0):
            raise UsageError(f"horizon must be above 0 s, not {horizon!r}.")
        self.clip_spec, self.class_names = info.clip_spec, info.class_names
        self._placer = Placer(self.clip_spec)
        self._every = every
        frames = math.inf if horizon == math.inf else (horizon or 0.0) * self.frame_rate
        self._engine, self.stride = _engine(model, frames or self.clip_spec.num_frames)
        self.causal = isinstance(self._engine, _Causal)
        blank = np.zeros((*self.clip_spec.size, 3), np.uint8)
        for _ in range(self.stride):  # the first call compiles
            self._engine.step(blank, True)
        self.reset()

    @property
    def frame_rate(self) -> float:
        """Frames a second that the model takes."""
        return self.clip_spec.frame_rate

    def reset(self) -> None:
        """Forgets all frames."""
        self._engine.reset()
        self._last: np.ndarray | None = None
        self._since = self._every  # frames since the last output
        self.fresh = False

    def step(self, frame: np.ndarray) -> np.ndarray | None:
        """Sees the next frame, `1 / frame_rate` seconds after the last one.

        Args:
            frame: (H, W, 3) uint8 RGB of any size; it is resized and cut, or given bars, as the
                model's clips are in testing.

        Returns:
            (num_classes,) float32, the newest there are (see `fresh`). None until a model that
            takes its frames in windows has seen its first window.

        Raises:
            UsageError: the frame is no such array.
        """
        return self.push(self.prepare(frame))

    def prepare(self, frame: np.ndarray) -> np.ndarray:
        """A frame (H, W, 3) of any size as the model takes it, (height, width, 3) uint8.

        Raises:
            UsageError: the frame is no uint8 array of that shape.
        """
        return self._placer.from_array(frame)

    def push(self, picture: np.ndarray) -> np.ndarray | None:
        """As `step`, for a picture that has the model's size already."""
        if picture.shape != (*self.clip_spec.size, 3) or picture.dtype != np.uint8:
            raise UsageError(
                f"a picture must be {(*self.clip_spec.size, 3)} uint8, not {picture.shape} "
                f"{picture.dtype}."
            )
        self._since += 1
        output = self._engine.step(picture, self._since >= self._every)
        self.fresh = output is not None
        if self.fresh:
            self._last, self._since = output, 0
        return self._last

    def follow(self, source: Iterable[LiveFrame]) -> Iterator[StreamOutput]:
        """The outputs along a source, such as a `kvideo.data.live.LiveSource`.

        Where the source was interrupted and connected anew, the model begins afresh: it has never
        seen clips with a hole in them.

        Args:
            source: gives pictures of the model's size.
        """
        connection = None
        for time, picture, number in source:
            if connection is not None and number != connection:
                self.reset()
            connection = number
            probabilities = self.push(picture)
            if self.fresh and probabilities is not None:
                yield StreamOutput(time, probabilities)


class _Causal:
    """A causal model, `stride` frames at a time, with its states as tensors."""

    def __init__(self, stepped: SteppedModel) -> None:
        self._stepped = stepped
        shape = (1, stepped.stride, *stepped.model.input_shape[2:])
        self._window = np.zeros(shape, np.uint8)
        self._first = stepped.first_states(1)
        specs = tuple(tf.TensorSpec(state.shape, state.dtype) for state in self._first)

        def run(frames: Any, states: Any) -> Any:
            outputs, new = stepped.run(frames, states)
            outputs = outputs[:, -1] if stepped.per_frame else outputs
            # In bfloat16 some layers return states in another precision than they begin with.
            cast = [tf.cast(state, spec.dtype) for state, spec in zip(new, specs, strict=True)]
            return tf.cast(outputs[0], tf.float32), tuple(cast)

        signature = [tf.TensorSpec(shape, tf.uint8), specs]
        self.run = tf.function(
            run, input_signature=signature, autograph=False, jit_compile=use_xla()
        )
        self.reset()

    def reset(self) -> None:
        self._states, self._count = self._first, 0

    def step(self, picture: np.ndarray, due: bool) -> np.ndarray | None:
        self._window[0, self._count] = picture
        self._count += 1
        if self._count < self._window.shape[1]:
            return None
        self._count = 0
        output, self._states = self.run(tf.constant(self._window), self._states)
        return output.numpy() if due else None


class _Windowed:
    """Any model of clips, on the last frames."""

    def __init__(self, model: keras.Model) -> None:
        self.predictor = Predictor(model, 1, settle_after=0)
        _, frames, *shape = model.input_shape
        # Each frame is kept twice, so that the last ones always lie in a row.
        self._ring = np.zeros((2 * frames, *shape), np.uint8)
        self._frames = frames
        self.reset()

    def reset(self) -> None:
        self._seen = 0

    def step(self, picture: np.ndarray, due: bool) -> np.ndarray | None:
        place = self._seen % self._frames
        if self._seen:
            self._ring[place] = self._ring[place + self._frames] = picture
        else:
            self._ring[:] = picture
        self._seen += 1
        if not due:
            return None
        clip = self._ring[place + 1 : place + 1 + self._frames]
        output = self.predictor(clip[None])[0]
        output = output[-1] if output.ndim == 2 else output
        return output.astype(np.float32, copy=False)


def _engine(model: keras.Model, horizon: float) -> tuple[_Engine, int]:
    """The way to run a model, and how many frames it takes at once."""
    try:
        SteppedModel(model)  # told before it is copied
        folded = fold_batch_norm(model) if can_fold(model) else model
        stepped = SteppedModel(
            folded, unroll=True, horizon=None if horizon == math.inf else horizon
        )
    except NotCausalError:
        return _Windowed(model), 1
    return _Causal(stepped), stepped.stride


def _info(model: keras.Model) -> ModelInfo:
    """What the model carries, or the least that its input says."""
    if not isinstance(model, keras.Model):
        raise UsageError(
            f"model must be a keras.Model, a .keras file or a run's folder, not {model!r}."
        )
    info = getattr(model, "kvideo_info", None)
    if isinstance(info, ModelInfo):
        check_single(info, "a stream is followed by")
    try:
        shape = model.input_shape
    except (AttributeError, ValueError):  # a model that was never called
        shape = None
    if not isinstance(shape, tuple) or len(shape) != 5 or None in shape[1:] or shape[-1] != 3:
        raise UsageError(
            f'to follow a stream the model "{model.name}" must take one RGB clip of a fixed size, '
            f"(None, T, H, W, 3), not {shape or 'an unknown input'}."
        )
    if info is not None:
        return model_info(model)
    spec = ClipSpec(shape[1], DEFAULT_FRAME_RATE, shape[2:4], framing="stretch")
    return ModelInfo(spec, tuple(str(index) for index in range(model.output_shape[-1])))
