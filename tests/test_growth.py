"""Coarse to fine: what a growing grid keeps, and that a run that grows resumes to the bit."""

import copy
import functools
import io
from typing import Any

import pytest
import torch
from test_trainer import bars, same
from trainers import make_trainer  # pyright: ignore[reportMissingImports]

from mnist3d.callbacks import progress as progress_module
from mnist3d.geometry.rotations import euler_matrix
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.training.options import TrainerOptions
from mnist3d.training.report import StepReport
from mnist3d.training.trainer import Trainer
from mnist3d.volumes import Volume, load_volume, volume_bytes
from mnist3d.volumes.hash_grid import HashGrid
from mnist3d.volumes.voxel_grid import VoxelGrid

FIELD: dict[str, Any] = {"num_levels": 3, "log2_hashmap_size": 8, "max_resolution": 12, "hidden_dim": 16}


class Settled(HashGrid):
    """A subclass that fixes the schedule; without levels_at, as runs had it before there was such an argument."""

    def __init__(self, resolution: int = 12):
        super().__init__(**FIELD, bake_resolution=resolution, grow_at=[3, 10])


KINDS = [VoxelGrid, HashGrid, Settled]


def make(seed=0, grow_at=(3, 10), resolution=12, kind: type[Volume] = VoxelGrid, **options):
    torch.manual_seed(seed)
    settings = TrainerOptions(**{"max_steps": 20, "views": 4, **options})
    if kind is VoxelGrid:
        volume = VoxelGrid(resolution, grow_at=list(grow_at))
    elif kind is Settled:
        volume = Settled(resolution)
    else:
        volume = HashGrid(**FIELD, bake_resolution=resolution, grow_at=list(grow_at), levels_at=[4, 12])
    return make_trainer(volume, AbsorptionRenderer(16), bars(), settings, seed=seed)


def grid(volume):
    dense = volume.dense()
    assert dense is not None
    return dense


def edge(volume):
    return grid(volume).shape[-1]


def levels(volume):
    """Of a field with levels to come: how many it reads now."""
    return volume.levels_now.num_levels if type(volume) is HashGrid else None


def saved(trainer):
    buffer = io.BytesIO()
    torch.save(trainer.state_dict(), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_it_begins_coarse_and_ends_at_the_resolution():
    volume = VoxelGrid([6, 9, 16], grow_at=[0.25, 0.5])
    sizes = [volume.resolution]
    for share in (0.1, 0.25, 0.3, 0.6, 1.0):
        volume.grow(0, share)
        sizes.append(volume.resolution)
    assert sizes == [(2, 2, 4), (2, 2, 4), (3, 4, 8), (3, 4, 8), (6, 9, 16), (6, 9, 16)]
    assert [tuple(level.shape[1:]) for level in volume.levels] == [(2, 2, 4), (3, 4, 8), (6, 9, 16)]
    late = VoxelGrid(16, grow_at=[10, 20])
    assert not late.grow(9, 0.99)
    assert late.grow(20, 0.0)  # both at once
    assert late.resolution == (16, 16, 16)


@pytest.mark.parametrize("resolution", [32, [24, 32, 20]])
def test_the_image_stays(resolution):
    torch.manual_seed(1)
    volume = VoxelGrid(resolution, pyramid=[0.2, 0.5], grow_at=[0.5], initial_opacity=0.1, initial_noise=0.2)
    with torch.no_grad():
        volume.levels[0].normal_(0.0, 2.0)  # blobs a few voxels wide
    renderer = AbsorptionRenderer(32, samples_per_ray=64)
    rotations = euler_matrix(torch.randn(6, 3))
    before = renderer(volume, rotations)
    assert volume.grow(0, 0.5)
    after = renderer(volume, rotations)
    # A trilinear function sampled twice as finely and interpolated again: its kinks are rounded by an eighth.
    assert (after - before).abs().max() < 0.02
    assert before.std() > 0.05


def test_values_at_the_border_of_their_range_stay_finite():
    volume = VoxelGrid(8, grow_at=[0.5])
    with torch.no_grad():
        volume.levels[-1][0, :2] = -torch.inf
        volume.levels[-1][0, 2:] = 200.0
        volume.levels[-1][1] = torch.inf
    volume.grow(0, 1.0)
    assert all(bool(level.isfinite().all()) for level in volume.levels)
    assert volume.dense()[0, 0].max() < 1e-9
    assert volume.dense()[0, -1].min() > 50.0


@functools.cache
def uninterrupted(kind):
    whole = make(kind=kind)
    whole.run()
    return whole


@pytest.mark.parametrize("stop_after", [2, 3, 10, 15])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_grows_resumes_to_the_bit(kind, stop_after):
    whole = uninterrupted(kind)
    assert edge(whole.volume) == 12
    assert levels(whole.volume) == (3 if kind is HashGrid else None)
    half = make(stop_after=stop_after, kind=kind)
    half.run()
    rest = make(seed=5, kind=kind)  # every weight and generator starts elsewhere: all must come from the state
    rest.load_state_dict(saved(half))
    assert edge(rest.volume) == edge(half.volume) == (3 if stop_after <= 3 else 6 if stop_after <= 10 else 12)
    assert levels(rest.volume) == levels(half.volume)
    if kind is HashGrid:
        assert levels(rest.volume) == (1 if stop_after <= 4 else 2 if stop_after <= 12 else 3)
    rest.run()
    for part in ("volume", "averaged", "objectives"):
        assert same(getattr(whole, part), getattr(rest, part)), part


@pytest.mark.parametrize("kind", KINDS)
def test_the_average_grows_and_every_stage_reloads(kind, tmp_path):
    trainer = make(kind=kind)
    seen, read = set(), set()
    for _ in range(14):
        trainer.step()
        assert edge(trainer.averaged) == edge(trainer.volume)
        assert levels(trainer.averaged) == levels(trainer.volume)
        assert not any(weight.requires_grad for weight in trainer.averaged.parameters())
        path = tmp_path / "volume.safetensors"
        path.write_bytes(volume_bytes(trainer.averaged))
        again = load_volume(path, trusted=[Settled])
        assert isinstance(again, kind)
        assert torch.equal(grid(again), grid(trainer.averaged))
        assert levels(again) == levels(trainer.averaged)
        seen.add(edge(again))
        read.add(levels(again))
    assert seen == {3, 6, 12}
    assert read == ({1, 2, 3} if kind is HashGrid else {None})
    assert not same(trainer.averaged, trainer.volume)
    optimised = [weight for group in trainer.volume_optimiser.param_groups for weight in group["params"]]
    assert [id(weight) for weight in optimised] == [id(weight) for weight in trainer.volume.parameters()]


@pytest.mark.parametrize("kind", KINDS)
def test_going_back_across_a_growth_grows_again(kind):
    trainer = make(kind=kind)
    for _ in range(2):
        trainer.step()
    good = copy.deepcopy(trainer.state_dict())
    for _ in range(3):
        trainer.step()
    assert edge(trainer.volume) == 6
    assert levels(trainer.volume) in (2, None)
    trainer.rewind(good, 0.5)
    assert edge(trainer.volume) == 3
    assert levels(trainer.volume) in (1, None)
    trainer.step()
    assert edge(trainer.volume) == edge(trainer.averaged) == 6
    trainer.step()
    trainer.step()
    assert levels(trainer.volume) == levels(trainer.averaged)
    assert levels(trainer.volume) in (2, None)


def test_what_is_left_is_estimated_at_the_pace_since_the_growth(monkeypatch, capsys):
    clock, trainer = [0.0], make(max_steps=100, grow_at=[0.3])
    monkeypatch.setattr(Trainer, "seconds", property(lambda trainer: clock[0]))
    monkeypatch.setattr(progress_module, "LINE_SECONDS", 0.0)
    progress = progress_module.Progress()
    for step in range(1, 61):
        trainer.steps_done = step - 1
        trainer._grow(trainer.progress)
        trainer.steps_done = step
        clock[0] += 1.0 if step <= 30 else 4.0
        progress.after_step(trainer, StepReport(step, trainer.progress))
    assert trainer.volume.resolution == (12, 12, 12)
    assert "step 60  0.2/s  2:40 left" in capsys.readouterr().err.splitlines()[-1]  # 40 steps of 4 s


def test_a_grid_that_starts_from_voxels_does_not_begin_coarse():
    start = torch.rand(2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    volume = VoxelGrid(8, grow_at=[0.5])
    volume.take_voxels(start)
    torch.testing.assert_close(grid(volume), start, rtol=1e-2, atol=1e-2)
    assert not volume.grow(100, 1.0)
    assert VoxelGrid(**volume.init_args).resolution == (8, 8, 8)  # as its file will be read


@pytest.mark.parametrize("wrong", [[0.5, 0.2], [3, 3], [0.0], [-1], [0.5, 100], [1.5], [float("nan")], [1, 2, 3, 4]])
def test_bad_times_to_grow_name_themselves(wrong):
    with pytest.raises(ValueError, match=r"grow_at=.*must be"):
        VoxelGrid(12, grow_at=wrong)
    with pytest.raises(ValueError, match=r"grow_at=.*must be"):
        HashGrid(**FIELD, bake_resolution=12, grow_at=wrong)


def test_a_baked_field_stays_the_same_field_as_its_grid_grows():
    torch.manual_seed(0)
    volume = HashGrid(**FIELD, initial_noise=1.0, bake_resolution=12, grow_at=[0.25, 0.5])
    points = 2.0 * torch.rand(100, 3) - 1.0
    before, sizes = torch.stack(volume(points)), [edge(volume)]
    for share in (0.1, 0.25, 0.6):
        volume.grow(0, share)
        sizes.append(edge(volume))
    assert sizes == [3, 3, 6, 12]
    assert torch.equal(torch.stack(volume(points)), before)
    assert not volume.grow(0, 1.0)


def test_a_complete_field_that_gets_more_time_keeps_its_grid():
    """Its progress falls below the growth again."""
    done = make(kind=HashGrid, grow_at=[0.3], max_steps=6)
    done.run()
    longer = make(kind=HashGrid, grow_at=[0.3], max_steps=100)
    longer.load_state_dict(saved(done))
    longer.step()
    assert edge(longer.volume) == edge(longer.averaged) == 12


def test_only_a_baked_field_can_grow():
    with pytest.raises(ValueError, match=r"grow_at=\[0.3\]: only a baked grid grows; give bake_resolution"):
        HashGrid(**FIELD, grow_at=[0.3])


def test_levels_that_join_change_nothing_yet_and_learn_from_then_on():
    torch.manual_seed(0)
    volume = HashGrid(**FIELD, initial_noise=1.0, levels_at=[0.25, 0.5], implementation="torch")
    points = 2.0 * torch.rand(100, 3) - 1.0
    ends = (*volume.hash_levels.offsets[1:], volume.hash_levels.entries)
    before, read = torch.stack(volume(points)), []
    assert before.std(dim=1).min() > 0.01
    for share in (0.0, 0.25, 0.6):
        assert volume.grow(0, share) == (share > 0)
        volume.zero_grad()
        torch.stack(volume(points)).sum().backward()
        learning = (volume.table.grad != 0).any(dim=1)
        read.append(levels(volume))
        assert not learning[ends[read[-1] - 1] :].any()
        assert all(learning[start:end].any() for start, end in zip((0, *ends), ends[: read[-1]], strict=False))
        torch.testing.assert_close(torch.stack(volume(points)), before, rtol=1e-5, atol=1e-6)
    assert read == [1, 2, 3]
    assert not volume.grow(0, 1.0)


def test_a_field_along_rays_lets_levels_join_too():
    torch.manual_seed(0)
    volume = HashGrid(**FIELD, levels_at=[0.5])
    trainer = make_trainer(volume, AbsorptionRenderer(16), bars(), TrainerOptions(max_steps=4, views=4))
    for expected in (2, 2, 3, 3):
        trainer.step()
        finest = volume.table[volume.hash_levels.offsets[2] :]
        assert levels(volume) == expected
        assert bool((finest != 0).any()) == (expected == 3)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ([0.5, 0.2], "must be ascending"),
        ([0.5, 1.0], "must be ascending"),
        ([1, 2, 3], r"3 levels would join, but of num_levels=3 one is there .*at most 2 times"),
    ],
)
def test_bad_times_for_levels_name_themselves(wrong, match):
    with pytest.raises(ValueError, match=rf"levels_at=.*{match}"):
        HashGrid(**FIELD, levels_at=wrong)
