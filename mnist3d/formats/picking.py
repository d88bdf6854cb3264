"""What stands behind the # of a file's name, and which part of the file it picks: FILE#frame=3,negative=clip.

What a file holds beside one number a voxel (several arrays, moments, vectors, colours, complex numbers) is picked
from or refused by what it is, never guessed. Reading the voxels is each format's own file.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..errors import VolumeFileError
from .values import VALUE_OPTIONS
from .voxel_array import check_shape

SPACE, FRAME, COMPONENT = "space", "frame", "component"  # what an axis of an array is
ITEMS = re.compile(r",(?=[a-z_]+=)")  # between two of them; the name of an array may hold a comma
PICKS = f"array=NAME, {FRAME}=N, {COMPONENT}=N (N from 0), " + ", ".join(f"{name}=..." for name in VALUE_OPTIONS)
SEVERAL = {FRAME: "3D volumes (frames)", COMPONENT: "numbers a voxel (a vector or a colour)"}


@dataclass(frozen=True)
class Pick:
    """What stands behind the # of FILE#array=NAME,frame=N,component=N,negative=clip.

    Args:
        array: name of the array or grid, in a file that holds several; None: the file's own choice, else the first.
        frame: which volume of a 4D file, from 0.
        component: which number of a vector or colour, from 0.
        values: what is done with the values, as it was typed; `ValueOptions.told` takes it.
    """

    array: str | None = None
    frame: int | None = None
    component: int | None = None
    values: Mapping[str, str] = field(default_factory=dict)

    def typed(self, path: Path, **more: int) -> str:
        """FILE#..., with more behind the # than was there; what is picked already stays."""
        parts = {"array": self.array, FRAME: self.frame, COMPONENT: self.component, **self.values, **more}
        return f"{path}#" + ",".join(f"{name}={value}" for name, value in parts.items() if value is not None)


def split_pick(path: str | Path) -> tuple[Path, Pick]:
    """The file, and what is picked from it; a file whose own name contains # still opens.

    Raises:
        VolumeFileError: what follows the # is no pick.
    """
    text = str(path)
    if "#" not in Path(text).name or os.path.exists(text):
        return Path(text), Pick()
    cuts = [place for place, letter in enumerate(text) if letter == "#"]
    cut = next((place for place in reversed(cuts) if os.path.isfile(text[:place])), None)
    if cut is None:
        cut = cuts[-1]
        if "=" not in text[cut:]:
            return Path(text), Pick()
    pick, told = Pick(), set[str]()
    for item in ITEMS.split(text[cut + 1 :]):
        key, _, value = item.partition("=")
        if key in told:
            raise VolumeFileError(f"{text[:cut]}#{item}: {key} is given twice; must be given once")
        told.add(key)
        if key == "array" and value:
            pick = replace(pick, array=value)
        elif key in (FRAME, COMPONENT) and value.isascii() and value.isdigit():
            pick = replace(pick, **{key: int(value)})
        elif key in VALUE_OPTIONS and value:
            pick = replace(pick, values={**pick.values, key: value})
        else:
            raise VolumeFileError(f"{text[:cut]}#{item}: must be one of {PICKS}; several are joined by commas")
    return Path(text[:cut]), pick


def volume_index(path: Path, shape: Sequence[int], roles: Sequence[str], pick: Pick) -> tuple[int | slice, ...]:
    """The index that takes one volume out of an array: its axes in space whole, one place of each other axis.

    Args:
        path: for the message.
        shape: of the whole array, as its header tells it.
        roles: of each axis: `SPACE`, `FRAME` or `COMPONENT`.
        pick: what was asked for; an axis of length 1 needs no choice.

    Raises:
        VolumeFileError: several volumes and none picked, none at the picked place, or no three axes in space.
    """
    index: list[int | slice] = [slice(None) if role == SPACE else 0 for role in roles]
    for role, wanted in ((FRAME, pick.frame), (COMPONENT, pick.component)):
        axes = [axis for axis, its in enumerate(roles) if its == role and shape[axis] != 1]
        if len(axes) > 1:
            raise VolumeFileError(f"{path}: its shape is {tuple(shape)}; write one 3D volume in the tool that made it")
        count = shape[axes[0]] if axes else 1
        if wanted is None and count != 1:
            raise VolumeFileError(
                f"{path}: holds {count} {SEVERAL[role]}; one must be picked, with {pick.typed(path, **{role: 0})} to "
                f"{role}={count - 1}"
            )
        if wanted is not None and wanted >= count:
            raise VolumeFileError(f"{path}#{role}={wanted}: must be in [0, {count - 1}], as it holds {count}")
        if axes and wanted is not None:
            index[axes[0]] = wanted
    space = [n for n, role in zip(shape, roles, strict=True) if role == SPACE]
    if len(space) != 3:
        raise VolumeFileError(
            f"{path}: its shape is {tuple(shape)}: {len(space)}D data; must be a volume, with three axes in space"
        )
    check_shape(path, space)
    return tuple(index)


def picked_name(path: Path, names: Sequence[str], pick: Pick, own: Iterable[str | None]) -> str:
    """The array that is the attenuation.

    Args:
        path: for the message.
        names: of all arrays, as they lie in the file.
        pick: the user's choice goes before all.
        own: names in the order in which they are preferred; the file need not hold them. Then comes the first array.

    Raises:
        VolumeFileError: no array of the picked name.
    """
    if pick.array is not None:
        if pick.array not in names:
            raise VolumeFileError(f"{path}#array={pick.array}: must be one of {', '.join(names) or 'none'}")
        return pick.array
    return next((name for name in own if name is not None and name in names), names[0])


def check_numbers(path: Path, dtype: np.dtype) -> None:
    """Fail on what is not one real number a voxel.

    Raises:
        VolumeFileError: complex numbers, records, text or Python objects.
    """
    if dtype.kind == "c":
        raise VolumeFileError(
            f"{path}: holds complex numbers ({dtype}); must be one real number a voxel: write their magnitude, or the "
            "one part that is wanted, in the tool that made it"
        )
    if dtype.kind not in "biuf":
        raise VolumeFileError(f"{path}: holds {dtype} values; must be integers or real numbers")
