"""`volume.safetensors`: the weights of a volume, with what is needed to build it again as JSON metadata.

This is the file that people share. It cannot carry code: a class outside this package is built only when the caller
has named it.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..errors import UserError, shown
from ..errors import VolumeFileError as VolumeFileError
from ..storage.plain_files import check_plain_file, open_plain, size_in_words
from .base import FORMAT_VERSION, OWN_PACKAGE, PUBLIC_PLACE, SUFFIX, Volume
from .base import class_path as class_path
from .base import volume_bytes as volume_bytes
from .base import volume_writer as volume_writer
from .fourier_mlp import FourierMLP
from .hash_grid import HashGrid
from .legacy_3dmnist import ORIGINAL_FRAME, SUFFIXES
from .sparse_grid import SparseGrid
from .triplane import TriPlane
from .vm_grid import VMGrid
from .voxel_grid import VoxelGrid

MOST_HEADER = 2**24  # bytes; one of ours has some 2,000
KINDS: dict[str, tuple[type, ...]] = {  # of what a description holds
    "format_version": (int,),
    "class_path": (str,),
    "init_args": (dict,),
    "renderer": (dict, NoneType),
    "step": (int, NoneType),
}
REAL = ("F64", "F32", "F16", "BF16")  # of safetensors' types
MOST_LIST, MOST_NUMBER = 64, 2**53  # entries of an argument, and their size
OWN_VOLUMES: dict[str, type[Volume]] = {
    kind.__name__: kind for kind in (FourierMLP, HashGrid, SparseGrid, TriPlane, VMGrid, VoxelGrid)
}


def arguments_of_0_1(init_args: dict[str, Any]) -> dict[str, Any]:
    """Arguments as version 0.1 wrote them, without those that change no saved volume: `init`, the file that a VoxelGrid
    had started from, and `table_rate`, a learning rate."""
    return {name: value for name, value in init_args.items() if name not in ("init", "table_rate")}


def read_description(path: str | Path) -> dict[str, Any]:
    """The metadata of a volume file, without its weights; of a `volume.pt` of the first 3DMNIST, what it amounts to.

    Raises:
        VolumeFileError: missing or damaged file, or a newer format.
    """
    path = Path(path)
    check_volume_file(path)
    if path.suffix in SUFFIXES:
        return {
            "format_version": FORMAT_VERSION,
            "class_path": class_path(VoxelGrid),
            "init_args": {"resolution": ORIGINAL_FRAME, "pyramid": []},
            "renderer": {"image_size": ORIGINAL_FRAME},
        }
    try:
        _check_header(path)
        with _opened(path) as file:
            metadata = file.metadata() or {}
        description = json.loads(metadata[OWN_PACKAGE])
        version = description["format_version"]
        malformed = [key for key, kinds in KINDS.items() if not _is(description.get(key), kinds)]
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise VolumeFileError(f"{path}: not a volume file of {OWN_PACKAGE}, or damaged ({reason})") from None
    if malformed:
        raise VolumeFileError(
            f"{path}: not a volume file of {OWN_PACKAGE}: its description is malformed ({', '.join(malformed)})"
        )
    if version > FORMAT_VERSION:
        raise VolumeFileError(
            f"{path}: format version {version}, but this program knows up to {FORMAT_VERSION}; update {OWN_PACKAGE}"
        )
    return description


def load_volume(path: str | Path, *, trusted: Sequence[type[Volume]] = ()) -> Volume:
    """Build a saved volume again.

    Args:
        path: a volume file, or (by its suffix .pt or .pth) a `volume.pt` of the first 3DMNIST.
        trusted: classes outside this package that may be built; a file alone never causes an import.

    Raises:
        VolumeFileError: missing or damaged file, newer format, a class that is not trusted, or weights that
            do not fit it.
    """
    check_volume_file(Path(path))
    if Path(path).suffix in SUFFIXES:
        return VoxelGrid.from_3dmnist(path)
    description = read_description(path)
    volume_class = _trusted_class(Path(path), description["class_path"], trusted)
    init_args = description["init_args"]
    if volume_class in OWN_VOLUMES.values():
        if init_args.get("init") is not None:
            raise VolumeFileError(f"{path}: asks for another file (init); a volume file stands alone")
        init_args = arguments_of_0_1(init_args)
    try:
        with _opened(Path(path)) as file:
            parts = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
            shapes = {key: (tuple(part.get_shape()), part.get_dtype()) for key, part in parts.items()}
            if volume_class not in trusted:  # a few bytes of arguments must not make us allocate gigabytes
                _check_weights(volume_class, init_args, shapes)
            weights = {key: file.get_tensor(key) for key in parts}
        volume = volume_class(**init_args)
        volume.load_state_dict(weights)
    except UserError:
        raise
    except Exception as error:  # whatever a constructor makes of nonsense
        reason = " ".join(str(error).split())[:200]
        raise VolumeFileError(f"{path}: damaged, or written by another version ({reason})") from None
    # +-inf is legitimate (attenuation 0 is softplus(-inf)), nan never is
    if any(bool(weight.isnan().any()) for weight in weights.values()):
        raise VolumeFileError(f"{path}: holds weights that are not a number")
    return volume


def check_volume_file(path: Path) -> None:
    """Fail on what is missing, or no plain file: a pipe would be waited for.

    Raises:
        VolumeFileError: there is nothing at that name, or something else than a file.
    """
    try:
        check_plain_file(path)
    except FileNotFoundError:
        raise VolumeFileError(f"{path}: no such volume file") from None
    except (OSError, ValueError) as error:  # of a name that no file can have
        raise VolumeFileError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def _check_header(path: Path) -> None:
    """Fail on a header that is long: safetensors takes 100 MB, and ten times as much memory for it."""
    with open_plain(path) as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MOST_HEADER:
        raise ValueError(f"its header is longer than {size_in_words(MOST_HEADER)}")


def _is(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)


def _check_weights(
    volume_class: type[Volume], init_args: dict[str, Any], held: dict[str, tuple[tuple[int, ...], str]]
) -> None:
    """Fail before memory is taken: on arguments that ask for other weights than the file holds.

    Raises:
        ValueError: they do not fit.
    """
    wrong = next((name for name, value in init_args.items() if not _is_plain(value)), None)
    if wrong is not None:
        raise ValueError(f"{wrong} is no number, text or short list of them")
    with torch.device("meta"):
        expected = volume_class(**init_args).state_dict()
    if {name: tuple(weight.shape) for name, weight in expected.items()} != {name: s for name, (s, _) in held.items()}:
        raise ValueError("the weights do not fit the arguments")
    for name, (_, dtype) in held.items():
        if expected[name].is_floating_point() and dtype not in REAL:
            raise ValueError(f"{name} is of type {dtype}; must be one of {', '.join(REAL)}")


def _is_plain(value: Any) -> bool:
    """Whether it is what a constructor of ours takes."""
    if isinstance(value, list):
        return len(value) <= MOST_LIST and all(not isinstance(each, list) and _is_plain(each) for each in value)
    if isinstance(value, int | float):
        return abs(value) <= MOST_NUMBER  # not NaN either
    return value is None or (isinstance(value, str) and len(value) <= MOST_LIST)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file for its parts. safetensors takes a name that is text; another, of undecodable bytes, by a link to it."""
    with tempfile.TemporaryDirectory() if not _is_text(path) else nullcontext() as folder:
        if folder is not None:
            link = Path(folder) / f"volume{SUFFIX}"
            link.symlink_to(path.absolute())
            path = link
        with safe_open(path, framework="pt") as file:
            yield file


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _trusted_class(path: Path, name: str, trusted: Sequence[type[Volume]]) -> type[Volume]:
    for cls in trusted:
        if name in (f"{cls.__module__}.{cls.__qualname__}", cls.__qualname__):
            return cls
    package, _, short = name.rpartition(".")
    found = OWN_VOLUMES.get(short) if package == PUBLIC_PLACE else None
    if found is None:
        raise VolumeFileError(
            f"{path}: its volume is a {shown(name)}, which {OWN_PACKAGE} does not contain; if you trust that class, "
            f"name it: --volume {shown(name)}, or load_volume(path, trusted=[...])"
        )
    return found
