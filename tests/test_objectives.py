"""Every objective keeps the contract, and the check of the contract finds what breaks it."""

from typing import Any

import pytest
import torch

from mnist3d.data.images import ImageSet
from mnist3d.testing import check_objective
from mnist3d.training.discriminator import Discriminator, DiscriminatorOptions
from mnist3d.training.gan_losses import Pairing
from mnist3d.training.objectives.adversarial import Adversarial, AdversarialOptions
from mnist3d.training.objectives.base import Objective
from mnist3d.training.objectives.class_balance import ClassBalance, ClassBalanceOptions
from mnist3d.training.objectives.diversity import Diversity
from mnist3d.training.objectives.nearest_image import NearestImage
from mnist3d.training.objectives.target_list import TargetOptions
from mnist3d.training.objectives.targets import Targets


def images() -> ImageSet:
    generator = torch.Generator().manual_seed(3)
    return ImageSet(torch.rand(12, 1, 16, 16, generator=generator), torch.arange(12) % 3, ["a", "b", "c"])


def adversarial(pairing: Pairing = "relativistic") -> Adversarial:
    torch.manual_seed(0)
    network = Discriminator(16, 3, DiscriminatorOptions(channels=[4], features=8))
    return Adversarial(network, 0.001, AdversarialOptions(pairing=pairing))


def nearest() -> NearestImage:
    return NearestImage(images().images, images().labels, 3, tilt=20.0)


def targets() -> Targets:
    wanted = images().images[:2]
    return Targets(torch.tensor([0.0, 1.0]), torch.zeros(2), wanted, TargetOptions(views_per_step=3))


@pytest.mark.parametrize(
    "make",
    [
        adversarial,
        lambda: adversarial("wasserstein"),
        Diversity,
        lambda: ClassBalance(3, options=ClassBalanceOptions(0.5)),
        nearest,
        targets,
    ],
    ids=["adversarial", "wasserstein", "diversity", "class_balance", "nearest_image", "targets"],
)
def test_our_own_objectives_keep_the_contract(make):
    check_objective(make(), images())


class Smooth(Objective):
    """Mean square difference of neighbouring voxels: an objective of somebody else's."""

    name = "smooth"

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.last = 0.0

    def loss(self, batch) -> Any:
        grid = batch.volume.dense()
        if grid is None:
            return None
        self.steps += 1
        rough = grid.diff(dim=-1).square().mean()
        self.last = rough.item()
        return self.weight * (1.0 + 0.01 * self.steps) * rough

    def metrics(self) -> dict[str, Any]:
        return {"smooth_loss": self.last}


def test_a_good_one_of_somebody_elses_passes():
    check_objective(Smooth())


def test_one_that_reports_tensors_passes():
    class Quiet(Smooth):
        def loss(self, batch) -> Any:
            loss = super().loss(batch)
            self.seen = torch.zeros(2) if loss is None else loss.detach().repeat(2)
            return loss

        def metrics(self) -> dict[str, Any]:
            return {"smooth_loss": self.seen[0], "both": self.seen}

    check_objective(Quiet())


class Nameless(Smooth):
    name = "Two Words"


class Cut(Smooth):
    def loss(self, batch):
        return super().loss(batch).detach()


class Vector(Smooth):
    def loss(self, batch):
        return super().loss(batch).repeat(2)


class Random(Smooth):
    def loss(self, batch):
        return super().loss(batch) * torch.rand(())


class Forgetful(Smooth):
    """Its count of steps is in no state."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def loss(self, batch):
        self.seen += 1
        return self.seen * super().loss(batch)


class Idle(Smooth):
    def loss(self, batch):
        return None


class Meddler(Smooth):
    def prepare(self, batch):
        with torch.no_grad():
            next(batch.volume.parameters()).add_(1.0)


class Leaver(Smooth):
    """Teaches something of its own on views that carry gradients."""

    def prepare(self, batch):
        batch.views.sum().backward()


class Wild(Smooth):
    def loss(self, batch):
        return super().loss(batch) * float("inf")


class Talker(Smooth):
    def metrics(self):
        return {"smooth_loss": torch.zeros(2, 2)}


class Infinite(Smooth):
    def metrics(self):
        return {"smooth_loss": torch.tensor([0.0, torch.inf])}


class Keeper(Smooth):
    """What it reports would hold the graph of the step."""

    def loss(self, batch):
        self.kept = super().loss(batch)
        return self.kept

    def metrics(self):
        return {"smooth_loss": self.kept}


class Liar(Smooth):
    in_progress_line = {"rough": "R"}  # noqa: RUF012


class Clasher(Smooth):
    def metrics(self):
        return {"volume_loss": self.last}


class NeedsLabels(Smooth):
    def loss(self, batch):
        return super().loss(batch) * (1.0 + batch.labels.sum())


class Claimer(Smooth):
    def claims(self, rotations):
        return rotations[:, 0, 0]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Nameless, "lower case"),
        (Cut, "does not reach the volume"),
        (Vector, "must be a scalar"),
        (Random, "global generator"),
        (Forgetful, "goes on otherwise"),
        (Idle, "None at every progress"),
        (Meddler, "changes the volume"),
        (Leaver, "leaves a gradient"),
        (Wild, "its loss is"),
        (Talker, "one real number or a row"),
        (Infinite, "finite number"),
        (Keeper, "smooth_loss carries gradients"),
        (Liar, "in_progress_line names rough"),
        (Clasher, "volume_loss is another one's"),
        (NeedsLabels, "without labels.*raised"),
        (Claimer, "boolean for each rotation"),
    ],
)
def test_what_breaks_the_contract_is_found(wrong, said):
    with pytest.raises(AssertionError, match=said):
        check_objective(wrong())
