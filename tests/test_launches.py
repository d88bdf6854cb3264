"""How often a training step waits for its device: counted on one that is not there, and on a GPU where there is one."""

import copy
import warnings

import pytest
import torch
from trainers import make_trainer  # pyright: ignore[reportMissingImports]

from benchmarks.far_device import NAME, FarTensor, far_device
from mnist3d.callbacks.watchdog import LOOK_EVERY, Watchdog
from mnist3d.data.images import ImageSet
from mnist3d.geometry.on_device import MOST_KEPT, made_once, sent
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.training.objectives.build import build_objectives
from mnist3d.training.objectives.class_balance import ClassBalanceOptions
from mnist3d.training.objectives.target_list import TargetOptions
from mnist3d.training.objectives.targets import Targets
from mnist3d.training.options import TrainerOptions
from mnist3d.training.trainer import Trainer
from mnist3d.volumes.voxel_grid import VoxelGrid

PINNED_FOR = "mnist3d.geometry.on_device.PINNED_FOR"
READ = {"_to_copy": 1}  # the figures of the step, in one piece
# Of the default objectives and the renderer in plain PyTorch, in a step without a penalty: 378 with torch 2.14, and
# some room for versions that take operators apart otherwise. Before they were counted there were 490.
MOST_OPERATORS = 400


def images(labelled: bool = True) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    kinds = torch.arange(60) % 3
    return ImageSet(torch.rand(60, 1, 16, 16, generator=generator), kinds if labelled else None, ["a", "b", "c"])


def trainer_on(device: str, given: ImageSet, **asked) -> Trainer:
    torch.manual_seed(0)
    volume = VoxelGrid(12).to(device)
    objectives = build_objectives(given, device, max_tilt=45.0, **asked)
    options = TrainerOptions(max_steps=100, views=6)
    trainer = Trainer(volume, AbsorptionRenderer(16), given, objectives, options=options)
    trainer.steps_done = 61  # every objective is at work; the next step is one without a penalty
    return trainer


def near_targets() -> Targets:
    options = TargetOptions(views_per_step=3)
    return Targets(torch.tensor([0.0, 1.0]), torch.zeros(2), images().images[:2], options)


@pytest.mark.parametrize(
    ("labelled", "asked"),
    [(True, {}), (False, {}), (True, {"class_balance": ClassBalanceOptions(1.0)}), (True, {"targets": near_targets()})],
    ids=["default", "unlabelled", "class_balance", "targets"],
)
def test_a_step_waits_once_and_the_watchdog_once_more(labelled, asked):
    with far_device(PINNED_FOR) as device:
        trainer, watchdog = trainer_on(NAME, images(labelled), **copy.deepcopy(asked)), Watchdog()
        watchdog.begin(trainer)
        trainer.step()  # makes what is made once
        report = None
        for _ in range(4):  # one of them with a penalty
            device.clear()
            report = trainer.step()
            assert device.waits == READ
            assert all(isinstance(each, int | float | list) for each in report.metrics.values())
            assert report.metrics.get("nearest_loss") != 0.0
        device.clear()
        assert report is not None
        report.step += report.step % LOOK_EVERY == 0
        watchdog.after_step(trainer, report)
        assert sum(device.waits.values()) == 1


def test_a_step_launches_no_more_than_it_did():
    with far_device(PINNED_FOR) as device:
        trainer = trainer_on(NAME, images())
        trainer.step()
        device.clear()
        trainer.step()
    assert 0 < sum(device.operators.values()) <= MOST_OPERATORS


def test_a_step_on_a_device_is_that_of_the_cpu():
    """Another search for the nearest image and other copies, the same result but for rounding."""
    with far_device(PINNED_FOR):
        far = trainer_on(NAME, images())
        reports = [far.step() for _ in range(3)]
        weights = [weight.detach().cpu() for weight in [*far.volume.parameters(), *far.averaged.parameters()]]
    near = trainer_on("cpu", images())
    for report in reports:
        expected = near.step().metrics
        assert report.metrics.keys() == expected.keys()
        for name, value in expected.items():  # float32, some hundred operations deep
            assert report.metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    # Adam divides by the root of the second moment: a voxel without a gradient is moved by the rounding of it
    for weight, other in zip(weights, [*near.volume.parameters(), *near.averaged.parameters()], strict=True):
        assert ((weight - other).abs() < 1e-3).float().mean() > 0.99


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_waits_once_on_a_gpu():
    trainer, watchdog = trainer_on("cuda", images()), Watchdog()
    watchdog.begin(trainer)
    for _ in range(5):  # compiles, and makes what is made once
        report = trainer.step()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            report = trainer.step()
            watchdog.after_step(trainer, report)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([each for each in said if "synchroniz" in str(each.message)]) <= 2


def test_the_device_that_is_not_there_counts_what_waits():
    with far_device(PINNED_FOR) as device:
        numbers = sent(torch.arange(4.0), torch.empty(1, device=NAME))
        assert isinstance(numbers, FarTensor)
        assert not device.waits
        for wait in (
            lambda: numbers.sum().item(),
            lambda: numbers.tolist(),
            lambda: numbers[numbers > 1.0],
            lambda: numbers.to("cpu"),
            lambda: numbers.long().bincount(),
            lambda: bool(numbers.isfinite().all()),
            lambda: torch.tensor([1.0], device=NAME),
            lambda: torch.arange(4.0).to(NAME),
            lambda: torch.arange(4.0).to(NAME, non_blocking=True),
        ):
            device.clear()
            wait()
            assert sum(device.waits.values()) == 1
        device.clear()
        doubled = (2.0 * numbers)[:2].requires_grad_()
        (doubled * doubled).sum().backward()
        assert device.operators["", "mul"] > 1
        assert not device.waits
        assert doubled.grad is not None
        assert doubled.grad.tolist() == [0.0, 4.0]
        with pytest.raises(RuntimeError, match="on the CPU"):
            torch.add(numbers, torch.arange(4.0))


def test_what_is_made_once_can_be_trained_with_wherever_it_was_made():
    asked = []

    @made_once
    def ramp(count: int, dtype: torch.dtype) -> torch.Tensor:
        asked.append(count)
        return torch.arange(count, dtype=dtype)

    with torch.inference_mode():
        first = ramp(3, torch.float64)
    assert ramp(3, torch.float64) is first
    assert ramp(3, torch.float32) is not first
    assert asked == [3, 3]
    (first * torch.ones(3, dtype=torch.float64, requires_grad=True)).sum().backward()  # refused of inference tensors


def test_what_is_made_once_is_a_constant_and_only_some_are_kept():
    asked = []

    @made_once
    def multiple(factor: float, count: int = 1) -> torch.Tensor:
        asked.append(factor)
        return factor * torch.ones(count, requires_grad=True)

    assert not multiple(0.0).requires_grad
    assert multiple(0.0, count=3).shape == (3,)
    for factor in range(1, MOST_KEPT):
        multiple(float(factor))
    del asked[:]
    multiple(float(MOST_KEPT - 1))
    assert asked == []
    multiple(0.0)
    assert asked == [0.0], "sizes that a long run has left behind are forgotten"


def test_what_has_no_numbers_is_not_kept():
    """Where torch only works out shapes, as in `torch.export`."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    @made_once
    def ramp(count: int) -> torch.Tensor:
        return torch.arange(count)

    with FakeTensorMode() as mode:
        assert type(ramp(3)) is type(mode.from_tensor(torch.zeros(1)))
    assert ramp(3).tolist() == [0, 1, 2]
    with FakeTensorMode():
        assert type(ramp(3)) is not torch.Tensor


def test_a_volume_that_a_page_has_rendered_can_still_be_trained():
    grid = VoxelGrid(7)  # of a size that no other test has
    with torch.inference_mode():
        grid.dense()
    trainer = make_trainer(grid, AbsorptionRenderer(16), images(), TrainerOptions(max_steps=2, views=2))
    trainer.run()
    assert trainer.steps_done == 2
