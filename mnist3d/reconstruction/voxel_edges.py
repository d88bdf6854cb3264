"""How large a map's voxels are, as its MRC file tells it."""

import re
from pathlib import Path

import numpy as np

from ..formats.contents import exactly, opened_maybe_gzip
from ..formats.mrc import HEADER, LABEL, STAMPS

SUFFIXES = (".mrc", ".map", ".ccp4", ".mrc.gz", ".map.gz")
UNIT = re.compile(rb"1 angstrom stands for 1 ([^;\0]+)")  # as our own files say it in a label
SAME_EDGE = 1e-3  # relative: a header has float32


def voxel_edge(path: Path) -> tuple[float, str] | None:
    """The edge of a cube's voxels and its unit.

    Args:
        path: of any file.

    Returns:
        None where the file does not tell it, is no MRC file, or holds no cube of cubes.

    Raises:
        OSError, EOFError, ValueError: an MRC file that cannot be read.
    """
    if not path.name.lower().endswith(SUFFIXES) or not path.is_file():
        return None
    with opened_maybe_gzip(path, path.name.lower().endswith(".gz")) as (_, begin):
        header = np.frombuffer(exactly(begin(), HEADER.itemsize), HEADER).reshape(())
    header = header.view(HEADER.newbyteorder(STAMPS.get(bytes(header["machst"])[:2], "<")))
    counts = {int(header[name]) for name in ("nx", "ny", "nz")}
    intervals = np.array([int(header[name]) for name in ("mx", "my", "mz")], float)
    edges = np.array([float(header["cella"][name]) for name in "xyz"]) / np.where(intervals > 0, intervals, np.nan)
    if len(counts) > 1 or not (np.isfinite(edges) & (edges > 0.0)).all() or np.ptp(edges) > SAME_EDGE * edges[0]:
        return None
    text = bytes(header["label"])
    units = [UNIT.search(text[place : place + LABEL]) for place in range(0, len(text), LABEL)]
    unit = next((found[1].decode("ascii", "replace").strip() for found in units if found), "angstrom")
    return float(edges[0]), unit
