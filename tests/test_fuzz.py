"""Mutated and hostile volume files: a short pass, with fixed seeds, of what `tests/faults/fuzz_readers.py` does."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it measures memory as Linux tells it")
SCRIPT = Path(__file__).parent / "faults" / "fuzz_readers.py"
READERS = 13


def run(*arguments):
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)


def test_no_mutated_file_ends_in_a_traceback():
    done = run("--executions", "100", "--seed", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(", 0 findings") == READERS


def test_hostile_files_are_refused_in_one_line_and_take_no_memory():
    """Those of one format, which are made in no time; the script alone tries them all."""
    done = run("--only", "npy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" refused ") == 14
