"""TIFF hyperstacks for ImageJ; written only."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ExportError
from ..storage.optional import require
from .voxel_array import Voxels, layout


def write_tif(voxels: Voxels, path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """A hyperstack for ImageJ: slices from the viewer backwards, each an upright image, two channels."""
    tifffile = require("tifffile", ".tif")
    if voxels.values.nbytes >= 2**32:
        raise ExportError(".tif: ImageJ reads up to 4 GiB, this is more; give a smaller --resolution")
    x, y, z = voxels.spacing
    slices = (slice for pair in zip(voxels.attenuation, voxels.absorbance, strict=True) for slice in pair)
    depth, height, width = voxels.shape
    tifffile.imwrite(
        path,
        slices,
        shape=(depth, 2, height, width),
        dtype=np.float32,
        imagej=True,
        resolution=(1.0 / x, 1.0 / y),
        metadata={
            "axes": "ZCYX",
            "spacing": z,
            "unit": voxels.unit,
            "mode": "grayscale",
            "Labels": ["attenuation", "absorbance"] * depth,
            "Info": json.dumps(description),
        },
    )
    return layout(voxels, "(Z, C, Y, X); x right, y down, z away from the viewer", turned=False)
