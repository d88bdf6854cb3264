"""NIfTI-1, a file a channel."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ExportError, VolumeFileError
from ..storage.optional import require
from .voxel_array import UPRIGHT_AXES, Voxels, channel_files, check_shape, layout, patient_voxels, upright_xyz


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


def read_nifti(path: Path) -> Voxels:
    """One channel, turned as its affine says."""
    image = require("nibabel", f"{path}: reading it", error=VolumeFileError).load(str(path))
    shape = tuple(image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    check_shape(path, shape)
    data = np.asarray(image.dataobj, np.float32).reshape(shape)
    return patient_voxels(path, data, np.diag([-1.0, -1.0, 1.0]) @ image.affine[:3, :3])
