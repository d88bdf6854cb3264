"""A grid of blocks: the dense grid's views and gradients, what pruning keeps, and runs across a pruning."""

import copy
import io
from typing import Any

import jaxtyping
import pytest
import torch
from test_trainer import bars, same
from trainers import make_trainer  # pyright: ignore[reportMissingImports]

from mnist3d.errors import VolumeFileError
from mnist3d.geometry.grids import voxel_centres
from mnist3d.geometry.rotations import euler_matrix
from mnist3d.kernels.block_absorption import cut, whole
from mnist3d.rendering.renderer import AbsorptionRenderer, render_views
from mnist3d.runs.starting import start_from
from mnist3d.storage import memory as free
from mnist3d.testing import check_volume
from mnist3d.training.options import TrainerOptions
from mnist3d.training.processes import Processes
from mnist3d.volumes import SparseGrid, VoxelGrid, load_volume
from mnist3d.volumes.base import grid_shape
from mnist3d.volumes.resampling import resampled
from mnist3d.volumes.same_class import take_weights
from mnist3d.volumes.wrappers import FrozenField, GridField, UnabsorbedField

RENDERER = AbsorptionRenderer(16, 24)
BRIGHTNESS = 0.9
MATTER_RAW, EMPTY_RAW = 4.0, -8.0  # beyond the bias of -3.9: attenuation of 12 and of 1e-4 per world unit


def views_of(volume, seed=0):
    return RENDERER(volume, euler_matrix(torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))))


def blob(**options: Any) -> SparseGrid:
    """A ball of matter of radius .3 at x = .3, and nothing else, in 64 blocks."""
    volume = SparseGrid(32, initial_noise=0.5, initial_brightness=BRIGHTNESS, **options)
    z, y, x = torch.meshgrid(*[voxel_centres(32)] * 3, indexing="ij")
    inside = ((x - 0.3).square() + y.square() + z.square()) < 0.09
    with torch.no_grad():
        volume.levels[-1][0] = cut(torch.where(inside, MATTER_RAW, EMPTY_RAW)[None])[0, volume.places.long()]
    return volume


def grid_of(volume: Any) -> torch.Tensor:
    return volume.dense()


def places(volume: Any) -> torch.Tensor:
    return volume.places


def holds(volume, point):
    """Whether the block of a point is there."""
    blocks = volume.slots.shape
    k, j, i = (min(int((at + 1) / 2 * n), n - 1) for at, n in zip(reversed(point), blocks, strict=True))
    return int(volume.slots[k, j, i]) >= 0


@pytest.mark.parametrize(
    "volume",
    [
        lambda: SparseGrid(12),
        lambda: SparseGrid([9, 16, 20], grow_at=[0.3], prune_at=[0.2, 0.5]),
        lambda: blob(prune_at=[2]),
    ],
    ids=["12", "unequal", "blob"],
)
def test_it_keeps_the_contract(volume):
    torch.manual_seed(0)
    check_volume(volume())


def test_without_absorption_it_is_rendered_by_its_blocks_too():
    volume = blob(prune_at=[2])
    volume.grow(2, 0.5)
    assert len(places(volume)) < 64
    answers = []
    for field in (UnabsorbedField(volume), UnabsorbedField(GridField(grid_of(volume)))):
        view = views_of(field)
        volume.zero_grad()
        view.square().sum().backward()
        answers.append((view, *(level.grad[0].clone() for level in volume.levels)))
        assert all(not level.grad[1].any() for level in volume.levels)
    assert UnabsorbedField(volume).blocks() is not None
    for by_blocks, of_grid in zip(*answers, strict=True):
        torch.testing.assert_close(by_blocks, of_grid, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_with_all_blocks_it_is_the_dense_grid(dtype):
    """Views and gradients of a VoxelGrid of the same raw values; all 27 blocks of 20^3 voxels meet the ball."""
    torch.manual_seed(0)
    sparse = SparseGrid(20, initial_opacity=0.1, initial_noise=1.0).to(dtype)
    dense = VoxelGrid(20, pyramid=[], initial_opacity=0.1).to(dtype)
    with torch.no_grad():
        raw = sparse.raw()
        table = raw.reshape(2, 3, 3, 3, 8, 8, 8).permute(0, 1, 4, 2, 5, 3, 6).reshape(2, 24, 24, 24)
        dense.levels[0].copy_(table[:, :20, :20, :20] - dense.bias)
    # rounding of some hundred operations a pixel; of a sum over 1,000 of them for a gradient
    rounding = 1e-5 if dtype == torch.float32 else 1e-12
    seen, expected = views_of(sparse), views_of(dense)
    torch.testing.assert_close(seen, expected, rtol=0.0, atol=rounding)
    assert expected.std() > 0.05
    for view in (seen, expected):
        view.square().sum().backward()
    gradient = cut(dense.levels[0].grad)
    torch.testing.assert_close(sparse.levels[-1].grad, gradient, rtol=0.0, atol=10.0 * rounding)
    assert gradient.abs().max() > 0.01
    points = 2.2 * torch.rand(100, 3, dtype=dtype) - 1.1
    for ours, theirs in zip(sparse(points), dense(points), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=100.0 * rounding, atol=rounding)


def test_its_coarser_levels_are_those_of_the_dense_grid():
    torch.manual_seed(0)
    sparse, dense = SparseGrid(24), VoxelGrid(24, pyramid=[0.25, 0.5])
    with torch.no_grad():
        for mine, its in zip(sparse.levels, dense.levels, strict=True):
            its.normal_()
            edge = mine.shape[-1]
            blocks = its.unfold(1, edge, edge).unfold(2, edge, edge).unfold(3, edge, edge)
            mine.copy_(blocks.reshape(2, 27, edge, edge, edge))
    torch.testing.assert_close(sparse.dense(), dense.dense(), rtol=1e-5, atol=1e-5)


def test_pruning_leaves_the_view_and_what_is_left_out_reads_as_empty():
    volume = blob(prune_at=[0.5])
    before, blocks = views_of(volume).detach(), len(volume.places)
    assert not volume.grow(0, 0.4)
    assert volume.grow(0, 0.5)
    assert len(volume.places) < blocks == 64
    # what is left out holds 1e-4 per world unit, on 2 of them at most
    torch.testing.assert_close(views_of(volume), before, rtol=0.0, atol=3e-4)
    assert before.max() > 0.5
    there, gone = [0.3, 0.0, 0.0], [-0.8, 0.0, 0.0]
    assert (holds(volume, there), holds(volume, gone)) == (True, False)
    attenuation, absorbance = volume(torch.tensor([there, gone]))
    assert attenuation[0] > 1.0
    assert attenuation[1] == 0.0
    assert absorbance[1].item() == pytest.approx(1.0 - BRIGHTNESS, abs=1e-6)
    assert volume.dense()[0, 16, 16, 3] == 0.0
    assert not volume.grow(0, 1.0)


def test_a_halo_gets_gradients_and_blocks_come_back():
    volume = blob(prune_at=[1, 2, 3])
    volume.grow(1, 0.0)
    blocks = volume.blocks()
    assert blocks is not None
    matter = (blocks.values()[0] > volume.empty_below).flatten(1).any(dim=1)
    assert matter.any()
    assert not matter.all()
    views_of(volume).sum().backward()
    slopes = volume.levels[-1].grad.flatten(2).abs().amax(dim=(0, 2))
    assert (slopes > 0.0).all()
    beside, beyond = [-0.2, 0.1, 0.1], [-0.7, 0.1, 0.1]  # the halo, and the block behind it
    assert (holds(volume, beside), holds(volume, beyond)) == (True, False)
    with torch.no_grad():  # as if it had learned
        volume.levels[-1][0, int(volume.slots[2, 2, 1])] = MATTER_RAW
    before = views_of(volume).detach()
    assert volume.grow(2, 0.0)
    # what comes back holds a tenth of what counts as empty, .01 per world unit, on 2 of them at most
    torch.testing.assert_close(views_of(volume), before, rtol=0.0, atol=0.02)
    assert volume(torch.tensor(beyond))[0].item() == pytest.approx(0.01, rel=1e-3)
    views_of(volume).sum().backward()
    assert (volume.levels[-1].grad[0, int(volume.slots[2, 2, 0])] != 0.0).any()


def shell(**options: Any) -> SparseGrid:
    """27 opaque blocks in the middle of 5^3, of which one sees 26, each beside others of another brightness."""
    volume = SparseGrid(40, initial_noise=0.0, **options)
    k, j, i = (volume.places // 25, volume.places // 5 % 5, volume.places % 5)
    inside = ((k - 2).abs() <= 1) & ((j - 2).abs() <= 1) & ((i - 2).abs() <= 1)
    with torch.no_grad():
        volume.levels[-1][0] = torch.where(inside, 50.0, -30.0)[:, None, None, None]
        volume.levels[-1][1] = (inside * (4.0 * ((k + j + i) % 2) - 2.0))[:, None, None, None]
    return volume


def test_with_a_bound_what_is_hidden_goes_first_and_what_is_seen_stays():
    volume = shell(prune_at=[0.5], keep_at_most=28 / 125)  # of which 2 may lie beside the others
    before = views_of(volume).detach()
    middle, side = [0.0, 0.0, 0.0], [0.4, 0.0, 0.0]
    assert volume.grow(0, 0.5)
    assert len(places(volume)) == 28
    assert (holds(volume, middle), holds(volume, side)) == (False, True)
    matter = (volume.raw()[0] > 1.0).flatten(1).any(dim=1)
    assert matter.sum() == 26
    # what lies outside held exp(-34); behind the shell there is nothing to see
    torch.testing.assert_close(views_of(volume), before, rtol=0.0, atol=1e-5)
    assert before.max() > 0.2


@pytest.mark.parametrize("most", [1, 2, 9, 26])
def test_a_bound_is_kept_whatever_it_is(most):
    volume = shell(prune_at=[0.5], keep_at_most=(most + 0.5) / 125)
    assert volume.grow(0, 0.5)
    assert len(places(volume)) == most
    assert bool((places(volume).diff() > 0).all())


def test_a_bound_holds_across_a_growth_and_for_what_is_taken_from_elsewhere():
    volume = SparseGrid(64, grow_at=[0.6], prune_at=[0.5, 0.8], initial_brightness=BRIGHTNESS, keep_at_most=0.1)
    with torch.no_grad():
        volume.levels[-1].copy_(blob().levels[-1])
    before = views_of(volume).detach()
    assert volume.grow(0, 0.5)
    assert len(places(volume)) == 6
    assert volume.grow(0, 0.6)
    assert len(places(volume)) == 51
    assert volume.grow(0, 0.8) or len(places(volume)) == 51
    assert len(places(volume)) <= 51
    given = SparseGrid(64, keep_at_most=0.1)
    given.take_voxels(grid_of(blob()).detach())
    assert 40 < len(places(given)) <= 51
    assert (views_of(given) - before).square().mean() < 1e-2


def test_at_a_growth_no_more_blocks_are_there_than_are_told(monkeypatch):
    """Of blocks far from each other, each of which 64 finer ones read."""
    volume = SparseGrid(128, initial_noise=0.0, grow_at=[0.6], prune_at=[0.5], keep_at_most=6 / 512)
    inside = (places(volume)[:, None] == torch.tensor([147, 150, 170, 300, 365])).any(dim=1)
    with torch.no_grad():
        volume.levels[-1][0] = torch.where(inside, 50.0, -30.0)[:, None, None, None]
    counts, reshaped = [], SparseGrid._reshape

    def counted(self, places, stage):
        counts.append(len(places))
        reshaped(self, places, stage)

    monkeypatch.setattr(SparseGrid, "_reshape", counted)
    in_a_step, before, then = volume.most_blocks()
    assert volume.grow(0, 0.5)
    assert volume.grow(0, 0.6)
    assert (counts[0], before) == (6, 6)
    assert 100 < counts[1] <= then == 6 * 64
    assert counts[2] <= in_a_step


def test_blocks_beside_what_is_seen_come_back_under_a_bound_too():
    volume = shell(prune_at=[1, 2], keep_at_most=40 / 125)
    volume.grow(1, 0.0)
    assert len(places(volume)) == 40
    assert (volume.raw()[0] > 1.0).flatten(1).any(dim=1).sum() == 27  # there is room for what is hidden too
    views_of(volume).sum().backward()
    slopes = volume.levels[-1].grad.flatten(2).abs().amax(dim=(0, 2))
    empty = (volume.raw()[0] < 0.0).flatten(1).all(dim=1)
    assert empty.sum() == 13
    assert (slopes[empty] > 0.0).sum() >= 12  # of one at a corner of the cube nothing lies in the ball


def of_voxels(attenuation_raw, absorbance_raw, **options: Any) -> SparseGrid:
    """A grid of 64^3 of raw values of the whole grid."""
    volume = SparseGrid(64, initial_noise=0.0, **options)
    given = cut(torch.stack([attenuation_raw, absorbance_raw]))[:, volume.places.long()]
    with torch.no_grad():
        volume.levels[-1].copy_(given)
    return volume


def test_with_a_bound_no_block_without_matter_takes_the_place_of_one_with_it():
    """An opaque plate, half of it black: the samples in the empty blocks beside it show something, black ones less."""
    plate, black = torch.full((64, 64, 64), -30.0), torch.full((64, 64, 64), -3.0)
    plate[32:40, 16:48, 8:56] = 50.0
    black[:, :, :32] = 30.0
    volume = of_voxels(plate, black, prune_at=[0.5], keep_at_most=40 / 512)
    assert volume.grow(0, 0.5)
    matter = (volume.raw()[0] > 1.0).flatten(1).any(dim=1)
    assert (len(matter), matter.sum()) == (40, 24)


def test_with_room_for_all_matter_the_rest_lies_beside_what_is_seen_most():
    """A bar of 6 blocks along x whose far end is bright and whose near end is nearly black."""
    bar, black = torch.full((64, 64, 64), -30.0), torch.zeros(64, 64, 64)
    bar[24:32, 24:32, 8:56] = 5.0
    black[:, :, :40], black[:, :, 40:] = 6.0, -6.0
    volume = of_voxels(bar, black, prune_at=[0.5], keep_at_most=14.5 / 512)
    assert volume.grow(0, 0.5)
    matter = (volume.raw()[0] > 0.0).flatten(1).any(dim=1)
    assert (len(matter), matter.sum()) == (14, 6)
    assert (places(volume)[~matter] % 8).min() >= 4  # beside the blocks 5 and 6 along x


def test_nothing_at_all_keeps_its_blocks_but_for_a_bound():
    volume = SparseGrid(16, initial_opacity=1e-6, initial_noise=0.0, prune_at=[0.5])
    assert not volume.grow(0, 0.5)
    assert len(volume.places) == 8
    assert volume.prune_at == []
    bound = SparseGrid(32, initial_opacity=1e-3, prune_at=[0.5], keep_at_most=0.2)
    assert not (grid_of(bound)[0] > bound.empty_below).any()
    assert bound.grow(0, 0.5)
    assert len(places(bound)) == 12


def test_matter_in_what_is_given_counts_where_raw_values_end_above_it():
    """At 64^3 raw values end at an attenuation of .01: empty voxels would be matter, and their blocks would stay."""
    grid = torch.zeros(2, 64, 64, 64)
    grid[0, 24:40, 24:40, 16:40] = 20.0
    grid[1, :, :, :28] = 1.0
    volume = SparseGrid(64, empty_below=0.005, keep_at_most=20.5 / 512)
    volume.take_voxels(grid)
    matter = (volume.raw()[0] > -1.0).flatten(1).any(dim=1)
    assert (len(matter), matter.sum()) == (20, 12)


@pytest.mark.parametrize("prune_at", [None, [0.2], [0.5]])
def test_it_grows_as_the_dense_grid(prune_at):
    """Whose own test says how little of the view that changes."""
    volume = SparseGrid(64, grow_at=[0.5], prune_at=prune_at, initial_brightness=BRIGHTNESS)
    dense = VoxelGrid(64, grow_at=[0.5], pyramid=[], initial_brightness=BRIGHTNESS)
    with torch.no_grad():
        volume.levels[-1].copy_(blob().levels[-1])
        dense.levels[0].copy_(whole(volume.levels[-1], volume.slots, (32, 32, 32), torch.zeros(2)))
    for grid in (volume, dense):
        grid.grow(0, 0.3)
        assert grid.grow(0, 0.6)
        assert grid_shape(grid) == (64, 64, 64)
    # rounding; once pruned, 1e-4 per world unit on 2 of them
    torch.testing.assert_close(views_of(volume), views_of(dense), rtol=0.0, atol=3e-4 if prune_at else 1e-5)
    assert views_of(dense).max() > 0.7
    assert (len(volume.places) < 100) == bool(prune_at)
    assert SparseGrid(**volume.init_args).levels[-1].shape == volume.levels[-1].shape


def make(seed=0, keep_at_most=None, **options):
    """Matter at one end of the x axis, along which lie 4 blocks at first and 8 in the end."""
    torch.manual_seed(seed)
    settings = TrainerOptions(**{"max_steps": 12, "views": 3, **options})
    given = {"empty_below": 0.3, "initial_opacity": 0.1, "keep_at_most": keep_at_most}
    volume = SparseGrid([32, 32, 64], grow_at=[5], prune_at=[2, 8], **given)
    with torch.no_grad():
        for level in list(volume.levels)[::2]:
            level[0, volume.places % 4 > 0] -= 8.0
    return make_trainer(volume, AbsorptionRenderer(12, 16), bars(size=12), settings, seed=seed)


def saved(trainer):
    buffer = io.BytesIO()
    torch.save(trainer.state_dict(), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("keep_at_most", [None, 0.2])
@pytest.mark.parametrize("stop_after", [2, 3, 6, 9])
def test_a_run_resumes_to_the_bit_before_and_after_a_pruning(stop_after, keep_at_most):
    whole = make(keep_at_most=keep_at_most)
    whole.run()
    half = make(stop_after=stop_after, keep_at_most=keep_at_most)
    half.run()
    rest = make(
        seed=5, keep_at_most=keep_at_most
    )  # every weight and generator starts elsewhere: all must come from the state
    rest.load_state_dict(saved(half))
    assert torch.equal(places(rest.volume), places(half.volume))
    rest.run()
    for part in ("volume", "averaged", "objectives"):
        assert same(getattr(whole, part), getattr(rest, part)), part


def test_the_average_has_the_blocks_of_the_volume_and_every_stage_reloads(tmp_path):
    trainer, counts = make(), []
    for _ in range(9):
        trainer.step()
        counts.append(len(places(trainer.volume)))
        assert torch.equal(places(trainer.averaged), places(trainer.volume))
        assert not any(weight.requires_grad for weight in trainer.averaged.parameters())
        for volume in (trainer.volume, trainer.averaged):
            again = load_volume(volume.save(tmp_path / "volume.safetensors"))
            assert isinstance(again, SparseGrid)
            assert same(again, volume)
            assert again.dense().equal(grid_of(volume))
    assert len(set(counts)) == 3  # all, pruned, and grown
    assert not same(trainer.averaged, trainer.volume)
    optimised = [weight for group in trainer.volume_optimiser.param_groups for weight in group["params"]]
    assert [id(weight) for weight in optimised] == [id(weight) for weight in trainer.volume.parameters()]


@pytest.mark.parametrize("grew", [True, False])
def test_all_processes_of_a_run_have_the_blocks_that_the_first_has_chosen(grew):
    """Also where by this process's own choice nothing changed."""
    first, second = make(), make(seed=1)
    finest, its = (list(trainer.volume.parameters())[-1] for trainer in (first, second))
    with torch.no_grad():  # as if rounding had told them apart
        its.copy_(finest)
        its[0, places(second.volume) % 4 == 2] += 24.0
        if not grew:
            its[0] += 20.0
    handed = []

    class Two(Processes):
        def largest(self, numbers):
            return [max(1.0, float(number)) for number in numbers]

        def handed_out_state(self, state):
            handed.append(state)
            return state if self.first else first.volume.state_dict()

    for rank, trainer in enumerate((first, second)):
        trainer.processes = Two(rank, 2)
        trainer.steps_done = 1
        trainer._grow(0.1)
        assert handed == []
        trainer.steps_done = 2
        trainer._grow(0.2)
        assert len(handed) == 1
        handed.clear()
        assert len(places(trainer.volume)) < 64
    assert same(first.volume, second.volume)
    assert torch.equal(places(first.averaged), places(second.averaged))
    optimised = [weight for group in second.volume_optimiser.param_groups for weight in group["params"]]
    assert [id(weight) for weight in optimised] == [id(weight) for weight in second.volume.parameters()]


def test_going_back_across_a_pruning_prunes_again():
    trainer = make()
    trainer.step()
    good, blocks = copy.deepcopy(trainer.state_dict()), len(places(trainer.volume))
    for _ in range(3):
        trainer.step()
    assert len(places(trainer.volume)) < blocks
    trainer.rewind(good, 0.5)
    assert len(places(trainer.volume)) == len(places(trainer.averaged)) == blocks
    trainer.step()
    assert len(places(trainer.volume)) == len(places(trainer.averaged)) < blocks


def test_it_takes_voxels_into_the_blocks_with_matter():
    grid = torch.zeros(2, 16, 16, 16)
    grid[0, 6:9, 7:10, 8:12] = 3.0
    grid[1] = 0.5
    volume = SparseGrid(32, grow_at=[0.5], prune_at=[0.6])
    volume.take_voxels(grid)
    expected = resampled(grid, (32, 32, 32))
    assert len(volume.places) < 32
    # raw values end at -8: .005 per world unit
    torch.testing.assert_close(volume.dense()[0], expected[0], rtol=1e-3, atol=6e-3)
    assert not volume.grow(10**6, 0.55)


def wrong_states():
    """What a file of anybody may say, and what is answered."""
    return [
        ({"places": torch.tensor([3, 1], dtype=torch.int32)}, "places must be ascending"),
        ({"places": torch.tensor([1, 1], dtype=torch.int32)}, "places must be ascending"),
        ({"places": torch.tensor([0, 8], dtype=torch.int32)}, r"places must be of 1 to 8 blocks, each in \[0, 7\]"),
        ({"places": torch.tensor([-1, 2], dtype=torch.int32)}, r"each in \[0, 7\]"),
        ({"places": torch.zeros(0, dtype=torch.int32)}, "places must be of 1 to 8 blocks"),
        ({"growths_left": torch.tensor(7)}, r"growths_left must be a number in \[0, 0\]"),
        ({"prunes_left": torch.tensor(-1)}, r"prunes_left must be a number in \[0, 0\]"),
        ({"places": torch.tensor([0, 5], dtype=torch.int32)}, "size mismatch"),
    ]


@pytest.mark.parametrize(("change", "words"), wrong_states())
def test_a_state_with_blocks_that_cannot_be_is_refused(change, words):
    volume = SparseGrid(16)
    with pytest.raises(RuntimeError, match=words):
        volume.load_state_dict({**volume.state_dict(), **change})


def test_a_file_with_blocks_that_cannot_be_is_refused_in_one_line(tmp_path):
    volume = SparseGrid(16)
    volume.places[0] = 7  # behind its own back
    with pytest.raises(VolumeFileError, match="places must be ascending") as caught:
        load_volume(volume.save(tmp_path / "v.safetensors"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"resolution": 0}, r"resolution=0: must be in \[1, 1024\]"),
        ({"initial_opacity": 1.0}, r"initial_opacity=1.0: must be > 0 and < 1"),
        ({"initial_noise": -1.0}, r"initial_noise=-1.0: must be finite and >= 0"),
        ({"empty_below": 0.0}, r"empty_below=0.0: must be finite and > 0"),
        ({"keep_at_most": 0.0}, r"keep_at_most=0.0: must be > 0 and <= 1, or null"),
        ({"keep_at_most": 1.5}, r"keep_at_most=1.5: must be > 0 and <= 1, or null"),
        ({"prune_at": [0.5, 0.2]}, r"prune_at=\[0.5, 0.2\]: must be ascending"),
        ({"grow_at": [2.5]}, r"grow_at=\[2.5\]: must be ascending"),
        ({"resolution": 16, "blocks": 9}, r"blocks=9: must be in \[1, 8\], or null; the unit ball has 8 blocks"),
    ],
)
def test_a_wrong_argument_names_itself(arguments, words):
    with pytest.raises(ValueError, match=words):
        SparseGrid(**arguments)


def test_a_bound_that_is_no_number_names_itself(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as a user has it
    given: Any = "some"
    with pytest.raises(ValueError, match=r"keep_at_most='some': must be > 0 and <= 1, or null"):
        SparseGrid(keep_at_most=given)


def test_its_views_need_no_whole_grid(monkeypatch):
    """Neither in training nor in what is shown of it."""
    volume = blob(prune_at=[0.5])
    volume.grow(0, 0.5)
    frozen = FrozenField(volume)
    expected = render_views(volume, RENDERER, euler_matrix((0.1, 0.2, 0.0)))
    monkeypatch.setattr(SparseGrid, "dense", lambda self: pytest.fail("the whole grid was made"))
    assert torch.equal(render_views(frozen, RENDERER, euler_matrix((0.1, 0.2, 0.0))), expected)
    views_of(volume).sum().backward()
    monkeypatch.undo()
    whole = frozen.dense()
    assert whole is not None
    assert whole.shape == (2, 32, 32, 32)
    assert not whole.requires_grad


def test_slices_take_the_whole_grid():
    volume = blob()
    slices = AbsorptionRenderer(16, quadrature="slices")
    expected = slices(VoxelGrid.from_array(volume.dense()), euler_matrix((0.3, 0.2, 0.0)))
    torch.testing.assert_close(slices(volume, euler_matrix((0.3, 0.2, 0.0))), expected, rtol=0.0, atol=1e-5)


def test_a_whole_grid_that_does_not_fit_is_refused_and_views_are_not(monkeypatch):
    volume = blob()
    monkeypatch.setattr(free, "NEVER_ASKED", 0)
    monkeypatch.setattr(free, "free_memory", lambda device="cpu": 3 * 8 * 32**3 - 1)
    frozen = FrozenField(volume)
    for each in (volume, frozen):
        with pytest.raises(VolumeFileError, match=r"the whole grid of 32x32x32 voxels, .* takes about 768 KiB"):
            each.dense()
    assert RENDERER(frozen, euler_matrix((0.1, 0.2, 0.0))).max() > 0.5


def test_what_starts_from_a_finished_volume_is_pruned_as_it_was_told():
    given: dict[str, Any] = {"grow_at": [0.3], "prune_at": [0.4, 0.8]}
    finished, fresh = SparseGrid(32, **given), SparseGrid(32, **given)
    for progress in (0.35, 0.9):
        finished.grow(0, progress)
    with torch.no_grad():
        finished.levels[-1][0] = EMPTY_RAW
        finished.levels[-1][0, 20] = MATTER_RAW
    assert finished.prune_at == []
    take_weights(fresh, finished)
    assert (fresh.grow_at, fresh.prune_at) == ([], [0.4, 0.8])
    assert fresh.dense().equal(finished.dense())
    blocks = len(fresh.places)
    again = SparseGrid(32, **given)  # as a resumed run is built
    again.load_state_dict(fresh.state_dict())
    assert again.prune_at == [0.4, 0.8]
    assert fresh.grow(0, 0.5)
    assert len(fresh.places) < blocks


def test_a_run_that_starts_from_a_volume_keeps_its_bound(tmp_path):
    path = str(blob().save(tmp_path / "v.safetensors"))
    bound, free_of_it = SparseGrid(32, prune_at=[0.5], keep_at_most=0.15), SparseGrid(32)
    for volume in (bound, free_of_it):
        assert start_from(volume, path) == []
    assert (len(places(bound)), len(places(free_of_it))) == (9, 64)
    assert bound.prune_at == [0.5]
    assert holds(bound, [0.3, 0.0, 0.0])
    assert len(places(SparseGrid(**bound.init_args))) == 9


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")  # torch's own, in jvp
def test_transforms_of_torch_are_those_of_autograd():
    volume = SparseGrid(24, initial_noise=0.5).double()
    with torch.no_grad():
        for level in volume.levels:
            level.normal_()
    points = (torch.rand(6, 3, dtype=torch.float64) - 0.5).requires_grad_()

    def attenuation(points, weights=None):
        return torch.func.functional_call(volume, weights or {}, (points,))[0]

    weights = dict(volume.named_parameters())
    to_points, *to_weights = torch.autograd.grad(attenuation(points).sum(), [points, *weights.values()])
    at = points.detach()
    found = [
        (torch.func.grad(lambda at: attenuation(at).sum())(at), to_points),
        (torch.func.jvp(attenuation, (at,), (torch.ones_like(at),))[1], to_points.sum(1)),
        (torch.func.vmap(attenuation)(at), attenuation(at)),
        *zip(torch.func.grad(lambda given: attenuation(at, given).sum())(weights).values(), to_weights, strict=True),
    ]
    for ours, theirs in found:
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
        assert theirs.abs().max() > 1e-3


def test_weights_show_the_same_in_one_of_another_brightness_and_what_it_lacks_is_named():
    other = blob(prune_at=[0.5])
    other.grow(0, 0.6)
    volume = SparseGrid(32, initial_brightness=0.4, empty_below=0.2)
    take_weights(volume, other)
    points = 2.0 * torch.rand(200, 3) - 1.0
    for found, wanted in zip(volume(points), other(points), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    assert volume.empty_below == 0.2
    with pytest.raises(ValueError, match=r"add --volume.resolution 32 --volume.grow_at \[\]$"):
        take_weights(SparseGrid(40), other)


def test_a_state_of_the_same_blocks_leaves_the_parameters_to_their_optimiser():
    volume, other = blob(prune_at=[0.5]), blob(prune_at=[0.5])
    other.grow(0, 0.1)
    before = [id(weight) for weight in volume.parameters()]
    volume.load_state_dict(other.state_dict())
    assert [id(weight) for weight in volume.parameters()] == before
    other.grow(0, 0.6)
    volume.load_state_dict(other.state_dict())
    assert [id(weight) for weight in volume.parameters()] != before
    assert same(volume, other)
