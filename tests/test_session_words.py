"""What a run says on the terminal of its images, its scores and how to measure it."""

import re

import pytest

from mnist3d.cli.parser import parse_command_line
from mnist3d.runs.session import sculpt

TINY = ["--trainer.views", "4", "--volume.resolution", "8", "--trainer.max_steps", "2", "--scorecard.every", "2"]
LEGIBLE = re.compile(r"  \d+ % legible, \d+\.\d classes$", re.MULTILINE)
MEASURE = "to measure how many of its views can be read: mnist3d score run\n"


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    """What a run in a folder of its own writes to stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        sculpt(parse_command_line([*TINY, "--viewer.enabled", "false", "--run_dir", "run", *arguments]))
        return capsys.readouterr().err

    return run


def test_a_run_of_many_views_says_what_can_be_read_and_how_to_measure_it(said):
    told = said()
    assert "3,500 images of mnist_5k to train on, cpu" in told
    assert LEGIBLE.search(told), told
    assert MEASURE in told


def test_a_run_that_is_stopped_is_not_measured_yet(said):
    told = said("--trainer.stop_after", "1")
    assert "go on with: mnist3d train --resume run" in told
    assert MEASURE not in told


def test_other_views_of_what_only_targets_made_are_not_held_against_it(said, tmp_path):
    """They are in stats.jsonl all the same."""
    told = said("--config", "counter", "--trainer.max_minutes", "null")
    assert "legible" not in told
    assert MEASURE not in told
    assert '"legible"' in (tmp_path / "run" / "stats.jsonl").read_text()
