"""NIfTI-1, a file a channel; Analyze (.hdr and .img) is read too."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ExportError, VolumeFileError
from ..storage.optional import require
from .contents import Convert, first_fastest, opened_maybe_gzip, read_packed_claim, read_plain_claim, up_to
from .orientation import oriented_voxels
from .picking import COMPONENT, FRAME, SPACE, Pick, check_numbers, volume_index
from .voxel_array import UPRIGHT_AXES, Voxels, channel_files, layout, upright_xyz

PAIR = (".hdr", ".img")
SIZES = (348, 540)  # bytes of NIfTI-1's and Analyze's header, of NIfTI-2's
CIFTI = range(3000, 3100)  # intents of matrices, in the file format of NIfTI-2
QUIET = logging.getLogger(f"{__name__}.quiet")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False


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

    Where a file tells no direction at all, x runs to the left, as nibabel (and Analyze) has it. nibabel takes the
    header apart; the voxels are read here, without its extensions and without the .mat that SPM put beside.
    """
    require("nibabel", f"{path}: reading it", error=VolumeFileError)
    name, packed = path.name.lower(), path.name.lower().endswith(".gz")
    pair = name.endswith(PAIR)
    header_file, data_file = (_beside(path, suffix) for suffix in PAIR) if pair else (path, path)
    with opened_maybe_gzip(header_file, packed) as (_, begin):
        header = _header(up_to(begin(), SIZES[1]), pair)
    shape, dtype = [int(n) for n in header.get_data_shape()], header.get_data_dtype()
    if "intent_code" in header and int(header["intent_code"]) in CIFTI:
        raise VolumeFileError(
            f"{path}: its shape is {tuple(shape[4:])}: {len(shape[4:])}D data (CIFTI, along surfaces); must be a "
            "volume, with three axes in space"
        )
    roles = [SPACE] * min(len(shape), 3) + [FRAME] + [COMPONENT] + [FRAME] * len(shape)  # x, y, z, time, vector, ...
    roles = roles[: len(shape)]
    colours = len(dtype.names or ())  # red, green, blue
    index = volume_index(path, [*shape, *[colours] * (colours > 0)], [*roles, *[COMPONENT] * (colours > 0)], pick)
    if colours:
        claim = first_fastest(path, [colours, *shape], np.dtype("u1"), [index[-1], *index[:-1]])
    else:
        check_numbers(path, dtype)
        claim = first_fastest(path, shape, dtype, index)
    convert = None if colours else _scaling(header)
    with opened_maybe_gzip(data_file, packed) as (file, begin):
        offset = int(header.get_data_offset())
        if offset < 0:
            raise ValueError("its voxels begin before the file")
        if packed:
            data = read_packed_claim(claim, begin, offset, convert).T
        else:
            data = read_plain_claim(claim, file, offset, convert).T
    directions = header.get_best_affine()[:3, :3]
    codes = [int(header[code]) for code in ("sform_code", "qform_code") if code in header]
    if not any(codes) and not (np.isfinite(directions).all() and directions.any(axis=0).all()):
        directions = np.diag([-1.0, 1.0, 1.0])  # lengths that are not told: cubes
    return oriented_voxels(path, [data], np.diag([-1.0, -1.0, 1.0]) @ directions)


def _beside(path: Path, suffix: str) -> Path:
    """The other file of a pair, in the same case."""
    other = path.with_suffix(suffix.upper() if path.suffix.isupper() else suffix)
    if not other.exists():
        raise VolumeFileError(f"{path}: {other.name} is not beside it; a pair of files must stay together")
    return other


def _header(content: bytes, pair: bool) -> Any:
    """The header as nibabel has it, which repairs what can be repaired, and here keeps silent about it."""
    from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader  # pyright: ignore[reportMissingImports]
    from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader  # pyright: ignore[reportMissingImports]
    from nibabel.spm2analyze import Spm2AnalyzeHeader  # pyright: ignore[reportMissingImports]

    kinds = [Nifti1PairHeader, Nifti2PairHeader, Spm2AnalyzeHeader] if pair else [Nifti1Header, Nifti2Header]
    for kind in kinds:
        if kind.may_contain_header(content):
            header = kind(content[: kind.sizeof_hdr], check=False)
            header.check_fix(QUIET)
            return header
    raise ValueError("it is neither NIfTI nor Analyze")


def _scaling(header: Any) -> Convert | None:
    """From stored to real values; as nibabel does it, in double precision."""
    from nibabel.volumeutils import apply_read_scaling  # pyright: ignore[reportMissingImports]

    slope, inter = header.get_slope_inter()
    slope, inter = np.float64(1.0 if slope is None else slope), np.float64(0.0 if inter is None else inter)
    return lambda stored: apply_read_scaling(stored, slope, inter)
