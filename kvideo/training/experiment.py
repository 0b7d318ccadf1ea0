"""A run as data: one dataclass that holds all it needs."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from kvideo import __version__
from kvideo.clip_spec import ClipSpec
from kvideo.data.epochs import SAMPLINGS
from kvideo.data.sampling import Augmentation, parse_rand_augment
from kvideo.errors import UsageError, check_choice
from kvideo.hardware import STRATEGIES
from kvideo.training.mixing import Mixing
from kvideo.training.objective import Distillation, Objective

EXPERIMENT = "experiment.json"
OPTIMIZERS = ("adamw", "sgd", "lars", "lamb")
PATHS = ("data", "out", "val", "root", "weights", "quarantine", "distill")
TENSORBOARD = ("all", "scalars", "none")
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All that a training run is made of.

    Args:
        data: a folder of class folders, an annotation file, a folder of shards, or `"demo"`,
            `"demo-frames"`, `"demo-order"` or `"demo-dots"`.
        model: a registered model's name; None takes the model of the file `weights`.
        out: the run's folder; None makes `runs/DATA-MODEL`, with a number if that exists.
        val: validation data, in any form that `data` may have.
        val_fraction: share of `data` to validate on where there is no other validation part.
        root: folder that the annotation file's paths are relative to.
        split: which part of an annotation file or folder with several parts to train on.
        num_frames: frames in a clip; None: as the model recommends.
        frame_rate: frames per second of the clip; None: as the model recommends.
        size: (height, width) of the clip; None: as the model recommends.
        framing: `"crop"`, `"letterbox"` or `"stretch"`; None: `"crop"`.
        modality: `"rgb"`, `"flow"` or `"rgb+flow"`, see `ClipSpec`; None: as the model recommends.
        flow_method: how optical flow is estimated, see `kvideo.flow.FlowSettings`; None: `"dis"`.
        compensate: subtract each flow's mean, which is mostly the camera's motion.
        model_options: further arguments of the model's builder. With `output="frames"` the data
            is read with its labels over time.
        weights: a `.keras` file to start from, or a name that the builder knows (`"imagenet"`).
        freeze: a layer's name: it and all layers before it keep their weights.
        unfreeze_epochs: train the head first, and after each so many epochs one stage more (see
            `kvideo.training.stages`), from the head down; None: all from the beginning.
        epochs: passes over the training videos.
        batch_size: clips in a step.
        accumulate: parts that each device runs a batch in, one after the other, to save memory; the
            step is that of the whole batch, but for batch norms, which see a part at a time.
        optimizer: `"adamw"`, `"sgd"` (momentum 0.9, Nesterov), or for large batches `"lars"` or
            `"lamb"`.
        learning_rate: at the peak; None: 0.001 for adamw, 0.05 for sgd, 2 for lars, 0.004 for lamb.
        lr_batch_size: the batch size that the learning rate is meant for; it is multiplied by
            `batch_size / lr_batch_size` (linear scaling, Goyal et al. 2017). None: taken as it is.
        layer_decay: factor on the learning rate from each stage of the network to the one before
            it (see `kvideo.training.stages`), 0 to 1; None: all learn alike.
        weight_decay: not on normalization and biases. None: 0.05 for adamw and lamb, 0.0005 for sgd
            and lars.
        warmup_epochs: epochs of linear warm-up before the cosine.
        label_smoothing: 0 to below 1.
        focal_gamma: γ of the focal loss: what is answered surely counts less; 0: cross-entropy.
        class_weights: `"none"`, or `"balanced"`: every class counts alike.
        sampling: `"random"`: every video once an epoch; `"balanced"`: every class equally often.
        repeats: clips of each video in the same step, from one decoding; the batch size is that of
            clips, so an epoch has as many times the steps.
        distill: a teacher's `.keras` file or run, of the same classes, whose answers are learnt.
        distill_temperature: see `kvideo.training.objective.Distillation`.
        distill_weight: likewise; 0 to 1.
        clip_norm: largest norm of the gradient; None for no limit.
        ema: decay of an average of the weights over the steps, such as 0.999; it is what is
            validated and saved. None: the weights themselves.
        precise_bn: batches of training clips that batch norms' statistics are taken from before
            each validation; None: their running averages serve.
        multigrid: begin with large batches of short, small clips, and end with those that were
            asked for, in a fraction of the time (see `kvideo.training.multigrid`).
        early_stopping: stop after that many epochs without a better validation; None: never.
        crop: see `Augmentation.crop`.
        min_area: see `Augmentation.min_area`.
        flip: `"auto"` mirrors unless the data set or a class name says that direction matters.
        jitter: strength of the changes of brightness, contrast and saturation; 0 to below 1.
        rand_augment: `"2x9"`: two operations of RandAugment on each clip, of magnitude 9 (of 10).
        random_erasing: probability that a box of a clip is erased.
        mixup: α of mixup, for example 0.2; 0: none. See `kvideo.training.mixing.Mixing`.
        cutmix: α of CutMix, for example 1; 0: none.
        mix_probability: share of the batches that are mixed.
        precision: `"auto"` (bfloat16 where the hardware has it), `"float32"` or `"bfloat16"`.
        remat: less memory for a third more time: activations are computed again for the backward
            pass instead of kept (gradient checkpointing).
        bptt: frames after which back-propagation through time is cut off, so that long clips need
            little memory; for causal models with an output for each frame. None: never.
        strategy: `"one"` device, `"mirrored"` over all of this machine's, `"multiworker"` over
            those of several processes, which `TF_CONFIG` or SLURM tells of; `"auto"` takes all
            processes and GPUs that it is told of.
        seed: determines weights, order, clips and changes.
        deterministic: the same run to the bit, at some cost in speed.
        workers: decoding threads; None: as many as processors.
        strict: stop at the first video that fails, instead of replacing it.
        quarantine: a file of `kvideo check --quarantine`, whose videos are left out.
        decoder: the name of a `kvideo.decoders` entry point.
        val_clips: clips of each video for the validation after each epoch; with a label for each
            frame the whole of every video is looked at.
        checkpoint_minutes: how often to write a checkpoint inside an epoch.
        keep_checkpoints: how many of the last checkpoints to keep.
        data_service: address of a dispatcher of `kvideo serve-data`, whose workers read shards.
        detector: settings of an actor detector on the model, see `kvideo.detection.fit`; `data` has
            boxes then. None: the model itself is trained.
        tensorboard: `"all"`: figures, sample clips and confusion matrices; `"scalars"`: figures
            only; `"none"`: no files for TensorBoard.

    Raises:
        UsageError: a value is out of its range.
    """

    data: str
    model: str | None = None
    out: str | None = None
    val: str | None = None
    val_fraction: float = 0.2
    root: str | None = None
    split: str | None = None
    num_frames: int | None = None
    frame_rate: float | None = None
    size: tuple[int, int] | None = None
    framing: str | None = None
    modality: str | None = None
    flow_method: str | None = None
    compensate: bool = False
    model_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    weights: str | None = None
    freeze: str | None = None
    unfreeze_epochs: int | None = None
    epochs: int = 30
    batch_size: int = 16
    accumulate: int = 1
    optimizer: str = "adamw"
    learning_rate: float | None = None
    lr_batch_size: int | None = None
    layer_decay: float | None = None
    weight_decay: float | None = None
    warmup_epochs: float = 1.0
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    class_weights: str = "none"
    sampling: str = "random"
    repeats: int = 1
    distill: str | None = None
    distill_temperature: float = 4.0
    distill_weight: float = 0.9
    clip_norm: float | None = None
    ema: float | None = None
    precise_bn: int | None = None
    multigrid: bool = False
    early_stopping: int | None = None
    crop: str = "random_resized"
    min_area: float = 0.4
    flip: str = "auto"
    jitter: float = 0.2
    rand_augment: str | None = None
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    precision: str = "auto"
    remat: bool = False
    bptt: int | None = None
    strategy: str = "auto"
    seed: int = 0
    deterministic: bool = False
    workers: int | None = None
    strict: bool = False
    quarantine: str | None = None
    decoder: str = "pyav"
    val_clips: int = 2
    checkpoint_minutes: float = 10.0
    keep_checkpoints: int = 2
    data_service: str | None = None
    tensorboard: str = "all"
    detector: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in PATHS:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, os.fspath(getattr(self, name)))
        if self.size is not None:
            sides = (self.size, self.size) if isinstance(self.size, int) else self.size
            object.__setattr__(self, "size", tuple(sides))
        if self.model is None and self.weights and not self.weights.endswith(".keras"):
            raise UsageError(f"{self.weights} is not a .keras file; name a model to take it.")
        if self.model is None and not self.weights:
            raise UsageError("name a model (`kvideo models` lists them), or weights to start from.")
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("class_weights", self.class_weights, ("none", "balanced"))
        check_choice("flip", self.flip, ("auto", "on", "off"))
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("strategy", self.strategy, STRATEGIES)
        check_choice("sampling", self.sampling, SAMPLINGS)
        check_choice("tensorboard", self.tensorboard, TENSORBOARD)
        counts = ("epochs", "batch_size", "accumulate", "val_clips", "keep_checkpoints", "repeats")
        for name in counts:
            _check(name, getattr(self, name) >= 1, getattr(self, name), "at least 1")
        if self.batch_size % self.accumulate:
            raise UsageError(
                f"accumulate ({self.accumulate}) must divide the batch size ({self.batch_size})."
            )
        if self.layer_decay is not None:
            _check("layer_decay", 0 < self.layer_decay <= 1, self.layer_decay, "above 0 to 1")
        if self.workers is not None:
            _check("workers", self.workers >= 1, self.workers, "at least 1")
        _check("val_fraction", 0 <= self.val_fraction < 1, self.val_fraction, "0 to below 1")
        for name in ("learning_rate", "clip_norm", "checkpoint_minutes"):
            value = getattr(self, name)
            _check(name, value is None or value > 0, value, "above 0")
        for name in ("weight_decay", "warmup_epochs"):
            value = getattr(self, name)
            _check(name, value is None or value >= 0, value, "at least 0")
        _check("seed", 0 <= self.seed < 2**32, self.seed, "0 to 4294967295")
        _check("jitter", 0 <= self.jitter < 1, self.jitter, "0 to below 1")
        if self.bptt is not None:
            _check("bptt", self.bptt >= 1, self.bptt, "at least 1")
            if self.remat:
                raise UsageError(
                    "bptt and remat both save memory on long clips; give only one of them."
                )
        for name in ("early_stopping", "precise_bn", "unfreeze_epochs", "lr_batch_size"):
            value = getattr(self, name)
            _check(name, value is None or value >= 1, value, "at least 1")
        if self.ema is not None:
            _check("ema", 0 < self.ema < 1, self.ema, "above 0 to below 1")
        if self.multigrid:
            _check_multigrid(self)
        if self.batch_size % self.repeats:
            raise UsageError(
                f"repeats ({self.repeats}) must divide the batch size ({self.batch_size})."
            )
        if self.sampling == "balanced" and self.class_weights == "balanced":
            raise UsageError(
                "balanced sampling and balanced class_weights both make classes count alike; give "
                "only one of them."
            )
        # These check their own ranges.
        self.augmentation(flip=False)
        Objective(label_smoothing=self.label_smoothing, focal_gamma=self.focal_gamma)
        self.mixing()
        self.distillation()
        experiment_clip(self, ClipSpec(1, modality="rgb+flow"))  # likewise

    def augmentation(self, flip: bool) -> Augmentation:
        """The random changes to training clips."""
        count, magnitude = parse_rand_augment(self.rand_augment) if self.rand_augment else (0, 0.0)
        return Augmentation(
            crop=self.crop,
            min_area=self.min_area,
            flip=flip,
            brightness=self.jitter,
            contrast=self.jitter,
            saturation=self.jitter,
            num_ops=count,
            magnitude=magnitude,
            erase=self.random_erasing,
        )

    def mixing(self) -> Mixing:
        """How the clips of a batch are mixed."""
        return Mixing(self.mixup, self.cutmix, self.mix_probability, self.seed, self.repeats)

    def distillation(self) -> Distillation:
        """How much a teacher counts, if there is one."""
        return Distillation(self.distill_temperature, self.distill_weight)

    def to_json(self) -> str:
        """The text of `experiment.json`."""
        return json.dumps({"kvideo_version": __version__, **dataclasses.asdict(self)}, indent=2)

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str]) -> Experiment:
        """The experiment of a run's folder.

        Raises:
            UsageError: the folder holds no run, or one of another version with other settings.
        """
        path = Path(folder) / EXPERIMENT
        try:
            values = dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise UsageError(f"{folder} is not a run's folder: it has no {EXPERIMENT}.") from None
        except (OSError, TypeError, ValueError) as cause:
            raise UsageError(f"{path} cannot be read: {cause}") from cause
        version = values.pop("kvideo_version", "?")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UsageError(
                f"{path} was written by kvideo {version} and has a setting that this version "
                f"({__version__}) does not know: {unknown[0]}."
            )
        try:
            return cls(**{**values, "out": str(folder)})
        except TypeError as cause:  # a setting is missing, or is a word instead of a number
            raise UsageError(f"{path} is damaged: {cause}.") from cause


def absolute(experiment: Experiment, folder: Path) -> Experiment:
    """The experiment with absolute local paths, so that it can be resumed from any folder."""
    paths = {name: getattr(experiment, name) for name in PATHS if name != "out"}
    found: dict[str, Any] = _absolute(paths)
    if experiment.detector is not None:
        from kvideo.detection.settings import OF_DATA

        files = {name: v for name, v in experiment.detector.items() if name in OF_DATA}
        found["detector"] = {**experiment.detector, **_absolute(files)}
    return dataclasses.replace(experiment, out=str(folder), **found)


def _absolute(paths: dict[str, Any]) -> dict[str, str]:
    """Those of the values that are paths of something, in full."""
    known = {n: v for n, v in paths.items() if isinstance(v, str | os.PathLike) and v}
    return {name: os.path.abspath(path) for name, path in known.items() if os.path.exists(path)}


def experiment_clip(experiment: Experiment, recommended: ClipSpec) -> ClipSpec:
    """The clip that was asked for, on top of the model's recommendation."""
    asked = {
        name: getattr(experiment, name)
        for name in ("num_frames", "frame_rate", "size", "framing", "modality")
        if getattr(experiment, name) is not None
    }
    if "size" in asked:
        asked["short_side"] = None
    spec = recommended.replace(**asked)
    if experiment.flow_method is None and not experiment.compensate:
        return spec
    if spec.flow is None:
        raise UsageError(
            f"flow_method and compensate are for clips of flow; these are of {spec.modality}."
        )
    method = experiment.flow_method or spec.flow.method
    return spec.replace(
        flow=dataclasses.replace(
            spec.flow, method=method, compensate=experiment.compensate or spec.flow.compensate
        )
    )


def _check_multigrid(experiment: Experiment) -> None:
    """What cannot be had together with clips of changing shapes."""
    others = {
        "bptt": experiment.bptt is not None,
        "distill": experiment.distill is not None,
        "unfreeze_epochs": experiment.unfreeze_epochs is not None,
        "frozen_backbone": bool(experiment.model_options.get("frozen_backbone")),
        "output=frames": experiment.model_options.get("output") == "frames",
        "clips of flow": (experiment.modality or "rgb") != "rgb",
    }
    if wrong := [name for name, given in others.items() if given]:
        raise UsageError(f"multigrid changes the shape of clips; it does not go with {wrong[0]}.")


def _check(name: str, good: bool, value: Any, rule: str) -> None:
    if not good:
        raise UsageError(f"{name} must be {rule}, not {value!r}.")
