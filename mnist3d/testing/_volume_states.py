"""What a volume owes after something has happened to it: moved, saved, grown, made of voxels.

The part of `check_volume` that changes a copy; the questions themselves are in `_asking`.
"""

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..geometry.grids import voxel_centres
from ..volumes import Volume, load_volume, volume_bytes
from ._asking import SAME_TOLERANCE, ask, points_inside, require, require_same, slopes

UNIFORM = (1.5, 0.25)  # attenuation, absorbance
ANY_SHAPE = (3, 4, 5)  # (Z, Y, X) of voxels that no backend will have itself
FIELD_SHAPE = (8, 8, 8)  # of what a volume that is no grid is made of
FIT_TOLERANCE = 0.05  # of the largest value: such a volume has to be fitted; a wrong axis is .2, a wrong unit more


def check_moves(volume: Volume, dtypes: Sequence[torch.dtype], name: str) -> None:
    """The same answer in each precision, and on a GPU where there is one."""
    twin = copy.deepcopy(volume).to(dtypes[0])
    points = points_inside(twin.like())
    expected = ask(twin, points, name)
    for dtype in dtypes[1:]:
        found = ask(copy.deepcopy(volume).to(dtype), points.to(dtype), name)
        require_same(found, expected, f"{name}: moved to {dtype}")
    if torch.cuda.is_available():
        found = ask(copy.deepcopy(twin).to("cuda"), points.to("cuda"), name)
        require_same(found.to(points.device), expected, f"{name}: moved to the GPU")


def check_files(volume: Volume, name: str) -> None:
    """The same answer after saving and loading."""
    points = points_inside(volume.like())
    expected = ask(volume, points, name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.safetensors"
        try:
            path.write_bytes(volume_bytes(volume, {}))
            torch.manual_seed(12345)  # what the constructor draws must come from the file
            loaded = load_volume(path, trusted=[type(volume)]).to(points)
        except Exception as error:
            raise AssertionError(f"{name}: cannot be saved and loaded again ({error})") from error
    loaded.train(volume.training)
    found = ask(loaded, points, f"{name}, saved and loaded")
    require_same(found, expected, f"{name}: saved and loaded again; all it answers by must be in its state_dict")


def check_growth(volume: Volume, name: str) -> None:
    """A grown volume is saved as it is, and a state from before or after loads."""
    grown = copy.deepcopy(volume)
    if not grown.grow(10**9, 1.0):
        return
    check_files(grown, f"{name}, grown")
    _check_resumes(volume, grown, name, "grows")
    try:
        grown.load_state_dict(volume.state_dict())
    except Exception as error:
        raise AssertionError(
            f"{name}: grows, but a state from before that does not load any more, so no run could go back ({error})"
        ) from error
    points = points_inside(volume.like())
    back, first = (ask(each, points, name) for each in (grown, volume))
    require_same(back, first, f"{name}: a state from before it grew, loaded again")


def _check_resumes(volume: Volume, changed: Volume, name: str, what: str) -> None:
    fresh = copy.deepcopy(volume)
    try:
        fresh.load_state_dict(changed.state_dict())
    except Exception as error:
        raise AssertionError(
            f"{name}: {what}, but its state does not load into one as it was before, so no run could be resumed "
            f"({error})"
        ) from error
    points = points_inside(volume.like())
    found, expected = (ask(each, points, name) for each in (fresh, changed))
    require_same(found, expected, f"{name}: {what}; its state, loaded into one as it was before")


def check_taking(volume: Volume, name: str) -> None:
    """A volume that can be made of voxels shows them, wherever and however many they are, and does not grow on."""
    like = volume.like()
    uniform = torch.tensor(UNIFORM).reshape(2, 1, 1, 1).to(like)
    made = copy.deepcopy(volume)
    try:
        made.take_voxels(uniform.expand(2, *ANY_SHAPE))
    except ValueError:  # says that this kind of volume cannot
        return
    except Exception as error:
        raise AssertionError(
            f"{name}: take_voxels of {ANY_SHAPE} voxels raised {type(error).__name__} ({error}); it takes any "
            "resolution, or raises ValueError where this kind of volume cannot be made of voxels"
        ) from error
    found = ask(made, points_inside(like), f"{name}, made of {ANY_SHAPE} equal voxels")
    grid = made.dense()
    shape, tolerance = (FIELD_SHAPE, FIT_TOLERANCE) if grid is None else (tuple(grid.shape[1:]), SAME_TOLERANCE)
    label = f"{name}: made of {ANY_SHAPE} equal voxels"
    require_same(found, uniform.reshape(2, 1).expand_as(found), label, tolerance)
    require(
        not made.grow(10**9, 1.0),
        f"{name}: grew after take_voxels; no growth may be left, as a coarse start would blur what it was made of",
    )
    voxels, points = _slanting(shape)
    made = copy.deepcopy(volume)
    made.take_voxels(voxels.to(like))
    label = f"{name}: made of {shape} voxels, at their centres (voxel [k, j, i] lies at x of i, y of j, z of k)"
    inside = points.norm(dim=-1) <= 1.0
    if bool(inside.any()):
        found = ask(made, points[inside].to(like), name)
        require_same(found, voxels[:, inside].to(like), label, tolerance)
    check_files(made, f"{name}, made of voxels")
    _check_resumes(volume, made, name, "is made of voxels")
    _check_border(volume, shape, name)


def _slanting(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Voxels that rise along every axis, along each by another amount, and their centres (xyz)."""
    z, y, x = torch.meshgrid(*[voxel_centres(n) for n in shape], indexing="ij")
    attenuation = 1.2 + 0.4 * z + 0.2 * y + 0.1 * x
    absorbance = 0.45 + 0.05 * z + 0.1 * y + 0.2 * x
    return torch.stack([attenuation, absorbance]), torch.stack([x, y, z], dim=-1)


def _check_border(volume: Volume, shape: tuple[int, ...], name: str) -> None:
    """Empty, black voxels: at the ends of both ranges, where a logarithm is infinite."""
    made = copy.deepcopy(volume)
    made.take_voxels(torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1).expand(2, *shape).to(volume.like()))
    label = f"{name}, made of empty black voxels"
    for key, weight in made.named_parameters():
        require(bool(weight.isfinite().all()), f"{label}: {key} is not finite; draw such values in a little")
    slopes(made, points_inside(made.like()), label)
