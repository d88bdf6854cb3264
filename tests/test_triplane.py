"""TriPlane: closed forms, its grid against the field itself, its image, its state."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from trainers import make_trainer  # pyright: ignore[reportMissingImports]

from mnist3d.cli.parser import parse_command_line
from mnist3d.data.images import ImageSet
from mnist3d.errors import ConfigError
from mnist3d.geometry.grids import voxel_centres
from mnist3d.geometry.rotations import euler_matrix
from mnist3d.kernels.absorption import sampling
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.runs.building import build_volume
from mnist3d.training.options import TrainerOptions
from mnist3d.volumes import TriPlane, baking

ROOT = Path(__file__).parents[1]
SMALL: dict[str, Any] = {"resolution": 7, "channels": 4, "hidden_dim": 8}
VIEWS = euler_matrix(torch.tensor([[0.0, 0.0, 0.0], [0.4, 1.1, 0.0], [-0.7, 2.5, 0.3]]))


def lively(seed=0, **options):
    """A volume with structure instead of grey fog."""
    torch.manual_seed(seed)
    return TriPlane(**{**SMALL, "initial_noise": 1.0, **options})


@pytest.mark.parametrize(("combine", "features"), [("sum", 2.2925), ("product", 1.0175 * 1.275 * 3.0 - 1.0)])
def test_a_linear_decoder_by_hand(combine, features):
    """Cells of 2 x 2 have their centres at -.5 and .5. At (x, y, z) = (.25, -.5, 0) the planes are read at
    xy: first row, three quarters to the right; xz: half way down, as far right; yz: half way down, first column."""
    volume = TriPlane(2, 1, combine, num_layers=1, initial_opacity=0.1, initial_brightness=0.4)
    with torch.no_grad():
        xy = [[0.01, 0.02], [0.03, 0.04]]
        xz = [[0.1, 0.2], [0.3, 0.4]]
        yz = [[1.0, 2.0], [3.0, 4.0]]
        volume.planes.copy_(torch.tensor([xy, xz, yz])[:, None])
        volume.weights[0].copy_(torch.tensor([[0.5], [-0.3]]))
    point = torch.tensor([0.25, -0.5, 0.0])
    attenuation, absorbance = volume(point)
    # .0175 + .275 + 2 = 2.2925; for opacity .1 the bias is log(.1 / .9), for brightness .4 log(.6 / .4)
    raw = torch.tensor([0.5 * features, -0.3 * features]) + torch.tensor([1 / 9, 1.5]).log()
    torch.testing.assert_close(attenuation, raw[0].exp().add(1.0).log() * 24.0)
    torch.testing.assert_close(absorbance, 1.0 / (1.0 + torch.exp(-raw[1])))


@pytest.mark.parametrize("combine", ["sum", "product"])
def test_planes_of_zero_are_what_the_options_say(combine):
    volume = TriPlane(**SMALL, combine=combine, initial_noise=0.0, initial_opacity=0.3, initial_brightness=0.8)
    attenuation, absorbance = volume(torch.zeros(2, 3))
    assert torch.allclose(-torch.expm1(-attenuation * 2 / 48), torch.tensor(0.3), atol=1e-6)
    assert torch.allclose(absorbance, torch.tensor(0.2))


def test_it_begins_as_grey_as_the_options_say():
    torch.manual_seed(0)
    renderer = AbsorptionRenderer(12, impl="reference")
    with torch.no_grad():
        constant = renderer(TriPlane(bake_resolution=12, initial_noise=0.0), VIEWS)
        fields = torch.cat([renderer(TriPlane(bake_resolution=12, initial_noise=0.1), VIEWS) for _ in range(9)])
    # a network's own mean is up to .2 off in raw values, a fifth of the brightness: a third of that for nine of them
    assert 0.85 < fields.mean() / constant.mean() < 1.2
    assert fields[:3].std(dim=0).mean() > 0  # and not quite the same from everywhere


def test_a_wrong_way_to_combine_is_one_line():
    with pytest.raises(ConfigError, match=r"volume\.combine=mean: must be one of sum, product"):
        parse_command_line(["--volume", "TriPlane", "--volume.combine", "mean"])


@pytest.mark.parametrize("combine", ["sum", "product"])
@pytest.mark.parametrize(("size", "num_layers"), [(1, 2), (2, 1), (7, 3), (12, 2)])
def test_the_grid_and_its_gradients_are_those_of_the_field(combine, size, num_layers, monkeypatch):
    """In double precision: the two compute the same sums in another order. Slabs are one slice thick, then all."""
    volume = lively(combine=combine, bake_resolution=size, num_layers=num_layers).double()
    read = torch.zeros(size**3, dtype=torch.bool)
    read[baking.ball_voxels(size, "cpu")[0]] = True
    read = read.reshape(size, size, size)
    axis = voxel_centres(size)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    expected = torch.stack(volume(torch.stack([x, y, z], dim=-1)))
    upstream = torch.randn(2, size, size, size, dtype=torch.float64) * read
    slopes = torch.autograd.grad((expected * upstream).sum(), list(volume.parameters()))
    for at_once in (1, 10**6):
        monkeypatch.setattr(baking, "IN_CACHE", at_once)
        monkeypatch.setattr(baking, "MOST_KEPT", at_once)  # computed again, then kept
        grid = volume.dense()
        assert grid is not None
        torch.testing.assert_close(grid[:, read], expected[:, read])
        found = torch.autograd.grad((grid * upstream).sum(), list(volume.parameters()))
        torch.testing.assert_close(found, slopes)


def test_points_in_parts_are_all_points(monkeypatch):
    volume, points = lively(), (2.0 * torch.rand(50, 3) - 1.0).requires_grad_()
    answers = []
    for at_once in (7, 10**6):
        monkeypatch.setattr(baking, "IN_CACHE", at_once)
        monkeypatch.setattr(baking, "MOST_KEPT", at_once)  # computed again, then kept
        answer = torch.stack(volume(points))
        answers.append([answer, *torch.autograd.grad(answer.sum(), [points, *volume.parameters()])])
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-5)  # sums over the points, in float32


def test_planes_are_read_in_one_order_where_that_is_asked_for(monkeypatch):
    """As the trainer does with `--deterministic` on a GPU, which the CPU plays here."""
    volume, points = lively(), 2.0 * torch.rand(20, 3) - 1.0
    expected = torch.stack(volume(points))
    monkeypatch.setattr(sampling, "IN_ANY_ORDER", frozenset({"cpu"}))
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    monkeypatch.setattr(torch.nn.functional, "grid_sample", None)
    torch.testing.assert_close(torch.stack(volume(points)), expected)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"resolution": 0}, r"resolution=0: must be in \[1, 1024\]"),
        ({"channels": 300}, r"channels=300: must be in \[1, 256\]"),
        ({"num_layers": 0}, r"num_layers=0: must be in \[1, 8\]"),
        ({"hidden_dim": 0}, r"hidden_dim=0: must be in \[1, 256\]"),
        ({"initial_noise": -1.0}, "initial_noise=-1.0: must be finite and >= 0"),
        ({"bake_resolution": 300}, r"bake_resolution=300: must be in \[1, 256\]"),
        ({"grow_at": [0.5]}, r"grow_at=\[0.5\]: only a baked grid grows; give bake_resolution too"),
    ],
)
def test_bad_options_name_the_key(options, match):
    with pytest.raises(ValueError, match=match):
        TriPlane(**options)


def test_the_preset():
    volume = build_volume(parse_command_line(["--config", str(ROOT / "configs" / "triplane.yaml")]).config)
    assert isinstance(volume, TriPlane)
    assert volume.dense() is not None


def small_trainer(seed=0, **options):
    torch.manual_seed(seed)
    images = torch.zeros(32, 1, 16, 16)
    images[:, :, 4:12, 7:9] = 1.0
    settings = TrainerOptions(**{"max_steps": 6, "views": 4, **options})
    volume = TriPlane(**SMALL, combine="product", bake_resolution=10, grow_at=[2])
    return make_trainer(volume, AbsorptionRenderer(16), ImageSet(images, None, []), settings, seed=seed)


@pytest.mark.parametrize("stop_after", [2, 3])
def test_six_steps_are_some_and_a_resume_and_the_rest_to_the_bit(stop_after):
    whole, half, rest = small_trainer(), small_trainer(stop_after=stop_after), small_trainer(seed=5)
    whole.run()
    half.run()
    buffer = io.BytesIO()
    torch.save(half.state_dict(), buffer)
    buffer.seek(0)
    rest.load_state_dict(torch.load(buffer, weights_only=True))
    assert isinstance(rest.volume, TriPlane)
    assert rest.volume.bake_resolution == (5 if stop_after == 2 else 10)
    rest.run()
    start = small_trainer()
    for one, other, begun in zip(
        whole.volume.parameters(), rest.volume.parameters(), start.volume.parameters(), strict=True
    ):
        assert torch.equal(one, other)
        assert not torch.equal(one, begun)
