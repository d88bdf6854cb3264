"""What a program tells people to type works as it stands, however the program was started."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mnist3d.cli.program import COMMANDS
from mnist3d.invocation import PROGRAMS, program_name, to_type

ROOT = Path(__file__).parent.parent
TINY = ["--trainer.views", "4", "--volume.resolution", "8", "--data.limit", "40", "--viewer.enabled", "false"]


def started(monkeypatch, typed, argv0):
    monkeypatch.setattr(sys, "orig_argv", shlex.split(typed))
    monkeypatch.setattr(sys, "argv", [str(argv0)])


@pytest.mark.parametrize(
    ("typed", "argv0", "name", "line"),
    [
        ("python train.py", "train.py", "train.py", "python inference.py 'runs/a b'"),
        ("python3.11 ./train.py", "./train.py", "train.py", "python3.11 inference.py 'runs/a b'"),
        ("python tools/plot_run.py", "tools/plot_run.py", "train.py", "python inference.py 'runs/a b'"),
        ("python train.py", ROOT / "train.py", "train.py", f"python {ROOT}/inference.py 'runs/a b'"),
        (
            "python -m mnist3d train",
            ROOT / "mnist3d" / "__main__.py",
            "python -m mnist3d train",
            "python -m mnist3d view 'runs/a b'",
        ),
        ("python my_own.py", "my_own.py", "mnist3d train", "mnist3d view 'runs/a b'"),
        ("python", "", "mnist3d train", "mnist3d view 'runs/a b'"),
    ],
)
def test_what_to_type_next_follows_how_the_program_was_started(typed, argv0, name, line, monkeypatch):
    monkeypatch.chdir(ROOT)
    started(monkeypatch, typed, argv0)
    assert program_name("train") == name
    assert to_type("view", Path("runs/a b")) == line


def test_from_another_folder_the_clone_is_named_from_there(monkeypatch):
    monkeypatch.chdir(ROOT / "docs")
    started(monkeypatch, "python ../train.py", "../train.py")
    assert to_type("view") == "python ../inference.py"


def test_somebody_elses_program_of_the_same_name_is_no_program_of_ours(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").touch()
    started(monkeypatch, "python train.py", "train.py")
    assert (program_name("train"), to_type("view")) == ("mnist3d train", "mnist3d view")


def test_an_installed_program_goes_by_its_name_where_the_shell_finds_it_and_else_by_its_path(monkeypatch, tmp_path):
    program = tmp_path / "bin" / "mnist3d"
    program.parent.mkdir()
    program.touch(mode=0o755)
    started(monkeypatch, f"python {program} train", program)
    monkeypatch.setenv("PATH", str(program.parent))
    assert to_type("view") == "mnist3d view"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert to_type("view") == f"{program} view"


def test_a_command_without_a_program_goes_by_the_one_command(monkeypatch):
    monkeypatch.chdir(ROOT)
    started(monkeypatch, "python train.py", "train.py")
    assert to_type("presets") == "mnist3d presets"


def test_every_command_but_presets_has_its_program_in_the_clone_of_a_few_lines():
    without = {"presets", "doctor", "sweep", "compare", "reconstruct", "project", "fsc", "convert"}
    assert set(PROGRAMS) == set(COMMANDS) - without
    for command, program in PROGRAMS.items():
        lines = (ROOT / program).read_text().splitlines()
        assert len(lines) <= 8
        assert f'    run_command("{command}")' in lines


@pytest.mark.parametrize(
    ("start", "stream", "before", "more"),
    [
        (["train.py"], "stderr", "go on with: ", []),
        (["-m", "mnist3d", "train"], "stdout", "Look at it: ", ["--snapshot", "views.png"]),
    ],
    ids=["a clone goes on", "a module looks"],
)
def test_what_a_run_says_at_its_end_can_be_typed(start, stream, before, more, tmp_path):
    def run(*words):
        return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True)

    more = [str(tmp_path / word) if word.endswith(".png") else word for word in more]
    said = run(
        sys.executable, *start, *TINY, "--trainer.max_steps", "4", "--trainer.stop_after", "1", "--run_dir", tmp_path
    )
    line = getattr(said, stream).splitlines()[-1].partition(before)[2]
    done = run(*shlex.split(line), *more)
    assert (tmp_path / "views.png").is_file() if more else "Look at it: " in done.stdout


def test_a_program_started_from_its_own_folder_goes_by_that_and_a_run_with_a_dash_is_no_flag(monkeypatch, tmp_path):
    (tmp_path / "mnist3d").touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    started(monkeypatch, "python ./mnist3d train", "./mnist3d")
    assert to_type("view") == "./mnist3d view"
    started(monkeypatch, "python -m mnist3d train", ROOT / "mnist3d" / "__main__.py")
    assert to_type("train", "--resume", Path("-dash")) == "python -m mnist3d train --resume ./-dash"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is full")
def test_output_that_is_closed_or_has_no_room_is_no_traceback():
    def ended(redirected):
        line = f"{shlex.quote(sys.executable)} -m mnist3d {redirected}"
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, cwd=ROOT, env=buffered, check=False)
        return done.returncode, done.stderr

    full = "error: the output cannot be written (No space left on device)\n"
    assert ended("presets > /dev/full") == (2, f"python -m mnist3d presets: {full}")
    assert ended("--help > /dev/full") == (2, f"python -m mnist3d: {full}")
    assert ended("presets >&-") == (0, "")
