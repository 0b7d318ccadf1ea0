"""Benchmarks of a model: what is measured, what the figures mean, what goes wrong. No timings."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner, Result

import kvideo
from kvideo import measuring
from kvideo.analysis import count_macs, count_parameters
from kvideo.benchmarking import BenchmarkResult, PhaseResult, _measure, benchmark_model
from kvideo.choosing import ModelChoice, choose_model
from kvideo.cli import cli
from kvideo.cli.benchmark import _table
from kvideo.clip_spec import ClipSpec
from kvideo.errors import KVideoError, ModelFileError, UnknownNameError, UsageError
from kvideo.measuring import INFERENCE, PEAK, TRAINING, Request, measure, peak_memory
from kvideo.saving import ModelInfo, load_model, save_model

TINY = {"input_shape": (4, 16, 16, 3), "options": {"widths": (4, 6)}}


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(cli, ["benchmark", "model", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert "Traceback" not in result.output
    return result


@pytest.fixture(scope="module")
def measured() -> BenchmarkResult:
    """One benchmark of a small model, as processes."""
    return benchmark_model("slow_fusion", **TINY, batch_size=3, num_classes=5, repeats=4, warmup=1)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = kvideo.models.slow_fusion(
        5, input_shape=(4, 16, 16, 3), classifier_activation="sigmoid"
    )
    path = tmp_path_factory.mktemp("model") / "model.keras"
    save_model(model, path, ModelInfo(ClipSpec(4, 10.0, (16, 16)), tuple("abcde"), True))
    return path


# -- what is measured ------------------------------------------------------------------------------


@pytest.mark.slow
def test_counts_are_the_models(measured: BenchmarkResult) -> None:
    model = kvideo.models.slow_fusion(5, input_shape=(4, 16, 16, 3), widths=(4, 6))
    assert measured.parameters == count_parameters(model)
    assert measured.macs == count_macs(model) and measured.macs_unknown is None
    assert measured.input_shape == (4, 16, 16, 3) and measured.model == "slow_fusion"
    assert measured.threads == len(os.sched_getaffinity(0)) and measured.device


@pytest.mark.slow
def test_figures_follow_from_the_times(measured: BenchmarkResult) -> None:
    assert set(measured.phases) == {INFERENCE, TRAINING}
    for name, passes in ((INFERENCE, 1), (TRAINING, 3)):
        phase = measured.phases[name]
        assert len(phase.seconds) == 4 and min(phase.seconds) > 0
        assert phase.build > 0 and phase.first > max(phase.seconds)  # it traces as well
        assert phase.median == pytest.approx(np.median(phase.seconds))
        assert phase.clips_per_second == pytest.approx(3 / phase.median)
        work = 2 * measured.macs * 3 * passes
        assert phase.peak_share == pytest.approx(work / phase.median / measured.matmul_flops)
        assert phase.peak_share < 1  # of so small a model


@pytest.mark.slow
def test_memory_is_that_of_each_phase(measured: BenchmarkResult) -> None:
    if peak_memory() is None:
        pytest.skip("this system does not tell")
    for phase in measured.phases.values():
        assert phase.memory >= phase.memory_before > 50 * 2**20
        assert phase.memory - phase.memory_before < 2**30


def test_peak_memory_counts_what_was_freed() -> None:
    before = peak_memory()
    if before is None:
        pytest.skip("this system does not tell")
    size = before + 64 * 2**20
    program = (
        "import sys; from kvideo.measuring import peak_memory; first = peak_memory();"
        "block = bytearray(200 * 2**20); block[::4096] = b'x' * len(block[::4096]); del block;"
        "print(first, peak_memory())"
    )
    block = np.ones(size // 8)  # this process is large; its child must not be charged for it
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert block.nbytes > 0
    first, last = map(int, done.stdout.split())
    assert first < 100 * 2**20 and 190 * 2**20 < last - first < 260 * 2**20


@pytest.mark.slow
def test_result_as_json(measured: BenchmarkResult) -> None:
    document = json.loads(json.dumps(measured.to_json()))
    assert document["batch_size"] == 3 and document["precision"] == "float32"
    assert document["phases"]["training"]["ms"] == pytest.approx(
        1000 * measured.phases[TRAINING].median, abs=1e-3
    )
    assert len(document["phases"]["inference"]["ms_each"]) == 4


def test_inference_is_the_predictors_and_training_is_the_loops(monkeypatch) -> None:
    """The very functions that the commands run, called as often as asked."""
    from kvideo import inference
    from kvideo.training import step, step_compiler

    assert step_compiler.compile_step is step.compile_step
    calls = []
    original = inference.Predictor.__call__

    def counting(self, clips):
        calls.append((clips.shape, clips.dtype))
        return original(self, clips)

    monkeypatch.setattr(inference.Predictor, "__call__", counting)
    common = {**TINY, "name": "slow_fusion", "batch_size": 2, "repeats": 3, "warmup": 1}
    found = measure(Request(phase=INFERENCE, **common))
    assert calls == [((2, 4, 16, 16, 3), np.uint8)] * (1 + 1 + 3) and len(found["seconds"]) == 3

    steps = []
    compile_step = step.compile_step

    def compiling(model, optimizer, strategy, **options):
        before = [v.numpy() for v in model.trainable_variables]
        take = compile_step(model, optimizer, strategy, **options)
        steps.append((model, optimizer, before))
        return take

    monkeypatch.setattr(step, "compile_step", compiling)
    measure(Request(phase=TRAINING, **common))
    ((model, optimizer, before),) = steps
    assert type(optimizer).__name__ == "AdamW" and int(optimizer.iterations) == 1 + 1 + 3
    after = [v.numpy() for v in model.trainable_variables]
    assert all(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_precision_reaches_the_layers(monkeypatch) -> None:
    from kvideo import inference

    seen = []
    original = inference.Predictor.__init__

    def noting(self, model, *arguments, **options):
        seen.append(model)
        original(self, model, *arguments, **options)

    monkeypatch.setattr(inference.Predictor, "__init__", noting)
    request = {**TINY, "precision": "bfloat16", "repeats": 1, "warmup": 0}
    measure(Request(phase=INFERENCE, name="slow_fusion", **request))
    assert seen[0].get_layer("conv1").compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_machines_peak(precision: str, monkeypatch) -> None:
    monkeypatch.setattr(measuring, "_PEAK_SIZES", (64, 128))
    monkeypatch.setattr(measuring, "_PEAK_SECONDS", 0.05)
    found = measure(Request(phase=PEAK, precision=precision))
    assert math.isfinite(found["flops_per_second"]) and found["flops_per_second"] > 1e6
    assert found["threads"] == len(os.sched_getaffinity(0))


def test_files(file: Path) -> None:
    for given in (file, file.parent):
        assert choose_model(given, None, None, None, "it is") == ModelChoice(file=str(file))
    common = {"file": str(file), "batch_size": 2, "repeats": 1, "warmup": 0}
    found = measure(Request(phase=TRAINING, **common))  # of several labels a video
    assert found["input_shape"] == (4, 16, 16, 3) and len(found["seconds"]) == 1
    found = measure(Request(phase=INFERENCE, precision="bfloat16", **common))
    assert found["parameters"] == count_parameters(load_model(file))


def test_a_folder_of_a_models_name(tmp_path: Path, monkeypatch) -> None:
    """The name is the model's; a warning says how the folder is meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slow_fusion").mkdir()
    with pytest.warns(UserWarning, match=r"the folder is \./slow_fusion"):
        assert choose_model("slow_fusion", None, None, None, "it is").name == "slow_fusion"
    with pytest.raises(ModelFileError, match="there is no model file"):
        choose_model("./slow_fusion", None, None, None, "it is")


# -- the command -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_command() -> None:
    small = ["--input-shape", "4x16x16", "--option", "widths=[4,6]", "--repeats", "2"]
    small += ["--only", "training", "--classes", "7", "--threads", "1"]
    result = run("slow_fusion", *small, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert list(document["phases"]) == ["training"] and document["threads"] == 1
    assert document["phases"]["training"]["ms"] > 0
    model = kvideo.models.slow_fusion(7, input_shape=(4, 16, 16, 3), widths=(4, 6))
    assert document["parameters"] == count_parameters(model)
    assert "measuring training …" in result.stderr


@pytest.mark.slow
def test_table(measured: BenchmarkResult) -> None:
    lines = _table(measured).splitlines()
    assert lines[0].startswith("slow_fusion: 4×16×16, 3 at once, float32")
    (inference,) = [line for line in lines if line.startswith("inference ")]
    assert f"{1000 * measured.phases[INFERENCE].median:,.1f}" in inference.split()
    assert any(line.startswith("training ") for line in lines)


def test_unknown_costs_are_shown_as_such() -> None:
    phase = PhaseResult((0.5, 0.25, 1.0), 4, 2.0, 3.0, None, None, None)
    result = BenchmarkResult(
        "mine", (8, 64, 48, 3), 4, "float32", "CPU", 2, 1234, None, "who knows.", 1e12, 9e9,
        {"training": phase},
    )  # fmt: skip
    text = _table(result)
    assert "who knows." in text and text.count("unknown") == 3
    assert "500.0" in text and "8.00" in text and "other programs were running" in text
    assert json.loads(json.dumps(result.to_json()))["macs_per_clip"] is None


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["slow_fusoin"], 2, 'no model "slow_fusoin". Did you mean "slow_fusion"'),
        (["nowhere.keras"], 1, "there is no model file nowhere.keras"),
        (["slow_fusion", "--input-shape", "4x16"], 2, "not FRAMESxHEIGHTxWIDTH"),
        (["slow_fusion", "--input-shape", "4xbigx16"], 2, "not FRAMESxHEIGHTxWIDTH"),
        (["slow_fusion", "--option", "widths"], 2, "not NAME=VALUE"),
        (["slow_fusion", "--precision", "int8"], 2, "int8"),
        (["slow_fusion", "-b", "0"], 2, "0 is not in the range"),
        (
            ["slow_fusion", "--threads", "100000"],
            2,
            "threads must be at most .* for each processor",
        ),
        (
            ["FILE", "--input-shape", "4x16x16"],
            2,
            "is a file, whose shape, classes and options are fixed",
        ),
        (["FILE", "--classes", "10"], 2, "is a file, whose shape, classes and options are fixed"),
        (
            ["FILE", "--option", "widths=[2]"],
            2,
            "is a file, whose shape, classes and options are fixed",
        ),
    ],
)
def test_wrong_usage(file: Path, arguments: list[str], status: int, message: str) -> None:
    result = run(*[str(file) if word == "FILE" else word for word in arguments])
    assert result.exit_code == status and result.stdout == ""
    assert re.search(message, result.stderr), result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--option", "withs=3"], 2, "cannot be built.*withs"),
        (["--input-shape", "4x2x2"], 2, "too small"),
        # 2.4 TB, which no system promises.
        (["--input-shape", "20x200000x200000"], 1, "the memory is not enough"),
    ],
)
def test_what_the_process_finds_wrong(arguments: list[str], status: int, message: str) -> None:
    """One sentence, since nothing has been measured yet."""
    result = run("slow_fusion", *arguments)
    assert result.exit_code == status and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert re.match(f"Error: .*{message}", line)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((0, 16, 16, 3), "sizes of at least 1"),
        ((4, 2, 2, 3), "too small"),
        ((4, 16, 16, 7), "7"),
    ],
)
def test_shapes_that_the_model_does_not_take(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        measure(Request(phase=TRAINING, name="slow_fusion", input_shape=shape))


def test_wrong_arguments(tmp_path: Path, file: Path) -> None:
    with pytest.raises(UnknownNameError, match="slow_fusion"):
        benchmark_model("slow_fuson")
    with pytest.raises(UsageError, match="phases must be some of"):
        benchmark_model("slow_fusion", phases=["export"])
    with pytest.raises(UsageError, match="precision must be one of"):
        benchmark_model("slow_fusion", precision="float8")
    with pytest.raises(UsageError, match="repeats must be at least 1"):
        benchmark_model("slow_fusion", repeats=0)
    (tmp_path / "cut.keras").write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelFileError, match="not a whole model file"):
        benchmark_model(tmp_path / "cut.keras")


def test_a_process_that_dies_is_told(monkeypatch) -> None:
    from kvideo import benchmarking

    request = Request(phase=INFERENCE, name="slow_fusion", batch_size=64)
    for program, message in (
        ("import os; os.kill(os.getpid(), 9)", "memory is not enough to measure inference with 64"),
        ("import sys; sys.exit('std::bad_alloc')", "the memory is not enough"),
        ("raise SystemError('so it goes')", r"inference failed \(exit status 1\): .*so it goes"),
    ):
        monkeypatch.setattr(benchmarking, "_PROGRAM", program)
        with pytest.raises(KVideoError, match=message):
            _measure(request)


def test_importing_it_imports_no_tensorflow() -> None:
    program = "import sys, kvideo.benchmarking; print({'tensorflow', 'keras'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
