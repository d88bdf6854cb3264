"""Which run a tool opens, and what it says to a name, a flag or a word that is nearly one that there is."""

import os
from pathlib import Path

import pytest

from mnist3d.cli import mesh, orbit, plot, points, score, view, voxels
from mnist3d.cli.which_run import which_run
from mnist3d.errors import RunError

COUNTER, DIGITS = Path("runs/1-counter"), Path("runs/2-digits")


@pytest.fixture(autouse=True)
def _two_runs(tmp_path, monkeypatch):
    """The digits are newer; the last folder holds no volume, and so is no run."""
    monkeypatch.chdir(tmp_path)
    for age, path in ((100, COUNTER), (50, DIGITS)):
        path.mkdir(parents=True)
        (path / "volume.safetensors").touch()
        os.utime(path / "volume.safetensors", (1e9 - age, 1e9 - age))
    Path("runs/1-countess").mkdir()
    Path("runs/1-countess/config.yaml").touch()


def test_nothing_is_the_newest_and_a_name_is_looked_for_under_runs(capsys):
    assert which_run(None) == DIGITS
    assert capsys.readouterr().err == f"the newest run: {DIGITS}\n"
    assert which_run("1-counter") == COUNTER
    assert capsys.readouterr().err == f"1-counter lies in runs: {COUNTER}\n"


@pytest.mark.parametrize("given", [str(COUNTER), "runs/1-countess", "runs/1-counter/volume.safetensors"])
def test_what_is_there_is_taken_without_a_word(given, capsys):
    assert which_run(given) == Path(given)
    assert capsys.readouterr().err == ""


def test_a_path_that_is_there_wins_over_a_name_under_runs(capsys):
    Path("1-counter").mkdir()
    assert which_run("1-counter") == Path("1-counter")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("runs/1-conter", f"runs/1-conter: no run lies there, did you mean {COUNTER}?"),
        ("1-conter", f"1-conter: no run lies there, did you mean {COUNTER}?"),
        ("run/1-counter", f"run/1-counter: no run lies there, did you mean {COUNTER}?"),
        ("runs/NAME", f"runs/NAME: stands for a run of yours; the newest is {DIGITS}"),
        ("RUN", f"RUN: stands for a run of yours; the newest is {DIGITS}"),
    ],
)
def test_a_name_that_is_nearly_one(given, said):
    with pytest.raises(RunError) as refused:
        which_run(given)
    assert str(refused.value) == said


def test_a_name_like_none_is_for_its_reader_to_refuse():
    assert which_run("nothing_of_the_kind") == Path("nothing_of_the_kind")


@pytest.mark.parametrize(
    ("tool", "typed", "said"),
    [
        (mesh, ["--connect", "bridge"], "--connect=bridge: must be one of none, bridges; did you mean bridges?"),
        (orbit, ["--style", "shadded"], "--style=shadded: must be one of exact, shaded; did you mean shaded?"),
        (view, ["--style", "wire"], "--style=wire: must be one of exact, shaded"),
        (voxels, ["--out", "a.npz"], "--out: no such flag, did you mean --output?"),
        (voxels, ["--out=a.npz"], "--out: no such flag, did you mean --output?"),
        (points, ["--min_distance", "1"], "--min_distance: no such flag, did you mean --min_distance_mm?"),
        (plot, ["--zzz"], "unrecognized arguments: --zzz; "),
        (score, ["--views", "many"], "argument --views: 'many': must be a whole number from 2 to 1000000; "),
    ],
)
def test_a_flag_or_a_word_that_is_nearly_one(tool, typed, said, capsys):
    with pytest.raises(SystemExit) as ended:
        tool.build_parser().parse_args(typed)
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert f": error: {said}" in printed
    assert ("--help explains" in printed) == said.endswith("; ")
