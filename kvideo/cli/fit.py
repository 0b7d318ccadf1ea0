"""`kvideo fit`."""

from __future__ import annotations

from typing import Any

import click

from kvideo.cli.options import KEY_VALUE, SIZE, json_option, print_json, root_option

_TRAINING = (
    click.option(
        "--recipe",
        metavar="NAME",
        help="Settings that go together; other options win over them. quick, scratch, finetune, "
        "probe, thaw, kinetics-slowfast or large-batch.",
    ),
    click.option("--val", metavar="DATA", help="Validation data, in any form that DATA may have."),
    click.option(
        "--val-fraction",
        type=float,
        metavar="SHARE",
        help="Share of DATA to validate on, if it has no part for that.  [default: 0.2]",
    ),
    root_option,
    click.option("--split", help="Which part of DATA to train on."),
    click.option("--frames", "num_frames", type=int, help="Frames in a clip."),
    click.option("--frame-rate", type=float, help="Frames per second of the clip."),
    click.option("--size", type=SIZE, help="The clip's height and width in pixels."),
    click.option(
        "--framing",
        help='How pictures come to that size: "crop", "letterbox" (whole picture, grey bars) or '
        '"stretch".  [default: crop]',
    ),
    click.option(
        "--modality",
        help='What clips show: "rgb", "flow" (optical flow) or "rgb+flow".  '
        "[default: as the model]",
    ),
    click.option("--flow-method", help='"dis", "farneback" or "tvl1".  [default: dis]'),
    click.option(
        "--compensate",
        is_flag=True,
        default=None,
        help="Subtract each flow's mean (camera motion).",
    ),
    click.option(
        "--set",
        "model_options",
        multiple=True,
        type=KEY_VALUE,
        metavar="NAME=VALUE",
        help="A further argument of the model, such as backbone=efficientnet_lite0.",
    ),
    click.option("-w", "--weights", help='A .keras file to start from, or "imagenet".'),
    click.option(
        "--freeze", metavar="LAYER", help="Keep the weights of all layers up to this one."
    ),
    click.option(
        "--unfreeze-epochs",
        type=int,
        metavar="EPOCHS",
        help="Train the head first, and after each so many epochs one stage more.",
    ),
    click.option("-e", "--epochs", type=int, help="[default: 30]"),
    click.option("-b", "--batch-size", type=int, help="Clips in a step.  [default: 16]"),
    click.option(
        "--accumulate",
        type=int,
        metavar="PARTS",
        help="Run each batch in so many parts, to save memory.  [default: 1]",
    ),
    click.option("--optimizer", help="adamw, sgd, lars or lamb.  [default: adamw]"),
    click.option("--lr", "--learning-rate", "learning_rate", type=float, help="At its peak."),
    click.option(
        "--lr-batch-size",
        type=int,
        metavar="CLIPS",
        help="Batch size that the rate is meant for; it is scaled in proportion to --batch-size.",
    ),
    click.option(
        "--layer-decay",
        type=float,
        metavar="FACTOR",
        help="Smaller rates for early layers: so much for each stage before the head.",
    ),
    click.option("--weight-decay", type=float, help="Decoupled; not on norms and biases."),
    click.option("--warmup-epochs", type=float, help="[default: 1]"),
    click.option("--label-smoothing", type=float, help="[default: 0]"),
    click.option("--focal-gamma", type=float, help="Focal loss with this γ.  [default: 0, none]"),
    click.option("--class-weights", help='"none" or "balanced".  [default: none]'),
    click.option("--sampling", help='"random" or "balanced" (by class).  [default: random]'),
    click.option("--repeats", type=int, help="Clips of a video in the same step.  [default: 1]"),
    click.option("--distill", metavar="FILE", help="Learn from this model's answers, too."),
    click.option(
        "--distill-temperature", type=float, metavar="T", help="Softens answers.  [default: 4]"
    ),
    click.option(
        "--distill-weight", type=float, metavar="SHARE", help="Teacher's part.  [default: 0.9]"
    ),
    click.option("--clip-norm", type=float, help="Largest norm of the gradient."),
    click.option(
        "--ema",
        type=float,
        metavar="DECAY",
        help="Test and save an average of the weights over the steps, such as 0.999.",
    ),
    click.option(
        "--precise-bn",
        type=int,
        metavar="BATCHES",
        help="Take batch norms' statistics from so many batches before each validation.",
    ),
    click.option(
        "--multigrid",
        is_flag=True,
        default=None,
        help="Begin with large batches of short, small clips: a fraction of the time.",
    ),
    click.option(
        "--early-stopping", type=int, metavar="EPOCHS", help="Stop when validation gets no better."
    ),
    click.option("--crop", help="random_resized, random or center.  [default: random_resized]"),
    click.option("--min-area", type=float, help="Smallest share that a random crop takes."),
    click.option("--flip", help='Mirror clips: "auto", "on" or "off".  [default: auto]'),
    click.option("--jitter", type=float, help="Strength of colour changes.  [default: 0.2]"),
    click.option(
        "--rand-augment",
        metavar="NxM",
        help="RandAugment: N operations of magnitude M of 10, such as 2x9.  [default: none]",
    ),
    click.option(
        "--random-erasing", type=float, metavar="SHARE", help="Erase boxes of so many clips."
    ),
    click.option("--mixup", type=float, metavar="ALPHA", help="Mix pairs of clips, such as 0.2."),
    click.option("--cutmix", type=float, metavar="ALPHA", help="Cut boxes into clips, such as 1."),
    click.option(
        "--mix-probability", type=float, metavar="SHARE", help="Of batches mixed.  [default: 1]"
    ),
    click.option("--precision", help="auto, float32 or bfloat16.  [default: auto]"),
    click.option("--remat", is_flag=True, default=None, help="Half the memory, a third more time."),
    click.option(
        "--bptt",
        type=click.IntRange(1),
        metavar="FRAMES",
        help="Cut back-propagation through time after so many frames (models with output=frames).",
    ),
    click.option("--strategy", help="auto, one, mirrored or multiworker.  [default: auto]"),
    click.option("--seed", type=int, help="[default: 0]"),
    click.option("--deterministic", is_flag=True, default=None, help="Repeat a run to the bit."),
    click.option("--workers", type=int, help="Decoding threads.  [default: one a processor]"),
    click.option(
        "--strict", is_flag=True, default=None, help="Stop at the first video that fails."
    ),
    click.option("--quarantine", metavar="FILE", help="Leave out what `kvideo check` found bad."),
    click.option("--decoder", help="A video decoder's name.  [default: pyav]"),
    click.option("--val-clips", type=int, help="Clips a video in validation.  [default: 2]"),
    click.option("--keep-checkpoints", type=int, help="How many of the last.  [default: 2]"),
    click.option("--checkpoint-minutes", type=float, help="Inside an epoch.  [default: 10]"),
    click.option(
        "--data-service",
        metavar="grpc://HOST:PORT",
        help="Let the workers of `kvideo serve-data` read shards.",
    ),
    click.option(
        "--tensorboard",
        help='What to write for TensorBoard: "all" (figures, sample clips, confusion matrices), '
        '"scalars" or "none".  [default: all]',
    ),
)


def training_options(command: Any) -> Any:
    """Adds what every field of an experiment but data, model and folder is asked with."""
    for option in reversed(_TRAINING):
        command = option(command)
    return command


def given_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Of the options those that were given, as fields of an experiment."""
    given = {name: value for name, value in options.items() if value not in (None, ())}
    if "model_options" in given:
        given["model_options"] = dict(given["model_options"])
    return given


@click.command()
@click.argument("data", required=False)
@click.option("-m", "--model", help="A model's name; `kvideo models` lists them.")
@click.option("-o", "--out", help="The run's folder.  [default: runs/DATA-MODEL]")
@click.option("--resume", metavar="RUN", help="Go on with an interrupted run; no other options.")
@click.option("--overwrite", is_flag=True, help="Replace the run that is in the folder.")
@click.option(
    "--auto-resume",
    is_flag=True,
    help="Go on if the folder holds this very run, else begin: one command for every attempt.",
)
@click.option(
    "--find-lr",
    is_flag=True,
    help="Do not train; try growing learning rates in 150 steps, and suggest one.",
)
@training_options
@json_option
def fit(
    data: str | None,
    resume: str | None,
    overwrite: bool,
    auto_resume: bool,
    find_lr: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a model on DATA.

    DATA is a folder with one folder of videos for each class, an annotation file, a folder of
    shards (`kvideo shard`), or the word "demo" ("demo-frames", "demo-order", "demo-dots"). The
    run's folder receives the best model, a checkpoint to resume from, and the history.
    """
    from kvideo.cli.startup import quietly
    from kvideo.hardware import cluster_addresses
    from kvideo.recipes import experiment as experiment_of
    from kvideo.training import Experiment, find_learning_rate, run

    given = given_settings(options)
    if resume is not None:
        if data is not None or given or overwrite or auto_resume or find_lr:
            raise click.UsageError("--resume RUN takes all settings from the run; give no others.")
        experiment = Experiment.from_folder(resume)
    elif data is None:
        raise click.UsageError('name the DATA to train on (a folder, a list, or "demo").')
    else:
        experiment = experiment_of(data, **given)
    if overwrite and auto_resume:
        raise click.UsageError("--overwrite and --auto-resume contradict each other.")
    if find_lr:
        found = find_learning_rate(experiment, prepare=quietly)
        if as_json:
            print_json(found.to_json())
        return
    result = run(
        experiment,
        resume=resume is not None,
        overwrite=overwrite,
        auto_resume=auto_resume,
        prepare=quietly,
    )
    addresses = cluster_addresses(experiment.strategy)
    if as_json and (addresses is None or addresses.index == 0):
        print_json(result.to_json())
