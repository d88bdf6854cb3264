"""Figures of a run: which curves they hold."""

import importlib.util
import itertools

import numpy as np
import pytest
from PIL import Image

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


def test_only_of_what_is_not_there_it_says_so(tmp_path):
    scored = {"step": 40, "legible": 0.6, "clean": 0.4, "penalty": 1.0, "histogram": {"3": 0.7, "8": 0.3}}
    path = plot_run(tmp_path / "run.svg", [*RECORDS, scored], "a run", class_names=["3", "8"])
    assert drawn(path).count("<!-- nothing recorded -->") == 1  # of the views


def test_of_a_volume_alone_the_atlas(tmp_path):
    path = plot_run(tmp_path / "run.svg", [], "a volume", atlas=np.zeros((4, 6, 3), np.uint8))
    assert "<image" in drawn(path)
    assert "<!-- discriminator -->" not in drawn(path)


HISTOGRAM = {f"a class named {k}": 1.0 / 60 for k in range(60)}
MANY = [
    {**record, **{f"a_loss_of_somebody_with_a_long_name_{k}_loss": 0.1 * k for k in range(20)}, "penalty": 3e-5}
    for record in RECORDS
]
SCORED = {"step": 41, "legible": 0.6, "clean": 0.4, "histogram": HISTOGRAM}


@pytest.mark.parametrize(
    ("records", "penalties"),
    [([], []), (RECORDS, []), (RECORDS, [3e-5]), (RECORDS, [1e29, 1e-29]), (MANY, [0.031, 0.032, 0.033])],
)
def test_places_are_fixed_and_yet_nothing_covers_anything_else(records, penalties, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []  # and not written, which takes longer than all else
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: (drawn.append(self), path.write_text("")))
    scored = [{**SCORED, "step": 41 + k, "penalty": penalty} for k, penalty in enumerate(penalties)]
    atlas = np.zeros((64, 216, 3), np.uint8)
    plot_run(tmp_path / "run.svg", [*records, *scored], "a run " * 40, atlas, list(HISTOGRAM))
    (figure,) = drawn
    boxes = [axes.get_tightbbox() for axes in figure.axes] + [text.get_window_extent() for text in figure.texts]
    assert len(boxes) == 2 + (4 if records else 0) + (2 if scored else 0)
    for first, second in itertools.combinations(boxes, 2):
        assert not first.overlaps(second)
    width, height = figure.bbox.size
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)


@pytest.mark.parametrize("records", [[], RECORDS])
def test_the_atlas_of_a_png_is_below_all_and_never_enlarged(records, tmp_path):
    atlas = np.full((50, 200, 3), (200, 30, 60), np.uint8)
    figure = np.asarray(Image.open(plot_run(tmp_path / "run.png", records, "a run", atlas)))
    down, right = np.nonzero((figure == atlas[0, 0]).all(axis=-1))
    assert (len(down), np.ptp(down), np.ptp(right)) == (50 * 200, 49, 199)
    assert (figure[down.max() + 1 :] == 255).all()
    assert (figure[: down.min()] < 128).any()
