"""How much noise is in images, also in those that were masked, and what it does to what is made of them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from mnist3d.geometry.rotations import PoseOptions, sample_rotations
from mnist3d.reconstruction import judging
from mnist3d.reconstruction.fourier import coefficients, half_disc
from mnist3d.reconstruction.gan_start import start_by_gan
from mnist3d.reconstruction.images import Observed, likely_shifts, moved_by, observe
from mnist3d.reconstruction.noise import noise_of
from mnist3d.reconstruction.pixels import disc, radius_of
from mnist3d.reconstruction.projection import line_integrals
from mnist3d.reconstruction.stack_files import Stack

SIZE, COUNT = 24, 80


def views() -> Tensor:
    """Of two balls."""
    axis = (2.0 * torch.arange(12) + 1.0) / 12 - 1.0
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    balls = ((0.3, 0.1, -0.2, 3.0), (-0.45, -0.15, 0.3, 2.0))  # about the middle
    volume = sum(h * torch.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 0.05) for a, b, c, h in balls)
    rotations = sample_rotations(COUNT, Generator().manual_seed(0), PoseOptions("so3"))
    return line_integrals(volume + 0.0 * x, rotations, SIZE)


VIEWS = views()
WHITE = torch.randn(VIEWS.shape, generator=Generator().manual_seed(1))
MASKS = {
    "none": torch.ones(SIZE, SIZE),
    "disc": disc(SIZE).float(),
    "small": (radius_of(SIZE) < 0.7).float(),
    "large": (radius_of(SIZE) < 1.15).float(),  # with some of the border
    "soft": ((1.15 - radius_of(SIZE)) / 0.25).clamp(0.0, 1.0),
    "square": torch.nn.functional.pad(torch.ones(SIZE - 4, SIZE - 4), (2, 2, 2, 2)),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("level", [0.02, 2.0])
def test_noise_is_measured_whatever_was_cut_out(mask: str, level: float):
    kept = MASKS[mask]
    lines = (VIEWS + level * WHITE) * kept
    found = noise_of(lines)
    white, close = level * float(kept.square().mean().sqrt()), 0.1 if level > 1.0 else 0.25  # beside an object
    assert found.deviation * math.sqrt(found.filled) == pytest.approx(white, rel=close)
    assert found.deviation == pytest.approx(level, rel=close)
    assert found.known
    assert (found.filled == 1.0) == (mask == "none" or (mask == "large" and level < 1.0))
    seen = Observed(lines, "line_integral", "", 1.0, "pixel", found.deviation, (), found.filled, found.known)
    of_views, of_all = (coefficients(each, half_disc(9)).square().sum() for each in (VIEWS * kept, lines))
    assert judging.noise_share_of(seen, 9.0) == pytest.approx(1.0 - float(of_views / of_all), abs=0.05)
    if level > 1.0:  # hardly anything but noise
        assert seen.signal_to_noise < 0.3


@pytest.mark.parametrize("mask", ["none", "disc", "soft"])
def test_noise_is_that_of_the_size_that_is_reconstructed(mask: str):
    """Images of twice and three times the size: noise of the same pixels' mean is a half and a third."""
    for times in (2, 3):
        large = VIEWS.repeat_interleave(times, 1).repeat_interleave(times, 2)
        noise = torch.randn(large.shape, generator=Generator().manual_seed(2))
        kept = torch.nn.functional.interpolate(MASKS[mask][None, None], scale_factor=times)[0, 0]
        seen = observe(Path("stack"), Stack(((large + 2.0 * noise) * kept).numpy()), kind="line_integral", size=SIZE)
        assert seen.noise == pytest.approx(2.0 / times, rel=0.2)
        assert seen.noise_known


def test_images_without_noise_have_none():
    for lines in (VIEWS, VIEWS * MASKS["disc"], VIEWS - VIEWS.mean((1, 2), keepdim=True)):
        assert noise_of(lines).deviation < 0.02 * float(lines.std())
        assert noise_of(lines).known
    assert noise_of(torch.zeros(3, 8, 8)).deviation == 0.0


def test_noise_that_was_smoothed_and_masked_is_not_known():
    noisy = torch.nn.functional.avg_pool2d((VIEWS + 2.0 * WHITE)[:, None], 3, 1, 1)[:, 0] * MASKS["disc"]
    assert not noise_of(noisy).known


def test_where_the_object_takes_away_the_border_is_believed():
    assert noise_of(-VIEWS * MASKS["disc"]).known


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_images_are_enough(count: int):
    few = ((VIEWS + 2.0 * WHITE) * MASKS["disc"])[:count]
    found = noise_of(few)
    assert math.isfinite(found.deviation)
    if count > 1:
        assert found.deviation == pytest.approx(2.0, rel=0.35)
    same = few[:1].expand(3, -1, -1)
    assert math.isfinite(noise_of(same).deviation)


def test_a_hot_pixel_is_no_noise():
    lines = (VIEWS + 2.0 * WHITE) * MASKS["disc"]
    expected = noise_of(lines).deviation
    lines[3, 12, 12] = 1e5
    assert noise_of(lines).deviation == pytest.approx(expected, rel=0.1)


def test_a_masked_stack_counts_as_noisy(tmp_path: Path):
    lines = (VIEWS + 2.0 * WHITE) * MASKS["soft"]
    seen = observe(Path("stack"), Stack(lines.numpy().astype(np.float32)))
    assert seen.signal_to_noise < 0.3
    assert 0.5 < seen.filled < 1.0


def test_shifts_by_the_centre_of_mass_are_believed_as_far_as_noise_lets_them():
    shifts = torch.rand(COUNT, 2, generator=Generator().manual_seed(3)) * 4.0 - 2.0
    moved = moved_by(VIEWS, shifts)
    sure, unsure = likely_shifts(moved, 0.0, 2.0), likely_shifts(moved + 2.0 * WHITE, 2.0, 2.0)
    assert float((sure - shifts).square().mean()) < 0.01
    # With this noise the centre of mass alone is worse than no shift at all.
    assert float((unsure - shifts).square().mean()) < float(shifts.square().mean())
    alone = likely_shifts(moved + 2.0 * WHITE, 0.0, 2.0)
    assert float((alone - shifts).square().mean()) > float(shifts.square().mean())


def test_a_start_by_a_discriminator_is_taught_with_the_noise_that_a_mask_left(monkeypatch):
    from mnist3d.reconstruction import gan_start

    taught: list[Tensor] = []
    made = gan_start.Noise
    monkeypatch.setattr(gan_start, "STEPS", 1)
    monkeypatch.setattr(gan_start, "Noise", lambda level: taught.append(level) or made(level))
    lines = VIEWS + 0.5 * WHITE
    start_by_gan(lines, 0, 0.5)
    start_by_gan(lines * MASKS["disc"], 0, 0.5, masked=True)
    whole, masked = taught
    assert float(whole.std()) < 1e-6
    assert float(whole.mean()) > 0.0
    assert float(masked[radius_of(16) > 1.2].mean()) < 0.4 * float(whole.mean())
    assert float(masked[radius_of(16) < 0.5].mean()) > 0.8 * float(masked.max())
