"""OpenVDB files, written without OpenVDB: no library on PyPI writes them for current Pythons.

A writer of float grids in file format 224 with zip compression, which OpenVDB 5 and newer read. Level sets and half
precision are left out. `vdb_reading` is the way back.

Source: OpenVDB (openvdb/io/File.cc, io/Archive.cc, io/Compression.h, tree/RootNode.h, InternalNode.h, LeafNode.h,
math/Maps.h: the members' `write`). The tree is the usual one, "Tree_float_5_4_3": a root, nodes of 32^3 and 16^3
children, leaves of 8^3 voxels; within a node x is slowest and z fastest.
"""

import json
import struct
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Bool, Float

from ..version import __version__
from .voxel_array import UPRIGHT_AXES, Voxels, layout, upright, upright_xyz

MAGIC, FILE_VERSION, LIBRARY_VERSION = 0x56444220, 224, (10, 0)
ZIP = 1  # the compression flag
ALL_VALUES = b"\x06"  # what follows a mask: every value, none left out
LEAF, LOWER, UPPER = 8, 16, 32  # children or voxels along an edge of each kind of node
LOWER_EDGE = LEAF * LOWER  # in voxels
UPPER_EDGE = LOWER_EDGE * UPPER


def write_vdb(voxels: Voxels, path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """Three fog volumes: attenuation, absorbance, and density = attenuation * (1 - absorbance).

    Blender's Principled Volume takes the grid named density: the light that a place gives off.
    """
    grids = {
        "density": lambda: _density(voxels),
        "attenuation": lambda: voxels.attenuation,
        "absorbance": lambda: voxels.absorbance,
    }
    identity = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(description) + str(voxels.values.sum()))
    with open(path, "wb") as file:
        file.write(struct.pack("<qIIIB", MAGIC, FILE_VERSION, *LIBRARY_VERSION, 1) + str(identity).encode())
        file.write(_metadata({"creator": f"mnist3d {__version__}", "mnist3d": json.dumps(description)}))
        file.write(struct.pack("<i", len(grids)))
        for name, array in grids.items():
            _write_grid(file, name, upright(array()).transpose(2, 1, 0), voxels)
    described = layout(voxels, f"upright: {UPRIGHT_AXES}")
    density = f"attenuation * (1 - absorbance), 1 / {voxels.unit}"
    return {**described, "channels": {"density": density, **described["channels"]}}


def _density(voxels: Voxels) -> Float[np.ndarray, "Z Y X"]:
    density = 1.0 - voxels.absorbance
    density *= voxels.attenuation  # in place: a fine grid is large
    return density


def _write_grid(file: BinaryIO, name: str, array: Float[np.ndarray, "X Y Z"], voxels: Voxels) -> None:
    file.write(_string(name) + _string("Tree_float_5_4_3") + _string(""))
    offsets = file.tell()
    file.write(bytes(24))
    begin = file.tell()
    spacing, origin = upright_xyz(voxels.spacing), upright_xyz(voxels.origin)
    file.write(struct.pack("<I", ZIP) + _metadata({"class": "fog volume", "name": name}))
    # The map's members: translation, scale, voxel size, and three that OpenVDB derives from the scale.
    scale = np.array(spacing)
    members = [np.array(origin), scale, scale, 1.0 / scale, 1.0 / scale**2, 0.5 / scale]
    file.write(_string("ScaleTranslateMap") + np.concatenate(members).astype("<f8").tobytes())
    uppers = list(_nodes(array, UPPER_EDGE))
    file.write(struct.pack("<ifII", 1, 0.0, 0, len(uppers)))  # one buffer; background 0; no tiles
    for place, upper in uppers:
        file.write(struct.pack("<iii", *place))
        lowers = list(_nodes(upper, LOWER_EDGE))
        file.write(_internal_node([where for where, _ in lowers], UPPER, LOWER_EDGE))
        for _, lower in lowers:
            leaves, places = _leaves(lower)
            file.write(_internal_node(list(places), LOWER, LEAF))
            file.write(_masks(leaves).tobytes())
    blocks = file.tell()
    for _, upper in uppers:
        for _, lower in _nodes(upper, LOWER_EDGE):
            leaves, _ = _leaves(lower)
            for mask, values in zip(_masks(leaves), leaves, strict=True):
                file.write(mask.tobytes() + ALL_VALUES + _zipped(values.tobytes()))
    end = file.tell()
    file.seek(offsets)
    file.write(struct.pack("<qqq", begin, blocks, end))
    file.seek(end)


def _nodes(array: np.ndarray, edge: int) -> Iterator[tuple[tuple[int, int, int], np.ndarray]]:
    """The parts of an array that are not all zero, with their first voxel, in the order of a node's children."""
    x, y, z = (range(0, n, edge) for n in array.shape)
    for place in ((i, j, k) for i in x for j in y for k in z):
        part = array[tuple(slice(first, first + edge) for first in place)]
        if part.any():
            yield place, part


def _leaves(lower: np.ndarray) -> tuple[Float[np.ndarray, "N 8 8 8"], np.ndarray]:
    """The leaves that are not all zero, and where in the node each of them begins."""
    padded = np.pad(lower, [(0, -n % LEAF) for n in lower.shape])
    x, y, z = (n // LEAF for n in padded.shape)
    blocks = padded.reshape(x, LEAF, y, LEAF, z, LEAF).transpose(0, 2, 4, 1, 3, 5)
    kept = blocks.any(axis=(3, 4, 5))
    return np.ascontiguousarray(blocks[kept], dtype="<f4"), np.argwhere(kept) * LEAF


def _masks(leaves: np.ndarray) -> np.ndarray:
    """Which voxels are active, 64 bytes a leaf."""
    return np.packbits(leaves.reshape(len(leaves), -1) != 0.0, axis=1, bitorder="little")


def _internal_node(places: list[Any], edge: int, child_edge: int) -> bytes:
    """Child mask, value mask, and the values of the places without a child: all 0."""
    has_child: Bool[np.ndarray, "E E E"] = np.zeros((edge,) * 3, bool)
    if places:
        has_child[tuple(np.asarray(places).T // child_edge)] = True
    mask = np.packbits(has_child, axis=None, bitorder="little").tobytes()
    return mask + bytes(len(mask)) + ALL_VALUES + _zipped(bytes(4 * edge**3))


def _zipped(content: bytes) -> bytes:
    """The length, negative where zip gains nothing, and the content."""
    small = zlib.compress(content, 1)
    if len(small) < len(content):
        return struct.pack("<q", len(small)) + small
    return struct.pack("<q", -len(content)) + content


def _string(text: str) -> bytes:
    content = text.encode()
    return struct.pack("<I", len(content)) + content


def _metadata(values: dict[str, str]) -> bytes:
    entries = [_string(name) + _string("string") + _string(value) for name, value in values.items()]
    return struct.pack("<I", len(entries)) + b"".join(entries)
