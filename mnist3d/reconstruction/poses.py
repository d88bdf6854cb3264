"""Poses of images in files: RELION's .star, .csv and NumPy, each with the conventions that its readers expect.

A .star file's angles are about the axes of `volume.mrc` as it lies in its file (x right, y away, z up), and its origins
are about the pixel N / 2, where RELION has the middle. A .csv and a .npy file hold the project's own rotations.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import DataError
from ..storage.plain_files import read_plain
from .pose_search import Poses
from .so3 import matrix_of_zyz, zyz_of

MOST_BYTES = 2**28
POSE_SUFFIXES = (".csv", ".star", ".npy")
MATRIX = tuple(f"r{row}{column}" for row in range(3) for column in range(3))
COLUMNS = (*MATRIX, "shift_x", "shift_y", "unexplained")
# x_file = UPRIGHT @ x_world: x right, y away, z up of files; x right, y down, z away of the world.
UPRIGHT = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]], dtype=torch.float64)
ORTHOGONAL = 0.02  # how far R R^T of a matrix with few digits, two behind the point or more, may be from the identity
ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst")
OLD_ORIGINS = ("rlnOriginX", "rlnOriginY")  # of RELION 3.0 and before, in pixels
NUMBERED = re.compile(r"(\d{1,9})@(.+)")  # a rlnImageName: the image, from 1, and its stack


def csv_text(poses: Poses) -> str:
    """A line an image: the matrix row by row, x_camera = R x_world; the shift in pixels; the unexplained share."""
    table = torch.cat([poses.rotations.flatten(1), poses.shifts, poses.unexplained[:, None]], dim=1)
    lines = [",".join(COLUMNS), *(",".join(f"{value:.7g}" for value in row) for row in table.tolist())]
    return "\n".join(lines) + "\n"


def star_text(poses: Poses, stack: str, size: int, pixel_size: float) -> str:
    """A STAR file of RELION 3.1 and later: optics, then a line an image.

    Args:
        poses: of all images, in the order of the stack, with shifts in its pixels.
        stack: name of the stack file.
        size: pixels of its images.
        pixel_size: of its images, angstrom.
    """
    rotations = poses.rotations.double() @ UPRIGHT.T
    angles = torch.rad2deg(zyz_of(rotations))
    origins = -(poses.shifts.double() + _half_pixel(rotations, size)) * pixel_size
    optics = ["rlnOpticsGroup", "rlnOpticsGroupName", "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality"]
    head = ["data_optics", "", "loop_", *_labels(optics), f"1 opticsGroup1 {pixel_size:.6f} {size} 2", "", ""]
    names = ["rlnImageName", *ANGLES, *ORIGINS, "rlnOpticsGroup"]
    rows = [
        f"{number:06d}@{star_word(stack)} " + " ".join(f"{value:.6f}" for value in row) + " 1"
        for number, row in enumerate(torch.cat([angles, origins], dim=1).tolist(), start=1)
    ]
    return "\n".join([*head, "data_particles", "", "loop_", *_labels(names), *rows, ""])


def _labels(names: Sequence[str]) -> list[str]:
    return [f"_{name} #{number}" for number, name in enumerate(names, start=1)]


def star_word(name: str) -> str:
    """A STAR file separates values by white space, and has no way to quote it that all readers know."""
    return "_".join(name.split())


def _half_pixel(rotations: Float[Tensor, "B 3 3"], size: int) -> Float[Tensor, "B 2"]:
    """How far, in pixels, a view about the middle between pixels is off the view about pixel N / 2."""
    if size % 2:
        return rotations.new_zeros(len(rotations), 2)
    half = rotations.new_full((3,), 0.5)
    return (rotations @ half - half)[:, :2]


def read_poses(path: Path, count: int, size: int, pixel_size: float | None = None) -> Poses:
    """Poses from a file.

    Args:
        path: .csv with the columns r00 to r22 (and shift_x, shift_y), .star, or .npy of shape (B, 3, 3).
        count: of images, which must be that of the poses.
        size: pixels of the images in their file.
        pixel_size: of these, angstrom, for a .star file that does not say its own; None: not known.

    Returns:
        In the order of the images, which a .star file tells by the numbers in rlnImageName. Shifts in the file's
        pixels; matrices with few digits are replaced by the nearest rotations.

    Raises:
        DataError: missing or damaged file, unknown suffix, another number of poses, matrices that are no rotations, or
            a .star file whose images or pixel sizes cannot be told.
    """
    suffix = path.suffix.lower()
    if suffix not in POSE_SUFFIXES:
        raise DataError(f"poses={path}: suffix {suffix or '(none)'}; must be one of {', '.join(POSE_SUFFIXES)}")
    try:
        content = read_plain(path, MOST_BYTES)
        if suffix == ".npy":
            rotations, shifts = _of_npy(content), torch.zeros(count, 2, dtype=torch.float64)
        elif suffix == ".csv":
            rotations, shifts = _of_csv(content.decode("utf-8-sig"))  # Excel puts a byte order mark before the text
        else:
            rotations, shifts = _of_star(content.decode("utf-8-sig"), size, pixel_size)
    except DataError as error:
        raise DataError(f"poses={path}: {error}") from None
    except FileNotFoundError:
        raise DataError(f"poses={path}: no such file") from None
    except (OSError, ValueError, TypeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise DataError(f"poses={path}: cannot be read ({reason})") from None
    if tuple(rotations.shape) != (count, 3, 3):
        raise DataError(f"poses={path}: holds {tuple(rotations.shape)}; must be ({count}, 3, 3), one for each image")
    rotations = _true_rotations(path, rotations)
    if not bool(shifts.isfinite().all()):
        raise DataError(f"poses={path}: a shift is not finite")
    return Poses(rotations.float(), shifts.float(), torch.full((count,), math.nan))


def _true_rotations(path: Path, rotations: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B 3 3"]:
    """The nearest rotations, of matrices that few digits keep from being some."""
    identity = torch.eye(3, dtype=rotations.dtype)
    off = (rotations @ rotations.mT - identity).abs().amax((1, 2))
    wrong = ~((off < ORTHOGONAL) & (torch.linalg.det(rotations.nan_to_num()) > 0.0))
    if bool(wrong.any()):
        raise DataError(
            f"poses={path}: {int(wrong.sum()):,} of {len(rotations):,} matrices are no rotations, the first is "
            f"{int(wrong.long().argmax())}; they must be orthogonal with determinant 1, to within {ORTHOGONAL}"
        )
    left, _, right = torch.linalg.svd(rotations)
    return left @ right


def _of_npy(content: bytes) -> Tensor:
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # NumPy has several for what is damaged, or is an archive that was cut
        raise DataError(f"cannot be read ({' '.join(str(error).split())[:200] or type(error).__name__})") from None
    if not isinstance(array, np.ndarray):
        raise DataError("is an archive (.npz), must be one array; save it with numpy.save")
    if array.dtype.kind not in "iuf":
        raise DataError(f"holds {array.dtype} values; must be real numbers")
    return torch.from_numpy(np.ascontiguousarray(array, np.float64))  # in this machine's byte order


def _of_csv(text: str) -> tuple[Tensor, Tensor]:
    rows = list(csv.DictReader(text.splitlines()))  # whatever ends a line
    if not rows or not set(MATRIX) <= {*rows[0]}:
        raise DataError(f"must have a first line with the columns {', '.join(COLUMNS[:-1])}, separated by commas")
    rotations = torch.tensor([[float(row[name]) for name in MATRIX] for row in rows], dtype=torch.float64)
    has_shifts = {"shift_x", "shift_y"} <= {*rows[0]}
    shifts = [[float(row["shift_x"]), float(row["shift_y"])] if has_shifts else [0.0, 0.0] for row in rows]
    return rotations.unflatten(1, (3, 3)), torch.tensor(shifts, dtype=torch.float64)


def _of_star(text: str, size: int, pixel_size: float | None) -> tuple[Tensor, Tensor]:
    tables = star_tables(text)
    table = next((columns for columns in tables.values() if set(ANGLES) <= {*columns}), None)
    if table is None:
        raise DataError(f"holds no loop with {', '.join(ANGLES)}")
    angles = torch.tensor([[float(value) for value in table[name]] for name in ANGLES], dtype=torch.float64).T
    rotations = matrix_of_zyz(torch.deg2rad(angles))
    if set(ORIGINS) <= {*table}:
        sizes = _pixel_sizes(tables.get("optics", {}), table.get("rlnOpticsGroup"), len(angles), pixel_size)
        origins = [[float(value) / edge for value, edge in zip(table[name], sizes, strict=True)] for name in ORIGINS]
    elif set(OLD_ORIGINS) <= {*table}:
        origins = [[float(value) for value in table[name]] for name in OLD_ORIGINS]
    else:
        origins = [[0.0] * len(angles)] * 2
    shifts = -_half_pixel(rotations, size) - torch.tensor(origins, dtype=torch.float64).T
    order = _rows_of_images(table.get("rlnImageName", []))
    return (rotations @ UPRIGHT)[order], shifts[order]


def _pixel_sizes(
    optics: dict[str, list[str]], groups: list[str] | None, count: int, pixel_size: float | None
) -> list[float]:
    """Of each particle, angstrom: as its optics group says, else the one that is given."""
    told = optics.get("rlnImagePixelSize", [])
    sizes = [float(value) for value in told]
    if not sizes:
        if pixel_size is None:
            raise DataError("has origins in angstrom and no rlnImagePixelSize; give --pixel_size, in angstrom")
        return [pixel_size] * count
    for value, size in zip(told, sizes, strict=True):
        if not 0.0 < size < math.inf:
            raise DataError(f"its rlnImagePixelSize is {value}; must be > 0")
    if groups is None or "rlnOpticsGroup" not in optics:
        if len(sizes) > 1:
            raise DataError(f"has {len(sizes)} optics groups, and no rlnOpticsGroup that says whose each image is")
        return sizes * count
    by_group = dict(zip(optics["rlnOpticsGroup"], sizes, strict=True))
    if missing := next((group for group in groups if group not in by_group), None):
        raise DataError(f"has an image of optics group {missing}; its data_optics holds {', '.join(by_group)}")
    return [by_group[group] for group in groups]


def _rows_of_images(names: list[str]) -> Tensor | slice:
    """The row of each image of the stack, by the numbers in rlnImageName; as they lie, where these tell nothing."""
    found = [NUMBERED.fullmatch(name) for name in names]
    numbers, stacks = [int(each[1]) for each in found if each], sorted({each[2] for each in found if each})
    remedy = "write stack and poses together (relion_stack_create), or, if the rows are in the order of the stack, "
    remedy += "take out the column rlnImageName"
    if not names or len(numbers) < len(names):
        if twice := next((name for name, count in Counter(names).items() if count > 1), None):
            raise DataError(f"its rlnImageName holds {twice} more than once; must be one row an image: {remedy}")
        return slice(None)
    if len(stacks) > 1:
        raise DataError(
            f"its rlnImageName tells of {len(stacks)} stacks, {stacks[0]} and {stacks[1]} among them; must be one: "
            f"{remedy}"
        )
    rows = {number: row for row, number in enumerate(numbers)}
    if sorted(rows) != [*range(1, len(names) + 1)]:
        missing = next(number for number in range(1, len(names) + 1) if number not in rows)
        raise DataError(
            f"has {len(names):,} rows, and none of them is of image {missing} by its rlnImageName; the numbers before "
            f"the @ must be 1 to {len(names):,}, each once: {remedy}"
        )
    return torch.tensor([rows[number] for number in sorted(rows)], dtype=torch.long)


def star_tables(text: str) -> dict[str, dict[str, list[str]]]:
    """The loops of a STAR file: by the name of their block, the columns by their labels.

    Raises:
        DataError: a row with more or fewer values than the loop has labels.
    """
    tables: dict[str, dict[str, list[str]]] = {}
    block, labels, open_ = "", [], False
    for line in text.splitlines():
        words = line.split("#")[0].split() if line.lstrip().startswith(("_", "#")) else line.split()
        if not words:
            continue
        if words[0].startswith("data_"):
            block, labels, open_ = words[0].removeprefix("data_"), [], False
        elif words[0] == "loop_":
            labels, open_ = [], True
        elif words[0].startswith("_") and open_:
            labels.append(words[0].removeprefix("_"))
            tables.setdefault(block, {})[labels[-1]] = []
        elif labels and open_:
            if len(words) != len(labels):
                raise DataError(f"a row of its block data_{block} has {len(words)} values for {len(labels)} labels")
            for label, word in zip(labels, words, strict=True):
                tables[block][label].append(word)
    return tables
