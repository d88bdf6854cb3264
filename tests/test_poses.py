"""Euler angles and the distributions of rotations."""

import math

import numpy as np
import pytest
import torch

from mnist3d.geometry.rotations import (
    PoseOptions,
    as_rotations,
    euler_matrix,
    sample_rotations,
    sphere_weights,
    training_rotations,
    turntable,
    upright_matrix,
)


def rotation_about(axis: int, angle: float) -> torch.Tensor:
    """An elementary rotation written out by hand: the oracle."""
    c, s = math.cos(angle), math.sin(angle)
    matrices = [
        [[1, 0, 0], [0, c, -s], [0, s, c]],
        [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    ]
    return torch.tensor(matrices[axis], dtype=torch.float64)


def test_euler_matrix_is_rx_ry_rz():
    a, b, c = 0.4, -1.3, 2.2
    expected = rotation_about(0, a) @ rotation_about(1, b) @ rotation_about(2, c)
    assert torch.allclose(euler_matrix(torch.tensor([a, b, c], dtype=torch.float64)), expected, atol=1e-14)


def test_euler_matrix_keeps_leading_axes_and_has_gradients():
    angles = torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert euler_matrix(angles).shape == (2, 3, 3, 3)
    assert torch.autograd.gradcheck(euler_matrix, angles)


def test_angles_may_be_an_array_a_list_or_a_tuple():
    angles = np.array([[0.4, -1.3, 2.2], [0.0, 1.0, 0.0]])
    expected = euler_matrix(torch.tensor(angles))
    assert expected.dtype == torch.float64
    for given in (angles, np.asfortranarray(angles), angles.astype(">f8"), angles[::-1][::-1]):
        assert torch.equal(euler_matrix(given), expected)
    assert torch.equal(euler_matrix(angles.astype(np.float32)), euler_matrix(torch.tensor(angles).float()))
    for given in (angles.tolist(), tuple(map(tuple, angles.tolist()))):
        assert torch.equal(euler_matrix(given), euler_matrix(torch.tensor(angles).float()))
    assert torch.equal(euler_matrix((0, 0, 0)), torch.eye(3))


def test_an_upright_camera_takes_numbers_and_arrays():
    expected = euler_matrix(torch.tensor([0.4, 1.1, 0.0]))
    assert torch.equal(upright_matrix(1.1, 0.4), expected)
    azimuth, elevation = np.array([1.1, -2.0]), np.array([0.4, 0.3])
    assert torch.equal(upright_matrix(azimuth, elevation), euler_matrix(np.array([[0.4, 1.1, 0], [0.3, -2.0, 0]])))


@pytest.mark.parametrize(
    ("angles", "words"),
    [
        ("front", "this is str"),
        ([[0.0, 0.0], [0.0]], "unequal length"),
        (np.array(["a", "b", "c"]), "this is <U1"),
        (np.zeros(3, dtype=complex), "this is complex128"),
        (torch.zeros(3, dtype=torch.complex64), "this is torch.complex64"),
        ([torch.zeros((), requires_grad=True), 0.0, 0.0], "torch.stack"),  # NumPy would drop the gradient
    ],
)
def test_what_is_no_numbers_is_refused_in_words(angles, words):
    with pytest.raises(ValueError, match=f"angles must be an array of numbers; .*{words}"):
        euler_matrix(angles)


def test_rotations_go_where_they_are_needed_and_tensors_keep_their_precision():
    like = torch.zeros((), dtype=torch.float64, device="meta")
    for given, dtype in ((np.eye(3, dtype=np.float32), torch.float64), (torch.eye(3), torch.float32)):
        moved = as_rotations(given, like)
        assert (moved.device.type, moved.dtype, moved.shape) == ("meta", dtype, (3, 3))
    assert as_rotations(torch.eye(3, dtype=torch.int64), like).dtype == torch.float64
    assert as_rotations(np.eye(3)).dtype == torch.float32
    views = turntable(2).requires_grad_()
    assert as_rotations(views) is views  # with its gradients


def test_euler_matrix_refuses_two_angles():
    with pytest.raises(ValueError, match="3 angles"):
        euler_matrix(torch.zeros(4, 2))


def test_the_second_chart_looks_along_the_same_axis_upside_down():
    a, b = 0.3, 0.8
    first = euler_matrix(torch.tensor([a, b, 0.0], dtype=torch.float64))
    second = euler_matrix(torch.tensor([math.pi - a, math.pi + b, 0.0], dtype=torch.float64))
    half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))
    assert torch.allclose(second, half_turn @ first, atol=1e-12)


@pytest.mark.parametrize("name", ["euler_normal", "sphere", "ring", "so3"])
def test_every_distribution_gives_proper_rotations_from_the_generator_alone(name):
    options = PoseOptions(name=name)
    first = sample_rotations(64, torch.Generator().manual_seed(3), options)
    again = sample_rotations(64, torch.Generator().manual_seed(3), options)
    other = sample_rotations(64, torch.Generator().manual_seed(4), options)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.allclose(first @ first.mT, torch.eye(3).expand(64, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(first), torch.ones(64), atol=1e-5)
    assert sample_rotations(0, torch.Generator(), options).shape == (0, 3, 3)


def test_share_of_upside_down_views_of_the_seeds_law():
    """P(|a| > pi/2) of a standard normal: 11.6 %, the figure docs/conventions.md gives."""
    rotations = sample_rotations(40_000, torch.Generator().manual_seed(0))
    share = (rotations[:, 1, 1] < 0).double().mean().item()
    assert abs(share - math.erfc(math.pi / 2 / math.sqrt(2))) < 0.005  # three standard errors of 40,000 draws


@pytest.mark.parametrize("count", [1, 2, 40])
def test_of_a_training_steps_views_a_share_is_drawn_from_the_sphere(count):
    """Upside down are 11.6 % of the seed's views and none of the sphere's: a quarter fewer."""
    generator, steps = torch.Generator().manual_seed(0), 10_000 // count
    draws = torch.stack([training_rotations(count, generator, PoseOptions(sphere_share=0.25)) for _ in range(steps)])
    assert draws.shape == (steps, count, 3, 3)
    upside_down = (draws[..., 1, 1] < 0).double()
    assert abs(upside_down.mean().item() - 0.75 * math.erfc(math.pi / 2 / math.sqrt(2))) < 0.012
    # shuffled: whoever takes the first few of them, as beside targets, gets the same share
    assert abs(upside_down[:, 0].mean().item() - upside_down.mean().item()) < 4 * math.sqrt(0.087 * 0.913 / steps)


def test_a_share_of_0_and_other_laws_are_left_as_they_are():
    for options in (PoseOptions(sphere_share=0.0), PoseOptions(name="ring"), PoseOptions(name="so3")):
        plain, training = (
            draw(30, torch.Generator().manual_seed(5), options) for draw in (sample_rotations, training_rotations)
        )
        assert torch.equal(plain, training)
    everywhere = training_rotations(2000, torch.Generator().manual_seed(5), PoseOptions(sphere_share=1.0))
    assert (everywhere[:, 1, 1] >= -1e-6).all()
    assert training_rotations(0, torch.Generator()).shape == (0, 3, 3)


@pytest.mark.parametrize("name", ["sphere", "so3"])
def test_directions_are_uniform_on_the_sphere(name):
    directions = sample_rotations(40_000, torch.Generator().manual_seed(0), PoseOptions(name=name))[:, 2]
    # The mean is 0 and the second moment 1/3 along every axis; 0.015 is over four standard errors.
    assert directions.mean(dim=0).abs().max() < 0.015
    assert (directions.mT @ directions / 40_000 - torch.eye(3) / 3).abs().max() < 0.015


def test_sphere_and_ring_are_upright():
    for name in ("sphere", "ring"):
        rotations = sample_rotations(200, torch.Generator().manual_seed(0), PoseOptions(name=name))
        assert (rotations[:, 0, 1].abs() < 1e-6).all()  # the image's right stays level
        assert name == "ring" or (rotations[:, 1, 1] >= -1e-6).all()  # its down points down


def test_turntable_starts_at_the_front_and_steps_evenly():
    views = turntable(4)
    assert torch.allclose(views[0], torch.eye(3), atol=1e-6)
    assert torch.allclose(views[1] @ views[1], views[2], atol=1e-6)


@pytest.mark.parametrize(
    ("key", "value"),
    [("sphere_share", -0.1), ("sphere_share", 1.1)],
)
def test_bad_options_name_the_key(key, value):
    with pytest.raises(ValueError, match=rf"poses\.{key}=.*must be"):
        PoseOptions(**{key: value})


@pytest.mark.parametrize("share", [0.1, 0.25, 0.7])
def test_training_views_weighed_stand_for_all_directions_alike(share):
    options = PoseOptions(sphere_share=share)
    rotations = training_rotations(40_000, torch.Generator().manual_seed(3), options)
    weights = sphere_weights(rotations, options)
    assert 0.0 <= weights.min() <= weights.max() <= 1.0 / share + 1e-5
    assert weights.mean().item() == pytest.approx(1.0, abs=0.03)
    assert weights[rotations[:, 1, 1] < 0.0].max() < 1e-6  # upside down
    toward = rotations[:, 2]  # the camera's axis in the volume's frame: uniform on the sphere
    mean = (weights[:, None] * toward).mean(dim=0)
    second = (weights[:, None, None] * toward[:, :, None] * toward[:, None]).mean(dim=0)
    torch.testing.assert_close(mean, torch.zeros(3), atol=0.03, rtol=0)
    torch.testing.assert_close(second, torch.eye(3) / 3.0, atol=0.02, rtol=0)
    assert toward.mean(dim=0)[2] > 0.1  # unweighed they do not


def test_the_weight_of_a_view_is_the_ratio_of_two_densities():
    """From behind the normal density counts twice, from the left and the right; at the poles the sphere's is 0."""
    options = PoseOptions(sphere_share=0.1)
    behind, front, pole = sphere_weights(
        euler_matrix(torch.tensor([[0, math.pi, 0], [0, 0, 0], [math.pi / 2, 1, 0]])), options
    )
    normal, sphere = 2.0 * math.exp(-0.5 * math.pi**2) / (2.0 * math.pi), 1.0 / (4.0 * math.pi)
    assert behind.item() == pytest.approx(sphere / (0.9 * normal + 0.1 * sphere), rel=1e-4)
    normal = (1.0 + 2.0 * math.exp(-0.5 * (2.0 * math.pi) ** 2)) / (2.0 * math.pi)
    assert front.item() == pytest.approx(sphere / (0.9 * normal + 0.1 * sphere), rel=1e-4)
    assert pole.item() == pytest.approx(0.0, abs=1e-5)


def test_the_poles_of_the_sphere_alone_have_a_finite_weight():
    poles = euler_matrix(torch.tensor([[s * math.pi / 2, a, 0.0] for s in (-1, 1) for a in (-2.0, 0.0, 1.0)]))
    assert sphere_weights(poles, PoseOptions(sphere_share=1.0)).isfinite().all()


@pytest.mark.parametrize("options", [PoseOptions("sphere"), PoseOptions("so3"), PoseOptions("ring")])
def test_views_of_one_law_weigh_alike(options):
    rotations = training_rotations(4, torch.Generator().manual_seed(0), options)
    assert sphere_weights(rotations, options).tolist() == [1.0] * 4


def test_views_that_never_come_from_everywhere_stand_for_nothing_else():
    options = PoseOptions(sphere_share=0.0)
    assert options.leaves_directions_out
    assert not PoseOptions("sphere", sphere_share=0.0).leaves_directions_out
    with pytest.raises(ValueError, match=r"poses\.sphere_share=0: must be > 0"):
        sphere_weights(training_rotations(4, torch.Generator().manual_seed(0), options), options)
