"""The learning-rate finder: what it suggests, and that the run does not notice it."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from kvideo.cli import cli
from kvideo.training import Experiment, find_learning_rate
from kvideo.training.rate_finder import growing_rates, search_rates


def test_it_suggests_a_tenth_of_the_rate_with_the_lowest_loss_and_stops_at_the_explosion() -> None:
    rates = growing_rates(1e-6, 10, 150)
    np.testing.assert_allclose(rates[1:] / rates[:-1], rates[1] / rates[0])
    asked = []

    def losses():
        for rate in rates:
            asked.append(rate)
            yield 2 / (1 + 1000 * rate) + (rate / 0.1) ** 3  # lowest near 0.035

    found = search_rates(rates, losses())
    assert found.exploded and len(asked) == len(found.rates) < 150
    assert 0.002 < found.suggestion < 0.01
    assert f"--lr {found.suggestion:.2g}" in str(found)


@pytest.mark.parametrize("end", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_an_explosion(end: float) -> None:
    found = search_rates(growing_rates(1e-3, 1, 30), [*np.linspace(2.0, 0.6, 14), end])
    assert found.exploded and len(found.rates) == 15
    assert found.suggestion == found.rates[13] / 10
    assert "NaN" not in json.dumps(found.to_json()) and "Infinity" not in json.dumps(
        found.to_json()
    )


def test_a_loss_that_never_falls_gives_no_suggestion() -> None:
    found = search_rates(growing_rates(1e-3, 1, 20), [1.0] * 20)
    assert found.suggestion is None and not found.exploded
    assert "No learning rate" in str(found)


def test_the_command_writes_a_table_and_a_picture_and_no_run(
    tiny_videos: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["fit", str(tiny_videos), "--model", "slow_fusion", "--frames", "4", "--size", "16"]
    arguments += ["--set", "widths=[4,6]", "-b", "1", "--precision", "float32", "--find-lr"]
    result = CliRunner().invoke(cli, [*arguments, "--json", "--out", "run"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["suggestion"] is None or 1e-6 < found["suggestion"] < 10
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "learning_rate.csv",
        "learning_rate.png",
    }
    with open(tmp_path / "run" / "learning_rate.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found["rates"]) > 50
    assert float(rows[0]["learning_rate"]) == 1e-6
    assert float(rows[0]["loss"]) == pytest.approx(math.log(2), abs=0.5)
    assert (tmp_path / "run" / "learning_rate.png").read_bytes().startswith(b"\x89PNG")
    result = CliRunner().invoke(cli, ["fit", "--resume", "run", "--find-lr"])
    assert result.exit_code == 2 and "give no others" in result.output


def test_the_suggestion_is_meant_for_the_batch_size_that_was_named(
    tiny_videos: Path, tmp_path: Path
) -> None:
    settings = {
        "model": "slow_fusion", "num_frames": 4, "size": (16, 16), "precision": "float32",
        "model_options": {"widths": [4, 6]}, "batch_size": 4, "seed": 1, "deterministic": True,
    }  # fmt: skip
    plain, scaled = (
        find_learning_rate(
            Experiment(str(tiny_videos), out=str(tmp_path / str(meant)), lr_batch_size=meant,
                       **settings),
            steps=12, quiet=True,
        )
        for meant in (None, 2)
    )  # fmt: skip
    # A rate for 2 clips is doubled for the 4 clips of a batch.
    assert plain.losses[0] == pytest.approx(scaled.losses[0], rel=1e-4)
    assert plain.rates == scaled.rates and plain.losses != scaled.losses
