"""Volumes that break their contract, each in one way, and what the check must say of it."""

import torch

from mnist3d.volumes import VoxelGrid
from tests.third_party.glass_beads import Beads


class Honest(Beads):
    """What the mutants are made of."""

    def __init__(self, count: int = 4):
        super().__init__(count)


class PartNamedAsAMethod(Honest):
    def __init__(self, count: int = 4):
        super().__init__(count)
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(1, 1)])  # pyright: ignore[reportAttributeAccessIssue]


class NumberNamedAsAMethod(Honest):
    def __init__(self, count: int = 4):
        super().__init__(count)
        self.grow = 3  # pyright: ignore[reportAttributeAccessIssue]


class OneOutput(Honest):
    def forward(self, points):  # pyright: ignore[reportIncompatibleMethodOverride]
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


class GrowsButCannotGoBack(GrowsButCannotResume):
    def _load_from_state_dict(self, state_dict, *args, **kwargs):
        later = state_dict["levels.2"].shape[1] > self.resolution[0]
        load = VoxelGrid._load_from_state_dict if later else torch.nn.Module._load_from_state_dict
        return load(self, state_dict, *args, **kwargs)


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
    (PartNamedAsAMethod, "its blocks has the name of a method"),
    (NumberNamedAsAMethod, "its grow has the name of a method"),
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
    (GrowsButCannotResume, "grows, but its state does not load"),
    (GrowsButCannotGoBack, "no run could go back"),
    (AskedInSinglePrecision, r"like\(\) is torch.float32"),
    (TakesTransposedVoxels, "made of .* voxels, at their centres"),
    (TakesAnotherUnit, r"made of \(3, 4, 5\) equal voxels: attenuation differs"),
    (TakesItsOwnResolutionOnly, "takes any resolution"),
    (TakesVoxelsAndGrows, "no growth may be left"),
    (ForgetsWhatItWasMadeOf, "made of voxels: saved and loaded again"),
    (MadeOfVoxelsButCannotResume, "is made of voxels, but its state does not load"),
    (InfiniteWhereVoxelsAreEmpty, "empty black voxels.*not finite"),
]
