"""Poses of images in files: RELION's .star, .csv and NumPy, each with the conventions that its readers expect.

A .star file's angles are about the axes of `volume.mrc` as it lies in its file (x right, y away, z up), and its origins
are about the pixel N / 2, where RELION has the middle. A .csv and a .npy file hold the project's own rotations.
"""

import csv
import io
import math
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
ORTHOGONAL = 1e-3  # how far from it a matrix with few digits may be
ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
ORIGINS = ("rlnOriginXAngst", "rlnOriginYAngst")
OLD_ORIGINS = ("rlnOriginX", "rlnOriginY")  # of RELION 3.0 and before, in pixels


def csv_text(poses: Poses) -> str:
    """A line an image: the matrix row by row, x_camera = R x_world; the shift in pixels; the unexplained share."""
    table = torch.cat([poses.rotations.flatten(1), poses.shifts, poses.unexplained[:, None]], dim=1)
    lines = [",".join(COLUMNS), *(",".join(f"{value:.7g}" for value in row) for row in table.tolist())]
    return "\n".join(lines) + "\n"


def star_text(poses: Poses, stack: str, size: int, pixel_size: float) -> str:
    """A STAR file of RELION 3.1 and later: optics, then a line an image.

    Args:
        poses: of all images.
        stack: name of the stack file.
        size: pixels of its images.
        pixel_size: angstrom.
    """
    rotations = poses.rotations.double() @ UPRIGHT.T
    angles = torch.rad2deg(zyz_of(rotations))
    origins = -(poses.shifts.double() + _half_pixel(rotations, size)) * pixel_size
    optics = ["rlnOpticsGroup", "rlnOpticsGroupName", "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality"]
    head = ["data_optics", "", "loop_", *_labels(optics), f"1 opticsGroup1 {pixel_size:.6f} {size} 2", "", ""]
    names = ["rlnImageName", *ANGLES, *ORIGINS, "rlnOpticsGroup"]
    rows = [
        f"{number:06d}@{_word(stack)} " + " ".join(f"{value:.6f}" for value in row) + " 1"
        for number, row in enumerate(torch.cat([angles, origins], dim=1).tolist(), start=1)
    ]
    return "\n".join([*head, "data_particles", "", "loop_", *_labels(names), *rows, ""])


def _labels(names: Sequence[str]) -> list[str]:
    return [f"_{name} #{number}" for number, name in enumerate(names, start=1)]


def _word(name: str) -> str:
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
        size: pixels of the images.
        pixel_size: angstrom, for a .star file that does not say its own.

    Raises:
        DataError: missing or damaged file, unknown suffix, another number of poses, or matrices that are no rotations.
    """
    suffix = path.suffix.lower()
    if suffix not in POSE_SUFFIXES:
        raise DataError(f"poses={path}: suffix {suffix or '(none)'}; must be one of {', '.join(POSE_SUFFIXES)}")
    try:
        content = read_plain(path, MOST_BYTES)
        if suffix == ".npy":
            rotations = torch.from_numpy(np.load(io.BytesIO(content), allow_pickle=False)).double()
            shifts = torch.zeros(len(rotations), 2, dtype=torch.float64)
        elif suffix == ".csv":
            rotations, shifts = _of_csv(content.decode())
        else:
            rotations, shifts = _of_star(content.decode(), size, pixel_size)
    except DataError as error:
        raise DataError(f"poses={path}: {error}") from None
    except FileNotFoundError:
        raise DataError(f"poses={path}: no such file") from None
    except (OSError, ValueError, EOFError, TypeError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise DataError(f"poses={path}: cannot be read ({reason})") from None
    if tuple(rotations.shape) != (count, 3, 3):
        raise DataError(f"poses={path}: holds {tuple(rotations.shape)}; must be ({count}, 3, 3), one for each image")
    _check_rotations(path, rotations)
    if not bool(shifts.isfinite().all()):
        raise DataError(f"poses={path}: a shift is not finite")
    return Poses(rotations.float(), shifts.float(), torch.full((count,), math.nan))


def _check_rotations(path: Path, rotations: Float[Tensor, "B 3 3"]) -> None:
    identity = torch.eye(3, dtype=rotations.dtype)
    off = (rotations @ rotations.mT - identity).abs().amax((1, 2))
    wrong = ~((off < ORTHOGONAL) & (torch.linalg.det(rotations.nan_to_num()) > 0.0))
    if bool(wrong.any()):
        raise DataError(
            f"poses={path}: {int(wrong.sum()):,} of {len(rotations):,} matrices are no rotations, the first is "
            f"{int(wrong.long().argmax())}; they must be orthogonal with determinant 1"
        )


def _of_csv(text: str) -> tuple[Tensor, Tensor]:
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows or not set(MATRIX) <= {*rows[0]}:
        raise DataError(f"must have a first line with the columns {', '.join(COLUMNS[:-1])}")
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
    shifts = -_half_pixel(rotations, size)
    told = tables.get("optics", {}).get("rlnImagePixelSize")
    if set(ORIGINS) <= {*table}:
        angstrom = float(told[0]) if told else pixel_size
        if not angstrom:
            raise DataError("has origins in angstrom and no rlnImagePixelSize; give --pixel_size")
        origins = [[float(value) / angstrom for value in table[name]] for name in ORIGINS]
    elif set(OLD_ORIGINS) <= {*table}:
        origins = [[float(value) for value in table[name]] for name in OLD_ORIGINS]
    else:
        origins = [[0.0] * len(angles)] * 2
    return rotations @ UPRIGHT, shifts - torch.tensor(origins, dtype=torch.float64).T


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
