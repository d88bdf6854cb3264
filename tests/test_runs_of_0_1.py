"""Runs and volumes that version 0.1.0 wrote still open, export and go on; the two in `data/` were written by it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from mnist3d import load_run
from mnist3d.cli.parser import parse_command_line
from mnist3d.errors import RunError
from mnist3d.export import export_voxels
from mnist3d.formats import read_voxels
from mnist3d.runs.loading import load_sculpture
from mnist3d.runs.session import sculpt
from mnist3d.volumes import HashGrid, VoxelGrid, load_volume

RUNS = {"dense": VoxelGrid, "hash": HashGrid}
FOUR_MORE = ["--trainer.stop_after", "4", "--viewer.enabled", "false"]


@pytest.fixture(params=RUNS)
def old(request, tmp_path) -> Path:
    """A copy, as a resumed run writes into its folder; stopped at step 20 of 40."""
    return Path(
        shutil.copytree(Path(__file__).parent / "data" / f"run_of_0_1_{request.param}", tmp_path / request.param)
    )


def test_it_opens_and_shows_something(old):
    run = load_run(old)
    assert type(run.volume) is RUNS[old.name]
    assert run.origin["step"] == 20
    assert run.config.watchdog == "rewind"
    assert run.config.discriminator.channels == [4]
    image = run.renderer(run.volume, torch.eye(3))
    assert image.shape == (1, 1, 16, 16)
    assert image.std() > 0.01


def test_its_volume_file_opens_on_its_own(old):
    run = load_sculpture(old / "volume.safetensors")
    assert type(run.volume) is RUNS[old.name]
    assert run.renderer.options.image_size == 16


def test_its_volume_exports_and_comes_back(old, tmp_path):
    volume = load_volume(old / "volume.safetensors")
    export_voxels(volume, tmp_path / "volume.npz")
    again = read_voxels(tmp_path / "volume.npz")
    grid = volume.dense()
    assert grid is not None
    inside = again[0] > 0  # what no view can see is left out
    assert inside.mean() > 0.4
    np.testing.assert_allclose(again[:, inside], grid.detach().numpy()[:, inside], rtol=1e-4, atol=1e-5)


def test_it_goes_on_as_version_0_1_went_on(old):
    """Four more steps: what 0.1.0 made of the same checkpoint, up to another processor's rounding."""
    expected = load_file(old / "four_steps_later.safetensors")
    before = load_file(old / "volume.safetensors")
    sculpt(parse_command_line(["--resume", str(old), *FOUR_MORE]))
    found = load_file(old / "volume.safetensors")
    assert found.keys() == expected.keys()
    moved, off = (
        sum(float((expected[key].float() - other[key].float()).abs().sum()) for key in expected)
        for other in (before, found)
    )
    # On the machine that wrote it the same to the bit. Elsewhere rounding may turn a voxel whose gradient is near 0, as
    # Adam divides by its size: so the whole is compared, and not the largest.
    assert off < 0.1 * moved
    state = torch.load(old / "resume.pt", weights_only=True)
    assert state["steps_done"] == 24
    assert "objectives" in state


def test_targets_that_are_image_files_are_found_under_their_new_keys(old):
    config = old / "config.yaml"
    values = yaml.safe_load(config.read_text())
    values["targets"] = {"views": [{"picture": "a.png", "azimuth": 9}], "rings": [{"pictures": ["b.png"]}]}
    config.write_text(yaml.safe_dump(values))
    targets = load_run(old).config.targets
    assert targets.views == [{"image": "a.png", "azimuth": 9}]
    assert targets.rings == [{"images": ["b.png"]}]


def test_a_run_of_other_constants_is_looked_at_but_not_continued(old):
    config = old / "config.yaml"
    values = yaml.safe_load(config.read_text())
    values["trainer"]["final_rate"] = 0.5
    config.write_text(yaml.safe_dump(values))
    assert load_run(old).origin["step"] == 20
    with pytest.raises(RunError, match=r"trainer\.final_rate") as error:
        parse_command_line(["--resume", str(old), *FOUR_MORE])
    assert "\n" not in str(error.value)
