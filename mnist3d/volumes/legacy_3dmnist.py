"""`volume.pt` of the first 3DMNIST: two pickled tensors of logits, read without running anything.

The file's content is turned to this project's axes and put into a cube. `VoxelGrid` has the same two sigmoids, so the
logits need no conversion beyond that.
"""

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import VolumeFileError
from ..geometry.grids import MAX_RESOLUTION

SUFFIXES = (".pt", ".pth")
ORIGINAL_FRAME = 40  # pixels along an edge of the original's views, in which 28 are the sculpture's
MAX_RAW = 30.0  # a logit as good as infinite (1e-13 from 0 or 1) that averages and interpolates without NaN
MAX_BYTES = 2**30
EMITS = ("1 - absorbance", "absorbance")


def read_3dmnist(path: str | Path, frame: int = ORIGINAL_FRAME, emits: str = EMITS[0]) -> Float[Tensor, "2 N N N"]:
    """Raw attenuation and absorbance, in (C, Z, Y, X), of a `volume.pt` of the first 3DMNIST.

    The file holds (rows, columns, depth, 1) logits: rows go down (y), columns right (x), depth away from the eye (z).
    sigmoid(attenuation) is the opacity of one voxel step.

    Args:
        path: the file.
        frame: voxels along each edge of the cube into whose middle it is put.
        emits: see `VoxelGrid.from_3dmnist`.

    Raises:
        VolumeFileError: missing or damaged file, code in it, or other tensors.
        ValueError: another `emits`, a frame that the sculpture does not fit into.

    Source:
        The first 3DMNIST's networks.py (`VoxelGrid`, `DifferentiableRenderer`) and tools.py (`_ray_march`).
    """
    if emits not in EMITS:
        raise ValueError(f"emits={emits!r}: must be {' or '.join(map(repr, EMITS))}")
    attenuation, absorbance = _logits(Path(path))
    sign = 1.0 if emits == EMITS[0] else -1.0  # 1 - sigmoid(x) = sigmoid(-x)
    stored = torch.stack([attenuation, sign * absorbance])[..., 0].permute(0, 3, 1, 2)
    size = stored.shape[1:]
    if not max(size) <= frame <= MAX_RESOLUTION:
        raise ValueError(f"frame={frame}: must be in [{max(size)}, {MAX_RESOLUTION}]; its edge is {max(size)}")
    raw = torch.full((2, frame, frame, frame), -MAX_RAW)
    middle = tuple(slice((frame - n) // 2, (frame - n) // 2 + n) for n in size)
    raw[(slice(None), *middle)] = stored.float().clamp(-MAX_RAW, MAX_RAW)
    return raw


def _logits(path: Path) -> tuple[Tensor, Tensor]:
    if not path.is_file():
        raise VolumeFileError(f"{path}: no such volume file")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES:,} bytes")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks about pickles; what is wrong is said below
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = str(error)
        reason = "it asks for code to be run" if "Unsupported" in found or "GLOBAL" in found else "damaged"
        raise VolumeFileError(
            f"{path}: not read, {reason}; a volume.pt of the first 3DMNIST holds two tensors"
        ) from None
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split())[:120]
        raise VolumeFileError(f"{path}: not a volume.pt of the first 3DMNIST, or damaged ({reason})") from None
    names = ("attenuation", "absorbance")
    if not isinstance(content, dict) or set(content) != set(names):
        found = ", ".join(sorted(map(str, content))[:4]) if isinstance(content, dict) else type(content).__name__
        raise VolumeFileError(
            f"{path}: holds {found}; a volume.pt of the first 3DMNIST holds attenuation and absorbance. "
            "The volume of a run of ours is its volume.safetensors"
        )
    attenuation, absorbance = (content[name] for name in names)
    for name, tensor in zip(names, (attenuation, absorbance), strict=True):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.layout != torch.strided:
            raise VolumeFileError(f"{path}: {name} is no tensor of real numbers")
        if tensor.ndim != 4 or tensor.shape[3] != 1 or 0 in tensor.shape or max(tensor.shape) > MAX_RESOLUTION:
            raise VolumeFileError(
                f"{path}: {name} has shape {tuple(tensor.shape)}; it must be (rows, columns, depth, 1), "
                f"none of them 0 or above {MAX_RESOLUTION}"
            )
        # a view can claim more numbers than the file holds: a few bytes must not make us allocate gigabytes
        if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise VolumeFileError(f"{path}: {name} claims more numbers than the file holds")
        if bool(tensor.isnan().any()):
            raise VolumeFileError(f"{path}: {name} holds values that are not a number")
    if attenuation.shape != absorbance.shape:
        raise VolumeFileError(f"{path}: {tuple(attenuation.shape)} attenuations, {tuple(absorbance.shape)} absorbances")
    return attenuation, absorbance
