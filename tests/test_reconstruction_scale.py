"""What a reconstruction must not depend on, or must say: the images' scale, masks."""

import json
import math
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from mnist3d.cli import reconstruct, reconstruct_files, reconstruct_ways
from mnist3d.cli.program import run_command
from mnist3d.errors import UserError
from mnist3d.geometry.rotations import PoseOptions, sample_rotations
from mnist3d.reconstruction import judging, known_views, refinement, report, unknown_views
from mnist3d.reconstruction.fourier import soft_ball
from mnist3d.reconstruction.images import Observed
from mnist3d.reconstruction.known_views import Fitted, depth_factor
from mnist3d.reconstruction.pose_search import Poses
from mnist3d.reconstruction.projection import line_integrals
from mnist3d.reconstruction.unknown_views import Found, find_object
from mnist3d.storage.run_directory import RunDirectory
from mnist3d.volumes import HashGrid, VoxelGrid, load_volume

SIZE, COUNT = 8, 12


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    for name, value in (("MOST_ROUNDS", 2), ("POLISH_STEPS", 3), ("FIRST_SPACING", 0.6), ("SPACING", 0.6)):
        monkeypatch.setattr(refinement, name, value)
    monkeypatch.setattr(unknown_views, "POLISHED_FROM", 0.0)
    monkeypatch.setattr(unknown_views, "TRIED_ROUNDS", 1)
    monkeypatch.chdir(tmp_path)


def volume() -> Tensor:
    """Three balls without a symmetry."""
    axis = (2.0 * torch.arange(SIZE) + 1.0) / SIZE - 1.0
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    balls = ((0.3, 0.1, -0.2, 3.0), (-0.35, 0.2, 0.1, 2.0), (0.1, -0.35, 0.25, 1.0))
    return sum(h * torch.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 0.1) for a, b, c, h in balls) + 0.0 * x


ROTATIONS = sample_rotations(COUNT, Generator().manual_seed(0), PoseOptions("so3"))
IMAGES = line_integrals(volume(), ROTATIONS, SIZE)
NOISE = torch.randn(IMAGES.shape, generator=Generator().manual_seed(1))


def found(scale: float = 1.0, of_start: float = 1.0, noise: float = 0.0, **more) -> Found:
    lines = scale * (IMAGES + noise * NOISE)
    seen = Observed(lines, "line_integral", "", 1.0, "pixel", scale * noise)
    return find_object(seen, seeds=1, start=of_start * volume(), **more)


@pytest.mark.parametrize("noise", [0.0, 1.0])  # found by a search and polished, or drawn
def test_the_scale_of_the_images_and_of_the_start_means_nothing(noise: float):
    first = found(noise=noise)
    # Powers of two change no bit on the way.
    for scale, of_start in ((2.0**14, 1.0), (2.0**-40, 2.0**12)):
        other = found(scale, of_start, noise)
        assert torch.equal(other.volume, scale * first.volume)
        assert torch.equal(other.refined.halves, scale * first.refined.halves)
        assert torch.equal(other.refined.poses.rotations, first.refined.poses.rotations)
        assert (other.refined.unexplained, other.noise_share) == (first.refined.unexplained, first.noise_share)
    assert depth_factor(-IMAGES) == depth_factor(IMAGES) == pytest.approx(known_views.DEPTH / float(IMAGES.max()), 0.1)


def test_the_start_has_the_strength_of_the_images():
    seen = Observed(IMAGES, "line_integral", "", 1.0, "pixel", 0.0)
    # of the power of 12 images, beside that of views from everywhere
    torch.testing.assert_close(unknown_views._as_strong_as(seen, 7.0 * volume()), volume(), rtol=0.15, atol=0.0)
    noisy = replace(seen, lines=IMAGES + 0.3 * NOISE, noise=0.3)
    torch.testing.assert_close(unknown_views._as_strong_as(noisy, 7.0 * volume()), volume(), rtol=0.25, atol=0.0)


def test_what_is_said_to_be_unexplained_is_so_by_the_volume_that_is_handed_back(monkeypatch):
    polished = found()
    whole = polished.refined.poses
    left = judging.unexplained_by(polished.volume, IMAGES, whole, polished.refined.resolution)
    torch.testing.assert_close(whole.unexplained, left)
    monkeypatch.setattr(unknown_views, "polish", lambda volume, *rest, **more: torch.zeros_like(volume))
    empty = found()
    assert empty.refined.unexplained == pytest.approx(1.0)
    assert "leaves 100% of the images unexplained" in empty.warnings[0]


def test_true_views_leave_nothing_even_where_they_were_shifted():
    shifts = torch.tensor([[1.0, -2.0]]).expand(COUNT, 2)
    moved = IMAGES.roll((1, -2), (2, 1))
    poses = Poses(ROTATIONS, shifts, torch.zeros(COUNT))
    assert float(judging.unexplained_by(volume(), moved, poses, 3.0).max()) < 1e-6
    assert float(judging.unexplained_by(volume(), IMAGES, poses, 3.0).min()) > 0.1


def test_halves_that_agree_on_nothing_are_no_error_but_a_warning(monkeypatch):
    monkeypatch.setattr(refinement, "crossing", lambda curve, threshold: 0.0)
    monkeypatch.setattr(refinement, "MOST_ROUNDS", 3)  # the first is let be
    told: list[str] = []
    warnings = found(tell=lambda share, doing: told.append(doing)).warnings
    assert "the two halves of the images agree on no detail at all: nothing was found" in warnings[0]
    assert "refining, 8 pixel" in told  # the whole width is the finest then


def test_a_mask_holds_for_the_volume_and_not_for_the_half_maps(monkeypatch):
    mask = torch.zeros(SIZE, SIZE, SIZE)
    mask[:, :, SIZE // 2 :] = 1.0
    for polishes in (True, False):
        result = found(mask=mask, polishes=polishes)
        assert float(result.volume[:, :, : SIZE // 2].max()) == 0.0
        assert float(result.refined.volume[:, :, : SIZE // 2].max()) == 0.0
        assert float(result.volume.max()) > 0.0
        assert float(result.refined.halves[:, :, :, : SIZE // 2].abs().max()) > 0.0


def test_where_the_images_do_not_tell_of_their_noise_no_share_of_it_is_given():
    masked = Observed(IMAGES + 0.5 * NOISE, "line_integral", "", 1.0, "pixel", 0.0, noise_known=False)
    assert math.isnan(find_object(masked, seeds=1, start=volume()).noise_share)
    (warning,) = judging.warnings_of([], 0.2, math.nan)
    assert "leaves 20% of the images unexplained, and how much of that is noise cannot be said" in warning
    assert judging.warnings_of([], 0.01, math.nan) == []


def test_shares_that_are_nearly_equal_have_a_histogram():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    left = torch.tensor([1.0 - 2e-7, 1.0])
    for shares in (left, torch.zeros(2)):
        poses = Poses(ROTATIONS[:2], torch.zeros(2, 2), shares)
        report._residuals(figure.subplots(), report.Drawn(volume(), None, poses, IMAGES, IMAGES, 1.0, "pixel", []))


@pytest.mark.parametrize("pixel", [1.0, 0.05, 20.0])
def test_a_mask_is_where_the_values_of_its_file_are_above_a_half(pixel: float):
    values = volume().numpy() / float(volume().max())
    with mrcfile.new("mask.mrc") as mrc:
        mrc.set_data(values)
        mrc.voxel_size = pixel
        mrc.set_volume()
    mask = reconstruct_ways._mask("mask.mrc", SIZE) > 0.5
    assert int(mask.sum()) == int((values > 0.5).sum())
    (Path() / "written.mrc").write_bytes(report.map_bytes(mask * 1.0 / (2.0 / (SIZE * pixel)), pixel, Path(), ""))
    assert torch.equal(reconstruct_ways._mask("written.mrc", SIZE) > 0.5, mask & (soft_ball(SIZE) > 0.5))


def command(*flags: str) -> None:
    np.save("stack.npy", IMAGES.numpy())
    VoxelGrid.from_array(volume()).save("start.safetensors")
    reconstruct.main(["stack.npy", "--input", "line_integral", "--output", "out", "--viewer.enabled", "false", *flags])


def test_a_resume_with_another_mask_or_start_of_the_same_name_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(reconstruct_files, "figure_bytes", lambda drawn: None)
    flags = ("--mask", "mask.npy", "--start", "start.npy")
    np.save("mask.npy", np.ones((SIZE,) * 3, np.float32))
    np.save("start.npy", volume().numpy())
    command(*flags)
    whole = Path("out/volume.safetensors").read_bytes()
    assert json.loads(Path("out/report.json").read_text())["fsc_inside"] == "the mask"
    assert "the half-maps' FSC is measured inside the mask" in capsys.readouterr().out
    command(*flags, "--resume")
    assert Path("out/volume.safetensors").read_bytes() == whole
    for name in ("mask.npy", "start.npy"):
        before = Path(name).read_bytes()
        np.save(name, np.pad(np.ones((SIZE, SIZE, SIZE - 3), np.float32), ((0, 0), (0, 0), (0, 3))))
        with pytest.raises(UserError, match="of other images or with other options"):
            command(*flags, "--resume")
        Path(name).write_bytes(before)
    assert Path("out/volume.safetensors").read_bytes() == whole


def test_one_image_without_its_pose_is_refused(capsys):
    np.save("one.npy", IMAGES[:1].numpy())
    for start in ("em", "start.safetensors"):
        VoxelGrid.from_array(volume()).save("start.safetensors")
        with pytest.raises(SystemExit) as ended:
            run_command("reconstruct", ["one.npy", "--output", "out", "--start", start])
        assert ended.value.code == 2
        assert "stack=one.npy: holds one image; must hold two or more" in capsys.readouterr().err
        assert not Path("out").exists()


def test_known_directions_that_are_turned_the_other_way_are_warned_of(monkeypatch, capsys):
    monkeypatch.setattr(reconstruct_files, "figure_bytes", lambda drawn: None)
    monkeypatch.setattr(reconstruct, "built", lambda *rest: VoxelGrid.from_array(volume()))
    monkeypatch.setattr(  # as if it had been fitted
        reconstruct_ways,
        "_fitted",
        lambda volume, lines, rotations, *rest: Fitted(1.0, rotations, torch.zeros(COUNT, 2), math.nan, []),
    )
    np.save("right.npy", ROTATIONS.numpy())
    np.save("wrong.npy", ROTATIONS.mT.contiguous().numpy())
    command("--poses", "right.npy")
    said = capsys.readouterr().out
    assert "WARNING" not in said
    assert "unexplained: 0.0% of the images' power, of which noise" in said
    assert "no view was held out: of less than ten images all are learned from" in said
    result = json.loads(Path("out/report.json").read_text())
    assert result["unexplained"] < 1e-5
    assert 0.0 <= result["noise_share"] < 0.1
    Path("out").rename("before")
    command("--poses", "wrong.npy")
    assert "(a transposed matrix is the inverse rotation)" in capsys.readouterr().out
    result = json.loads(Path("out/report.json").read_text())
    assert result["unexplained"] > 0.1
    assert len(result["warnings"]) == 1


def test_what_a_volume_of_another_kind_leaves_is_said(monkeypatch, capsys):
    monkeypatch.setattr(reconstruct_files, "figure_bytes", lambda drawn: None)
    fitted = Fitted(1.0, ROTATIONS, torch.zeros(COUNT, 2), math.nan, [])
    empty = VoxelGrid.from_array(torch.zeros(SIZE, SIZE, SIZE))
    monkeypatch.setattr(reconstruct, "built", lambda *rest: empty)
    monkeypatch.setattr(reconstruct_ways, "_last_stage", lambda *rest: (fitted, "no words"))
    command("--start", "start.safetensors", "--volume", "VoxelGrid")
    assert json.loads(Path("out/report.json").read_text())["unexplained"] == pytest.approx(1.0)
    assert "WARNING: the VoxelGrid leaves 100% of the images unexplained" in capsys.readouterr().out
    assert float(Path("out/poses.csv").read_text().split()[-1].split(",")[-1]) == pytest.approx(1.0)


def test_a_mask_on_oblique_axes_is_refused():
    with mrcfile.new("mask.mrc") as mrc:
        mrc.set_data(np.ones((SIZE,) * 3, np.float32))
        mrc.voxel_size = 1.0
        assert mrc.header is not None
        mrc.header.cellb.gamma = 60.0
        mrc.set_volume()
    with pytest.raises(UserError, match=r"mask=mask.mrc: its axes are oblique"):
        reconstruct_ways._mask("mask.mrc", SIZE)


def test_a_volume_of_another_kind_is_saved_as_it_is(monkeypatch):
    monkeypatch.setattr(reconstruct_files, "figure_bytes", lambda drawn: None)
    seen = Observed(IMAGES, "absorption", "", 1.0, "pixel", 0.0)
    poses = Poses(ROTATIONS, torch.zeros(COUNT, 2), torch.zeros(COUNT))
    weak = 1e-6 * volume()
    for kind, saved in (("HashGrid", HashGrid(num_levels=2, log2_hashmap_size=8)), ("VoxelGrid", VoxelGrid(SIZE))):
        Path(kind).mkdir()
        result = reconstruct_files.Result(seen, saved, 1.0, weak, poses, None, {}, [], [])
        reconstruct_files.write_result(RunDirectory(Path(kind)), result, Path("stack.npy"), SIZE)
        assert type(load_volume(f"{kind}/volume.safetensors")).__name__ == kind
        factor = json.loads(Path(f"{kind}/report.json").read_text())["factor_of_volume_file"]
        assert (factor == 1.0) is (kind == "HashGrid")
