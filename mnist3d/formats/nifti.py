"""NIfTI-1, a file a channel; Analyze (.hdr and .img) is read too."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ExportError, VolumeFileError
from ..storage.optional import require
from .orientation import oriented_voxels
from .picking import COMPONENT, FRAME, SPACE, Pick, check_numbers, volume_index
from .voxel_array import UPRIGHT_AXES, Voxels, channel_files, layout, upright_xyz


def write_nifti(voxels: Voxels, path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """NIfTI-1, gzipped, a file a channel; its axes are right, anterior, superior, so x and y change sign."""
    nibabel = require("nibabel", ".nii.gz")
    if max(voxels.shape) > 32767:  # NIfTI-1 counts in int16
        raise ExportError(".nii.gz: at most 32767 voxels along an edge")
    affine = np.diag([*upright_xyz(voxels.spacing), 1.0])
    affine[:3, 3] = upright_xyz(voxels.origin)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    for channel, array, file in channel_files(voxels, path, ".nii.gz"):
        image = nibabel.Nifti1Image(array.transpose(2, 1, 0), affine, dtype=np.float32)
        image.header.set_xyzt_units("mm" if voxels.unit == "mm" else "unknown")
        image.header["descrip"] = f"mnist3d {channel}, 1/{voxels.unit}" if channel == "attenuation" else channel
        image.set_sform(affine, 1)
        image.set_qform(affine, 1)
        comment = json.dumps({"channel": channel, **description}).encode()
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", comment))
        nibabel.save(image, file)
    return layout(voxels, f"upright: {UPRIGHT_AXES}; the affine maps to right-anterior-superior")


def read_nifti(path: Path, pick: Pick) -> Voxels:
    """One channel, turned as its affine says: NIfTI's sform, else its qform; Analyze has none, only lengths.

    Where a file tells no direction at all, x runs to the left, as nibabel (and Analyze) has it.
    """
    image = require("nibabel", f"{path}: reading it", error=VolumeFileError).load(str(path))
    colours = image.get_data_dtype().names or ()
    roles = [SPACE] * min(image.ndim, 3) + [FRAME] + [COMPONENT] + [FRAME] * image.ndim  # x, y, z, time, vector, ...
    shape, roles = list(image.shape), roles[: image.ndim]
    if colours:  # red, green, blue
        shape, roles = [*shape, len(colours)], [*roles, COMPONENT]
    index = volume_index(path, shape, roles, pick)
    if colours:
        stored = np.asarray(image.dataobj)
        data = np.stack([stored[name] for name in colours], axis=-1)[index]
    else:
        check_numbers(path, image.get_data_dtype())
        data = np.asarray(image.dataobj[index], np.float32)
    directions = image.affine[:3, :3]
    codes = [int(image.header[code]) for code in ("sform_code", "qform_code") if code in image.header]
    if not any(codes) and not (np.isfinite(directions).all() and directions.any(axis=0).all()):
        directions = np.diag([-1.0, 1.0, 1.0])  # lengths that are not told: cubes
    return oriented_voxels(path, [data], np.diag([-1.0, -1.0, 1.0]) @ directions)
