"""`kvideo fuse`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kvideo.cli.options import (
    batch_size_option,
    decoder_option,
    json_option,
    print_json,
    root_option,
    workers_option,
)

if TYPE_CHECKING:
    from kvideo.score_fusion import FusionResult


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL_A MODEL_B [MODEL_C …]")
@click.argument("data")
@click.option(
    "--method",
    default="average",
    show_default=True,
    help='"average", "weighted" (the weights that do best on DATA) or "svm" (a linear support '
    "vector machine fitted to DATA).",
)
@click.option(
    "--weights", metavar="A,B,…", help="Of --method weighted: these weights instead of the best."
)
@click.option(
    "-o",
    "--out",
    metavar="PATH",
    help="A .keras file, or a folder for model.keras.  [default: runs/MODEL_A+MODEL_B]",
)
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@root_option
@click.option(
    "--split",
    help="Which part of DATA, trained on or not.  [default: its validation part, or all that the "
    "runs were not trained on]",
)
@click.option("--clips", "num_clips", type=click.IntRange(1), help="Clips of each video.")
@batch_size_option
@workers_option
@decoder_option
@json_option
def fuse(
    models: tuple[str, ...],
    data: str,
    method: str,
    weights: str | None,
    out: str | None,
    overwrite: bool,
    root: str | None,
    split: str | None,
    num_clips: int | None,
    batch_size: int,
    workers: int | None,
    decoder: str,
    as_json: bool,
) -> None:
    """Join trained models, .keras files or runs' folders, to one by their scores.

    Each looks at videos in its own way, its probabilities are averaged over its views, and these
    averages are fused. DATA, as `kvideo fit` takes it, is what the fusion is chosen on; the result
    is one model for `evaluate`, `predict` and `export`.
    """
    from kvideo.cli.startup import import_quietly
    from kvideo.score_fusion import fuse as run

    import_quietly()
    result = run(
        models,
        data,
        method=method,
        weights=None if weights is None else _numbers(weights),
        out=out,
        root=root,
        split=split,
        num_clips=num_clips,
        batch_size=batch_size,
        workers=workers,
        decoder=decoder,
        overwrite=overwrite,
    )
    if as_json:
        print_json(result.to_json())
        return
    click.echo(_table(result))
    if method != "average" and weights is None:
        click.echo("The fusion was chosen on these videos: test it on others.")
    click.echo(f"Model: {result.model_path}", err=True)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not NUMBER,NUMBER,…", param_hint="--weights"
        ) from None


def _table(result: FusionResult) -> str:
    from kvideo.text import plural

    fused, unseen = f"fused ({result.method})", "the same, cross-validated"
    crossed = result.cross_validated is not None
    width = max(map(len, (*result.accuracies, fused, unseen if crossed else "")))
    shares = result.weights or ()
    lines = [f"Accuracy on {plural(result.num_videos, 'video')}:"]
    for number, (name, accuracy) in enumerate(result.accuracies.items()):
        share = f"  weight {shares[number]:.2f}" if shares else ""
        share += ": left out" if shares and not shares[number] else ""
        lines.append(f"  {name:<{width}}  {accuracy:.3f}{share}")
    lines.append(f"  {fused:<{width}}  {result.accuracy:.3f}")
    if crossed:
        lines.append(f"  {unseen:<{width}}  {result.cross_validated:.3f}")
    return "\n".join(lines)
