"""Precisions: what torch's modes and a volume's own precision do to views, gradients and a training."""

import contextlib
import functools
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from mnist3d.data.images import ImageSet
from mnist3d.geometry.rotations import PoseOptions, euler_matrix, sample_rotations
from mnist3d.rendering.renderer import AbsorptionRenderer, render_views
from mnist3d.training.objectives.class_balance import ClassBalanceOptions
from mnist3d.training.objectives.nearest_image import NearestImageOptions
from mnist3d.training.objectives.target_list import TargetOptions
from mnist3d.training.objectives.targets import Targets
from mnist3d.training.options import TrainerOptions
from mnist3d.volumes import FourierMLP, HashGrid, TriPlane, VMGrid, VoxelGrid
from tests.trainers import make_trainer

SMALL_HASH: dict[str, Any] = {"num_levels": 3, "hidden_dim": 8, "log2_hashmap_size": 8}
BACKENDS = {
    "VoxelGrid": lambda: VoxelGrid(10, grow_at=[2]),
    "HashGrid": lambda: HashGrid(**SMALL_HASH),
    "HashGrid, baked": lambda: HashGrid(**SMALL_HASH, bake_resolution=10),
    "HashGrid, torch": lambda: HashGrid(**SMALL_HASH, implementation="torch"),
    "VMGrid": lambda: VMGrid(10),
    "TriPlane": lambda: TriPlane(6, 4),
    # frequencies multiply rounding, so they are low here
    "FourierMLP, baked": lambda: FourierMLP("relu", 4, frequency_scale=0.3, hidden_dim=8, bake_resolution=10),
    "FourierMLP, sine": lambda: FourierMLP("sine", hidden_dim=8, omega_0=2.0),
}
FLOAT16 = "volume is torch.float16: .* train it in float32 or bfloat16, then volume.half()"
NO_GRADIENTS = r"training needs gradients: leave torch.no_grad\(\) and torch.inference_mode\(\) before it"


@dataclass
class Mode:
    """One way to compute.

    Args:
        precision: of the volume's weights.
        around: a context for what is done with it.
        default: torch's default precision meanwhile.
        device: torch's default device meanwhile; meta: whatever is made without a device of its own shows itself.
        tolerance: of views (absolute) and of gradients (relative, all together): half a last digit of the precision,
            times 4 for the way through the volume. 0: to the bit.
        refused: what a training says; None: it works.
    """

    precision: torch.dtype = torch.float32
    around: Any = contextlib.nullcontext
    default: torch.dtype = torch.float32
    device: str | None = None
    tolerance: float = 0.0
    refused: str | None = None


SINGLE, HALF, BRAIN = 4 * 2.0**-24, 4 * 2.0**-11, 4 * 2.0**-9  # 24, 11 and 8 bits; bfloat16's rounding is 2^-9
MODES = {
    "float32": Mode(),
    "autocast": Mode(around=lambda: torch.autocast("cpu", torch.bfloat16)),
    "float64": Mode(torch.float64, tolerance=64 * SINGLE),  # float32's own rounding, over all steps of a ray
    "default float64": Mode(default=torch.float64),
    "bfloat16": Mode(torch.bfloat16, tolerance=BRAIN),
    "float16": Mode(torch.float16, tolerance=HALF, refused=FLOAT16),
    "default device": Mode(device="meta"),
    "no_grad": Mode(around=torch.no_grad, refused=NO_GRADIENTS),
    "inference_mode": Mode(around=torch.inference_mode, refused=NO_GRADIENTS),
}


@contextlib.contextmanager
def entered(mode: Mode):
    """Everything that a mode sets, and torch's own values afterwards."""
    torch.set_default_dtype(mode.default)
    if mode.device is not None:
        torch.set_default_device(mode.device)
    try:
        with mode.around():
            yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


def volume_of(backend: str, mode: Mode):
    torch.manual_seed(0)
    return BACKENDS[backend]().to(mode.precision)


def viewed(backend: str, mode: Mode, quadrature: Any):
    """Views, answers at points, and the gradient of all weights; None where the mode keeps none."""
    volume = volume_of(backend, mode)
    rotation = euler_matrix([[0.3, 1.1, 0.2], [-0.7, 2.5, 0.0]]).float()
    points = torch.tensor([[0.1, -0.4, 0.3], [0.6, 0.2, -0.5]])
    renderer = AbsorptionRenderer(9, quadrature=quadrature)
    with entered(mode):
        views, (attenuation, _) = renderer(volume, rotation), volume(points)
        kept = render_views(volume, renderer, rotation)
    assert kept.dtype == torch.float32
    assert kept.isfinite().all()
    assert attenuation.dtype == points.dtype
    if not views.requires_grad:
        return views, attenuation, None
    views.double().square().sum().backward()
    weights = [weight for weight in volume.parameters() if weight.grad is not None]
    assert all(weight.grad.dtype == weight.dtype for weight in weights)
    return views, attenuation, torch.cat([weight.grad.flatten().double() for weight in weights])


@functools.cache
def in_float32(backend: str, quadrature: Any):
    """What all modes are compared with."""
    return viewed(backend, MODES["float32"], quadrature)


# no grids: the quadrature is without influence
FIELDS = ("HashGrid", "HashGrid, torch", "TriPlane", "FourierMLP, sine")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("backend", "quadrature"),
    [(backend, "trilinear") for backend in BACKENDS] + [(grid, "slices") for grid in BACKENDS if grid not in FIELDS],
)
def test_views_and_gradients_are_those_of_float32(backend, quadrature, mode):
    tolerance = MODES[mode].tolerance
    expected, at_points, slope = in_float32(backend, quadrature)
    views, attenuation, gradient = viewed(backend, MODES[mode], quadrature)
    assert views.dtype in (torch.float32, torch.float64)
    assert float((views - expected).detach().abs().max()) <= tolerance
    if mode != "autocast":  # a volume's own products take part in it, a view's don't
        torch.testing.assert_close(attenuation, at_points, rtol=4 * tolerance, atol=4 * tolerance)
    if gradient is not None:
        assert slope is not None
        assert gradient.isfinite().all()
        assert float((gradient - slope).norm()) <= tolerance * float(slope.norm())


def images() -> ImageSet:
    picture = torch.zeros(6, 1, 12, 12, dtype=torch.float32)
    for k in range(6):
        picture[k, 0, 2 + k : 5 + k, 3:9] = 1.0
    return ImageSet(picture, torch.arange(6) % 2, ["a", "b"])


def trained(backend: str, mode: Mode) -> torch.Tensor:
    """The averaged weights after three steps with every objective of ours."""
    torch.manual_seed(1)
    targets = Targets(torch.tensor([0.4]), torch.tensor([0.1]), images().images[:1], TargetOptions(views_per_step=2))
    volume = volume_of(backend, mode)
    trainer = make_trainer(
        volume,
        AbsorptionRenderer(12, 8),
        images(),
        TrainerOptions(max_steps=3, views=4),
        targets=targets,
        class_balance=ClassBalanceOptions(1.0),
        nearest_image=NearestImageOptions(24.0, 0.0),
    )
    before = torch.cat([weight.flatten().double() for weight in trainer.averaged.parameters()])
    with entered(mode):
        trainer.run()
    assert all(weight.dtype == mode.precision for weight in volume.parameters())
    after = torch.cat([weight.flatten().double() for weight in trainer.averaged.parameters()])
    assert after.shape != before.shape or not torch.equal(after, before)
    return after


@functools.cache
def trained_in_float32(backend: str) -> torch.Tensor:
    """What a mode must not change."""
    return trained(backend, MODES["float32"])


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "float32"])
@pytest.mark.parametrize("backend", [backend for backend in BACKENDS if backend != "HashGrid, torch"])
def test_a_training_works_or_says_why_not(backend, mode):
    if MODES[mode].refused is not None:
        with pytest.raises((ValueError, RuntimeError), match=MODES[mode].refused):
            trained(backend, MODES[mode])
        return
    weights = trained(backend, MODES[mode])
    assert weights.isfinite().all()
    if MODES[mode].tolerance == 0.0 and mode != "default float64":
        assert torch.equal(weights, trained_in_float32(backend))


def test_a_training_under_another_default_precision_builds_all_its_parts():
    """What is made before the first step too: weights of the default's precision, everything else of the images'."""
    torch.set_default_dtype(torch.float64)
    try:
        weights = trained("VoxelGrid", Mode(torch.float64, default=torch.float64))
    finally:
        torch.set_default_dtype(torch.float32)
    assert weights.isfinite().all()


@pytest.mark.parametrize("name", ["euler_normal", "sphere", "ring", "so3"])
def test_rotations_are_drawn_where_the_generator_is(name):
    with entered(Mode(device="meta")):
        rotations = sample_rotations(3, torch.Generator("cpu").manual_seed(0), PoseOptions(name))
    assert rotations.device.type == "cpu"
    assert torch.equal(rotations, sample_rotations(3, torch.Generator().manual_seed(0), PoseOptions(name)))


def test_the_average_of_bfloat16_weights_moves_by_less_than_their_last_digit():
    """2 % of a change of 1 % is less than a last digit of 8 bits: an average of that precision stands still."""
    trainer = make_trainer(VMGrid(8).bfloat16(), AbsorptionRenderer(12, 8), images(), TrainerOptions(max_steps=3))
    trainer.steps_done = 10_000  # the average is as slow as it becomes
    with torch.no_grad():
        for mean, weight in zip(trainer.averaged.parameters(), trainer.volume.parameters(), strict=True):
            mean.fill_(1.0)
            weight.fill_(1.0078125)  # one last digit above 1
    trainer._average()
    moved = [float(mean.mean()) for mean in trainer.averaged.parameters()]
    assert moved == pytest.approx([1.0 + 0.02 * 0.0078125] * len(moved), abs=1e-6)
