"""HashGrid: its start, its implementations, its image along rays and baked, its files; fields in the renderer."""

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trainers import make_trainer  # pyright: ignore[reportMissingImports]

from mnist3d.cli.parser import parse_command_line
from mnist3d.data.images import ImageSet
from mnist3d.errors import ConfigError
from mnist3d.geometry.rotations import euler_matrix
from mnist3d.rendering.renderer import AbsorptionRenderer, render_views
from mnist3d.runs.building import build_volume
from mnist3d.training.options import TrainerOptions
from mnist3d.volumes import Volume, baking, hash_grid, load_volume, volume_bytes
from mnist3d.volumes.baking import ball_voxels
from mnist3d.volumes.hash_grid import HashGrid
from mnist3d.volumes.occupancy import EMPTY_BELOW, occupied_cells
from mnist3d.volumes.voxel_grid import VoxelGrid

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "tinycudann.npz"
TINY: dict[str, Any] = {"num_levels": 4, "log2_hashmap_size": 10, "max_resolution": 16, "hidden_dim": 16}
VIEWS = euler_matrix(torch.tensor([[0.0, 0.0, 0.0], [0.4, 1.1, 0.0], [-0.7, 2.5, 0.3]]))


def lively(seed=0, **options):
    """A volume with structure instead of grey fog."""
    torch.manual_seed(seed)
    return HashGrid(**{**TINY, "initial_noise": 1.0, "implementation": "torch", **options})


def test_it_begins_as_grey_as_the_dense_grid():
    torch.manual_seed(0)
    renderer = AbsorptionRenderer(16)
    with torch.no_grad():
        dense, field = (renderer(volume, VIEWS) for volume in (VoxelGrid(), HashGrid(bake_resolution=24)))
    assert 0.7 < field.mean() / dense.mean() < 1.4
    assert field.max() < 0.5
    assert field.std(dim=0).mean() > 0  # and not quite the same from everywhere


def test_the_constant_field_is_what_the_options_say():
    volume = HashGrid(**TINY, initial_noise=0.0, initial_opacity=0.3, initial_brightness=0.8)
    attenuation, absorbance = volume(torch.zeros(2, 3))
    assert torch.allclose(-torch.expm1(-attenuation * 2 / 48), torch.tensor(0.3), atol=1e-6)
    assert torch.allclose(absorbance, torch.tensor(0.2))


def test_implementations_give_the_same_image_from_the_same_file(tmp_path):
    """What is saved does not say who computed it."""
    volume = lively(implementation="numba")
    path = tmp_path / "volume.safetensors"
    path.write_bytes(volume_bytes(volume))
    loaded = load_volume(path)
    assert isinstance(loaded, HashGrid)
    assert loaded.implementation == "auto"
    loaded.implementation = "torch"
    points = 2.0 * torch.rand(500, 3) - 1.0
    for ours, theirs in zip(volume(points), loaded(points), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    renderer = AbsorptionRenderer(12, 24)
    assert (renderer(volume, VIEWS) - renderer(loaded, VIEWS)).abs().max() < 1e-5


def test_a_copy_that_leaves_the_gpu_computes_by_what_is_there(monkeypatch):
    """The page renders a copy on the CPU. Here the meta device plays the GPU."""
    monkeypatch.setattr(hash_grid, "GPU", "meta")
    volume = lively()
    volume.implementation = "tinycudann"
    on_gpu = copy.deepcopy(volume).to("meta")
    assert on_gpu.implementation == "tinycudann"
    assert volume.cpu().implementation == "tinycudann", "it has never been there, so its wish is refused, not dropped"
    copied = on_gpu.to_empty(device="cpu")
    copied.load_state_dict(volume.state_dict())
    points = 2.0 * torch.rand(50, 3) - 1.0
    assert copied.implementation == "auto"
    torch.testing.assert_close(copied(points), lively()(points), rtol=1e-4, atol=1e-4)


def test_tinycudann_refuses_more_numbers_a_point_than_a_block_has_threads(monkeypatch):
    monkeypatch.setattr(hash_grid, "require_implementation", lambda name: None)
    options: dict[str, Any] = {"num_levels": 17, "features_per_level": 8, "log2_hashmap_size": 6}
    options |= {"implementation": "tinycudann", "max_resolution": 32}
    HashGrid(**options)
    narrowing: list[dict[str, Any]] = [{"full_precision": True}, {"hidden_dim": 24}]
    for narrow in narrowing:
        with pytest.raises(ValueError, match=r"^implementation=tinycudann: num_levels=17 times features_per_level=8"):
            HashGrid(**options, **narrow)
    HashGrid(**{**options, "implementation": "auto"}, full_precision=True)


@pytest.mark.parametrize("implementation", ["torch", "numba"])
def test_gradients_reach_every_parameter_and_the_points(implementation):
    volume = lively(implementation=implementation)
    points = (torch.rand(50, 3) - 0.5).requires_grad_()
    attenuation, absorbance = volume(points)
    (attenuation.sum() + absorbance.sum()).backward()
    for tensor in (points, *volume.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().max() > 0


@pytest.mark.parametrize("implementation", ["torch", "numba"])
def test_hostile_points_and_none(implementation):
    volume = lively(implementation=implementation)
    inf, nan = float("inf"), float("nan")
    points = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0], [inf, -inf, 0.0], [nan, 1e30, -7.0]])
    for value in volume(points):
        assert value.isfinite().all()
    corner = volume(points[:1])[0]
    assert torch.equal(volume(torch.tensor([[9.0, 9.0, 9.0]]))[0], corner)
    attenuation, absorbance = volume(torch.zeros(0, 5, 3))
    assert attenuation.shape == absorbance.shape == (0, 5)
    (attenuation.sum() + absorbance.sum()).backward()


def test_baked_voxels_hold_the_field_and_the_unread_ones_nothing():
    volume = lively(bake_resolution=9)
    grid = volume.dense()
    assert grid is not None
    index, centres = ball_voxels(9, "cpu")
    values = torch.stack(volume(centres))
    assert torch.equal(grid.flatten(1)[:, index], values)
    unread = torch.ones(9**3, dtype=torch.bool)
    unread[index] = False
    assert 0 < unread.sum() < 9**3 / 2
    assert not grid.flatten(1)[:, unread].any()
    k, j, i = 2, 5, 7
    centre = torch.tensor([(2 * i + 1) / 9 - 1, (2 * j + 1) / 9 - 1, (2 * k + 1) / 9 - 1])
    assert torch.allclose(grid[0, k, j, i], volume(centre)[0])


# slices: the ramp at the ball's rim, one voxel wide, reads the absorbance of a few voxels further out
@pytest.mark.parametrize(("quadrature", "allowed"), [("trilinear", 1e-6), ("slices", 1e-3)])
@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_what_is_left_out_of_baking_is_never_seen(size, quadrature, allowed):
    volume = lively(bake_resolution=size)
    renderer = AbsorptionRenderer(17, 2 * size, quadrature=quadrature)
    axis = (2.0 * torch.arange(size) + 1.0) / size - 1.0
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    with torch.no_grad():
        whole = VoxelGrid.from_array(torch.stack(volume(torch.stack([x, y, z], dim=-1))))
        assert (renderer(whole, VIEWS) - renderer(volume, VIEWS)).abs().max() < allowed


def test_the_baked_image_becomes_the_fields_as_the_grid_is_refined():
    volume = lively(implementation="numba", initial_noise=0.5)
    with torch.no_grad():
        field = AbsorptionRenderer(16, 192)(volume, VIEWS)
        errors = []
        for size in (12, 24, 48, 96):
            volume.bake_resolution = size
            errors.append(float((AbsorptionRenderer(16, 192)(volume, VIEWS) - field).abs().mean()))
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert errors[3] < 0.25 * errors[0]
    assert errors[3] < 2e-3


def test_stratified_samples_are_the_generators_and_right_in_the_mean():
    volume = lively()
    renderer = AbsorptionRenderer(9, 6)

    def rendered(seed):
        with torch.no_grad():
            return renderer(volume, VIEWS, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(rendered(1), rendered(1))
    assert not torch.equal(rendered(1), rendered(2))
    with torch.no_grad():
        assert not torch.equal(rendered(1), renderer(volume, VIEWS))  # without a generator in the middle
    fine = AbsorptionRenderer(9, 200)(volume, VIEWS).detach()
    mean = torch.stack([rendered(seed) for seed in range(60)]).mean(dim=0)
    assert (mean - fine).abs().mean() < 0.6 * (renderer(volume, VIEWS) - fine).abs().mean()


def test_a_dense_volume_draws_nothing():
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    AbsorptionRenderer(8)(lively(bake_resolution=6), VIEWS, generator=generator)
    assert torch.equal(generator.get_state(), before)


class Counted(Volume):
    """A ball of radius .3 off the centre, that counts what it is asked."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def forward(self, points):
        self.asked += points[..., 0].numel()
        distance = (points - torch.tensor([0.5, 0.2, -0.1])).norm(dim=-1)
        return torch.where(distance < 0.3, 5.0, 0.5 * EMPTY_BELOW), 0.5 + 0.0 * distance


def test_empty_cells_are_not_asked_and_the_image_stays():
    volume, renderer = Counted(), AbsorptionRenderer(28)
    with torch.no_grad():
        expected = renderer(volume, VIEWS)
        plainly, volume.asked = volume.asked, 0
        occupancy = occupied_cells(volume)
        assert volume.asked == occupancy.probes
        volume.asked = 0
        found = renderer(volume, VIEWS, occupancy=occupancy)
    assert (found - expected).abs().max() <= 1 / 510
    assert expected.max() > 0.3
    assert volume.asked < 0.1 * plainly


def test_many_views_skip_by_themselves_and_few_do_not():
    volume, renderer = Counted(), AbsorptionRenderer(28)
    rotations = VIEWS.repeat(20, 1, 1)
    views = render_views(volume, renderer, rotations)
    many, volume.asked = volume.asked, 0
    few = render_views(volume, renderer, rotations[:3])
    assert many < 0.4 * 20 * volume.asked
    assert (views[:3] - few).abs().max() <= 1 / 510


def test_a_grid_is_baked_once_for_many_views(monkeypatch):
    volume, baked = lively(bake_resolution=6), []
    dense = volume.dense
    monkeypatch.setattr(volume, "dense", lambda: baked.append(1) or dense())
    views = render_views(volume, AbsorptionRenderer(8), VIEWS.repeat(20, 1, 1))
    assert len(baked) == 1
    assert torch.equal(views[:3], AbsorptionRenderer(8)(volume, VIEWS).detach())


def test_a_field_of_nan_is_not_taken_for_empty():
    class Broken(Volume):
        def forward(self, points):
            return points[..., 0] * torch.nan, points[..., 0]

    assert occupied_cells(Broken(), cells=8).cells[4, 4, 4]


def small_trainer(seed=0, **options):
    torch.manual_seed(seed)
    images = torch.zeros(32, 1, 16, 16)
    images[:, :, 4:12, 7:9] = 1.0
    settings = TrainerOptions(**{"max_steps": 6, "views": 4, **options})
    volume = HashGrid(**TINY, implementation="torch")
    return make_trainer(volume, AbsorptionRenderer(16, 12), ImageSet(images, None, []), settings, seed=seed)


def test_along_rays_six_steps_are_three_and_a_resume_and_three_to_the_bit():
    whole, half, rest = small_trainer(), small_trainer(stop_after=3), small_trainer(seed=5)
    whole.run()
    half.run()
    buffer = io.BytesIO()
    torch.save(half.state_dict(), buffer)
    buffer.seek(0)
    rest.load_state_dict(torch.load(buffer, weights_only=True))
    rest.run()
    start = small_trainer()
    for one, other, begun in zip(
        whole.volume.parameters(), rest.volume.parameters(), start.volume.parameters(), strict=True
    ):
        assert torch.equal(one, other)
        assert not torch.equal(one, begun)


def test_the_table_has_an_epsilon_of_its_own():
    trainer = small_trainer(volume_rate=0.01)
    trainer.step()
    table, network = trainer.volume_optimiser.param_groups
    assert (table["lr"], network["lr"]) == pytest.approx((0.01, 0.01))
    assert (table["eps"], network["eps"]) == (1e-15, 1e-8)


def test_a_state_from_before_parameter_groups_resumes():
    torch.manual_seed(0)
    images = ImageSet(torch.zeros(8, 1, 16, 16), None, [])
    options = TrainerOptions(max_steps=4, views=2)
    trainer = make_trainer(VoxelGrid(6), AbsorptionRenderer(16), images, options)
    trainer.step()
    old = copy.deepcopy(trainer.state_dict())
    for group in old["volume_optimiser"]["param_groups"]:
        del group["rate"]
    trainer.load_state_dict(old)
    trainer.step()
    assert trainer.volume_optimiser.param_groups[0]["lr"] == pytest.approx(options.volume_rate)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_levels": 0}, r"num_levels=0: must be in \[1, 32\]"),
        ({"hidden_dim": 0}, r"hidden_dim=0: must be in \[1, 256\]"),
        ({"num_layers": 9}, r"num_layers=9: must be in \[1, 8\]"),
        ({"max_resolution": 2000}, r"max_resolution=2000: must be in \[4, 1024\]"),
        ({"max_resolution": 64, "per_level_scale": 1.5}, r"per_level_scale=1.5 is given too"),
        ({"per_level_scale": float("nan")}, r"per_level_scale=nan"),
        ({"bake_resolution": 0}, r"bake_resolution=0: must be in \[1, 256\]"),
        ({"initial_opacity": 1.0}, r"initial_opacity=1.0"),
    ],
)
def test_bad_options_name_the_key(options, match):
    with pytest.raises(ValueError, match=match):
        HashGrid(**options)


@pytest.mark.parametrize("name", ["HashGrid", "mnist3d.HashGrid", "mnist3d.volumes.HashGrid"])
def test_chosen_on_the_command_line(name):
    config = parse_command_line(["--volume", name, "--volume.num_levels", "5", "--volume.hidden_dim", "16"]).config
    volume = build_volume(config)
    assert isinstance(volume, HashGrid)
    assert config.volume["class_path"] == "mnist3d.volumes.HashGrid"
    assert volume.hash_levels.num_levels == 5
    # nothing of the default class is left over, also where both have an argument of that name
    assert config.volume["init_args"] == {**HashGrid().init_args, "num_levels": 5, "hidden_dim": 16}
    with pytest.raises(ConfigError, match=r"did you mean volume\.num_levels"):
        parse_command_line(["--volume", name, "--volume.num_level", "5"])


@pytest.mark.parametrize(("preset", "baked"), [("hash_grid", True), ("hash_grid_gpu", False)])
def test_the_presets(preset, baked):
    config = parse_command_line(["--config", str(ROOT / "configs" / f"{preset}.yaml")]).config
    volume = build_volume(config)
    assert isinstance(volume, HashGrid)
    assert (volume.dense() is not None) == baked


def test_against_what_tinycudann_computed_on_a_gpu():
    if not GOLDEN.is_file():
        pytest.skip("no golden file yet: nobody has run benchmarks/record_tinycudann.py on a GPU with tinycudann")
    golden = np.load(GOLDEN)
    volume = HashGrid(**{key: golden[f"option_{key}"].item() for key in ("num_levels", "hidden_dim", "num_layers")})
    volume.implementation = "torch"
    with torch.no_grad():
        volume.table.copy_(torch.from_numpy(golden["table"]))
        for index, weight in enumerate(volume.weights):
            weight.copy_(torch.from_numpy(golden[f"weight_{index}"]))
        raw = volume.raw(torch.from_numpy(golden["points"]))
    assert np.abs(raw.numpy() - golden["full_precision"]).max() < 1e-5
    assert np.abs(raw.numpy() - golden["half_precision"]).max() < 2e-3


def test_a_bake_in_parts_without_gradients_is_the_same_and_leaves_nothing_of_inference_mode(monkeypatch):
    ball_voxels.cache_clear()
    volume = HashGrid(num_levels=2, log2_hashmap_size=6, max_resolution=8, bake_resolution=9)
    with torch.inference_mode():
        quickly = volume.dense()
    whole = volume.dense()
    assert whole is not None
    whole.sum().backward()  # ball_voxels were made in inference mode, and yet serve a training
    assert volume.table.grad is not None
    monkeypatch.setattr(baking, "POINTS_AT_ONCE", 50)
    with torch.no_grad():
        in_parts = volume.dense()
    torch.testing.assert_close(quickly, whole.detach())
    torch.testing.assert_close(in_parts, whole.detach())


def test_ball_voxels_are_those_whose_doubled_cube_meets_the_ball():
    index, centres = ball_voxels(7, "cpu")
    z, y, x = torch.meshgrid(*[(2.0 * torch.arange(7) + 1) / 7 - 1] * 3, indexing="ij")
    nearest = torch.stack([x, y, z], dim=-1)
    met = ((nearest.abs() - 2 / 7).clamp_min(0).norm(dim=-1) < 1).flatten()
    assert index.tolist() == met.nonzero()[:, 0].tolist()
    torch.testing.assert_close(centres, nearest.reshape(-1, 3)[index])
