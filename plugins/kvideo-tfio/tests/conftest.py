"""Fixtures that every test may use."""

import os
import warnings
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# The project's folder, four up from this file; test data are beside it.
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real videos: `KVIDEO_TEST_DATA`, by default ../shared."""
    folder = Path(os.environ.get("KVIDEO_TEST_DATA", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no test data at {folder} (set KVIDEO_TEST_DATA)")
    return folder


@pytest.fixture(autouse=True)
def fresh_warnings(monkeypatch):
    """Each test is told what a process is told once; what it does not expect fails it."""
    monkeypatch.setattr("kvideo_tfio.reader._warned", set())
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*is read with PyAV")
        yield
