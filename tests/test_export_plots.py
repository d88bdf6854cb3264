"""Figures of a run: which curves they hold."""

import importlib.util

import numpy as np
import pytest

from mnist3d.export.plots import plot_run
from tests.conftest import need

RECORDS = [
    {
        "step": step,
        "progress": step / 100,
        "discriminator_loss": 0.5,
        "volume_loss": 1.0,
        "diversity_loss": -4.0,
        **more,
    }
    for step, more in ((20, {"total_variation_loss": 0.3}), (40, {"total_variation_loss": 0.2}))
]


@pytest.fixture(autouse=True)
def matplotlib():
    need(importlib.util.find_spec("matplotlib"), "matplotlib is not installed: pip install -e '.[export]'")


def drawn(path) -> str:
    """matplotlib keeps each text of an .svg as a comment beside its outlines."""
    return path.read_text()


def test_losses_of_any_objective_are_drawn(tmp_path):
    path = plot_run(tmp_path / "run.svg", RECORDS, "a run")
    assert all(f"<!-- {label} -->" in drawn(path) for label in ("discriminator", "volume", "total variation"))
    assert "<!-- diversity -->" not in drawn(path)


def test_of_a_name_of_any_length_a_legend_has_its_beginning(tmp_path):
    records = [{"step": step, f"\x1b{'k' * 60_000}_loss": 0.5} for step in (1, 2)]
    path = plot_run(tmp_path / "run.svg", records, "a run")
    assert rf"<!-- \x1b{'k' * 36} -->" in drawn(path)


def test_scores_are_drawn_where_there_are_any(tmp_path):
    scored = {"step": 40, "legible": 0.6, "clean": 0.4, "histogram": {"3": 0.7, "8": 0.3}}
    path = plot_run(tmp_path / "run.svg", [*RECORDS, scored], "a run", class_names=["3", "8"])
    assert all(f"<!-- {label} -->" in drawn(path) for label in ("legible", "clean", "3", "8"))
    assert "<!-- legible -->" not in drawn(plot_run(tmp_path / "without.svg", RECORDS, "a run"))


def test_of_a_volume_alone_the_atlas(tmp_path):
    path = plot_run(tmp_path / "run.svg", [], "a volume", atlas=np.zeros((4, 6, 3), np.uint8))
    assert "<image" in drawn(path)
    assert "<!-- discriminator -->" not in drawn(path)
