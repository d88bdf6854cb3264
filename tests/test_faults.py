"""A short pass of each script in tests/faults/, and that their verdicts can fail."""

import importlib.util
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "faults"))

import verdicts  # pyright: ignore[reportMissingImports]
import watched  # pyright: ignore[reportMissingImports]
from watched import Case, Outcome, run_alone  # pyright: ignore[reportMissingImports]

from tests.conftest import need

FAULTS = Path(__file__).parent / "faults"
linux = pytest.mark.skipif(sys.platform != "linux", reason="forks, /proc and named pipes")


@linux
@pytest.mark.parametrize(
    ("script", "count"),
    [("commands.py", "2"), ("files.py", "3"), ("code_in_files.py", "2"), ("resumes.py", "1")],
)
def test_a_short_pass_finds_nothing(script, count):
    """The cases of the first numbers; `python tests/faults/SCRIPT` tries them all."""
    for module in ("mrcfile", "nibabel", "nrrd"):
        need(importlib.util.find_spec(module), f"{module} is not installed")
    words = [FAULTS / script, "--count", count, "--alone", "0"]
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def case_of(tmp_path, text, **options):
    """A program of these lines, as a case."""
    (tmp_path / "program.py").write_text(text)
    (tmp_path / "folder").mkdir()
    return Case(0, "made", str(tmp_path / "program.py"), [], tmp_path / "folder", **options)


@linux
@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("import sys; sys.exit('program.py: error: one line')", "exit code 1"),
        ("import sys; print('program.py: error: one line', file=sys.stderr); sys.exit(2)", ""),
        ("import sys; print('program.py: error: two\\nlines', file=sys.stderr); sys.exit(2)", "2 lines on stderr"),
        ("import sys; print('program.py: one line', file=sys.stderr); sys.exit(2)", "no line of program.py"),
        ("import sys; print('other.py: error: one line', file=sys.stderr); sys.exit(2)", "no line of program.py"),
        ("import sys; sys.exit(2)", "0 lines on stderr"),
        ("import sys; print('program.py: error: ' + 'x' * 5000, file=sys.stderr); sys.exit(2)", "characters"),
        ("import sys; print('program.py: error: \\x1b[31m', file=sys.stderr); sys.exit(2)", "no terminal"),
        (
            "import sys; open('left', 'w'); print('program.py: error: one line', file=sys.stderr); sys.exit(2)",
            "changed left",
        ),
        ("1 / 0", "traceback: ZeroDivisionError"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
        ("pass", ""),
        ("import sys; sys.exit(3)", "exit code 3"),
    ],
)
def test_what_no_user_should_meet_is_a_failure(tmp_path, text, verdict):
    case = case_of(tmp_path, text)
    (*found,) = verdicts.faults(case, run_alone(case))
    assert [verdict in line for line in found] == ([True] if verdict else [])


@linux
def test_what_hangs_computes_for_ever_or_takes_all_memory_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(watched, "SECONDS", 0.2)
    monkeypatch.setattr(watched, "GIVEN_UP", 100.0)
    endings = {"import time; time.sleep(600)": "it slept", "while True: pass": "of computing"}
    endings["held = b'x' * 2**28\nimport time; time.sleep(600)"] = "MiB"
    for number, (text, ending) in enumerate(endings.items()):
        (tmp_path / f"{number}").mkdir()
        case = case_of(tmp_path / f"{number}", text)
        outcome = run_alone(case)
        assert outcome.code == -signal.SIGKILL
        (found,) = verdicts.faults(case, outcome)
        assert ending in found


@linux
def test_what_rightly_works_is_stopped_by_ctrl_c_and_must_then_end(tmp_path, monkeypatch):
    text = "import time\nprint('page: Ctrl-C ends', flush=True)\n"
    text += "try:\n    time.sleep(600)\nexcept KeyboardInterrupt:\n    pass"
    case = case_of(tmp_path, text)
    outcome = run_alone(case)
    assert (outcome.code, outcome.ended, verdicts.faults(case, outcome)) == (0, "stopped", [])


def test_memory_is_bounded_for_what_is_refused_and_for_what_is_small(tmp_path):
    refused = Outcome(2, "", "mnist3d: error: no", 1.0, 2000.0)
    done = Outcome(0, "", "", 1.0, 2000.0)
    large, small = (Case(0, "made", "mnist3d", [], tmp_path, small=small) for small in (False, True))
    assert verdicts.faults(large, refused) == ["peak memory 2000 MiB"]
    assert verdicts.faults(small, done) == ["peak memory 2000 MiB"]
    assert verdicts.faults(large, done) == []


@linux
def test_cases_come_again_with_their_seed(tmp_path):
    """And no two numbers make the same: a generator that repeats itself tries less than it says."""
    from commands import make_case  # pyright: ignore[reportMissingImports]

    (tmp_path / "run").mkdir()
    for name in ("voxels.npz", "stack.mrcs", "stack.csv", "stack.star"):
        (tmp_path / name).touch()
    lines = [[make_case(seed, tmp_path, number).line() for number in range(30)] for seed in (0, 0, 1)]
    assert lines[0] == lines[1] != lines[2]
    assert len(set(lines[0])) >= 29


@linux
def test_every_way_of_damage_changes_the_file(tmp_path):
    from hostile import KINDS, damage  # pyright: ignore[reportMissingImports]

    others = {"other": b"something else"}
    for kind in KINDS:
        changed = 0
        for number in range(10):
            path = tmp_path / f"{kind}{number}" / "file"
            path.parent.mkdir()
            path.write_bytes(bytes(range(256)) * 4)
            damage(random.Random(number), path, kind, others)
            changed += not path.is_file() or path.is_symlink() or path.stat().st_size != 1024
            changed += path.is_file() and path.stat().st_size == 1024 and path.read_bytes() != bytes(range(256)) * 4
        assert changed >= 9, kind
    assert os.path.getsize(tmp_path / "bomb0" / "file") > 2**30


def test_a_fork_and_a_process_of_its_own_must_refuse_in_the_same_words(tmp_path):
    """What works says how fast it was, each time another number."""
    case = Case(0, "made", "mnist3d", [], tmp_path)
    for code, text, failures in ((0, "8 steps/s", 0), (2, "mnist3d: error: a", 1)):
        report = verdicts.Report(0, 300.0)
        report.compare(case, Outcome(code, "", text, 1.0, 300.0), Outcome(code, "", "mnist3d: error: b", 1.0, 300.0))
        assert report.failures == failures
