"""Raw texels for game engines; written only."""

from pathlib import Path
from typing import Any

import numpy as np

from .voxel_array import Voxels, layout


def write_raw(voxels: Voxels, path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """A 3D texture for game engines: two float16 a texel, x fastest, y up, z away from the viewer (left-handed)."""
    largest = float(np.finfo(np.float16).max)
    with open(path, "wb") as file:
        for attenuation, absorbance in zip(voxels.attenuation, voxels.absorbance, strict=True):
            texels = np.stack([np.minimum(attenuation, largest), absorbance], axis=-1)
            file.write(texels[::-1].astype("<f2").tobytes())
    z, y, x = voxels.shape
    return {
        **layout(voxels, "x right, y up, z away from the viewer (left-handed, as Unity)", turned=False),
        "width": x,
        "height": y,
        "depth": z,
        "dtype": "float16, little-endian",
        "texel": ["attenuation", "absorbance"],
        "order": "x fastest, then y, then z",
        "attenuation_clipped_at": largest,
        "texture_format": {"Unity": "RGHalf", "WebGL2": "RG16F", "Vulkan": "R16G16_SFLOAT", "Direct3D": "R16G16_FLOAT"},
        "right_handed_engines": "flip z: sample at 1 - w",
    }
