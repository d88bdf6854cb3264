"""The renderer of blocks: the shared contract of renderers, the whole grid's views, and blocks that are not there."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mnist3d.kernels import choice
from mnist3d.kernels.absorption import random_rotations, render_grid
from mnist3d.kernels.absorption.quadrature import ball_quadrature
from mnist3d.kernels.absorption.reference import render_grid_reference
from mnist3d.kernels.absorption.trilinear_numba import render_grid_numba
from mnist3d.kernels.block_absorption import (
    Blocks,
    block_influence,
    blocks_along,
    blocks_numba,
    cut,
    implementations,
    render_blocks,
    sample_blocks,
    whole,
)
from mnist3d.kernels.block_absorption.activation import activated, activated_beside
from mnist3d.kernels.block_absorption.blocks_numba import render_blocks_numba
from mnist3d.kernels.block_absorption.reference import render_blocks_reference
from mnist3d.kernels.choice import TOLERANCES
from mnist3d.kernels.compositing import composite
from mnist3d.testing import check_absorption_kernel

EMPTY, STEP = 0.25, 2.0 / 24.0
RENDERERS = {"numba": render_blocks_numba, "reference": render_blocks_reference}


def as_blocks(render):
    """A renderer of blocks as one of grids, of all of which it makes blocks."""

    def of_grid(opacity, absorbance, rotation, image_size, num_samples):
        size = tuple(opacity.shape)
        slots = torch.arange(len(cut(opacity[None])[0]), dtype=torch.int32).reshape(blocks_along(size))
        first, second = cut(torch.stack([opacity, absorbance]))
        return render(first, second, rotation, slots, size, EMPTY, image_size, num_samples)

    return of_grid


def some_blocks(size=(19, 24, 17), left_out=(0, 3, 4, 10, 13, 26), dtype=torch.float64) -> Blocks:
    """Random values, absorbance and all, in blocks that stand in another order than in the grid."""
    generator = torch.Generator().manual_seed(1)
    count = torch.Size(blocks_along(size)).numel()
    slots = torch.full((count,), -1, dtype=torch.int32)
    kept = torch.tensor([place for place in range(count) if place not in left_out])
    slots[kept] = torch.randperm(len(kept), generator=generator).int()
    raw = torch.randn(2, len(kept), 8, 8, 8, generator=generator, dtype=torch.float64)
    raw[0] += 12.0 * (torch.rand(raw[0].shape, generator=generator) - 0.8)
    return Blocks(raw.to(dtype), STEP, slots.reshape(blocks_along(size)), size, EMPTY)


@pytest.mark.parametrize("name", RENDERERS)
def test_it_keeps_the_contract_of_renderers_where_all_blocks_are_there(name):
    render = as_blocks(RENDERERS[name])

    def but_for_no_view(*arguments):  # which `render_blocks` answers itself
        return render(*arguments) if len(arguments[2]) else render_grid_reference(*arguments)

    check_absorption_kernel(but_for_no_view)


def views_and_gradients(render, tensors, weights):
    tensors = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    views = render(*tensors)
    return [views.detach(), *torch.autograd.grad((views * weights).sum(), tensors)]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("impl", RENDERERS)
def test_blocks_that_are_not_there_read_as_empty(impl, dtype):
    blocks = some_blocks()
    generator = torch.Generator().manual_seed(2)
    rotation = random_rotations(3, generator)
    weights = torch.randn(3, 11, 11, generator=generator, dtype=torch.float64)

    def of_the_whole(raw: Tensor, rotation: Tensor) -> Tensor:
        values = torch.stack([torch.nn.functional.softplus(raw[0]) / STEP, raw[1].sigmoid()])
        grid = whole(values, blocks.slots, blocks.resolution, torch.tensor([0.0, EMPTY]).double())
        return render_grid(grid[0], grid[1], rotation, 11, 23, impl="reference")

    def of_the_blocks(raw: Tensor, rotation: Tensor) -> Tensor:
        return render_blocks(replace(blocks, raw=raw), rotation, 11, 23, impl=impl)

    tensors = (blocks.raw, rotation)
    expected = views_and_gradients(of_the_whole, tensors, weights)
    found = views_and_gradients(of_the_blocks, [tensor.to(dtype) for tensor in tensors], weights.to(dtype))
    tolerance = TOLERANCES[dtype]
    assert (found[0] - expected[0]).abs().max() <= tolerance.value
    assert expected[0].std() > 0.05
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        assert (ours - theirs).abs().max() <= tolerance.gradient * theirs.abs().max()


def test_the_compiled_one_is_the_compiled_one_of_grids_to_the_bit():
    """Where a sample lies and what is read there is rounded alike, so a grid may change over at any time."""
    blocks = some_blocks(dtype=torch.float32)
    rotation = random_rotations(3, torch.Generator().manual_seed(0)).float()
    values = activated(blocks.raw, 1.0)
    opacity, absorbance = whole(torch.stack(values), blocks.slots, blocks.resolution, torch.tensor([0.0, EMPTY]))
    expected = render_grid_numba(opacity, absorbance, rotation, 15, 40)
    grid = blocks.slots, blocks.resolution, EMPTY
    assert torch.equal(render_blocks_numba(values[0], values[1], rotation, *grid, 15, 40), expected)


def test_threads_share_the_work_and_change_no_view(monkeypatch):
    blocks = some_blocks()
    rotation, found = random_rotations(2, torch.Generator().manual_seed(0)), []
    weights = torch.rand(2, 20, 20, dtype=torch.float64)

    def of_the_blocks(raw: Tensor, rotation: Tensor) -> Tensor:
        return render_blocks(replace(blocks, raw=raw), rotation, 20, 30, impl="numba")

    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(views_and_gradients(of_the_blocks, (blocks.raw, rotation), weights))
    assert torch.equal(found[0][0], found[1][0])
    for one, three in zip(found[0][1:], found[1][1:], strict=True):
        torch.testing.assert_close(one, three, rtol=1e-12, atol=1e-12)  # another order of summation


def test_auto_proves_the_compiled_one_and_parts_are_the_whole():
    blocks = some_blocks()
    rotation = random_rotations(5, torch.Generator().manual_seed(0))
    expected = render_blocks(blocks, rotation, 9, 12, impl="numba")
    assert torch.equal(render_blocks(blocks, rotation, 9, 12), expected)
    blocks.raw.requires_grad_()
    few, all_at_once = (render_blocks(blocks, rotation, 9, 12, "reference", at_once) for at_once in (2, None))
    slopes = [torch.autograd.grad(view.square().sum(), blocks.raw)[0] for view in (few, all_at_once)]
    torch.testing.assert_close(few, all_at_once, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(*slopes, rtol=1e-10, atol=1e-13)
    assert render_blocks(blocks, rotation[:0], 9, 12).shape == (0, 9, 9)


@pytest.mark.parametrize("wrong", ["render_raw_numba", "block_influence_numba"])
def test_auto_proves_what_is_run(monkeypatch, wrong):
    """One that is off by a thousandth is not taken, and the other operation's is."""
    blocks, rotation = some_blocks(), random_rotations(2, torch.Generator().manual_seed(0))
    right = getattr(blocks_numba, wrong)
    monkeypatch.setattr(choice, "_verdicts", {})
    monkeypatch.setattr(blocks_numba, wrong, lambda *arguments: 1.001 * right(*arguments))
    render = implementations.implementation("auto", (blocks.raw, rotation), None)
    influence = implementations.influence_implementation("auto", (blocks.raw, rotation))
    assert (render is blocks_numba.render_raw_numba) == (wrong != "render_raw_numba")
    assert (influence is blocks_numba.block_influence_numba) == (wrong != "block_influence_numba")


def test_between_voxels_a_grid_of_blocks_is_the_grid():
    blocks = some_blocks()
    places = 2.4 * torch.rand(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1.2
    values = blocks.values()
    empty = torch.tensor([0.0, EMPTY], dtype=torch.float64)
    found = sample_blocks(values, blocks.slots, blocks.resolution, empty, places)
    grid = torch.nn.functional.grid_sample(
        blocks.dense()[None], places[None, None, None], padding_mode="border", align_corners=False
    )
    torch.testing.assert_close(found, grid[0, :, 0, 0])
    assert torch.equal(cut(blocks.dense())[:, 1, :, :, 0], values[:, int(blocks.slots.flatten()[1]), :, :, 0])


@pytest.mark.parametrize("impl", RENDERERS)
def test_the_influence_of_a_block_is_what_the_views_change_by_without_its_samples(impl):
    """Composited anew without the samples whose nearest voxel is the block's."""
    blocks, pixels, samples = some_blocks(), 9, 14
    rotation = random_rotations(3, torch.Generator().manual_seed(3))
    camera, share = ball_quadrature(pixels, samples, dtype=torch.float64)
    opacity, absorbance = activated(blocks.raw, 2.0 / samples / STEP)
    empty = torch.tensor([0.0, EMPTY], dtype=torch.float64)
    size = torch.tensor(blocks.resolution[::-1])
    expected = torch.zeros(blocks.raw.shape[1], dtype=torch.float64)
    for turn in rotation:
        world = camera @ turn
        shade, black = sample_blocks(torch.stack([opacity, absorbance]), blocks.slots, blocks.resolution, empty, world)
        voxel = torch.minimum(((world + 1.0) / 2.0 * size).long().clamp_min(0), size - 1)  # the rest has no share
        x, y, z = (voxel // 8).unbind(dim=-1)
        owner = blocks.slots[z, y, x]
        view = composite((share * shade)[None], black[None])
        for block in range(len(expected)):
            without = composite((share * shade * (owner != block))[None], black[None])
            expected[block] += (view - without).square().sum() / (len(rotation) * pixels**2)
    found = block_influence(blocks, rotation, pixels, samples, impl)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-15)  # rounding of some hundred operations
    assert (expected > 1e-6).sum() > 10


@pytest.mark.parametrize("impl", RENDERERS)
def test_what_is_hidden_or_black_before_nothing_has_no_influence(impl):
    """27 blocks, of which the outer 26 let exp(-50) through; then black ones, and none that `slots` leaves out."""
    slots = torch.arange(27, dtype=torch.int32).reshape(3, 3, 3)
    raw = torch.full((2, 27, 8, 8, 8), 50.0, dtype=torch.float64)
    raw[1] = -2.0
    raw[:, 13] = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    blocks = Blocks(raw, STEP, slots, (24, 24, 24), EMPTY)
    rotation = random_rotations(4, torch.Generator().manual_seed(0))
    found = block_influence(blocks, rotation, 16, 24, impl)
    assert found[13] < 1e-40
    assert found[[4, 10, 12, 14, 16, 22]].min() > 1e-6  # in the middle of the six sides
    black = replace(blocks, raw=torch.stack([raw[0], torch.full_like(raw[1], torch.inf)]))
    assert block_influence(black, rotation, 16, 24, impl).max() < 1e-30  # the square of rounding
    fewer = replace(blocks, slots=torch.where(slots == 4, -1, slots))
    seen = block_influence(fewer, rotation, 16, 24, impl)
    assert seen[4] == 0.0
    assert seen[13] > 1e-6


def test_influence_is_the_same_to_the_bit_on_any_number_of_threads(monkeypatch):
    blocks, rotation, found = some_blocks(dtype=torch.float32), random_rotations(9, torch.Generator()).float(), []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(block_influence(blocks, rotation, 12, 20, "numba"))
    assert torch.equal(*found)
    expected = block_influence(blocks, rotation, 12, 20, "reference")
    torch.testing.assert_close(found[0], expected, rtol=1e-3, atol=1e-9)  # of differences of float32
    assert block_influence(blocks, rotation[:0], 12, 20).equal(torch.zeros(21, dtype=torch.float64))


def test_torch_itself_on_any_number_of_threads_changes_no_value_either():
    """Of 300 blocks: torch shares out 32,768 numbers and more, and rounds the last of each share in another way."""
    raw = 3.0 * torch.randn(2, 300, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    slots = torch.arange(343, dtype=torch.int32).reshape(7, 7, 7)
    blocks = Blocks(raw, STEP, torch.where(slots < 300, slots, -1), (56, 56, 56), EMPTY)
    rotation, found = random_rotations(2, torch.Generator().manual_seed(0)).float(), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            found.append((activated_beside(raw, 0.7), block_influence(blocks, rotation, 12, 20, "numba")))
    finally:
        torch.set_num_threads(before)
    for values, influence in found[1:]:
        assert torch.equal(values, found[0][0])
        assert torch.equal(influence, found[0][1])


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_a_rotation_that_is_none_reads_nothing_outside(wrong):
    blocks = some_blocks(left_out=(), dtype=torch.float32)
    rotation = random_rotations(2, torch.Generator().manual_seed(0)).float()
    rotation[0] = wrong
    assert block_influence(blocks, rotation, 12, 20, "numba").shape == (27,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"slots": torch.full((3, 3, 3), 21, dtype=torch.int32)},
            r"slots lies in \[21, 21\]: it must be in \[-1, 20\]",
        ),
        ({"slots": torch.zeros(3, 3, 2, dtype=torch.int32)}, r"slots is \(3, 3, 2\).*it must be \(3, 3, 3\)"),
    ],
)
def test_what_would_be_read_outside_is_refused(change, words):
    blocks = some_blocks()
    wrong = replace(blocks, **change)
    with pytest.raises(ValueError, match=words):
        render_blocks(wrong, torch.eye(3, dtype=torch.float64)[None], 4, 4)


def test_what_it_cannot_take_is_refused():
    blocks = some_blocks()
    with pytest.raises(ValueError, match=r"impl='numba' cannot take rotation of torch.float32"):
        render_blocks(blocks, torch.eye(3)[None], 4, 4, impl="numba")
    with pytest.raises(ValueError, match=r"impl='triton': must be one of auto, reference, numba"):
        render_blocks(blocks, torch.eye(3, dtype=torch.float64)[None], 4, 4, impl="triton")
    with pytest.raises(ValueError, match=r"image_size=0: it must be at least 1"):
        render_blocks(blocks, torch.eye(3, dtype=torch.float64)[None], 0, 4)
