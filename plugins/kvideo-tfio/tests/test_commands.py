"""kvideo's commands with --decoder tfio, on the demo."""

import json
from pathlib import Path

from click.testing import CliRunner
from kvideo_tfio import reader

from kvideo.cli import cli
from kvideo.data.demo import demo_folder


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_fit_evaluate_and_predict(tmp_path: Path, monkeypatch) -> None:
    decoded: list[str] = []
    right = reader.TfioSource._examine

    def counts(self) -> list[int]:
        decoded.append(self._path)
        return right(self)

    monkeypatch.setattr(reader.TfioSource, "_examine", counts)
    videos = sorted(demo_folder().glob("train/*/00*.mp4"))
    data = tmp_path / "list.csv"
    data.write_text(
        "path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in videos[::2])
    )
    out = str(tmp_path / "run")
    run(
        "fit", str(data), "--model", "slow_fusion", "--out", out, "--epochs", "1", "--frames", "4",
        "--size", "32", "--batch-size", "8", "--val-fraction", "0", "--decoder", "tfio",
    )  # fmt: skip
    assert decoded
    found = json.loads(run("predict", out, str(videos[0]), "--decoder", "tfio"))
    wanted = json.loads(run("predict", out, str(videos[0])))
    assert decoded[-1] == str(videos[0])
    assert [each["path"] for each in found] == [each["path"] for each in wanted]
    run("evaluate", out, str(data), "--decoder", "tfio", "--clips", "1")
