"""VTK image data (.vti), both channels as point data."""

import math
import mmap
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import VolumeFileError
from ..geometry.grids import MAX_RESOLUTION
from ..storage.optional import require
from .orientation import oriented_voxels
from .picking import COMPONENT, SPACE, Pick, picked_name, volume_index
from .voxel_array import UPRIGHT_AXES, Voxels, check_shape, layout, upright, upright_xyz


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
    return layout(voxels, f"upright: {UPRIGHT_AXES}; point data at the voxels' centres")


END = b"</VTKFile>"
LAST = 256  # bytes among which it must lie; ends of lines may follow it
OWN_MARKS = "vtk"  # names of VTK's own arrays begin so: masks and ghosts are no matter


def read_vti(path: Path, pick: Pick) -> Voxels:
    """Point data, else cell data: the array attenuation (and absorbance), else the active scalars, else the first."""
    require("vtkmodules", f"{path}: reading it", "vtk", remedy="pip install vtk", error=VolumeFileError)
    from vtkmodules.util.numpy_support import vtk_to_numpy  # pyright: ignore[reportMissingImports]

    _check_content(path)
    image = _read_image(path)
    size = list(image.GetDimensions())
    data = image.GetPointData()
    if not data.GetNumberOfArrays() and image.GetCellData().GetNumberOfArrays():
        data, size = image.GetCellData(), [n - 1 for n in size]
    found = [data.GetAbstractArray(k).GetName() or "" for k in range(data.GetNumberOfArrays())]
    names = [name for name in found if data.GetArray(name) is not None]  # those of numbers
    if not names:
        raise VolumeFileError(f"{path}: holds no point or cell data; must hold an array of numbers")
    active = data.GetScalars().GetName() if data.GetScalars() is not None else None
    matter = [name for name in names if not name.startswith(OWN_MARKS)]
    main = picked_name(path, names, pick, ["attenuation", active, *matter])

    def channel(name: str, pick: Pick) -> np.ndarray:
        array = data.GetArray(name)
        shape = [*size[::-1], array.GetNumberOfComponents()]
        index = volume_index(path, shape, [SPACE, SPACE, SPACE, COMPONENT], pick)
        return vtk_to_numpy(array).reshape(shape)[index].transpose(2, 1, 0)

    channels = [channel(main, pick)]
    if "absorbance" in names and main != "absorbance" and pick.array is None:
        channels.append(channel("absorbance", Pick()))
    turned = image.GetDirectionMatrix()
    directions = np.array([[turned.GetElement(row, column) for column in range(3)] for row in range(3)])
    return oriented_voxels(path, channels, directions * image.GetSpacing())


def _read_image(path: Path) -> Any:
    """The image, its size checked before its voxels are read. What VTK would print is raised."""
    from vtkmodules.vtkCommonCore import (  # pyright: ignore[reportMissingImports]
        vtkLogger,
        vtkOutputWindow,
        vtkStringOutputWindow,
    )
    from vtkmodules.vtkCommonExecutionModel import (  # pyright: ignore[reportMissingImports]
        vtkStreamingDemandDrivenPipeline,
    )
    from vtkmodules.vtkIOXML import vtkXMLImageDataReader  # pyright: ignore[reportMissingImports]

    printed, usual = vtkStringOutputWindow(), vtkOutputWindow.GetInstance()
    verbosity = vtkLogger.GetCurrentVerbosityCutoff()
    reader = vtkXMLImageDataReader()
    reader.SetFileName(str(path))
    vtkOutputWindow.SetInstance(printed)
    vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)
    try:
        reader.UpdateInformation()
        whole = reader.GetOutputInformation(0).Get(vtkStreamingDemandDrivenPipeline.WHOLE_EXTENT())
        if whole and not printed.GetOutput():
            points = [last - first + 1 for first, last in zip(whole[::2], whole[1::2], strict=True)]
            if max(points) > MAX_RESOLUTION + 1:  # cells are one fewer
                check_shape(path, points[::-1])
            reader.Update()
    finally:
        vtkOutputWindow.SetInstance(usual)
        vtkLogger.SetStderrVerbosity(verbosity)
    if printed.GetOutput() or reader.GetErrorCode():
        raise ValueError(printed.GetOutput() or f"VTK's error {reader.GetErrorCode()}")
    return reader.GetOutput()


def _check_content(path: Path) -> None:
    """Fail on what is missing from a file: VTK would fill it with whatever the memory holds."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if not content[-LAST:].rstrip(b"\0\t\r\n ").endswith(END):
            raise VolumeFileError(f"{path}: damaged: it was cut short, as its end ({END.decode()}) is missing")
        appended = content.find(b"<AppendedData")
        header = content[: appended if appended >= 0 else len(content)]
    whole, pieces = (
        [[int(place) for place in found.split()] for found in re.findall(pattern, header)]
        for pattern in (rb"""\sWholeExtent\s*=\s*["']([-\d\s]*)""", rb"""\sExtent\s*=\s*["']([-\d\s]*)""")
    )
    if whole and sum(map(_cells, pieces)) < _cells(whole[0]):
        raise VolumeFileError(f"{path}: damaged: its pieces do not fill its extent {tuple(whole[0])}")


def _cells(extent: list[int]) -> int:
    """How many there are between the first and the last point along each axis; a flat one counts as one layer."""
    return math.prod(max(last - first, 1) for first, last in zip(extent[::2], extent[1::2], strict=True))
