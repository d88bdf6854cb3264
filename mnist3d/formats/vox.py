"""MagicaVoxel files: cubes in 255 greys.

A writer of one model, format 150, so at most 256 cubes along an edge.

Source: https://github.com/ephtracy/voxel-model, MagicaVoxel-file-format-vox.txt
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ExportError
from .voxel_array import UPRIGHT_AXES, Voxels, upright

MAX_EDGE = 256
COLOURS = 255  # index 0 means empty


def write_vox(voxels: Voxels, path: Path, description: dict[str, Any], level: float) -> dict[str, Any]:
    """A cube for every voxel whose attenuation per world unit reaches the level, as bright as 1 - absorbance."""
    if max(voxels.shape) > MAX_EDGE:
        raise ExportError(
            f".vox: at most {MAX_EDGE} voxels along an edge, not {max(voxels.shape)}; --resolution {MAX_EDGE}"
        )
    least = max(level / voxels.scale, np.finfo(np.float32).tiny)  # at level 0, what is empty is no solid
    solid = upright(voxels.attenuation) >= least
    colour = 1 + np.rint((1.0 - upright(voxels.absorbance)[solid]) * (COLOURS - 1)).astype(np.uint8)
    z, y, x = np.nonzero(solid)
    cubes = np.stack([x, y, z, colour], axis=1).astype(np.uint8)
    depth, height, width = solid.shape  # up, away, right
    # The palette's entry k belongs to colour index k + 1.
    greys = np.append(np.rint(np.arange(COLOURS) * (255.0 / (COLOURS - 1))), 0).astype(np.uint8)
    palette = np.stack([greys, greys, greys, np.full(256, 255, np.uint8)], axis=1)
    children = (
        _chunk(b"SIZE", struct.pack("<3i", width, height, depth))
        + _chunk(b"XYZI", struct.pack("<i", len(cubes)) + cubes.tobytes())
        + _chunk(b"RGBA", palette.tobytes())
    )
    path.write_bytes(b"VOX " + struct.pack("<i", 150) + b"MAIN" + struct.pack("<2i", 0, len(children)) + children)
    return {
        "axes": f"upright: {UPRIGHT_AXES}",
        "cubes": len(cubes),
        "level": level,
        "colour": "index 1 + 254 * (1 - absorbance), a grey",
    }


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<2i", len(content), 0) + content
