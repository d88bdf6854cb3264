"""`volume.pt` of the first 3DMNIST: two pickled tensors of logits, read without running anything.

The file's content is turned to this project's axes and put into a cube. `VoxelGrid` has the same two sigmoids, so the
logits need no conversion beyond that.
"""

import pickle
import pickletools
import re
import warnings
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast
from zipfile import ZIP_STORED, ZipFile

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import VolumeFileError, shown
from ..geometry.grids import MAX_RESOLUTION
from ..storage.inflating import opened_zip
from ..storage.plain_files import open_plain, size_in_words

SUFFIXES = (".pt", ".pth")
ORIGINAL_FRAME = 40  # pixels along an edge of the original's views, in which 28 are the sculpture's
MAX_RAW = 30.0  # a logit as good as infinite (1e-13 from 0 or 1) that averages and interpolates without NaN
MAX_BYTES = 2**28
MAX_OPERATIONS, MAX_TEXT = 10_000, 2**16  # of the pickle in it: two tensors take some 60 operations
MAKERS = ("LONG4", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "INST", "OBJ")  # operations that no tensor needs
ZIP_BEGIN = b"PK\x03\x04"
OLD_PICKLES = 5  # magic number, protocol, machine, the two tensors, names of their storages
TENSOR_MAKER = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|tensor|parameter)|torch(\.cuda)? \w+Storage"
    r"|torch\.storage \w+|torch \w+"
)
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
    try:
        checked, sizes = _checked(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks about pickles; what is wrong is said below
            content: Any = torch.load(checked, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = str(error)
        reason = "it asks for code to be run" if "Unsupported" in found or "GLOBAL" in found else "damaged"
        raise VolumeFileError(
            f"{path}: not read, {reason}; a volume.pt of the first 3DMNIST holds two tensors"
        ) from None
    except FileNotFoundError:
        raise VolumeFileError(f"{path}: no such volume file") from None
    except Exception as error:  # whatever torch makes of nonsense
        told = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = " ".join(told.split())[:120]
        raise VolumeFileError(f"{path}: not a volume.pt of the first 3DMNIST, or damaged ({reason})") from None
    names = ("attenuation", "absorbance")
    if not isinstance(content, dict) or set(content) != set(names):
        found = shown(", ".join(sorted(map(str, content))[:4])) if isinstance(content, dict) else type(content).__name__
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
        held = tensor.untyped_storage().nbytes()
        if held < tensor.numel() * tensor.element_size() or (sizes and held not in sizes):
            raise VolumeFileError(f"{path}: {name} claims more numbers than the file holds")
        if bool(tensor.isnan().any()):
            raise VolumeFileError(f"{path}: {name} holds values that are not a number")
    if attenuation.shape != absorbance.shape:
        raise VolumeFileError(f"{path}: {tuple(attenuation.shape)} attenuations, {tuple(absorbance.shape)} absorbances")
    return attenuation, absorbance


def _checked(path: Path) -> tuple[Path | BytesIO, set[int]]:
    """Fail before torch takes memory: it unpacks what is packed, and makes whatever the pickle asks for.

    Returns:
        What torch may read: an archive that is written anew, as torch and Python can find different things in one; and
        the lengths of what is in it, since torch believes those that the pickle tells.

    Raises:
        OSError, ValueError: no plain file, a large one, or one that is packed.
        UnpicklingError: it calls anything but what makes tensors.
    """
    with open_plain(path) as file:
        size = file.seek(0, 2)
        if size > MAX_BYTES:
            raise ValueError(f"more than {size_in_words(MAX_BYTES)}")
        file.seek(0)
        if file.read(4) != ZIP_BEGIN:  # torch before 1.6: pickles one behind the other
            file.seek(0)
            for _ in range(OLD_PICKLES):
                _check_pickle(cast("BufferedReader", file))
            return path, set()
        with opened_zip(cast("BufferedReader", file)) as archive:
            members = archive.infolist()
            if any(member.compress_type != ZIP_STORED for member in members):
                raise ValueError("its members are packed, as torch's are not")
            if sum(member.file_size for member in members) > size:
                raise ValueError("its members overlap")
            anew = BytesIO()
            with ZipFile(anew, "w", ZIP_STORED) as kept:
                for member in members:
                    content = archive.read(member)
                    if member.filename.endswith(".pkl"):
                        _check_pickle(BytesIO(content))
                    kept.writestr(member.filename, content)
            anew.seek(0)
            return anew, {member.file_size for member in members}


def _check_pickle(file: BufferedReader | BytesIO) -> None:
    """Fail on what a pickle of two tensors has no need of; the file is left behind it."""
    operations = pickletools.genops(cast("BinaryIO", _Short(file)))
    for count, (operation, argument, _) in enumerate(operations):
        if count > MAX_OPERATIONS or operation.name in MAKERS:
            raise pickle.UnpicklingError(f"Unsupported {operation.name}")
        if operation.name == "GLOBAL" and not TENSOR_MAKER.fullmatch(str(argument)):
            raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {argument}")


class _Short:
    """A file whose pickles hold no long text: `pickletools` believes the lengths that they tell."""

    def __init__(self, file: BufferedReader | BytesIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_TEXT:
            raise ValueError("a pickle with a long text in it")
        return self._file.read(size)

    def readline(self) -> bytes:
        return self._file.readline(MAX_TEXT)

    def tell(self) -> int:
        return self._file.tell()
