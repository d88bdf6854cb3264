"""Voxel formats: npz, nrrd, nii.gz, mrc, vti, raw, tif.

Libraries write nrrd, nii.gz, mrc and tif; the others are a few lines each.

What it is: one function a format, from the world's axes to the format's own. What it is not: temporary names and
renames (`files.whole_files`).

Each takes the voxels, the path to write and a description to keep inside where the format has room, and returns what
the `.json` beside it says of the layout.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from .files import ExportError, require
from .sampling import Voxels, upright, upright_xyz

UPRIGHT_AXES = "x right, y away from the viewer, z up (right-handed; the front faces -y)"
ABSORBANCE = "_absorbance"  # NAME_absorbance.SUFFIX, for formats of one channel a file


def _layout(voxels: Voxels, axes: str, turned: bool = True) -> dict[str, Any]:
    spacing, origin = voxels.spacing, voxels.origin
    return {
        "axes": axes,
        "spacing_xyz": list(upright_xyz(spacing) if turned else spacing),
        "origin_xyz": list(upright_xyz(origin) if turned else origin),
        "channels": {"attenuation": f"1 / {voxels.unit}", "absorbance": "share of 1"},
    }


def _pair(voxels: Voxels, path: Path, suffix: str) -> list[tuple[str, np.ndarray, Path]]:
    """Both channels, upright, each with its own file."""
    beside = path.with_name(path.name[: -len(suffix)] + ABSORBANCE + path.name[-len(suffix) :])
    return [
        ("attenuation", upright(voxels.attenuation), path),
        ("absorbance", upright(voxels.absorbance), beside),
    ]


def write_npz(voxels: Voxels, path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """NumPy: both channels as the library holds them, with axes, spacing, origin and units inside."""
    layout = _layout(voxels, "(Z, Y, X); x right, y down, z away from the viewer", turned=False)
    with open(path, "wb") as file:
        np.savez(
            file,
            attenuation=voxels.attenuation,
            absorbance=voxels.absorbance,
            axes=np.array("ZYX"),
            spacing_xyz=np.array(voxels.spacing),
            origin_xyz=np.array(voxels.origin),
            unit=np.array(voxels.unit),
            attenuation_unit=np.array(f"1 / {voxels.unit}"),
            description=np.array(json.dumps(description)),
        )
    return layout


def write_nrrd(voxels: Voxels, path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """NRRD, a file a channel: VTK and ParaView misread several channels in one."""
    nrrd = require("nrrd", ".nrrd", "pynrrd")
    for channel, array, file in _pair(voxels, path, ".nrrd"):
        header = {
            "space": "left-posterior-superior",
            "space directions": np.diag(upright_xyz(voxels.spacing)),
            "space origin": np.array(upright_xyz(voxels.origin)),
            "kinds": ["domain"] * 3,
            "encoding": "raw",
            "channel": channel,
            "mnist3d": json.dumps(description),
        }
        if voxels.unit == "mm":
            header["space units"] = ["mm"] * 3
        nrrd.write(str(file), np.ascontiguousarray(array), header, index_order="C")
    return _layout(voxels, f"upright: {UPRIGHT_AXES}; stored x fastest; space left-posterior-superior")


def write_nifti(voxels: Voxels, path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """NIfTI-1, gzipped, a file a channel; its axes are right, anterior, superior, so x and y change sign."""
    nibabel = require("nibabel", ".nii.gz")
    if max(voxels.shape) > 32767:  # NIfTI-1 counts in int16
        raise ExportError(".nii.gz: at most 32767 voxels along an edge")
    affine = np.diag([*upright_xyz(voxels.spacing), 1.0])
    affine[:3, 3] = upright_xyz(voxels.origin)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    for channel, array, file in _pair(voxels, path, ".nii.gz"):
        image = nibabel.Nifti1Image(array.transpose(2, 1, 0), affine, dtype=np.float32)
        image.header.set_xyzt_units("mm" if voxels.unit == "mm" else "unknown")
        image.header["descrip"] = f"mnist3d {channel}, 1/{voxels.unit}" if channel == "attenuation" else channel
        image.set_sform(affine, 1)
        image.set_qform(affine, 1)
        comment = json.dumps({"channel": channel, **description}).encode()
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", comment))
        nibabel.save(image, file)
    return _layout(voxels, f"upright: {UPRIGHT_AXES}; the affine maps to right-anterior-superior")


def write_mrc(voxels: Voxels, path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """MRC2014, a file a channel; the format knows only angstrom, so an angstrom stands for the unit of length."""
    mrcfile = require("mrcfile", ".mrc")
    for channel, array, file in _pair(voxels, path, ".mrc"):
        with mrcfile.new(str(file)) as mrc:
            mrc.set_data(np.ascontiguousarray(array))
            mrc.voxel_size = upright_xyz(voxels.spacing)
            mrc.header.origin = upright_xyz(voxels.origin)
            mrc.set_volume()
            mrc.add_label(f"mnist3d {channel}; 1 angstrom stands for 1 {voxels.unit}; x right, y away, z up")
            if run := description.get("run"):
                mrc.add_label(f"run {run}, step {description.get('step')}"[:80])
    return _layout(voxels, f"upright: {UPRIGHT_AXES}; an angstrom stands for a {voxels.unit}")


def write_vti(voxels: Voxels, path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """VTK image data, both channels as point data; the points are the voxels' centres.

    Our own lines, as pyevtk took 8 times the array's memory and half a minute for 256^3 (benchmarks/export.py).

    Source: VTK's file formats, "XML file formats", appended raw data.
    """
    channels = {"attenuation": voxels.attenuation, "absorbance": voxels.absorbance}
    size = voxels.values[0].nbytes
    up, away, right = upright(voxels.values[0]).shape
    extent = f"0 {right - 1} 0 {away - 1} 0 {up - 1}"
    origin = " ".join(map(repr, upright_xyz(voxels.origin)))
    spacing = " ".join(map(repr, upright_xyz(voxels.spacing)))
    arrays = "".join(
        f'<DataArray type="Float32" Name="{name}" format="appended" offset="{k * (size + 8)}"/>'
        for k, name in enumerate(channels)
    )
    with open(path, "wb") as file:
        file.write(
            '<?xml version="1.0"?>\n<VTKFile type="ImageData" version="1.0" byte_order="LittleEndian" '
            f'header_type="UInt64"><ImageData WholeExtent="{extent}" Origin="{origin}" Spacing="{spacing}">'
            f'<Piece Extent="{extent}"><PointData Scalars="attenuation">{arrays}</PointData></Piece></ImageData>'
            '<AppendedData encoding="raw">_'.encode()
        )
        for array in channels.values():
            file.write(size.to_bytes(8, "little"))
            for layer in upright(array):
                file.write(layer.astype("<f4").tobytes())
        file.write(b"</AppendedData></VTKFile>\n")
    return _layout(voxels, f"upright: {UPRIGHT_AXES}; point data at the voxels' centres")


def write_raw(voxels: Voxels, path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """A 3D texture for game engines: two float16 a texel, x fastest, y up, z away from the viewer (left-handed)."""
    largest = float(np.finfo(np.float16).max)
    with open(path, "wb") as file:
        for attenuation, absorbance in zip(voxels.attenuation, voxels.absorbance, strict=True):
            texels = np.stack([np.minimum(attenuation, largest), absorbance], axis=-1)
            file.write(texels[::-1].astype("<f2").tobytes())
    z, y, x = voxels.shape
    return {
        **_layout(voxels, "x right, y up, z away from the viewer (left-handed, as Unity)", turned=False),
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


def write_tif(voxels: Voxels, path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """A hyperstack for ImageJ: slices from the viewer backwards, each an upright picture, two channels."""
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
    return _layout(voxels, "(Z, C, Y, X); x right, y down, z away from the viewer", turned=False)
