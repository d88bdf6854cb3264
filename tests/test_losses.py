"""Losses against their formulas, and the gradients that must stay finite."""

import math

import pytest
import torch

from mnist3d.training.gan_losses import (
    ADVERSARIAL_LOSSES,
    gradient_penalties,
    relativistic_discriminator_loss,
    relativistic_volume_loss,
)
from mnist3d.training.objectives.adversarial import AdversarialOptions
from mnist3d.training.objectives.class_balance import ClassBalanceOptions
from mnist3d.training.objectives.diversity import DiversityOptions, class_diversity_loss
from mnist3d.training.objectives.nearest_image import NearestImageOptions

REAL, RENDERED = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0])


def softplus(x):
    return math.log1p(math.exp(x))


def test_relativistic_pairs_are_softplus_of_the_difference():
    assert relativistic_discriminator_loss(REAL, RENDERED).item() == pytest.approx((softplus(-1.5) + softplus(4.0)) / 2)
    assert relativistic_volume_loss(REAL, RENDERED).item() == pytest.approx((softplus(1.5) + softplus(-4.0)) / 2)


@pytest.mark.parametrize("name", list(ADVERSARIAL_LOSSES))
def test_each_player_gains_by_moving_its_own_way(name):
    for_discriminator, for_volume = ADVERSARIAL_LOSSES[name]
    rendered = torch.zeros(4, requires_grad=True)
    real = torch.zeros(4, requires_grad=True)
    up = torch.autograd.grad(for_discriminator(real, rendered), (real, rendered))
    assert (up[0] < 0).all()  # descending raises D(real) ...
    assert (up[1] > 0).all()  # ... and lowers D(rendered)
    down = torch.autograd.grad(for_volume(real, rendered), rendered)[0]
    assert (down < 0).all()  # the volume raises D(rendered)


def test_other_pairings_against_their_formulas():
    expected = {
        "non_saturating": (
            (softplus(-2) + softplus(1) + softplus(0.5) + softplus(3)) / 2,
            (softplus(-0.5) + softplus(-3)) / 2,
        ),
        "hinge": ((0 + 2 + 1.5 + 4) / 2, -1.75),
        "wasserstein": (1.75 - 0.5, -1.75),
    }
    for name, pair in ADVERSARIAL_LOSSES.items():
        if name != "relativistic":  # has its own test
            assert [loss(REAL, RENDERED).item() for loss in pair] == pytest.approx(expected[name])


def test_gradient_penalty_of_a_linear_score():
    """score = <w, x> has the gradient w everywhere, so the penalty is |w|^2 / 2 and its own gradient is w."""
    weight = torch.tensor([1.0, -2.0, 3.0, 0.5]).reshape(1, 1, 2, 2).requires_grad_()
    images = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    penalty = gradient_penalties((images * weight).sum(dim=(1, 2, 3)), images).mean()
    assert penalty.item() == pytest.approx((1 + 4 + 9 + 0.25) / 2)
    assert torch.allclose(torch.autograd.grad(penalty, weight)[0], weight.detach())


def test_diversity_prefers_sure_and_different():
    sure = 50.0 * torch.eye(4)
    spread, same, unsure = (
        class_diversity_loss(sure),
        class_diversity_loss(sure[:1].repeat(4, 1)),
        class_diversity_loss(torch.zeros(4, 4)),
    )
    assert spread.item() == pytest.approx(-2 * math.log(4), abs=1e-4)
    assert same.item() == pytest.approx(0.0, abs=1e-4)
    assert unsure.item() == pytest.approx(-math.log(4), abs=1e-4)


def test_diversity_keeps_gradients_finite_when_probabilities_underflow():
    logits = torch.zeros(8, 10)
    logits[:, 3] = 1e4
    logits.requires_grad_()
    class_diversity_loss(logits).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_diversity_gradcheck():
    logits = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(class_diversity_loss, logits)


@pytest.mark.parametrize(
    ("options", "name", "wrong"),
    [
        (AdversarialOptions, "adversarial", {"penalty": -1.0}),
        (AdversarialOptions, "adversarial", {"weight": float("nan")}),
        (DiversityOptions, "diversity", {"weight": float("inf")}),
        (ClassBalanceOptions, "class_balance", {"weight": -0.5}),
        (NearestImageOptions, "nearest_image", {"weight": -1.0}),
        (NearestImageOptions, "nearest_image", {"start": 1.0}),
    ],
)
def test_bad_options_name_the_key(options, name, wrong):
    with pytest.raises(ValueError, match=rf"{name}\.{next(iter(wrong))}=.*must be"):
        options(**wrong)


def test_the_nearest_image_weight_grows_from_its_start_to_the_end():
    options = NearestImageOptions(weight=10.0, start=0.5)
    assert [options.weight_at(progress) for progress in (0.0, 0.5, 0.75, 1.0)] == [0.0, 0.0, 5.0, 10.0]
