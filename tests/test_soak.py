"""A run with unreadable files that is ended again and again: `benchmarks/soak.py`, shortened."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "soak.py"


def test_a_run_that_is_ended_again_and_again_equals_an_undisturbed_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path, "--steps", "150", "--every", "60"],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"3 attempts; largest difference of any variable \S", done.stdout)
