"""The ends of each range: the last value is taken, the next one is refused, in words that name it."""

import contextlib
import importlib
import math

import numpy as np
import pytest
import torch
from PIL import Image

from mnist3d.callbacks.scores import ScorecardOptions
from mnist3d.data.images import load_images
from mnist3d.data.options import DataOptions
from mnist3d.errors import ExportError, UserError
from mnist3d.evaluation.distances import precision_recall
from mnist3d.export.page import page_html
from mnist3d.export.paths import camera_path
from mnist3d.rendering.renderer import RendererOptions
from mnist3d.training.discriminator import DiscriminatorOptions
from mnist3d.training.objectives.target_list import TargetOptions
from mnist3d.training.options import TrainerOptions
from mnist3d.viewer import ViewerOptions
from mnist3d.volumes import VoxelGrid

FLAGS = [
    ("orbit", "frames", (2, 3600), (1, 3601)),
    ("orbit", "fps", (1, 60), (0, 61)),
    ("orbit", "size", (8, 2048), (7, 2049)),
    ("orbit", "supersample", (1, 8), (0, 9)),
    ("orbit", "elevation", (-90, 90), (-90.1, 90.1)),
    ("orbit", "seed", (0, 2**63 - 1), (-1, 2**63)),
    ("mesh", "resolution", (2, 1024), (1, 1025)),
    ("mesh", "smoothing", (0, 100), (-1, 101)),
    ("mesh", "size_mm", (0.1, 10_000), (0.09, 10_001)),
    ("mesh", "min_wall_mm", (0.1, 1000), (0.09, 1001)),
    ("mesh", "level", (1e-6,), (0, -1)),
    ("points", "count", (2, 1_000_000), (1, 1_000_001)),
    ("points", "min_distance_mm", (0, 1000), (-0.1, 1001)),
    ("points", "size_mm", (0.1, 10_000), (0.09, 10_001)),
    ("points", "seed", (0, 2**63 - 1), (-1, 2**63)),
    ("voxels", "resolution", (1, 1024), (0, 1025)),
    ("voxels", "voxel_size_mm", (1e-6, 1e6), (0, 1_000_001)),
    ("page", "resolution", (2, 256), (1, 257)),
    ("score", "views", (2, 1_000_000), (1, 1_000_001)),
    ("view", "port", (0, 65535), (-1, 65536)),
]


def said(name, flag, value, capsys) -> str:
    """The one line that a command ends with, asked for a run that there is not."""
    command = importlib.import_module(f"mnist3d.cli.{name}")
    with contextlib.suppress(SystemExit):
        try:
            command.main(["no_such_run", f"--{flag}={value}"])
        except UserError as error:
            return str(error)
    return capsys.readouterr().err


@pytest.mark.parametrize(("name", "flag", "taken", "refused"), FLAGS)
def test_flags_of_the_tools(name, flag, taken, refused, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in taken:
        line = said(name, flag, value, capsys)
        assert "no_such_run" in line
        assert flag not in line
    for value in refused:
        line = said(name, flag, value, capsys)
        assert f"--{flag}" in line
        assert "must be" in line
        assert line.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


OPTIONS = [
    (ScorecardOptions, "every", (0, 1), (-1,)),
    (DataOptions, "limit", (2, None), (1, 0)),
    (DataOptions, "held_out", (0.0, 0.9), (-0.01, 0.91)),
    (DataOptions, "scale", (1.0, 1e-3), (0.0, 1.01)),
    (TrainerOptions, "views", (2,), (1,)),
    (TrainerOptions, "max_steps", (1, None), (0,)),
    (TrainerOptions, "stop_after", (1, None), (0,)),
    (TrainerOptions, "max_tilt", (0.0, 60.0), (-0.1, 60.1, math.nan)),
    (RendererOptions, "image_size", (1, 4096), (0, 4097)),
    (RendererOptions, "samples_per_ray", (1, 4096, None), (0, 4097)),
    (DiscriminatorOptions, "features", (1,), (0,)),
    (DiscriminatorOptions, "rate", (1e-9,), (0.0, math.inf, math.nan)),
    (TargetOptions, "jitter", (0.0, 45.0), (-0.1, 45.1)),
    (TargetOptions, "views_per_step", (1,), (0,)),
    (TargetOptions, "focus", (0.0,), (-0.1, math.inf)),
    (TargetOptions, "weight", (1e-9,), (0.0, math.inf)),
    (ViewerOptions, "port", (0, 65535), (-1, 65536)),
    (ViewerOptions, "share", (1e-9, 1.0), (0.0, 1.01)),
]


@pytest.mark.parametrize(("options", "key", "taken", "refused"), OPTIONS)
def test_options_of_a_run(options, key, taken, refused):
    for value in taken:
        assert getattr(options(**{key: value}), key) == value
    for value in refused:
        with pytest.raises(ValueError, match=rf"\.{key}=.*must be"):
            options(**{key: value})


@pytest.mark.parametrize(("name", "last"), [("resolution", 1024), ("initial_opacity", 0.999), ("initial_noise", 0.0)])
def test_arguments_of_a_grid(name, last):
    beyond = {"resolution": 1025, "initial_opacity": 1.0, "initial_noise": -0.1}[name]
    with torch.device("meta"):  # a grid of 1024^3 takes gigabytes
        VoxelGrid(**{name: last, "pyramid": []})
    with pytest.raises(ValueError, match=rf"{name}=.*must be"):
        VoxelGrid(**{name: beyond})


def test_two_images_are_enough_and_one_is_not(tmp_path):
    options = DataOptions(name="images", path=str(tmp_path), held_out=0.0)
    for number in range(2):
        Image.fromarray(np.full((9, 9), 40 * number, np.uint8)).save(tmp_path / f"{number}.png")
        if number == 0:
            with pytest.raises(ValueError, match=r"1 images.*2 or more are needed"):
                load_images(options, 9)
    assert load_images(options, 9).images.shape == (2, 1, 9, 9)


def test_pages_of_two_to_256_voxels():
    volume = VoxelGrid(4)
    assert "[2, 2, 2]" in page_html(volume, RendererOptions(), "x", 2)
    for resolution in (1, 257):
        with pytest.raises(ExportError, match=f"resolution={resolution}: must be in .2, 256."):
            page_html(volume, RendererOptions(), "x", resolution)


def test_keyframes_may_name_all_three_angles(tmp_path):
    file = tmp_path / "way.yaml"
    file.write_text("[{azimuth: 90, elevation: 10, roll: 5}, {azimuth: -90}]")
    assert camera_path(str(file), 4).shape == (4, 3, 3)
    file.write_text("[{azimuth: 90}]")
    with pytest.raises(ExportError, match="two or more"):
        camera_path(str(file), 4)


def test_a_point_at_the_very_reach_of_a_neighbour_lies_among_them():
    """Kynkaanniemi et al. 2019, eq. 1: <=. Five points on a line, each a step from the next; the third neighbour."""
    line = torch.arange(5.0)[:, None]
    beyond = torch.tensor([[7.0], [20.0], [30.0], [40.0]])  # 7 is 3 beyond the last, whose third neighbour is 3 away
    precision, _ = precision_recall(line, beyond)
    assert precision == pytest.approx(1 / 4)
