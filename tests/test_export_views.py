"""Another renderer, given the exported voxels, shows the same image at the same place."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mnist3d.export import export_voxels
from mnist3d.geometry.rotations import euler_matrix
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.volumes.voxel_grid import VoxelGrid
from tests.conftest import need

SIZE = 64


def digit_like():
    """Bright strokes of a lopsided 4 with a black slab before a part of it; nothing in it is symmetric."""
    n = 32
    z, y, x = np.meshgrid(*[(2 * np.arange(n) + 1) / n - 1] * 3, indexing="ij")
    values = np.zeros((2, n, n, n), np.float32)
    thin = abs(z - 0.1) < 0.15
    values[0][thin & (abs(x - 0.25) < 0.1) & (abs(y) < 0.7)] = 40.0
    values[0][thin & (abs(y - 0.1) < 0.1) & (abs(x + 0.05) < 0.5)] = 40.0
    values[0][thin & (abs(x + 0.45) < 0.1) & (y < 0.1) & (y > -0.5)] = 25.0
    slab = (abs(z + 0.4) < 0.08) & (x > 0.0) & (x < 0.5) & (y > 0.35) & (y < 0.6)
    values[0][slab] = 60.0
    values[1] = np.where(slab, 1.0, 0.15)
    return values


def shown_by_vtk(path, azimuth, elevation):
    """In a process of its own: where OpenGL is missing altogether, VTK takes the process with it."""
    out = path.with_suffix(".npy")
    script = Path(__file__).parent / "vtk_ray_caster.py"
    command = [sys.executable, str(script), str(path), str(out), str(SIZE), str(azimuth), str(elevation)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.load(out)


@pytest.mark.parametrize(("azimuth", "elevation"), [(0.0, 0.0), (0.6, 0.0), (-0.4, 0.5)])
def test_vtk_shows_the_same_view_of_the_exported_voxels(tmp_path, azimuth, elevation):
    need(importlib.util.find_spec("vtkmodules"), "vtk is not installed")
    values = digit_like()
    path = export_voxels(values, tmp_path / "p.vti")
    shown = shown_by_vtk(path, azimuth, elevation)
    rotation = euler_matrix(torch.tensor([elevation, azimuth, 0.0]))
    ours = AbsorptionRenderer(SIZE)(VoxelGrid.from_array(values), rotation)[0, 0].detach().numpy()
    assert shown.max() > 0.7
    assert np.corrcoef(shown.ravel(), ours.ravel())[0, 1] > 0.97
    # VTK reckons in 15 bits and interpolates the colour too: edges of a voxel's width differ, places do not.
    assert np.abs(shown - ours).mean() < 0.03
    best = max(
        (np.corrcoef(np.roll(shown, (dy, dx), (0, 1)).ravel(), ours.ravel())[0, 1], dy, dx)
        for dy in range(-3, 4)
        for dx in range(-3, 4)
    )
    assert best[1:] == (0, 0)
    for mirrored in (ours[::-1], ours[:, ::-1], ours.T):
        assert np.corrcoef(shown.ravel(), mirrored.ravel())[0, 1] < 0.9
