"""Voxel files for other tools, by suffix.

    export_voxels(volume, "sculpture.vdb", resolution=128)

The one function that samples a volume, picks a format and writes.
"""

from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from ..errors import ExportError
from ..formats import VOXEL_FORMATS, world_voxels
from ..storage import check_output, whole_files, write_description
from ..volumes.base import Field
from .sampling import as_array, filed_voxels
from .shares import Tell, part, silent
from .solid import best_level


def export_voxels(
    volume: Field | ArrayLike,
    path: str | Path,
    *,
    resolution: int | None = None,
    voxel_size_mm: float | None = None,
    description: dict[str, Any] | None = None,
    tell: Tell = silent,
) -> Path:
    """Write a volume as the voxel file that the suffix of `path` names, and `PATH.json` beside it.

    Formats of one channel a file (nrrd, nii.gz, mrc) hold the attenuation; the absorbance lies beside it, in
    NAME_absorbance. A format of solid voxels (vox) gets those at the level that looks most like the volume's views.
    docs/formats.md has every format's axes and units.

    Args:
        volume: any backend, or an array (2, Z, Y, X) in the world's axes: attenuation per world unit, absorbance.
        path: its suffix is one of `VOXEL_FORMATS`.
        resolution: voxels along the longest edge, 1 to 1024; default a grid's own, 128 for a field.
        voxel_size_mm: edge of a voxel in mm, which makes mm the file's unit of length and 1/mm that of the
            attenuation; default world units, of which the volume is 2 wide.
        description: where the volume comes from; it goes into the .json and, where the format can hold text, the file.
        tell: is handed the share that is done and what is done now, for a bar.

    Raises:
        ExportError: an unknown suffix, a value out of range, or a missing library.
        WriteError: the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    suffix = check_output(path, VOXEL_FORMATS)
    if voxel_size_mm is not None and not 0.0 < voxel_size_mm <= 1e6:
        raise ExportError(f"voxel_size_mm={voxel_size_mm}: must be > 0 and <= 1e6")
    with whole_files(path) as folder:
        described = _written(volume, folder / path.name, suffix, resolution, voxel_size_mm, description or {}, tell)
        write_description(folder, path.name, described)
    return path


def _written(
    volume: Field | ArrayLike,
    path: Path,
    suffix: str,
    resolution: int | None,
    voxel_size_mm: float | None,
    description: dict[str, Any],
    tell: Tell,
) -> dict[str, Any]:
    """What there is to say of the file; its voxels, which may lie in a file beside it, end with this call."""
    written = VOXEL_FORMATS[suffix]
    chosen, options = {}, {}
    besides, asked = written.bytes_of_a_voxel, part(tell, 0.0, 0.4)
    if written.solid:
        volume, resolution = as_array(volume, resolution, besides=besides, tell=asked), None
        options["level"], chosen["match"] = best_level(volume, "all", part(tell, 0.4, 0.7))
    values = filed_voxels(volume, resolution, path.parent, voxel_size_mm, besides=besides, tell=asked)
    tell(0.7 if written.solid else 0.4, f"writing {path.name}")
    voxels = world_voxels(values, voxel_size_mm)
    described = {**description, "format": suffix, "resolution_zyx": list(voxels.shape), "unit": voxels.unit}
    return {**described, **written.write(voxels, path, described, **options), **chosen}
