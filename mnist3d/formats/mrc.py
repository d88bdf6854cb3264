"""MRC2014, a file a channel."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import VolumeFileError
from ..storage.labels import ascii_label
from ..storage.optional import require
from .contents import ByteOrder, exactly, first_fastest, opened_maybe_gzip, read_packed_claim, read_plain_claim
from .orientation import oriented_voxels
from .picking import FRAME, SPACE, Pick, volume_index
from .voxel_array import UPRIGHT_AXES, Voxels, channel_files, layout, upright_xyz

LABEL = 80  # ASCII characters


def write_mrc(voxels: Voxels, path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """MRC2014, a file a channel; the format knows only angstrom, so an angstrom stands for the unit of length."""
    mrcfile = require("mrcfile", ".mrc")
    for channel, array, file in channel_files(voxels, path, ".mrc"):
        with mrcfile.new(str(file)) as mrc:
            mrc.set_data(array)
            mrc.voxel_size = upright_xyz(voxels.spacing)
            mrc.header.origin = upright_xyz(voxels.origin)
            mrc.set_volume()
            mrc.add_label(f"mnist3d {channel}; 1 angstrom stands for 1 {voxels.unit}; x right, y away, z up")
            if run := description.get("run"):
                step = f", step {description.get('step')}"
                mrc.add_label(f"run {ascii_label(str(run), LABEL - len('run ') - len(step))}{step}")
    return layout(voxels, f"upright: {UPRIGHT_AXES}; an angstrom stands for a {voxels.unit}")


MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}  # one number a voxel
REFUSED = {3: "complex numbers", 4: "complex numbers", 16: "colours", 101: "numbers of 4 bits"}
STAMPS: dict[bytes, ByteOrder] = {b"\x44\x44": "<", b"\x44\x41": "<", b"\x11\x11": ">"}
PLAUSIBLE = 2**16  # voxels along an edge, in a file that does not say that it is one
HEADER = np.dtype(
    [
        *((name, "<i4") for name in ("nx", "ny", "nz", "mode", "nxstart", "nystart", "nzstart", "mx", "my", "mz")),
        ("cella", [(name, "<f4") for name in "xyz"]),
        ("cellb", [(name, "<f4") for name in ("alpha", "beta", "gamma")]),
        *((name, "<i4") for name in ("mapc", "mapr", "maps")),
        *((name, "<f4") for name in ("dmin", "dmax", "dmean")),
        *((name, "<i4") for name in ("ispg", "nsymbt")),
        ("extra", "V100"),
        ("origin", [(name, "<f4") for name in "xyz"]),
        ("map", "V4"),
        ("machst", "V4"),
        ("rms", "<f4"),
        ("nlabl", "<i4"),
        ("label", "V800"),
    ]
)
VOLUME_STACKS = range(401, 631)  # ispg: several volumes, mz sections each
IMOD_STAMP = 1146047817  # bytes 152 to 156; then the first bit of the next 4 says whether bytes are signed


def read_mrc(path: Path, pick: Pick) -> Voxels:
    """One channel, whichever of its axes is x, y and z, in cells of any angles.

    Source: MRC2014 (Cheng et al., J. Struct. Biol. 192, 2015), and IMOD's "MRC file format" for unsigned bytes.
    """
    with opened_maybe_gzip(path, path.name.lower().endswith(".gz")) as (file, begin):
        header = _header(path, exactly(begin(), HEADER.itemsize))
        mode = int(header["mode"])
        if content := REFUSED.get(mode):
            raise VolumeFileError(
                f"{path}: holds {content} (mode {mode}); must be one real number a voxel: write their magnitude, or "
                "the one part that is wanted, in the tool that made it"
            )
        if mode not in MODES:
            raise VolumeFileError(f"{path}: is of mode {mode}; must be one of {', '.join(map(str, MODES))}")
        columns, rows, sections = (int(header[name]) for name in ("nx", "ny", "nz"))
        stacked = int(header["ispg"]) in VOLUME_STACKS and int(header["mz"]) > 0
        shape = (
            [columns, rows, int(header["mz"]), sections // int(header["mz"])] if stacked else [columns, rows, sections]
        )
        roles = [SPACE, SPACE, SPACE, FRAME][: len(shape)]
        if int(header["ispg"]) == 0 and sections == 1:
            shape, roles = [columns, rows], [SPACE, SPACE]  # a micrograph
        index = volume_index(path, shape, roles, pick)
        directions = _directions(path, header)
        dtype = np.dtype("u1" if mode == 0 and has_unsigned_bytes(header) else MODES[mode])
        order: ByteOrder = ">" if header.dtype["mode"] == np.dtype(">i4") else "<"
        claim = first_fastest(path, shape, dtype.newbyteorder(order), index)
        offset = HEADER.itemsize + int(header["nsymbt"])
        if offset < HEADER.itemsize:
            raise ValueError("its extended header has a negative length")
        if path.name.lower().endswith(".gz"):
            data = read_packed_claim(claim, begin, offset)
        else:
            data = read_plain_claim(claim, file, offset)
        return oriented_voxels(path, [data.T], directions)


def _header(path: Path, content: bytes) -> np.ndarray:
    """The header, in its byte order: as its stamp says, else (files from before 2000 have none) as makes sense."""
    header = np.frombuffer(content, HEADER).reshape(())
    stamp, marked = bytes(header["machst"])[:2], bytes(header["map"]).startswith(b"MAP")
    orders: list[ByteOrder] = [">", "<"] if STAMPS.get(stamp) == ">" else ["<", ">"]
    for order in orders:
        found = header.view(HEADER.newbyteorder(order))
        sizes = [int(found[name]) for name in ("nx", "ny", "nz")]
        axes = sorted(int(found[name]) for name in ("mapc", "mapr", "maps"))
        known = int(found["mode"]) in (*MODES, *REFUSED)
        if known and (marked or (axes in ([0, 0, 0], [1, 2, 3]) and 0 < min(sizes) <= max(sizes) < PLAUSIBLE)):
            return found
    if not marked:
        raise VolumeFileError(f"{path}: damaged, or no MRC file: it has no MAP in its header, and makes no sense")
    return header.view(HEADER.newbyteorder(orders[0]))


def _directions(path: Path, header: np.ndarray) -> Float[np.ndarray, "3 3"]:
    """The step along columns, rows and sections, a column each: a along x, b in the plane of x and y."""
    axes = [int(header[name]) for name in ("mapc", "mapr", "maps")]  # which of a, b, c each stored axis is
    if axes == [0, 0, 0]:  # not told, as by old programs
        axes = [1, 2, 3]
    if sorted(axes) != [1, 2, 3]:
        raise VolumeFileError(f"{path}: its axes (mapc, mapr, maps) are {axes}; must be 1, 2, 3 in any order")
    counts = np.array([int(header[name]) for name in ("mx", "my", "mz")], float)
    lengths = np.array([float(header["cella"][name]) for name in "xyz"])
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = lengths / counts
    if not (np.isfinite(steps).all() and (steps > 0.0).all()):
        steps = np.ones(3)
    angles = np.array([float(header["cellb"][name]) for name in ("alpha", "beta", "gamma")])
    alpha, beta, gamma = np.cos(np.radians(np.where((angles > 0.0) & (angles < 180.0), angles, 90.0)))
    height = np.sqrt(1.0 - gamma**2)
    cell = np.array([[1.0, gamma, beta], [0.0, height, (alpha - beta * gamma) / height], [0.0, 0.0, 0.0]])
    cell[2, 2] = np.sqrt(max(1.0 - cell[0, 2] ** 2 - cell[1, 2] ** 2, 0.0))
    return (cell * steps)[:, np.array(axes) - 1]


def has_unsigned_bytes(header: np.ndarray) -> bool:
    """IMOD says so in a flag. ITK does not, but its statistics do: no signed byte is above 127."""
    if float(header["dmin"]) >= 0.0 and 127.0 < float(header["dmax"]) <= 255.0:
        return True
    stamp, flags = np.frombuffer(header.tobytes()[152:160], header.dtype["mode"])  # in the file's byte order
    return int(stamp) == IMOD_STAMP and not int(flags) & 1
