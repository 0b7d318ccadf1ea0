"""Who may import whom: the rules of CONTRIBUTING.md, enforced on the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "kvideo"

# Nothing of TensorFlow, and heavy libraries only inside functions.
NO_TENSORFLOW = [
    "__init__", "errors", "clip_spec", "registry", "files", "text", "progress", "metrics",
    "recipes", "results", "scores", "report", "report.page", "report.tables", "report.text",
    "report.timeline", "report.timeline_plot", "report.plots", "report.films", "report.rate_plot",
    "feature_files", "feature_set", "segmentation", "segmentation.metrics",
    "segmentation.results", "segmentation.files", "data.windows",
    "data.tracks", "data.over_time", "data.class_folders",
    "data.demo_words", "data.demo_sequences", "data.demo_dots",
    "data.annotations", "data.records", "data.formats",
    "data.entries", "data.matching", "data.parts", "data.tables", "data.textures", "data.packets",
    "data.listing", "data.class_names", "data.splits", "data.decode", "data.frames",
    "data.picture", "data.containers", "data.sampling", "data.demo", "data.check",
    "data.live", "data.live_inputs", "data.placing",
    "flow", "flow.colors", "flow.estimation", "flow.files", "flow.geometry",
    "flow_settings", "flow.movies", "flow.coding", "flow.cuts", "noise",
    "data.shards", "data.shards.layout", "data.shards.messages", "data.shards.reading",
    "data.shards.checking",
    "data.flow_cache", "data.clip_flow", "data.encoding", "data.threads", "data.timing",
    "data.epochs", "data.shares", "data.failures", "data.clip_reader", "data.training_clips",
    "weights.torch_reader", "weights.download", "weights.published", "weights.labels",
    "weights.families", "weights.guessing", "weights.mean_cube", "weights.resnet3d",
    "weights.torchvision", "weights.inception", "weights.c3d", "children", "ports",
    "localization", "localization.metrics", "localization.suppression", "localization.results",
    "localization.files", "localization.index", "localization.anchors", "localization.overlay",
    "localization.outputs", "data.untrimmed", "report.segments_plot", "report.drawing",
    "data.actors", "data.between", "data.boxes", "data.gt_tubes", "data.keyframes",
    "data.proposals",
    "data.demo_actors", "detection.metrics", "detection.tubes", "detection.results",
    "detection.scoring", "detection.settings", "detection.suppression", "detection.overlay",
]  # fmt: skip
LAZY = {"av", "cv2", "skimage", "matplotlib", "sklearn", "PIL"}
HEAVY = {"tensorflow", "keras", "keras_cv", "tensorflow_io"}
# Only these see data and a model together.
MEETING_POINTS = {
    "training", "evaluation", "prediction", "streaming", "features", "localization", "detection",
    "visualization", "api", "cli", "__init__", "conversion",
    "segmentation.scoring", "score_fusion", "comparison",
}  # fmt: skip
# These take any keras.Model and never a builder of ours.
MODEL_AGNOSTIC = {"weights", "analysis", "visualization", "inflation"}


def _modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[-1] == "__init__" and len(parts) > 1:
            parts = parts[:-1]
        found[".".join(parts)] = path
    return found


MODULES = _modules()


class _Imports(ast.NodeVisitor):
    """Names of imported modules: at the top, and anywhere (type-checking blocks left out)."""

    def __init__(self) -> None:
        self.top: set[str] = set()
        self.all: set[str] = set()
        self.depth = 0

    def visit_If(self, node: ast.If) -> None:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1

    visit_AsyncFunctionDef = visit_FunctionDef

    def _add(self, name: str) -> None:
        self.all.add(name)
        if not self.depth:
            self.top.add(name)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module and not node.level:
            self._add(node.module)
            for alias in node.names:
                if f"{node.module}.{alias.name}".removeprefix("kvideo.") in MODULES:
                    self._add(f"{node.module}.{alias.name}")


def _imports(module: str) -> _Imports:
    visitor = _Imports()
    visitor.visit(ast.parse(MODULES[module].read_text()))
    return visitor


def _ours(names: set[str]) -> set[str]:
    return {name.removeprefix("kvideo.") for name in names if name.startswith("kvideo.")}


def _roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("module", [name for name in NO_TENSORFLOW if name in MODULES])
def test_light_modules_import_no_tensorflow(module: str) -> None:
    found = _imports(module)
    assert not _roots(found.all) & HEAVY, f"{module} must not import TensorFlow"
    assert not _roots(found.top) & LAZY, f"{module} must import these inside functions"


def test_light_modules_import_only_light_modules_at_their_top() -> None:
    light = set(NO_TENSORFLOW) | {"data"}
    for module in NO_TENSORFLOW:
        if module in MODULES and module != "__init__":
            assert not _ours(_imports(module).top) - light, module


def test_every_light_module_of_the_list_exists_or_is_planned() -> None:
    assert len([name for name in NO_TENSORFLOW if name in MODULES]) > 15


@pytest.mark.parametrize("module", sorted(MODULES))
def test_layers_of_the_house(module: str) -> None:
    room, ours = module.split(".")[0], {name.split(".")[0] for name in _ours(_imports(module).all)}
    if room != "cli":
        assert "cli" not in ours, "nothing imports cli"
    if room == "data":
        assert not ours & {"models", "layers", "weights", "training"}
    if room == "models":
        assert "data" not in ours
    if room in MODEL_AGNOSTIC:
        assert "models" not in ours
    if room == "layers":
        assert not ours & {"models", "data", "training"}
    if "data" in ours and ours & {"models", "inference", "saving"}:
        assert {room, module} & MEETING_POINTS, f"{module} sees data and a model"


def _loaded_after(code: str) -> set[str]:
    command = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_kvideo_is_light() -> None:
    loaded = _loaded_after("import kvideo; kvideo.ClipSpec; kvideo.Views; dir(kvideo)")
    assert not loaded & (HEAVY | LAZY | {"numpy", "click"})


@pytest.mark.parametrize("arguments", [["--help"], ["models"], ["fit", "--help"], ["check", "-h"]])
def test_help_and_models_are_light(arguments: list[str]) -> None:
    code = (
        "import contextlib, io, sys\n"
        f"sys.argv = ['kvideo', *{arguments!r}]\n"
        "from kvideo.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):\n"
        "    main()\n"
        "assert text.getvalue()\n"
    )
    assert not _loaded_after(code) & (HEAVY | LAZY | {"numpy"})


def test_public_names_load() -> None:
    import kvideo

    for name in kvideo.__all__:
        assert getattr(kvideo, name) is not None
    with pytest.raises(AttributeError):
        kvideo.no_such_name  # noqa: B018
