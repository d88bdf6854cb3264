"""The check that authors of backends run passes for good ones and catches each of these mutants."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist3d.testing import check_volume
from mnist3d.testing._asking import hostile_points, points_inside
from mnist3d.volumes import VMGrid
from mnist3d.volumes.hash_grid import HashGrid
from mnist3d.volumes.voxel_grid import VoxelGrid

sys.path.insert(0, str(Path(__file__).parent / "third_party"))

from glass_beads import Beads  # pyright: ignore[reportMissingImports]

FIELD: dict[str, Any] = {"num_levels": 3, "log2_hashmap_size": 8, "max_resolution": 12, "hidden_dim": 16}


@pytest.mark.parametrize(
    "volume",
    [
        VoxelGrid(6),
        VoxelGrid([5, 6, 9], grow_at=[0.2, 0.5]),
        VMGrid([5, 6, 7], 3),
        VMGrid([1, 4, 1], 1),
        HashGrid(**FIELD),
        HashGrid(**FIELD, bake_resolution=9, grow_at=[3, 6]),
        HashGrid(**FIELD, bake_resolution=9, levels_at=[0.3]),
        Beads(4),
    ],
    ids=lambda volume: (
        f"{type(volume).__name__}{volume.init_args.get('resolution', '')}{volume.init_args.get('grow_at')}"
        f"{volume.init_args.get('levels_at', '')}"
    ),
)
def test_good_backends_pass_and_stay_as_they_are(volume):
    before = {key: value.clone() for key, value in volume.state_dict().items()}
    random = torch.get_rng_state()
    check_volume(volume)
    assert all(torch.equal(value, before[key]) for key, value in volume.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


class Honest(Beads):
    """What the mutants are made of."""

    def __init__(self, count: int = 4):
        super().__init__(count)


class OneOutput(Honest):
    def forward(self, points):
        return super().forward(points)[0]


class FlattensTheLeadingAxes(Honest):
    def forward(self, points):
        return super().forward(points.reshape(-1, 3))


class TransposesTheLeadingAxes(Honest):
    def forward(self, points):
        if points.ndim != 3:
            return super().forward(points)
        attenuation, absorbance = super().forward(points.transpose(0, 1))
        return attenuation.reshape(points.shape[:-1]), absorbance.reshape(points.shape[:-1])


class FailsWithoutPoints(Honest):
    def forward(self, points):
        points.reshape(-1, 3).amax(dim=0)
        return super().forward(points)


class AnswersInSinglePrecision(Honest):
    def forward(self, points):
        attenuation, absorbance = super().forward(points)
        return attenuation.float(), absorbance.float()


class NegativeAttenuation(Honest):
    def forward(self, points):
        attenuation, absorbance = super().forward(points)
        return attenuation - 0.01, absorbance


class AbsorbanceAboveOne(Honest):
    def forward(self, points):
        attenuation, absorbance = super().forward(points)
        return attenuation, 1.3 * absorbance


class NotANumberOnTheSphere(Honest):
    def forward(self, points):
        attenuation, absorbance = super().forward(points)
        return attenuation * (1.0 - points.square().sum(dim=-1)).sqrt(), absorbance


class InfiniteGradientAtTheCentre(Honest):
    def forward(self, points):
        attenuation, absorbance = super().forward(points)
        return attenuation + (self.log_radius[0] * points.norm(dim=-1)).abs().sqrt(), absorbance


class CutOff(Honest):
    def forward(self, points):
        attenuation, absorbance = super().forward(points)
        return attenuation.detach(), absorbance.detach()


class UnusedParameter(Honest):
    def __init__(self, count: int = 4):
        super().__init__(count)
        self.forgotten = torch.nn.Parameter(torch.ones(3))


class OneParameterCutOff(Honest):
    def forward(self, points):
        attenuation, absorbance = super().forward(points)
        return attenuation, absorbance.detach()


class _WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, *upstream):
        return 1.1 * upstream[0]


class GradientTenPercentOff(Honest):
    def forward(self, points):
        attenuation, absorbance = super().forward(points)
        return _WrongBackward.apply(attenuation), absorbance


class Noisy(Honest):
    def forward(self, points):
        attenuation, absorbance = super().forward(points)
        return attenuation + 0.1 * torch.rand_like(attenuation), absorbance


class NormalisesOverThePoints(Honest):
    def forward(self, points):
        attenuation, absorbance = super().forward(points)
        return attenuation + points.reshape(-1)[:1].sum().abs(), absorbance  # of the first point


class CountsItsCalls(Honest):
    def __init__(self, count: int = 4):
        super().__init__(count)
        self.calls = torch.nn.Buffer(torch.zeros(()))

    def forward(self, points):
        self.calls += 1
        return super().forward(points)


class PlainTensor(Honest):
    def __init__(self, count: int = 4):
        super().__init__(count)
        self.scale = torch.tensor(2.0)


class ForgetsWhatItDrew(Honest):
    def __init__(self, count: int = 4):
        super().__init__(count)
        self.register_buffer("offset", torch.rand(3), persistent=False)

    def forward(self, points):
        return super().forward(points + self.get_buffer("offset"))


class TensorArgument(Honest):
    def __init__(self, count: int = 4, colour: object = torch.ones(2)):
        super().__init__(count)


class SharedWeights(Honest):
    def __deepcopy__(self, memo):
        twin = SharedWeights(4)
        for key, weight in self.named_parameters():
            setattr(twin, key, weight)
        return twin


class TransposedGrid(VoxelGrid):
    def __init__(self, resolution: int = 6):
        super().__init__(resolution)

    def dense(self):
        return super().dense().transpose(1, 3)

    def forward(self, points):
        return VoxelGrid.forward(_Straight(self), points)  # pyright: ignore[reportArgumentType]


class _Straight:
    """The grid before its axes were swapped."""

    def __init__(self, grid):
        self.grid = grid

    def dense(self):
        return VoxelGrid.dense(self.grid)


class DetachedGrid(VoxelGrid):
    def __init__(self, resolution: int = 6):
        super().__init__(resolution)

    def dense(self):
        return super().dense().detach()

    def forward(self, points):
        return VoxelGrid.forward(_Straight(self), points)  # pyright: ignore[reportArgumentType]


class GrowsButCannotResume(VoxelGrid):
    def __init__(self, resolution: int = 6, grow_at: list[float] | None = None):
        super().__init__(resolution, grow_at=[0.5] if grow_at is None else grow_at)

    def _load_from_state_dict(self, *args, **kwargs):
        return torch.nn.Module._load_from_state_dict(self, *args, **kwargs)


class AskedInSinglePrecision(Honest):
    def like(self):
        return torch.zeros(())


class Made(VoxelGrid):
    """What the mutants that are made of voxels are made of."""

    def __init__(self, resolution: int | list[int] = 6, grow_at: list[float] | None = None):
        super().__init__(resolution, grow_at=[0.5] if grow_at is None else grow_at)


class TakesTransposedVoxels(Made):
    def take_voxels(self, grid):
        super().take_voxels(grid.transpose(1, 3))


class TakesAnotherUnit(Made):
    def take_voxels(self, grid):
        super().take_voxels(grid * torch.tensor([self.voxel_step, 1.0]).reshape(2, 1, 1, 1).to(grid))


class TakesItsOwnResolutionOnly(Made):
    def take_voxels(self, grid):
        super().take_voxels(grid[:, torch.arange(6)])


class TakesVoxelsAndGrows(Made):
    def take_voxels(self, grid):
        super().take_voxels(grid)
        self.grow_at = [0.5]


class ForgetsWhatItWasMadeOf(Made):
    def __init__(self, resolution: int | list[int] = 6, grow_at: list[float] | None = None):
        super().__init__(resolution, grow_at)
        self.register_buffer("brightness", torch.ones(()), persistent=False)

    def dense(self):
        attenuation, absorbance = super().dense()
        return torch.stack([attenuation, absorbance * self.get_buffer("brightness")])

    def take_voxels(self, grid):
        super().take_voxels(grid * torch.tensor([1.0, 1.25]).reshape(2, 1, 1, 1).to(grid))
        self.get_buffer("brightness").fill_(0.8)


class MadeOfVoxelsButCannotResume(Made):
    def __init__(self, resolution: int | list[int] = 6, grow_at: list[float] | None = None):
        super().__init__(resolution, grow_at=[])

    def take_voxels(self, grid):
        super().take_voxels(grid)
        self._init_args["resolution"] = self.resolution = self._final = (7, 7, 7)
        self.levels = self._levels()
        super().take_voxels(grid)


class InfiniteWhereVoxelsAreEmpty(Made):
    def take_voxels(self, grid):
        super().take_voxels(grid)
        with torch.no_grad():
            self.levels[-1].masked_fill_(self.dense()[0] < 0.01, -float("inf"))


MUTANTS = [
    (OneOutput, "must return"),
    (FlattensTheLeadingAxes, "must be"),
    (TransposesTheLeadingAxes, "points in"),
    (FailsWithoutPoints, r"\(0, 3\).*raised"),
    (AnswersInSinglePrecision, "float32.*must be.*float64"),
    (NegativeAttenuation, "attenuation lies in"),
    (AbsorbanceAboveOne, "absorbance lies in"),
    (NotANumberOnTheSphere, "not finite"),
    (InfiniteGradientAtTheCentre, "gradient to log_radius is not finite"),
    (CutOff, "cut off"),
    (UnusedParameter, "forgotten gets no gradient"),
    (OneParameterCutOff, "raw_brightness gets no gradient"),
    (GradientTenPercentOff, "its gradient says"),
    (Noisy, "nothing may be random"),
    (NormalisesOverThePoints, "must not depend on the others|points in"),
    (CountsItsCalls, "forward changed calls"),
    (PlainTensor, "scale is a plain tensor"),
    (ForgetsWhatItDrew, "state_dict"),
    (TensorArgument, "colour is a Tensor"),
    (SharedWeights, "shares weights"),
    (TransposedGrid, "voxels' centres"),
    (DetachedGrid, r"dense\(\) is cut off"),
    (GrowsButCannotResume, "resumed"),
    (AskedInSinglePrecision, r"like\(\) is torch.float32"),
    (TakesTransposedVoxels, "made of .* voxels, at their centres"),
    (TakesAnotherUnit, r"made of \(3, 4, 5\) equal voxels: attenuation differs"),
    (TakesItsOwnResolutionOnly, "takes any resolution"),
    (TakesVoxelsAndGrows, "no growth may be left"),
    (ForgetsWhatItWasMadeOf, "made of voxels: saved and loaded again"),
    (MadeOfVoxelsButCannotResume, "is made of voxels, but its state does not load"),
    (InfiniteWhereVoxelsAreEmpty, "empty black voxels.*not finite"),
]


def test_the_mutants_are_made_of_something_good():
    check_volume(Honest())
    check_volume(Made())


@pytest.mark.parametrize(("mutant", "message"), MUTANTS, ids=lambda value: getattr(value, "__name__", ""))
def test_each_mutant_is_caught_for_what_it_is(mutant, message):
    with pytest.raises(AssertionError, match=message) as caught:
        check_volume(mutant())
    assert mutant.__name__ in str(caught.value)


def test_a_volume_is_asked_where_its_weights_are():
    like = torch.zeros((), dtype=torch.float64, device="meta")
    for points in (points_inside(like), *hostile_points(like).values()):
        assert (points.device.type, points.dtype) == ("meta", torch.float64)
