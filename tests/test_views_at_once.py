"""A step in parts: the same gradient to rounding, less in memory; and a discriminator in 16 bits, and nothing else."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from trainers import adversarial_of, discriminator_of, make_trainer  # pyright: ignore[reportMissingImports]

from mnist3d.data.images import ImageSet
from mnist3d.errors import ConfigError
from mnist3d.geometry.parts import in_parts
from mnist3d.kernels import choice
from mnist3d.kernels.absorption import random_rotations, render_grid
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.runs.config import Config
from mnist3d.training.discriminator import Discriminator
from mnist3d.training.objectives.target_list import TargetOptions
from mnist3d.training.objectives.targets import Targets
from mnist3d.training.options import TrainerOptions
from mnist3d.training.trainer import Trainer
from mnist3d.volumes import HashGrid, VMGrid, Volume, VoxelGrid

# Sums in another order, of some thousand numbers of double precision; a part left out is off by a tenth.
ROUNDING = 1e-10
TURNS = random_rotations(7, torch.Generator().manual_seed(5)).double()


def images(precision: torch.dtype = torch.float64) -> ImageSet:
    drawn = torch.rand(30, 1, 12, 12, generator=torch.Generator().manual_seed(3), dtype=precision)
    return ImageSet(drawn, torch.arange(30) % 3, ["a", "b", "c"])


def small_hash_grid() -> HashGrid:
    return HashGrid(num_levels=3, max_resolution=16, log2_hashmap_size=8, implementation="torch")


@contextmanager
def kept() -> Iterator[list[int]]:
    """Bytes of each tensor that autograd keeps in the block, of those that nothing computes again."""
    found: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        found.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def gradients(module: nn.Module) -> Tensor:
    return torch.cat([torch.zeros(0), *(p.grad.flatten() for p in module.parameters() if p.grad is not None)])


# A part at a time


@pytest.mark.parametrize("at_once", [1, 2, 3, 6, 7, None])
def test_rows_come_out_in_their_order_and_both_derivatives_with_them(at_once: int | None):
    weight = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    rows = torch.arange(7.0, dtype=torch.float64, requires_grad=True)
    sizes: list[int] = []

    def compute(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        sizes.append(len(x))
        return weight * x**3, x + y

    cubes, sums = in_parts(compute, at_once, rows, 10.0 * rows.detach())
    assert max(sizes) == (at_once or 7)
    assert torch.equal(cubes, 3.0 * rows**3)
    assert torch.equal(sums, 11.0 * rows)
    (first,) = torch.autograd.grad(cubes.sum(), rows, create_graph=True)
    torch.testing.assert_close(first, 9.0 * rows**2)
    first.sum().backward()
    torch.testing.assert_close(rows.grad, 18.0 * rows)
    torch.testing.assert_close(weight.grad, (3.0 * rows**2).sum())


@pytest.mark.parametrize(
    ("build", "quadrature"),
    [
        (lambda: VoxelGrid(9, initial_noise=1.0), "trilinear"),
        (lambda: VoxelGrid(9, initial_noise=1.0), "slices"),
        (lambda: VMGrid(8, 2), "trilinear"),
        (small_hash_grid, "trilinear"),
    ],
    ids=["grid", "slices", "vm_grid", "hash_grid_along_rays"],
)
def test_views_in_parts_have_the_same_gradient_and_keep_less(build: Callable[[], Volume], quadrature):
    torch.manual_seed(0)
    volume = build().double()
    renderer = AbsorptionRenderer(12, 10, quadrature, "reference")
    upstream = torch.rand(7, 1, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def rendered(at_once: int | None) -> tuple[Tensor, Tensor, int]:
        volume.zero_grad()
        with kept() as found:
            views = renderer(volume, TURNS, generator=torch.Generator().manual_seed(2), at_once=at_once)
        (views * upstream).sum().backward()
        return views.detach(), gradients(volume), sum(found)

    views, gradient, most = rendered(None)
    for at_once in (1, 3):
        again, same, fewer = rendered(at_once)
        torch.testing.assert_close(again, views, rtol=0, atol=ROUNDING)
        torch.testing.assert_close(same, gradient, rtol=0, atol=ROUNDING * float(gradient.abs().max()))
        assert fewer < 0.5 * most
    assert float(gradient.abs().max()) > 1e-3


def test_the_grid_is_made_once_for_all_parts(monkeypatch: pytest.MonkeyPatch):
    calls: list[int] = []
    dense = VoxelGrid.dense
    monkeypatch.setattr(VoxelGrid, "dense", lambda self: (calls.append(1), dense(self))[1])
    AbsorptionRenderer(8, 8, impl="reference")(VoxelGrid(6), TURNS, at_once=2).sum().backward()
    assert len(calls) == 1


def test_a_kernel_that_keeps_nothing_of_a_view_is_asked_once():
    grid = torch.rand(2, 6, 6, 6, requires_grad=True)
    with kept() as found:
        parts = render_grid(grid[0], grid[1], TURNS.float(), 9, 8, impl="numba", at_once=1)
    assert torch.equal(parts, render_grid(grid[0], grid[1], TURNS.float(), 9, 8, impl="numba"))
    assert max(found) <= grid.nbytes
    with pytest.raises(ValueError, match="at_once=0: it must be at least 1"):
        render_grid(grid[0], grid[1], TURNS.float(), 9, 8, at_once=0)


def test_auto_compares_in_peace_inside_a_part(monkeypatch: pytest.MonkeyPatch):
    """It asks for gradients of its own, while the part keeps nothing for any."""
    monkeypatch.setattr(choice, "_verdicts", {})
    monkeypatch.setattr(choice, "_lock", threading.RLock())  # who asks again within an answer goes on for ever
    torch.manual_seed(0)
    volume = HashGrid(num_levels=3, max_resolution=16, log2_hashmap_size=8)
    AbsorptionRenderer(6, 6)(volume, TURNS.float(), at_once=3).sum().backward()
    assert [found.taken for found in choice._verdicts.values()] == [True]
    gradient = gradients(volume)
    volume.zero_grad()
    AbsorptionRenderer(6, 6)(volume, TURNS.float()).sum().backward()
    # sums of some thousand numbers of single precision in another order
    torch.testing.assert_close(gradient, gradients(volume), rtol=0, atol=1e-4 * float(gradient.abs().max()))


# A step


def trainer(volume: Volume, dtype: torch.dtype = torch.float64, **options) -> Trainer:
    torch.manual_seed(7)
    given = images(dtype)
    targets = Targets(
        torch.tensor([0.0, 1.0]), torch.zeros(2), given.images[:2].float(), TargetOptions(views_per_step=5)
    ).to(dtype)
    settings = TrainerOptions(max_steps=100, views=7, **options)
    return make_trainer(volume.to(dtype), AbsorptionRenderer(12, 10), given, settings, targets=targets)


@pytest.mark.parametrize("build", [lambda: VoxelGrid(9), small_hash_grid], ids=["grid", "hash_grid"])
def test_a_step_in_parts_moves_both_players_alike(build: Callable[[], Volume], monkeypatch: pytest.MonkeyPatch):
    def made(at_once: int | None) -> tuple[Tensor, Tensor, dict]:
        torch.manual_seed(0)
        made = trainer(build(), views_at_once=at_once)
        report = made.step()  # the first, which has a penalty
        return gradients(made.volume), gradients(discriminator_of(made)), report.metrics

    monkeypatch.setattr(Discriminator, "_widest", 0, raising=False)
    forward = Discriminator.forward

    def noted(self: Discriminator, given: Tensor, *more) -> tuple[Tensor, Tensor]:
        Discriminator._widest = max(Discriminator._widest, len(given))  # pyright: ignore[reportAttributeAccessIssue]
        return forward(self, given, *more)

    monkeypatch.setattr(Discriminator, "forward", noted)
    whole = made(None)
    monkeypatch.setattr(Discriminator, "_widest", 0)
    parts = made(3)
    assert Discriminator._widest == 6  # pyright: ignore[reportAttributeAccessIssue] - three views and three images
    for one, other in zip(whole[:2], parts[:2], strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=ROUNDING * float(one.abs().max()))
        assert float(one.abs().max()) > 1e-6
    shares = [figures.pop("class_shares") for figures in (whole[2], parts[2])]
    assert shares[0] == shares[1]
    assert parts[2] == pytest.approx(whole[2], rel=1e-6)  # figures are read in single precision


@pytest.mark.parametrize("at_once", [3, None])
def test_the_volumes_gradient_goes_through_the_discriminator_and_leaves_none_there(at_once: int | None):
    made = trainer(VoxelGrid(6), views_at_once=at_once)
    batch = made._batch(0.0, 1.0)
    for objective in made.each_objective():
        objective.prepare(batch)
    taught = gradients(discriminator_of(made)).clone()
    loss = adversarial_of(made).loss(batch)
    loss.backward()
    assert torch.equal(gradients(discriminator_of(made)), taught)
    assert float(gradients(made.volume).abs().max()) > 0.0
    assert all(weight.requires_grad for weight in discriminator_of(made).parameters())


def test_without_the_option_nothing_is_computed_again(monkeypatch: pytest.MonkeyPatch):
    def weights(at_once: int | None) -> Tensor:
        torch.manual_seed(0)
        made = trainer(small_hash_grid(), torch.float32, views_at_once=at_once)
        for _ in range(3):
            made.step()
        return torch.cat([weight.detach().flatten() for weight in made.volume.parameters()])

    monkeypatch.setattr(torch.utils.checkpoint, "checkpoint", lambda *_, **__: pytest.fail("it was computed again"))
    assert torch.equal(weights(None), weights(7))  # as many as there are
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        weights(6)


# A discriminator in 16 bits


def test_only_the_body_of_the_discriminator_computes_in_16_bits():
    torch.manual_seed(0)
    network, given = Discriminator(16, 3), torch.rand(8, 1, 16, 16, requires_grad=True)
    seen: dict[str, torch.dtype] = {}
    for name, layer in network.named_modules():
        layer.register_forward_hook(lambda _, __, found, name=name: seen.update({name: found[0].dtype}))
    exact = network(given)
    assert {*seen.values()} == {torch.float32}
    with torch.autocast("cpu", enabled=False):  # as in a step
        score, logits = network(given, "bfloat16")
    assert {seen[name] for name in ("body.0", "body.2", "body.4", "body.7")} == {torch.bfloat16}
    assert {seen["score"], seen["classes"], score.dtype, logits.dtype} == {torch.float32}
    # 8 bits in each of four layers, of numbers below 1
    for found, wanted in zip((score, logits), exact, strict=True):
        assert 0.0 < float((found - wanted).detach().abs().max()) < 4 * 2**-8
    (gradient,) = torch.autograd.grad(score.sum(), given, create_graph=True)
    gradient.square().sum().backward()
    found = [weight.grad for weight in network.body.parameters()]
    assert {each.dtype for each in [gradient, *found] if each is not None} == {torch.float32}


def test_a_run_with_16_bits_begins_with_the_same_views_and_stays_finite():
    def made(precision: str) -> tuple[Trainer, list[dict]]:
        torch.manual_seed(0)
        made = trainer(VoxelGrid(9), torch.float32, precision=precision, views_at_once=4)
        return made, [made.step().metrics for _ in range(6)]

    (exact, wanted), (rounded, found) = made("float32"), made("bfloat16")
    assert found[0]["mean_brightness"] == wanted[0]["mean_brightness"]
    assert found[0]["discriminator_loss"] != wanted[0]["discriminator_loss"]
    assert found[0]["discriminator_loss"] == pytest.approx(wanted[0]["discriminator_loss"], abs=4 * 2**-8)
    for part in (exact, rounded):
        states = [*part.volume.state_dict().values(), *discriminator_of(part).state_dict().values()]
        assert all(each.dtype == torch.float32 and bool(each.isfinite().all()) for each in states)


def test_weights_are_not_kept_in_16_bits_from_one_pass_to_the_next():
    network, given = Discriminator(16, 0), torch.rand(2, 1, 16, 16)
    with torch.autocast("cpu", enabled=False):
        before, _ = network(given, "bfloat16")
        with torch.no_grad():
            next(network.parameters()).mul_(0.5)  # of the first convolution
        after, _ = network(given, "bfloat16")
    assert not torch.equal(after, before)
    assert torch.equal(after, network(given, "bfloat16")[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"views_at_once": 0}, "trainer.views_at_once=0: must be >= 1"),
        ({"precision": "float16"}, "trainer.precision=float16: must be one of float32, bfloat16"),
    ],
)
def test_a_wrong_option_is_one_line(options, words: str):
    with pytest.raises(ConfigError, match=words):
        Config.from_mapping({"trainer": options})
