"""Named recipes: settings, what wins over them, and wrong use."""

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import kvideo
from kvideo.cli import cli
from kvideo.cli.detect import fit as detect_command
from kvideo.cli.fit import fit as fit_command
from kvideo.detection.settings import OF_DATA, OF_MODEL
from kvideo.errors import UsageError
from kvideo.recipes import RECIPES
from kvideo.training import Experiment

CLIPS = ["--frames", "4", "--size", "16", "--precision", "float32"]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_makes_an_experiment_that_its_help_names(name: str) -> None:
    experiment = RECIPES[name]("videos/", model="slow_fusion", weights="imagenet", epochs=3)
    assert isinstance(experiment, Experiment)
    assert (experiment.data, experiment.model, experiment.epochs) == ("videos/", "slow_fusion", 3)
    plain = Experiment("videos/", "slow_fusion", weights="imagenet", epochs=3)
    assert experiment != plain
    option = next(option for option in fit_command.params if option.name == "recipe")
    assert name in option.help
    assert RECIPES[name].__doc__.splitlines()[0].endswith(".") and len(RECIPES[name].__doc__) > 60


def test_the_model_and_its_arguments_go_together() -> None:
    experiment = kvideo.recipes.kinetics_slowfast("videos/")
    assert experiment.model == "slowfast_8x8_r50" and experiment.model_options == {"dropout": 0.5}
    more = kvideo.recipes.kinetics_slowfast("videos/", model_options={"beta_inv": 4})
    assert more.model_options == {"dropout": 0.5, "beta_inv": 4}
    other = kvideo.recipes.kinetics_slowfast("videos/", model="c3d")
    assert other.model == "c3d" and other.model_options == {}
    assert other.learning_rate == 0.1 and other.lr_batch_size == 64
    from_file = kvideo.recipes.quick("videos/", weights="run/model.keras")
    assert from_file.model is None


def test_the_kinetics_recipe_can_be_built() -> None:
    """Its model takes its arguments."""
    experiment = kvideo.recipes.kinetics_slowfast("videos/")
    model = getattr(kvideo.models, experiment.model)(
        3, input_shape=(32, 32, 32, 3), **experiment.model_options
    )
    assert model.output_shape == (None, 3)


def test_options_win_and_the_run_says_what_was_used(
    tiny_videos: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["fit", str(tiny_videos), "--recipe", "quick", "--epochs", "1", "--out", "run"]
    result = CliRunner().invoke(cli, [*arguments, *CLIPS[2:]])
    assert result.exit_code == 0, result.output
    settings = json.loads((tmp_path / "run" / "experiment.json").read_text())
    assert settings["model"] == "single_frame" and settings["epochs"] == 1
    assert settings["learning_rate"] == 0.003 and settings["val_clips"] == 1
    recipe = {"recipe": "finetune", "weights": "run/model.keras", "epochs": 1, "batch_size": 4}
    second = kvideo.fit(tiny_videos, out="second", verbose=False, **recipe)
    settings = Experiment.from_folder(second.folder)
    assert settings.layer_decay == 0.6 and settings.model is None and settings.batch_size == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "finetun"], 'no recipe "finetun". Did you mean "finetune"? The recipes are'),
        (["--recipe", "odd"], "The recipes are quick, scratch, finetune"),
        (["--recipe", "finetune", "-m", "c3d"], 'recipe "finetune" begins with trained weights'),
        (["--recipe", "quick", "--layer-decay", "0"], "layer_decay must be above 0 to 1"),
    ],
)
def test_wrong_use_is_one_sentence(tmp_path: Path, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["fit", "demo", *arguments])
    assert result.exit_code == 2 and message in result.output, result.output
    assert not list(tmp_path.iterdir())


def test_unknown_settings_are_named() -> None:
    with pytest.raises(UsageError, match="no setting 'epoch'"):
        kvideo.fit("demo", recipe="quick", epoch=3)
    with pytest.raises(UsageError, match="resume takes all settings"):
        kvideo.fit(recipe="quick", resume="run")


def test_every_setting_of_an_experiment_is_an_option() -> None:
    names = {option.name for option in fit_command.params}
    fields = {field.name for field in dataclasses.fields(Experiment)}
    assert fields - {"detector"} <= names
    of_detector = {option.name for option in detect_command.params}
    assert {*OF_MODEL, *OF_DATA} | fields - {"detector"} <= of_detector
