"""FourierMLP: closed forms of both kinds, its grid, its first weights, its state."""

import io
import math
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
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.runs.building import build_volume
from mnist3d.training.options import TrainerOptions
from mnist3d.volumes import FourierMLP, baking

ROOT = Path(__file__).parents[1]
SMALL: dict[str, Any] = {"hidden_dim": 8, "num_frequencies": 6}
KINDS: Any = ("relu", "sine")
VIEWS = euler_matrix(torch.tensor([[0.0, 0.0, 0.0], [0.4, 1.1, 0.0], [-0.7, 2.5, 0.3]]))


def lively(seed=0, **options):
    """A volume with structure instead of grey fog."""
    torch.manual_seed(seed)
    return FourierMLP(**{**SMALL, "initial_noise": 1.0, **options})


def test_fourier_features_by_hand():
    """One frequency of .5 along x and .25 along y, at (.5, -1, .3): 2 pi (.25 - .25) = 0; a hidden layer of two."""
    volume = FourierMLP("relu", num_frequencies=1, hidden_dim=2, num_layers=2, initial_opacity=0.1)
    with torch.no_grad():
        volume.frequencies.copy_(torch.tensor([[0.5, 0.25, 0.0]]))
        volume.weights[0].copy_(torch.tensor([[2.0, 5.0], [-3.0, 7.0]]))  # of cosine and sine
        volume.biases[0].copy_(torch.tensor([0.25, 0.5]))
        volume.weights[1].copy_(torch.tensor([[0.4, 10.0], [-0.2, 0.0]]))
    # cosine 1, sine 0: hidden relu(2.25) and relu(-2.5)
    raw = torch.tensor([0.9, -0.45]) + torch.tensor([1 / 9, 0.73 / 0.27]).log()
    attenuation, absorbance = volume(torch.tensor([0.5, -1.0, 0.3]))
    torch.testing.assert_close(attenuation, raw[0].exp().add(1.0).log() * 24.0)
    torch.testing.assert_close(absorbance, 1.0 / (1.0 + torch.exp(-raw[1])))
    # half a period further along x both turn: cosine -1, sine 0, hidden relu(-1.75) and relu(3.5)
    raw = torch.tensor([35.0, 0.0]) + torch.tensor([1 / 9, 0.73 / 0.27]).log()
    attenuation, absorbance = volume(torch.tensor([-0.5, -1.0, 0.3]))
    torch.testing.assert_close(attenuation, raw[0] * 24.0)  # softplus of 33
    torch.testing.assert_close(absorbance, raw[1].sigmoid())


def test_sines_by_hand():
    volume = FourierMLP("sine", omega_0=3.0, hidden_dim=1, num_layers=3, initial_opacity=0.5, initial_brightness=0.5)
    with torch.no_grad():
        volume.weights[0].copy_(torch.tensor([[0.2, -0.4, 0.0]]))
        volume.biases[0].fill_(0.1)
        volume.weights[1].fill_(0.7)
        volume.biases[1].fill_(-0.2)
        volume.weights[2].copy_(torch.tensor([[0.5], [2.0]]))
    first = math.sin(3.0 * (0.2 * 0.5 - 0.4 * 0.25 + 0.1))
    second = math.sin(3.0 * (0.7 * first - 0.2))
    attenuation, absorbance = volume(torch.tensor([0.5, 0.25, -0.9]))
    assert attenuation.item() == pytest.approx(24.0 * math.log1p(math.exp(0.5 * second)), rel=1e-5)
    assert absorbance.item() == pytest.approx(1.0 / (1.0 + math.exp(-2.0 * second)), rel=1e-5)


@pytest.mark.parametrize("activation", KINDS)
def test_without_noise_it_begins_as_the_options_say(activation):
    volume = FourierMLP(activation, **SMALL, initial_noise=0.0, initial_opacity=0.3, initial_brightness=0.8)
    attenuation, absorbance = volume(2.0 * torch.rand(5, 3) - 1.0)
    assert torch.allclose(-torch.expm1(-attenuation * 2 / 48), torch.tensor(0.3), atol=1e-6)
    assert torch.allclose(absorbance, torch.tensor(0.2))
    (attenuation.sum() + absorbance.sum()).backward()
    assert volume.weights[-1].grad.abs().max() > 0  # and can leave


@pytest.mark.parametrize("activation", KINDS)
def test_the_first_raw_values_have_the_spread_that_is_asked_for(activation):
    torch.manual_seed(0)
    points = 2.0 * torch.rand(500, 3) - 1.0
    spreads = torch.stack(
        [FourierMLP(activation, hidden_dim=128, initial_noise=0.4).raw(points).detach().std() for _ in range(20)]
    )
    # Of 20 networks with two answers each: 1/sqrt(80) of the spread is .045, and layers of some width lose a little.
    assert spreads.square().mean().sqrt().item() == pytest.approx(0.4, rel=0.2)


def test_sines_begin_with_the_bounds_of_siren():
    volume = FourierMLP("sine", omega_0=20.0, hidden_dim=96, num_layers=4)
    bounds = [1 / 3, math.sqrt(6 / 96) / 20, math.sqrt(6 / 96) / 20]
    for weight, bias, bound in zip(list(volume.weights)[:-1], volume.biases, bounds, strict=True):
        # the largest of n numbers is within 10 / n of its bound, but once in e^10
        assert bound * (1 - 10 / weight.numel()) < weight.abs().max() <= bound
        of_bias = 1 / math.sqrt(weight.shape[1])
        assert of_bias * (1 - 10 / bias.numel()) < bias.abs().max() <= of_bias


@pytest.mark.parametrize("activation", KINDS)
def test_it_begins_as_grey_as_the_options_say(activation):
    torch.manual_seed(0)
    renderer = AbsorptionRenderer(12, impl="reference")
    with torch.no_grad():
        constant = renderer(FourierMLP(activation, bake_resolution=12, initial_noise=0.0), VIEWS)
        fields = torch.cat(
            [renderer(FourierMLP(activation, bake_resolution=12, initial_noise=0.3), VIEWS) for _ in range(9)]
        )
    # a network's own mean is up to .3 off in raw values, a third of the brightness: a third of that for nine of them
    assert 0.8 < fields.mean() / constant.mean() < 1.25
    assert fields[:3].std(dim=0).mean() > 0  # and not quite the same from everywhere


def test_a_wrong_activation_is_one_line():
    with pytest.raises(ConfigError, match=r"volume\.activation=tanh: must be one of relu, sine"):
        parse_command_line(["--volume", "FourierMLP", "--volume.activation", "tanh"])


@pytest.mark.parametrize(("size", "num_layers"), [(1, 2), (2, 1), (7, 3), (12, 2)])
def test_the_grid_of_fourier_features_and_its_gradients_are_those_of_the_field(size, num_layers, monkeypatch):
    """In double precision: the two compute the same sums in another order. Slabs are one slice thick, then all."""
    volume = lively(bake_resolution=size, num_layers=num_layers).double()
    index, _ = baking.ball_voxels(size, "cpu")
    axis = voxel_centres(size)
    centres = torch.stack([axis[index % size], axis[index // size % size], axis[index // size**2]], dim=-1)
    expected = torch.stack(volume(centres))
    upstream = torch.randn(expected.shape, dtype=torch.float64)
    slopes = torch.autograd.grad((expected * upstream).sum(), list(volume.parameters()))
    for at_once in (1, 10**6):
        monkeypatch.setattr(baking, "IN_CACHE", at_once)
        monkeypatch.setattr(baking, "MOST_KEPT", at_once)  # computed again, then kept
        grid = volume.dense()
        assert grid is not None
        torch.testing.assert_close(grid.flatten(1)[:, index], expected)
        found = torch.autograd.grad((grid.flatten(1)[:, index] * upstream).sum(), list(volume.parameters()))
        torch.testing.assert_close(found, slopes)


def test_baked_sines_hold_the_field_and_the_unread_voxels_nothing():
    volume = lively(activation="sine", bake_resolution=9)
    grid = volume.dense()
    assert grid is not None
    index, centres = baking.ball_voxels(9, "cpu")
    assert torch.equal(grid.flatten(1)[:, index], torch.stack(volume(centres)))
    unread = torch.ones(9**3, dtype=torch.bool)
    unread[index] = False
    assert 0 < unread.sum() < 9**3 / 2
    assert not grid.flatten(1)[:, unread].any()


@pytest.mark.parametrize("activation", KINDS)
def test_points_in_parts_are_all_points(activation, monkeypatch):
    volume, points = lively(activation=activation), (2.0 * torch.rand(50, 3) - 1.0).requires_grad_()
    answers = []
    for at_once in (7, 10**6):
        monkeypatch.setattr(baking, "IN_CACHE", at_once)
        monkeypatch.setattr(baking, "MOST_KEPT", at_once)  # computed again, then kept
        answer = torch.stack(volume(points))
        answers.append([answer, *torch.autograd.grad(answer.sum(), [points, *volume.parameters()])])
    # sums over the points, in float32; omega_0 is in the gradients twice
    torch.testing.assert_close(*answers, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"activation": "sine", "num_layers": 1}, r"num_layers=1: must be in \[2, 16\] with activation=sine"),
        ({"num_layers": 0}, r"num_layers=0: must be in \[1, 16\] with activation=relu"),
        ({"hidden_dim": 0}, r"hidden_dim=0: must be in \[1, 1024\]"),
        ({"num_frequencies": 0}, r"num_frequencies=0: must be in \[1, 1024\]"),
        ({"frequency_scale": 0.0}, "frequency_scale=0.0: must be finite and > 0"),
        ({"omega_0": math.inf}, "omega_0=inf: must be finite and > 0"),
        ({"initial_noise": -1.0}, "initial_noise=-1.0: must be finite and >= 0"),
        ({"initial_brightness": 1.0}, "initial_brightness=1.0: must be > 0 and < 1"),
    ],
)
def test_bad_options_name_the_key(options, match):
    with pytest.raises(ValueError, match=match):
        FourierMLP(**options)


def test_the_preset():
    volume = build_volume(parse_command_line(["--config", str(ROOT / "configs" / "fourier_mlp.yaml")]).config)
    assert isinstance(volume, FourierMLP)
    assert volume.activation == "relu"
    assert volume.dense() is not None


def small_trainer(activation, seed=0, **options):
    torch.manual_seed(seed)
    images = torch.zeros(32, 1, 16, 16)
    images[:, :, 4:12, 7:9] = 1.0
    settings = TrainerOptions(**{"max_steps": 6, "views": 4, **options})
    baked: dict[str, Any] = {"bake_resolution": 10, "grow_at": [2]} if activation == "relu" else {}
    volume = FourierMLP(activation, **SMALL, **baked)
    return make_trainer(volume, AbsorptionRenderer(16), ImageSet(images, None, []), settings, seed=seed)


@pytest.mark.parametrize("activation", KINDS)  # baked, and along rays
def test_six_steps_are_three_and_a_resume_and_three_to_the_bit(activation):
    whole, half, rest = (
        small_trainer(activation),
        small_trainer(activation, stop_after=3),
        small_trainer(activation, seed=5),
    )
    whole.run()
    half.run()
    buffer = io.BytesIO()
    torch.save(half.state_dict(), buffer)
    buffer.seek(0)
    rest.load_state_dict(torch.load(buffer, weights_only=True))
    rest.run()
    start = small_trainer(activation)
    for one, other, begun in zip(
        whole.volume.parameters(), rest.volume.parameters(), start.volume.parameters(), strict=True
    ):
        assert torch.equal(one, other)
        assert not torch.equal(one, begun)
    assert all(torch.equal(one, rest.volume.state_dict()[key]) for key, one in whole.volume.state_dict().items())
