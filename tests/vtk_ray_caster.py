"""A .vti as VTK's own ray caster shows it: python vtk_ray_caster.py IN.vti OUT.npy SIZE AZIMUTH ELEVATION (radians)."""

import math
import sys

import numpy as np
import vtkmodules.vtkInteractionStyle
import vtkmodules.vtkRenderingOpenGL2
import vtkmodules.vtkRenderingVolumeOpenGL2  # noqa: F401
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkPiecewiseFunction
from vtkmodules.vtkIOXML import vtkXMLImageDataReader
from vtkmodules.vtkRenderingCore import (
    vtkColorTransferFunction,
    vtkRenderer,
    vtkRenderWindow,
    vtkVolume,
    vtkVolumeProperty,
    vtkWindowToImageFilter,
)
from vtkmodules.vtkRenderingVolume import vtkGPUVolumeRayCastMapper


def shown_by_vtk(path: str, size: int, azimuth: float, elevation: float) -> np.ndarray:
    """VTK's ray caster on a .vti: colour 1 - absorbance, opacity 1 - exp(-attenuation * length); orthographic."""
    reader = vtkXMLImageDataReader()
    reader.SetFileName(str(path))
    reader.Update()
    image = reader.GetOutput()
    attenuation, absorbance = (
        vtk_to_numpy(image.GetPointData().GetArray(name)) for name in ("attenuation", "absorbance")
    )
    length = min(image.GetSpacing()) / 2.0  # a sample is taken every half voxel
    opacity = 1.0 - np.exp(-attenuation * length)
    pair = np.stack([255.0 * (1.0 - absorbance), 255.0 * opacity], axis=1).round().astype(np.uint8)
    scalars = numpy_to_vtk(pair, deep=True)
    scalars.SetName("pair")
    image.GetPointData().SetScalars(scalars)
    colour, alpha, properties = vtkColorTransferFunction(), vtkPiecewiseFunction(), vtkVolumeProperty()
    colour.AddRGBPoint(0, 0, 0, 0)
    colour.AddRGBPoint(255, 1, 1, 1)
    alpha.AddPoint(0, 0)
    alpha.AddPoint(255, 1)
    properties.SetColor(colour)
    properties.SetScalarOpacity(alpha)
    for component in (0, 1):
        properties.SetScalarOpacityUnitDistance(component, length)
    properties.IndependentComponentsOff()  # the first component is the colour, the second the opacity
    properties.SetInterpolationTypeToLinear()
    properties.ShadeOff()
    mapper, volume, renderer, window = (
        vtkGPUVolumeRayCastMapper(),
        vtkVolume(),
        vtkRenderer(),
        vtkRenderWindow(),
    )
    mapper.SetInputData(image)
    mapper.SetSampleDistance(length)
    mapper.AutoAdjustSampleDistancesOff()
    volume.SetMapper(mapper)
    volume.SetProperty(properties)
    renderer.AddVolume(volume)
    camera = renderer.GetActiveCamera()
    camera.ParallelProjectionOn()
    camera.SetParallelScale(1.0)
    # In the file z is up and the front faces -y: the eye is there, and goes round as our turntable does.
    camera.SetPosition(0.0, -5.0, 0.0)
    camera.SetFocalPoint(0.0, 0.0, 0.0)
    camera.SetViewUp(0.0, 0.0, 1.0)
    camera.Azimuth(math.degrees(azimuth))
    camera.Elevation(math.degrees(elevation))
    camera.OrthogonalizeViewUp()
    renderer.ResetCameraClippingRange()
    window.SetOffScreenRendering(True)
    window.SetMultiSamples(0)
    window.SetSize(size, size)
    window.AddRenderer(renderer)
    window.Render()
    grab = vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()
    grab.Update()
    pixels = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars()).reshape(size, size, -1)
    return pixels[::-1, :, 0] / 255.0


if __name__ == "__main__":
    source, target, pixels = sys.argv[1:4]
    np.save(target, shown_by_vtk(source, int(pixels), *map(float, sys.argv[4:])))
