"""Volumes and views in Fourier space against closed forms: Gaussian balls, whose projections are Gaussian discs."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mnist3d.geometry.grids import voxel_centres
from mnist3d.geometry.rotations import PoseOptions, sample_rotations
from mnist3d.reconstruction.alignment import Alignment, align
from mnist3d.reconstruction.fourier import (
    coefficients,
    filtered,
    half_disc,
    insert,
    low_pass,
    moved,
    resized,
    shells_of,
    slices,
    soft_ball,
    solve,
    volume_transform,
)
from mnist3d.reconstruction.fsc import correlation, crossing, shell_correlation
from mnist3d.reconstruction.images import moved_by
from mnist3d.reconstruction.projection import line_integrals
from mnist3d.reconstruction.so3 import angle_between, matrix_of_zyz, rotation_grid, rotation_of, zyz_of

SIZE = 16
BALLS = (
    ((0.3, 0.1, -0.2), 0.2, 3.0),
    ((-0.35, 0.2, 0.1), 0.16, 2.0),
    ((0.1, -0.35, 0.25), 0.18, 1.0),
    ((0.0, 0.2, 0.35), 0.17, 2.5),
)  # not in a plane, or the mirror image were a rotation
# Linear interpolation of exp(i w x) errs by at most (w h)^2 / 8; a ball at radius r turns by w h = pi r / 2 from one
# sample of the padded transform to the next, so by .05 at r = .42; what `_falloff` corrects is in that.
INTERPOLATION = 0.05


def volume(size: int = SIZE) -> Tensor:
    """The balls, as attenuation."""
    axis = voxel_centres(size).float()
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    terms = [
        height * torch.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 2.0 / width**2)
        for (a, b, c), width, height in BALLS
    ]
    return torch.stack(terms).sum(0)


def discs(rotations: Tensor, size: int = SIZE) -> Tensor:
    """Their line integrals: height * width * sqrt(2 pi) * a Gaussian about R c."""
    axis = voxel_centres(size).float()
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    total = torch.zeros(len(rotations), size, size)
    for centre, width, height in BALLS:
        x, y, _ = (rotations @ torch.tensor(centre)).T[..., None, None]
        squared = (u - x) ** 2 + (v - y) ** 2
        total += height * width * math.sqrt(2.0 * math.pi) * torch.exp(-squared / 2.0 / width**2)
    return total


def rotations(count: int, seed: int = 0) -> Tensor:
    return sample_rotations(count, torch.Generator().manual_seed(seed), PoseOptions("so3"))


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def test_half_a_disc_has_one_of_each_pair():
    found = {(int(x), int(y)) for x, y in half_disc(5)}
    assert (0, 0) not in found
    assert not any((-x, -y) in found for x, y in found)
    whole = {(x, y) for x in range(-6, 7) for y in range(-6, 7) if 0 < math.hypot(x, y) < 5.5}
    assert found | {(-x, -y) for x, y in found} == whole
    assert {*map(tuple, half_disc(5, with_middle=True).tolist())} == found | {(0, 0)}


def test_a_slice_is_the_transform_of_the_view():
    turned, frequencies = rotations(20), half_disc(6)
    found = slices(volume_transform(volume()), turned, frequencies)
    assert relative(found, coefficients(discs(turned), frequencies)) < INTERPOLATION


def test_the_renderer_and_the_closed_form_agree():
    # trilinear interpolation smooths a ball of width w by (h / w)^2 / 12 of its height or so, h = 2 / 32
    turned = rotations(5)
    assert relative(line_integrals(volume(32), turned, SIZE, 64), discs(turned)) < 0.02


def test_a_ray_that_lets_nothing_pass_has_a_line_integral():
    dense = 1000.0 * volume()
    turned = rotations(3)
    torch.testing.assert_close(line_integrals(dense, turned, SIZE), 1000.0 * line_integrals(volume(), turned, SIZE))


def test_the_line_integrals_of_a_ball_are_its_chords():
    """Of attenuation 1: 2 in the middle. Without the logarithm it would be 1 % less, half of a depth of .02."""
    axis = voxel_centres(17).float()
    radius = (axis[:, None].square() + axis.square()).sqrt()
    chords = 2.0 * (1.0 - radius.square()).clamp_min(0.0).sqrt()
    found = line_integrals(torch.ones(SIZE, SIZE, SIZE), rotations(2), 17)
    inside = radius < 0.9  # steps at the rim are clipped to the ball
    torch.testing.assert_close(found[:, inside], chords[inside].expand(2, -1), rtol=1e-3, atol=0)


@pytest.mark.parametrize("shifted", [False, True])
def test_inserted_slices_give_the_volume(shifted: bool):
    turned = rotations(300)
    shifts = torch.rand(300, 2, generator=torch.Generator().manual_seed(1)) * 2.0 - 1.0 if shifted else None
    images = discs(turned) if shifts is None else moved_by(discs(turned), shifts)
    found, wanted = solve(insert(images, turned, shifts)), volume() * soft_ball(SIZE)
    # What interpolation takes from the balls, 1 - sinc(r / 4)^2 = .036 at r = .42, is given back.
    assert float((found * wanted).sum() / wanted.square().sum()) == pytest.approx(1.0, abs=0.01)
    assert relative(found, wanted) < 0.01  # its aliases are what is left, averaged over many slices


def test_a_shift_is_a_phase():
    images, shifts = discs(rotations(2)), torch.tensor([[1.0, 0.0], [0.0, -2.0]])
    frequencies = half_disc(SIZE // 2 - 1)
    found = moved(coefficients(images, frequencies), frequencies, shifts, SIZE)
    wanted = torch.stack([images[0].roll(1, 1), images[1].roll(-2, 0)])
    torch.testing.assert_close(found, coefficients(wanted, frequencies), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("old", "new"), [(16, 24), (24, 16), (15, 16)])
def test_another_size_is_the_same_object(old: int, new: int):
    # a Gaussian of width .16 has exp(-(2 pi f)^2 w^2 / 2) = 4e-3 of its power beyond 7 cycles in a width of 2
    assert relative(resized(volume(old), new, 3), volume(new)) < 0.01
    turned = rotations(2)
    assert relative(resized(discs(turned, old), new, 2), discs(turned, new)) < 0.01


def test_filters_leave_what_they_should():
    noise = torch.randn(SIZE, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    kept = torch.fft.fftn(filtered(noise, torch.tensor([1.0, 1.0, 1.0, 0.5]))).abs()
    shell = shells_of(SIZE).round()
    gain = (shell <= 2) * 1.0 + (shell == 3) * 0.5
    torch.testing.assert_close(kept, torch.fft.fftn(noise).abs() * gain, rtol=1e-4, atol=1e-3)  # values up to 200
    ratio = low_pass(noise, 100.0) - noise
    assert float(ratio.abs().max()) < 1e-5


def test_fsc_of_a_volume_with_noise_is_what_the_signal_to_noise_ratio_says():
    # the same signal and independent noise of the same power: 1 / (1 + 1 / snr) = .5, give or take 1 / sqrt(voxels)
    generator = torch.Generator().manual_seed(0)
    signal, one, other = torch.randn(3, 24, 24, 24, generator=generator)
    curve = shell_correlation(signal + one, signal + other, torch.ones(signal.shape))
    assert float(curve[3:].mean()) == pytest.approx(0.5, abs=0.02)
    torch.testing.assert_close(shell_correlation(signal, 0.5 * signal), torch.ones(12, dtype=torch.float64))
    assert float(shell_correlation(signal, -signal)[2]) == pytest.approx(-1.0)
    assert float(shell_correlation(signal, torch.zeros_like(signal))[2]) == 0.0


@pytest.mark.parametrize(
    ("curve", "shell"), [([1.0, 0.75, 0.25], 2.5), ([0.4, 1.0], 0.0), ([0.9, 0.9], 2.0), ([1.0, math.nan], math.nan)]
)
def test_where_a_curve_crosses(curve: list[float], shell: float):
    assert crossing(curve, 0.5) == pytest.approx(shell, nan_ok=True)


def test_the_grid_leaves_no_rotation_out():
    """Each rotation has one within the spacing: half of it in direction, half in roll, and a diagonal."""
    spacing = math.radians(20.0)
    grid = rotation_grid(spacing).flatten(0, 1)
    identity = torch.eye(3).expand_as(grid)
    torch.testing.assert_close(grid @ grid.mT, identity, rtol=0, atol=1e-6)
    nearest = torch.stack([angle_between(grid, each.expand_as(grid)).min() for each in rotations(50)])
    assert float(nearest.max()) < spacing
    assert float(nearest.median()) > 0.2 * spacing  # and it is not finer than it was asked to be


def test_rotations_of_vectors_and_their_distance():
    vector = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    generator = torch.tensor([[0, -0.3, -0.2], [0.3, 0, -0.1], [0.2, 0.1, 0]], dtype=torch.float64)
    torch.testing.assert_close(rotation_of(vector), torch.matrix_exp(generator))
    assert float(angle_between(rotation_of(vector), torch.eye(3, dtype=torch.float64))) == pytest.approx(vector.norm())
    half_turn = rotation_of(torch.tensor([0.0, math.pi, 0.0]))
    assert float(angle_between(half_turn, torch.eye(3))) == pytest.approx(math.pi, abs=1e-3)  # asin is flat there
    zero = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(
        torch.stack([*torch.autograd.functional.jacobian(rotation_of, zero)])[2, 1], torch.tensor([1.0, 0, 0]).double()
    )


def test_euler_angles_are_those_of_relion():
    """`Euler_angles2matrix` of RELION, written out in NumPy."""
    angles = torch.tensor([[30.0, 50.0, 70.0], [-100.0, 120.0, 10.0], [0.0, 0.0, 25.0], [0.0, 180.0, 25.0]])
    for (rot, tilt, psi), found in zip(np.radians(angles.numpy()), matrix_of_zyz(torch.deg2rad(angles)), strict=True):
        ca, cb, cg = np.cos([rot, tilt, psi])
        sa, sb, sg = np.sin([rot, tilt, psi])
        wanted = [
            [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
            [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
            [sb * ca, sb * sa, cb],
        ]
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)  # degrees in float32
    many = torch.cat([rotations(20).double(), matrix_of_zyz(torch.deg2rad(angles))])
    torch.testing.assert_close(matrix_of_zyz(zyz_of(many)), many, rtol=0, atol=2e-6)


@pytest.mark.parametrize("mirrored", [False, True])
def test_alignment_finds_the_rotation_shift_and_hand(mirrored: bool):
    wanted = Alignment(rotations(1, 3)[0], torch.tensor([0.06, -0.04, 0.05]), mirrored, 1.0)
    fixed = wanted.apply(volume(24))
    found = align(volume(24), fixed)
    assert found.mirrored is mirrored
    # resampling trilinearly moves a ball by a small part of a voxel, here 2 / 24; a degree is .3 of one at the rim
    assert float(torch.rad2deg(angle_between(found.rotation, wanted.rotation))) < 1.0
    assert float((found.shift - wanted.shift).abs().max()) < 0.1 * 2.0 / 24.0
    assert found.correlation > 0.999
    assert correlation(found.apply(volume(24)), fixed) == pytest.approx(found.correlation)
    if mirrored:
        assert align(volume(24), fixed, mirror=False).correlation < 0.99
